//! The bytes of a frame in an XDP buffer, and the crate's one bounds check.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use bytemuck::Pod;
use vip_common::env::Frame;

/// The verifier wants the end of an access compared with `data_end` right before it. A single byte
/// would be compared as `start >= data_end`, from which it derives nothing (seen on 6.18:
/// "invalid access to packet, off=0 size=1"), so two bytes are the least.
#[inline(always)]
pub(crate) fn header<T: Pod>(data: usize, data_end: usize, offset: usize) -> Option<*mut T> {
    const { assert!(align_of::<T>() <= 2 && size_of::<T>() >= 2) };
    let start = data + offset;
    if start + size_of::<T>() > data_end { None } else { Some(start as *mut T) }
}

/// A frame in an XDP buffer. Only its linear part is seen; the headers always are in it.
pub(crate) struct XdpFrame {
    pub(crate) ctx: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel hands the program a valid xdp_md, which outlives it.
        unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) }
    }
}

impl Frame for XdpFrame {
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
        let (data, data_end) = self.bounds();
        let delta = len as i64 - (data_end - data) as i64;
        // SAFETY: the helper checks the new length; pointers are fetched anew after it.
        delta == 0 || unsafe { bpf_xdp_adjust_tail(self.ctx, delta as i32) } == 0
    }

    #[inline(always)]
    fn linearize(&mut self, _len: usize) -> bool {
        true
    }

    /// XDP cannot see a tag that the NIC has stripped (the kfunc for it needs a device-bound program).
    #[inline(always)]
    fn offloaded_vid(&self) -> u16 {
        0
    }
}
