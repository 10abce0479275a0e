//! What the packet rules may read and write. [`Frame`] and [`Env`] have two implementations: the
//! kernel's (crate `vip-ebpf`) and the host's (in the tests). Tests compare the two byte for byte.
//! `xvip status` and the simulation use [`Fences`] too.

use crate::{
    abi::{Fence, Holder, Iface, Ip, Vip},
    counter::Counter,
};
use bytemuck::Pod;

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame continues, untouched.
    Pass,
    /// The frame is discarded.
    Drop,
    /// The frame has become the answer and leaves by the interface on which it arrived.
    Reply,
}

/// The bytes of one frame, from the Ethernet header on.
pub trait Frame {
    /// Its length in bytes.
    fn size(&self) -> usize;

    /// A copy of the header at `offset`. `None` if the frame is too short, or if the bytes are in
    /// device memory, which the kernel cannot read.
    fn get<T: Pod>(&self, offset: usize) -> Option<T>;

    /// The same at a constant offset: the program then reads the packet directly, without a helper.
    fn fixed<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Writes a header at `offset`; `None` if that is not possible.
    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()>;

    /// The same at a constant offset. XDP writes into the packet directly. TC uses the helper:
    /// before a program with direct writes the kernel copies every cloned packet.
    #[inline(always)]
    fn set_fixed<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        self.set(offset, value)
    }

    /// Grows or shrinks the frame to `len` bytes. Returns whether that was possible.
    fn resize(&mut self, len: usize) -> bool;

    /// VLAN id of a tag that the NIC or the stack keeps beside the frame, 0 if there is none.
    fn offloaded_vid(&self) -> u16;
}

/// The fences, and the clock with which they are compared. This is enough to know whether this host
/// holds a VIP.
pub trait Fences {
    /// The fence of a slot.
    fn fence(&self, slot: u32) -> Option<Fence>;

    /// `CLOCK_BOOTTIME` in nanoseconds.
    fn now(&self) -> u64;
}

/// Maps and counters, as seen from the interface that the frame is on.
pub trait Env: Fences {
    /// The entry of a managed address; `None` if the address is not managed.
    fn vip(&self, ip: &Ip) -> Option<Vip>;

    /// The entry of the frame's interface and these VLAN ids (0: none).
    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface>;

    /// Adds one to a counter.
    fn count(&self, counter: Counter);

    /// Whether traffic to a VIP that this node does not hold is dropped (`on_loss: drop`).
    fn drops_on_loss(&self) -> bool;

    /// Shows `look` the stations that may claim a slot's VIPs; `until_ns` is 0 without
    /// `guard_neighbours`. They are read in place, because a copy would take a fifth of a program's
    /// stack.
    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R>;

    /// Reports a claim of the address by another station.
    fn claim(&self, ip: Ip, mac: [u8; 6]);
}
