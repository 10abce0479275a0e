//! The packet rules on the host: maps are plain maps, the frame is a vector.

use super::{fences, ifaces, vips};
use bytemuck::Pod;
use std::{cell::RefCell, collections::BTreeMap};
use vip_common::{
    abi::{Fence, Holder, Iface, Ip, Port, Vip},
    counter::Counter,
    egress::egress,
    env::{Env, Fences, Frame, Verdict},
    ingress::ingress,
};

/// A frame in memory.
#[derive(Debug)]
pub struct HostFrame {
    bytes: Vec<u8>,
    /// Bytes from this offset on are in memory that the kernel cannot read.
    pub readable: usize,
}

impl HostFrame {
    /// A frame with a copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), readable: usize::MAX }
    }
}

impl Frame for HostFrame {
    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.readable {
            return None;
        }
        Some(bytemuck::pod_read_unaligned(self.bytes.get(offset..end)?))
    }

    fn fixed<T: Pod>(&self, offset: usize) -> Option<T> {
        self.get(offset)
    }

    fn set<T: Pod>(&mut self, offset: usize, value: &T) -> Option<()> {
        let bytes = self.bytes.get_mut(offset..offset.checked_add(size_of::<T>())?)?;
        bytes.copy_from_slice(bytemuck::bytes_of(value));
        Some(())
    }

    fn resize(&mut self, len: usize) -> bool {
        self.bytes.resize(len, 0);
        true
    }

    fn offloaded_vid(&self) -> u16 {
        0
    }
}

/// The maps of the fixtures.
#[derive(Debug)]
pub struct HostEnv {
    vips: BTreeMap<Ip, Vip>,
    fences: BTreeMap<u32, Fence>,
    ifaces: BTreeMap<Port, Iface>,
    counted: RefCell<Vec<Counter>>,
    claims: RefCell<Vec<(Ip, [u8; 6])>>,
    drops_on_loss: bool,
}

impl Default for HostEnv {
    fn default() -> Self {
        Self {
            vips: vips().into_iter().collect(),
            fences: fences().into_iter().collect(),
            ifaces: ifaces().into_iter().collect(),
            counted: RefCell::default(),
            claims: RefCell::default(),
            drops_on_loss: false,
        }
    }
}

impl Fences for HostEnv {
    fn fence(&self, slot: u32) -> Option<Fence> {
        Some(self.fences.get(&slot).copied().unwrap_or_default())
    }

    fn now(&self) -> u64 {
        1_000
    }
}

impl Env for HostEnv {
    fn vip(&self, ip: &Ip) -> Option<Vip> {
        self.vips.get(ip).copied()
    }

    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface> {
        self.ifaces.get(&Port { ifindex: super::IFINDEX, outer_vid, inner_vid }).copied()
    }

    fn drops_on_loss(&self) -> bool {
        self.drops_on_loss
    }

    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R> {
        super::holders().iter().find(|(of, _)| *of == slot).map(|(_, holder)| look(holder))
    }

    fn count(&self, counter: Counter) {
        self.counted.borrow_mut().push(counter);
    }

    fn claim(&self, ip: Ip, mac: [u8; 6]) {
        self.claims.borrow_mut().push((ip, mac));
    }
}

/// The program to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Incoming frames.
    Ingress,
    /// Incoming frames, with `on_loss: drop`.
    Strict,
    /// Outgoing frames.
    Egress,
}

/// Runs the rules on the host. Returns the verdict, the frame afterwards, and the raised counters.
pub fn run(hook: Hook, frame: &[u8]) -> (Verdict, Vec<u8>, Vec<Counter>) {
    run_frame(hook, HostFrame::new(frame))
}

fn run_frame(hook: Hook, mut frame: HostFrame) -> (Verdict, Vec<u8>, Vec<Counter>) {
    let env = HostEnv { drops_on_loss: hook == Hook::Strict, ..HostEnv::default() };
    let verdict = match hook {
        Hook::Ingress | Hook::Strict => ingress(&mut frame, &env),
        Hook::Egress => egress(&frame, &env),
    };
    let foreign = env.counted.borrow().iter().filter(|c| **c == Counter::ForeignClaim).count();
    assert_eq!(env.claims.borrow().len(), foreign, "every foreign claim is reported");
    (verdict, frame.bytes, env.counted.into_inner())
}
