//! The kernel of a simulated node: maps and addresses, as `node/kernel.rs` would change them.
//! `tests/tests/lab` shows the same for the real kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use vip_common::{
    abi::{Fence, HostAddr, Iface, Ip, Port, Vip},
    env::Fences,
    standing::silence,
};
use vip_user::model::{
    desired::AddrSpec,
    lease::record::Tenure,
    plan::{Action, Actual},
    time::BootNs,
};

/// The kernel of a node, which survives the process.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) deadline: BootNs,
    pub(super) generation: u64,
    pub(super) tenure: Option<(Tenure, u32)>,
    pub(super) vips: BTreeMap<Ip, Vip>,
    /// Addresses on the answering interface, with the end of their lifetime.
    addrs: BTreeMap<HostAddr, BootNs>,
    owned: BTreeSet<HostAddr>,
    ifaces: BTreeMap<Port, Iface>,
}

impl Kernel {
    pub(super) fn actual(&self, now: BootNs) -> Actual {
        let left = |until: &BootNs| now.until(*until).as_secs() as u32;
        let live = self.addrs.iter().filter(|(_, until)| **until > now);
        Actual {
            vips: self.vips.clone(),
            addrs: live.map(|(addr, until)| (*addr, left(until))).collect(),
            owned: self.owned.clone(),
            ifaces: self.ifaces.clone(),
            ..Actual::default()
        }
    }

    pub(super) fn apply(&mut self, now: BootNs, action: Action) {
        match action {
            Action::Publish(ip, vip) => drop(self.vips.insert(ip, vip)),
            Action::Withdraw(ip) => drop(self.vips.remove(&ip)),
            Action::AddAddr(addr, AddrSpec::Vip { valid_s }) => {
                self.owned.insert(addr);
                self.addrs.insert(addr, now.after(Duration::from_secs(u64::from(valid_s))));
            }
            Action::DelAddr(addr) => {
                self.owned.remove(&addr);
                self.addrs.remove(&addr);
            }
            Action::SetIface(port, iface) => drop(self.ifaces.insert(port, iface)),
            Action::RemoveIface(port) => drop(self.ifaces.remove(&port)),
            Action::AddAddr(_, AddrSpec::Group) => {}
        }
    }

    /// Whether a question is answered: by the program, or by the stack if an address on the
    /// interface has no entry.
    pub(super) fn answers(&self, now: f64) -> bool {
        match self.vips.get(&vip()) {
            Some(entry) => silence(&At { kernel: self, now: now as u64 }, entry).is_none(),
            None => self.addrs.iter().any(|(addr, until)| addr.ip == vip() && now < until.0 as f64),
        }
    }
}

/// A kernel at an instant, for the same rule that the programs use.
struct At<'a> {
    kernel: &'a Kernel,
    now: u64,
}

impl Fences for At<'_> {
    fn fence(&self, _slot: u32) -> Option<Fence> {
        Some(Fence::new(self.kernel.deadline.0, self.kernel.generation))
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// The one VIP. It is put on the interface, where the stack would answer without an entry.
pub(super) fn vip() -> Ip {
    Ip::v4([192, 0, 2, 10])
}
