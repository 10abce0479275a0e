//! The bytes of a frame in a socket buffer, at TC.

use crate::frame::header;
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_skb_change_tail,
        generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
    },
};
use bytemuck::Pod;
use core::mem::MaybeUninit;
use vip_common::env::Frame;

/// A frame in a socket buffer, at TC.
pub(crate) struct SkbFrame {
    pub(crate) skb: *mut __sk_buff,
}

impl SkbFrame {
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands the program a valid __sk_buff, which outlives it.
        unsafe { (*self.skb).ifindex }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).len as usize }
    }

    /// Senders like `TX_RING` leave most of a frame in fragments, out of reach of direct access: the helper
    /// reads there.
    #[inline(always)]
    fn fixed<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: as in `ifindex`.
        let (data, data_end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        match header::<T>(data, data_end, offset) {
            // SAFETY: `header` has checked the bounds; offsets of headers are even, as wire.rs says, and T
            // accepts all bit patterns.
            Some(p) => Some(unsafe { *p }),
            None => self.get(offset),
        }
    }

    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        // Not zeroed first: that becomes a loop over the stack, which the verifier refuses as well.
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast();
        // SAFETY: the helper checks the bounds of the frame and writes as many bytes as T has.
        let copied =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), offset as u32, to, size_of::<T>() as u32) };
        // SAFETY: all bytes have been written, and T accepts any.
        if copied == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }

    #[inline(always)]
    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        let from = (&raw const *value).cast();
        // SAFETY: the helper checks the bounds of the frame and only reads the value.
        let copied = unsafe {
            bpf_skb_store_bytes(self.skb.cast(), offset as u32, from, size_of::<T>() as u32, 0)
        };
        (copied == 0).then_some(())
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // SAFETY: the helper checks the new length.
        unsafe { bpf_skb_change_tail(self.skb, len as u32, 0) == 0 }
    }

    #[inline(always)]
    fn offloaded_vid(&self) -> u16 {
        // SAFETY: as in `ifindex`.
        let (present, tci) = unsafe { ((*self.skb).vlan_present, (*self.skb).vlan_tci) };
        if present == 0 { 0 } else { (tci & 0x0fff) as u16 }
    }
}
