//! The bytes of a frame in a socket buffer, at TC.

use crate::frame::header;
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_skb_change_tail, bpf_skb_pull_data},
};
use bytemuck::Pod;
use vip_common::env::Frame;

/// A frame in a socket buffer, at TC.
pub(crate) struct SkbFrame {
    pub(crate) skb: *mut __sk_buff,
}

impl SkbFrame {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid __sk_buff, which outlives it.
        unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) }
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: as in `bounds`.
        unsafe { (*self.skb).ifindex }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<&T> {
        let (data, data_end) = self.bounds();
        // SAFETY: `header` has checked the bounds; offsets of headers are
        // even, as wire.rs says, and T accepts all bit patterns.
        header::<T>(data, data_end, offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn get_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        let (data, data_end) = self.bounds();
        // SAFETY: as in `get`; `&mut self` makes the access exclusive.
        header::<T>(data, data_end, offset).map(|p| unsafe { &mut *p })
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // SAFETY: the helper checks the new length; pointers are fetched anew after it.
        unsafe { bpf_skb_change_tail(self.skb, len as u32, 0) == 0 }
    }

    /// Senders like `TX_RING` leave most of a frame in fragments, out of reach of direct access.
    #[inline(always)]
    fn linearize(&mut self, len: usize) -> bool {
        let (data, data_end) = self.bounds();
        // SAFETY: as in `bounds`.
        let whole = unsafe { (*self.skb).len } as usize;
        let wanted = if len < whole { len } else { whole };
        // SAFETY: the helper checks the length; pointers are fetched anew after it.
        data + wanted <= data_end || unsafe { bpf_skb_pull_data(self.skb, wanted as u32) } == 0
    }

    #[inline(always)]
    fn offloaded_vid(&self) -> u16 {
        // SAFETY: as in `bounds`.
        let (present, tci) = unsafe { ((*self.skb).vlan_present, (*self.skb).vlan_tci) };
        if present == 0 { 0 } else { (tci & 0x0fff) as u16 }
    }
}
