//! The bytes of a frame in a socket buffer, at TC.

use crate::frame::{copied, header, stored};
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

pub(crate) struct SkbFrame<const GUARD: bool> {
    pub(crate) skb: *mut __sk_buff,
}

impl<const GUARD: bool> SkbFrame<GUARD> {
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands the program a valid __sk_buff, which outlives it.
        unsafe { (*self.skb).ifindex }
    }
}

impl<const GUARD: bool> Frame for SkbFrame<GUARD> {
    #[inline(always)]
    fn size(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb).len as usize }
    }

    /// Senders like `TX_RING` leave most of a frame in fragments, which direct access does not reach.
    /// The helper reads those.
    #[inline(always)]
    fn fixed<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: as in `ifindex`.
        let (data, data_end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        match header::<T>(data, data_end, offset) {
            // SAFETY: `header` has checked the bounds; offsets of headers are even, as wire.rs says,
            // and T accepts all bit patterns.
            Some(p) => Some(unsafe { *p }),
            None => self.get(offset),
        }
    }

    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: the helper checks the bounds of the frame and writes as many bytes as T has.
        let load = |to, len| unsafe { bpf_skb_load_bytes(self.skb.cast(), offset as u32, to, len) };
        if !GUARD {
            return copied(load);
        }
        let mut value = MaybeUninit::<T>::uninit();
        let outcome = load(value.as_mut_ptr().cast(), size_of::<T>() as u32);
        // SAFETY: all bytes have been written, and T accepts any.
        if outcome == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }

    #[inline(always)]
    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        // SAFETY: the helper checks the bounds of the frame and only reads the value.
        stored(value, |from, len| unsafe { bpf_skb_store_bytes(self.skb, offset as u32, from, len, 0) })
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
