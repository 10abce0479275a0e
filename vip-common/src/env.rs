//! The two seams between the packet rules and the world. Each has two implementations: the kernel's
//! (crate `vip-ebpf`) and the host's (in the tests), which are compared byte for byte.

use crate::{
    abi::{Claim, Fence, Holder, Iface, Ip, Vip},
    counter::Counter,
};
use bytemuck::Pod;

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, untouched.
    Pass,
    /// It ends here.
    Drop,
    /// It has been turned into the answer and leaves by the interface that it came from.
    Reply,
}

/// The bytes of one frame, from the Ethernet header on.
pub trait Frame {
    /// The header at `offset`, or `None` where the frame is too short.
    fn get<T: Pod>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset` for writing.
    fn get_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T>;

    /// Grows or shrinks the frame to `len` bytes; says whether that was possible.
    fn resize(&mut self, len: usize) -> bool;

    /// Makes the first `len` bytes (or all there are) readable where the kernel holds the frame in
    /// pieces; says whether they are.
    #[must_use]
    fn linearize(&mut self, len: usize) -> bool;

    /// VLAN id of a tag that the NIC or the stack keeps beside the frame, 0 if there is none.
    fn offloaded_vid(&self) -> u16;
}

/// Maps, clock and counters, as seen from the interface that the frame is on.
pub trait Env {
    /// The managed address, if it is one.
    fn vip(&self, ip: &Ip) -> Option<Vip>;

    /// The fence of a slot.
    fn fence(&self, slot: u32) -> Option<Fence>;

    /// The interface that the frame is on, as it appears under these VLAN tags.
    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface>;

    /// `CLOCK_BOOTTIME` in nanoseconds.
    fn now(&self) -> u64;

    /// Counts one outcome.
    fn count(&self, counter: Counter);

    /// Whether traffic to a VIP that is not held is dropped (`on_loss: drop`).
    fn drops_on_loss(&self) -> bool;

    /// Who may claim the VIPs of a slot, where that is enforced.
    /// In place: a copy would take a fifth of the stack that a program has.
    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R>;

    /// Reports a claim by somebody else; `at_ns` and `ifindex` are filled in by the environment.
    fn claim(&self, claim: Claim);
}
