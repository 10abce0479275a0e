//! The seams between the packet rules and the world. Frame and Env have two implementations: the
//! kernel's (crate `vip-ebpf`) and the host's (in the tests), which are compared byte for byte. A
//! status and the simulation ask [`Fences`] too.

use crate::{
    abi::{Fence, Holder, Iface, Ip, Vip},
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
    /// How many bytes it has.
    fn size(&self) -> usize;

    /// A copy of the header at `offset`; `None` where the frame is too short, or the kernel keeps these
    /// bytes where it cannot read them (memory of a device).
    fn get<T: Pod>(&self, offset: usize) -> Option<T>;

    /// The same at an offset that is a constant: the kernel then reads the packet itself, without a
    /// helper.
    fn fixed<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Writes a header at `offset`; `None` where that is not possible.
    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()>;

    /// The same at an offset that is a constant. XDP writes into the packet itself. TC uses the helper:
    /// before a program with direct writes the kernel copies every cloned packet.
    #[inline(always)]
    fn set_fixed<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        self.set(offset, value)
    }

    /// Grows or shrinks the frame to `len` bytes; says whether that was possible.
    fn resize(&mut self, len: usize) -> bool;

    /// VLAN id of a tag that the NIC or the stack keeps beside the frame, 0 if there is none.
    fn offloaded_vid(&self) -> u16;
}

/// The fences, and the clock that they are compared with. A program, a status or a probe needs no more
/// to know whether this host holds a VIP.
pub trait Fences {
    /// The fence of a slot.
    fn fence(&self, slot: u32) -> Option<Fence>;

    /// `CLOCK_BOOTTIME` in nanoseconds.
    fn now(&self) -> u64;
}

/// Maps and counters, as seen from the interface that the frame is on.
pub trait Env: Fences {
    /// The managed address, if it is one.
    fn vip(&self, ip: &Ip) -> Option<Vip>;

    /// The interface that the frame is on, as it appears under these VLAN tags.
    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface>;

    /// Counts one outcome.
    fn count(&self, counter: Counter);

    /// Whether traffic to a VIP that is not held is dropped (`on_loss: drop`).
    fn drops_on_loss(&self) -> bool;

    /// Who may claim the VIPs of a slot, where that is enforced.
    /// In place: a copy would take a fifth of the stack that a program has.
    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R>;

    /// Reports a claim of the address by another station.
    fn claim(&self, ip: Ip, mac: [u8; 6]);
}
