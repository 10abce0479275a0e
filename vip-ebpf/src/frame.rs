//! The bytes of a frame in an XDP buffer, and the crate's one bounds check.
//!
//! Without CAP_PERFMON the verifier allows only a constant to be added to a packet pointer, and no two
//! to be subtracted. Otherwise speculation could run past a check. So only headers at fixed places are
//! read directly. Helpers read the rest, also in a multi-buffer frame.

use crate::maps::{placed, scratch};
use aya_ebpf::{
    bindings::xdp_md,
    cty::{c_long, c_void},
    helpers::{
        bpf_xdp_adjust_tail,
        generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    },
};
use bytemuck::Pod;
use vip_common::env::Frame;

/// Bounds check of a header. The verifier wants the end of an access compared with `data_end` right
/// before it. For one byte that is `start >= data_end`, from which it derives nothing (6.18: "invalid
/// access to packet, off=0 size=1"). So T has at least two bytes. `offset` must be a constant.
#[inline(always)]
pub(crate) fn header<T: Pod>(data: usize, data_end: usize, offset: usize) -> Option<*mut T> {
    const { assert!(align_of::<T>() <= 2 && size_of::<T>() >= 2) };
    let start = data + offset;
    if start + size_of::<T>() > data_end { None } else { Some(start as *mut T) }
}

/// Reads a value that a helper copies from a frame.
#[inline(always)]
pub(crate) fn copied<T: Pod>(helper: impl FnOnce(*mut c_void, u32) -> c_long) -> Option<T> {
    let value = scratch::<T>()?;
    let outcome = helper(value.cast(), size_of::<T>() as u32);
    // SAFETY: the place is this CPU's, and T accepts any bytes.
    if outcome == 0 { Some(unsafe { *value }) } else { None }
}

/// Has a helper write a value into a frame.
#[inline(always)]
pub(crate) fn stored<T: Pod>(value: &T, helper: impl FnOnce(*mut c_void, u32) -> c_long) -> Option<()> {
    let place: *const T = placed(*value)?;
    (helper(place.cast_mut().cast(), size_of::<T>() as u32) == 0).then_some(())
}

/// A frame in an XDP buffer. The helpers exist since Linux 5.18 (commit 3f364222d032).
pub(crate) struct XdpFrame {
    pub(crate) ctx: *mut xdp_md,
}

impl XdpFrame {
    /// The header at a constant offset, to be read or changed in place.
    #[inline(always)]
    pub(crate) fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: the kernel hands the program a valid xdp_md, which outlives it.
        let (data, data_end) = unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) };
        // SAFETY: `header` has checked the bounds. Offsets of headers are even, as wire.rs says, and T
        // accepts all bit patterns. `&mut self` makes the access exclusive.
        header::<T>(data, data_end, offset).map(|p| unsafe { &mut *p })
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn size(&self) -> usize {
        // SAFETY: the kernel hands the program a valid xdp_md, which outlives it.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
    }

    #[inline(always)]
    fn fixed<T: Pod>(&self, offset: usize) -> Option<T> {
        XdpFrame { ctx: self.ctx }.at::<T>(offset).copied()
    }

    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: the helper checks the bounds of the frame and writes as many bytes as T has.
        copied(|to, len| unsafe { bpf_xdp_load_bytes(self.ctx, offset as u32, to, len) })
    }

    #[inline(always)]
    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        // SAFETY: the helper checks the bounds of the frame and only reads the value.
        stored(value, |from, len| unsafe { bpf_xdp_store_bytes(self.ctx, offset as u32, from, len) })
    }

    #[inline(always)]
    fn set_fixed<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        self.at(offset).map(|place| *place = *value)
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        let delta = len as i64 - self.size() as i64;
        // SAFETY: the helper checks the new length.
        delta == 0 || unsafe { bpf_xdp_adjust_tail(self.ctx, delta as i32) } == 0
    }

    /// XDP cannot see a tag that the NIC has stripped (the kfunc for it needs a device-bound program).
    #[inline(always)]
    fn offloaded_vid(&self) -> u16 {
        0
    }
}
