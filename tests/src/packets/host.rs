//! The packet rules on the host: maps are plain maps, the frame is a vector.

use super::{fences, ifaces, vips};
use bytemuck::Pod;
use std::{cell::RefCell, collections::BTreeMap};
use vip_common::{
    abi::{Claim, Fence, Holder, Iface, Ip, Port, Vip},
    counter::Counter,
    egress::egress,
    env::{Env, Frame, Verdict},
    ingress::ingress,
};

/// A frame in memory whose alignment is that of packet memory.
#[derive(Debug)]
pub struct HostFrame {
    words: Vec<u16>,
    len: usize,
    /// The kernel has no memory to join the pieces of the frame.
    pub in_pieces: bool,
}

impl HostFrame {
    /// Copies the bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut frame =
            Self { words: vec![0; bytes.len().div_ceil(2)], len: bytes.len(), in_pieces: false };
        bytemuck::cast_slice_mut::<u16, u8>(&mut frame.words)[..bytes.len()].copy_from_slice(bytes);
        frame
    }

    /// The same, with something else in memory behind its end.
    pub fn before(bytes: &[u8], poison: u8) -> Self {
        let mut memory = bytes.to_vec();
        memory.resize(bytes.len() + 256, poison);
        Self { len: bytes.len(), ..Self::new(&memory) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl Frame for HostFrame {
    fn get<T: Pod>(&self, offset: usize) -> Option<&T> {
        let bytes = self.bytes().get(offset..offset.checked_add(size_of::<T>())?)?;
        Some(bytemuck::from_bytes(bytes))
    }

    fn get_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        let len = self.len;
        let bytes = &mut bytemuck::cast_slice_mut::<u16, u8>(&mut self.words)[..len];
        let bytes = bytes.get_mut(offset..offset.checked_add(size_of::<T>())?)?;
        Some(bytemuck::from_bytes_mut(bytes))
    }

    fn resize(&mut self, len: usize) -> bool {
        self.words.resize(len.div_ceil(2), 0);
        self.len = len;
        true
    }

    fn linearize(&mut self, _len: usize) -> bool {
        !self.in_pieces
    }

    fn offloaded_vid(&self) -> u16 {
        0
    }
}

/// The world of the fixtures, as plain maps.
#[derive(Debug)]
pub struct HostEnv {
    vips: BTreeMap<Ip, Vip>,
    fences: BTreeMap<u32, Fence>,
    ifaces: BTreeMap<Port, Iface>,
    counted: RefCell<Vec<Counter>>,
    claims: RefCell<Vec<Claim>>,
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

impl Env for HostEnv {
    fn vip(&self, ip: &Ip) -> Option<Vip> {
        self.vips.get(ip).copied()
    }

    fn fence(&self, slot: u32) -> Option<Fence> {
        Some(self.fences.get(&slot).copied().unwrap_or_default())
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

    fn now(&self) -> u64 {
        1_000
    }

    fn count(&self, counter: Counter) {
        self.counted.borrow_mut().push(counter);
    }

    fn claim(&self, claim: Claim) {
        self.claims.borrow_mut().push(claim);
    }
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Frames that arrive.
    Ingress,
    /// Frames that arrive, with `on_loss: drop`.
    Strict,
    /// Frames that leave.
    Egress,
}

/// Runs the rules on the host: the verdict, the frame afterwards, what was counted.
pub fn run(hook: Hook, frame: &[u8]) -> (Verdict, Vec<u8>, Vec<Counter>) {
    run_frame(hook, HostFrame::new(frame))
}

/// The same, with other bytes in memory behind the frame.
pub fn run_poisoned(hook: Hook, frame: &[u8], poison: u8) -> (Verdict, Vec<u8>, Vec<Counter>) {
    run_frame(hook, HostFrame::before(frame, poison))
}

fn run_frame(hook: Hook, mut frame: HostFrame) -> (Verdict, Vec<u8>, Vec<Counter>) {
    let env = HostEnv { drops_on_loss: hook == Hook::Strict, ..HostEnv::default() };
    let verdict = match hook {
        Hook::Ingress | Hook::Strict => ingress(&mut frame, &env),
        Hook::Egress => egress(&mut frame, &env),
    };
    let foreign = env.counted.borrow().iter().filter(|c| **c == Counter::ForeignClaim).count();
    assert_eq!(env.claims.borrow().len(), foreign, "every foreign claim is reported");
    (verdict, frame.bytes().to_vec(), env.counted.into_inner())
}
