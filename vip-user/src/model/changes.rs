//! A plan that is carried out one change after the other. If a change fails, the rest is still done.
//! Only changes are left out that would answer for its VIP, or leave it without its guard.

use super::{
    desired::{AddrSpec, Desired, GUARD_BIT},
    plan::{Action, Actual, plan},
    schedule::RETRY,
    time::BootNs,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};
use vip_common::abi::{HostAddr, Ip, Port, Vip};

/// Why work on the host has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In words.
    pub why: String,
    /// Whether the host could only not be examined: then its state is unknown, but not bad.
    pub blind: bool,
    /// Whether it took too long and was cut off. It may have been done.
    pub cut_off: bool,
}

/// After a host could not be examined for this long, its last known state is no longer trusted.
pub const BLIND_FOR: Duration = Duration::from_secs(5);

/// Failed changes, each with the reason and the time of its next attempt. Without this list, a change
/// that hangs would come first in every plan, and the changes behind it would never be made.
#[derive(Debug, Default)]
pub struct PutOff(BTreeMap<Action, (BootNs, String)>);

/// A plan that is being carried out, and its failures.
#[derive(Debug, Default)]
pub struct Changes {
    left: VecDeque<Action>,
    /// The desired state at which the plan aims.
    pub want: Desired,
    /// Addresses whose entry could not be written, and why: nothing would guard them.
    pub without_entry: BTreeMap<Ip, String>,
    /// Addresses and groups that could not be added, and why.
    pub without_address: BTreeMap<Ip, String>,
    /// Addresses that could not be removed: their entries must stay.
    still_there: BTreeSet<Ip>,
    /// Whether an entry is not as it should be.
    pub entries_failed: bool,
    /// Addresses that are there, and only get a new lifetime: a failure harms nothing yet.
    present: BTreeSet<HostAddr>,
    /// Something has failed only because the kernel did not answer in time.
    soon: bool,
    /// All failures, in words.
    failed: Vec<String>,
}

/// A kernel that did not answer in time is usually well a moment later, and the change may be made.
const fn pause(blind: bool) -> Duration {
    if blind { Duration::from_millis(100) } else { RETRY }
}

impl Changes {
    /// Plans the way from the actual state of the host to the desired one.
    pub fn new(now: BootNs, want: Desired, have: &Actual, put_off: &mut PutOff) -> Self {
        put_off.0.retain(|_, (until, _)| *until > now);
        let left = plan(&want, have).into();
        let here = have.addrs.keys().filter(|addr| !have.unrouted.contains(addr));
        let present = here.filter(|addr| want.addrs.contains_key(addr)).copied().collect();
        Self { left, want, present, ..Self::default() }
    }

    /// The next change. `None` when each has been done or has failed.
    pub fn next(&mut self, put_off: &PutOff) -> Option<Action> {
        while let Some(action) = self.left.pop_front() {
            if self.forbids(&action) {
                continue;
            }
            let Some((_, why)) = put_off.0.get(&action) else { return Some(action) };
            self.failed(&action, why.clone());
        }
        None
    }

    /// Notes that a change has failed.
    pub fn has_failed(&mut self, now: BootNs, action: Action, failed: Failed, put_off: &mut PutOff) {
        self.soon |= failed.blind;
        put_off.0.insert(action, (now.after(pause(failed.blind)), failed.why.clone()));
        self.failed(&action, failed.why);
    }

    /// The pause before what has failed is tried again.
    pub const fn pause(&self) -> Duration {
        pause(self.soon)
    }

    /// The first failure, and the number of further ones.
    pub fn problem(&self) -> Option<String> {
        let first = self.failed.first()?;
        Some(match self.failed.len() - 1 {
            0 => first.clone(),
            more => format!("{first}; {more} more changes have failed"),
        })
    }

    /// Whether an earlier failure forbids an action: it would answer for a VIP without its address, or
    /// leave an address without its guard.
    fn forbids(&self, action: &Action) -> bool {
        match action {
            Action::Publish(ip, vip) if vip.generation != 0 => self.without_address.contains_key(ip),
            Action::AddAddr(addr, AddrSpec::Vip { .. }) => self.without_entry.contains_key(&addr.ip),
            Action::Withdraw(ip) => self.still_there.contains(ip),
            _ => false,
        }
    }

    fn failed(&mut self, action: &Action, why: String) {
        match *action {
            Action::Publish(ip, _) => drop(self.without_entry.insert(ip, why.clone())),
            Action::AddAddr(addr, _) if self.present.contains(&addr) => {}
            Action::AddAddr(addr, _) => drop(self.without_address.insert(addr.ip, why.clone())),
            Action::DelAddr(addr) => drop(self.still_there.insert(addr.ip)),
            Action::SetIface(..) | Action::RemoveIface(_) | Action::Withdraw(_) => {}
        }
        // On an interface without an entry, the guard's program stops every claim.
        let harmless = match action {
            Action::AddAddr(..) | Action::DelAddr(_) => true,
            Action::SetIface(_, iface) => iface.bit == GUARD_BIT,
            _ => false,
        };
        self.entries_failed |= !harmless;
        self.failed.push(why);
    }
}

impl Actual {
    /// If the action makes this host answer for a VIP in a new tenure or on a new interface: that VIP,
    /// and the slot of its group.
    pub fn publishes(&self, action: &Action) -> Option<(IpAddr, u32)> {
        let Action::Publish(ip, vip) = action else { return None };
        let answers =
            |known: &Vip| known.generation == vip.generation && vip.answer & !known.answer == 0;
        let is_new = vip.generation != 0 && !self.vips.get(ip).is_some_and(answers);
        is_new.then(|| (IpAddr::from(*ip), vip.slot))
    }

    /// The interface that an action makes answer.
    pub fn brings_up(&self, action: &Action) -> Option<Port> {
        let Action::SetIface(port, iface) = action else { return None };
        let was_up = self.ifaces.get(port).is_some_and(|known| known.up == 1);
        (iface.up == 1 && !was_up).then_some(*port)
    }

    /// Updates this state of the host after a change that was done.
    pub fn take_in(&mut self, action: Action) {
        match action {
            Action::SetIface(port, iface) => drop(self.ifaces.insert(port, iface)),
            Action::RemoveIface(port) => drop(self.ifaces.remove(&port)),
            Action::Publish(ip, vip) => drop(self.vips.insert(ip, vip)),
            Action::Withdraw(ip) => drop(self.vips.remove(&ip)),
            Action::AddAddr(addr, spec) => {
                let left = if let AddrSpec::Vip { valid_s } = spec { valid_s } else { u32::MAX };
                self.addrs.insert(addr, left);
                self.owned.insert(addr);
                self.unrouted.remove(&addr);
            }
            Action::DelAddr(addr) => {
                self.addrs.remove(&addr);
                self.owned.remove(&addr);
                self.unrouted.remove(&addr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ip = Ip::v4([192, 0, 2, 10]);

    /// After each change, the new plan must be the rest of the old one. Then no change is made twice,
    /// and none is missed.
    #[test]
    fn a_host_that_has_taken_a_plan_in_needs_no_other() {
        let addr = HostAddr { ip: IP, ifindex: 1 };
        let want = Desired {
            vips: BTreeMap::from([(IP, Vip::new(0, 3, 1, 1))]),
            addrs: BTreeMap::from([(addr, AddrSpec::Vip { valid_s: 30 })]),
            ..Desired::default()
        };
        let gone = HostAddr { ip: Ip::v4([192, 0, 2, 20]), ifindex: 1 };
        let mut have = Actual {
            addrs: BTreeMap::from([(gone, 30), (addr, 30)]),
            owned: BTreeSet::from([gone, addr]),
            unrouted: BTreeSet::from([addr]),
            ..Actual::default()
        };
        let mut put_off = PutOff::default();
        let mut changes = Changes::new(BootNs(0), want.clone(), &have, &mut put_off);
        let mut done = 0;
        while let Some(action) = changes.next(&put_off) {
            have.take_in(action);
            done += 1;
        }
        assert_eq!((done, plan(&want, &have)), (5, Vec::new()));
    }

    /// The address is there for some more seconds, and is answered for.
    #[test]
    fn a_lifetime_that_could_not_be_raised_harms_nothing_yet() {
        let addr = HostAddr { ip: IP, ifindex: 1 };
        let entry = Vip::new(0, 3, 1, 1);
        let spec = AddrSpec::Vip { valid_s: 30 };
        let want = Desired {
            vips: BTreeMap::from([(IP, entry)]),
            addrs: BTreeMap::from([(addr, spec)]),
            ..Desired::default()
        };
        let mut have = Actual { addrs: BTreeMap::from([(addr, 10)]), ..Actual::default() };
        have.owned.insert(addr);
        have.vips.insert(IP, Vip { generation: 0, ..entry });
        let mut put_off = PutOff::default();
        let mut changes = Changes::new(BootNs(0), want, &have, &mut put_off);
        assert_eq!(changes.next(&put_off), Some(Action::Publish(IP, entry)), "the rest can wait");
        let refresh = changes.next(&put_off).expect("the lifetime");
        assert_eq!(refresh, Action::AddAddr(addr, spec));
        let late = Failed { why: "late".into(), blind: true, cut_off: false };
        changes.has_failed(BootNs(0), refresh, late, &mut put_off);
        assert!(changes.without_address.is_empty() && changes.problem().is_some());
    }

    #[test]
    fn what_was_cut_off_is_put_off_and_keeps_nothing_else_back() {
        let [one, other] = [IP, Ip::v4([192, 0, 2, 20])];
        let entry = Vip::new(0, 0, 1, 1);
        let want =
            Desired { vips: BTreeMap::from([(one, entry), (other, entry)]), ..Desired::default() };
        let mut put_off = PutOff::default();
        let have = Actual::default();
        let mut changes = Changes::new(BootNs(0), want.clone(), &have, &mut put_off);
        let first = changes.next(&put_off).expect("an entry is missing");
        let late = Failed { why: "late".into(), blind: true, cut_off: true };
        changes.has_failed(BootNs(0), first, late, &mut put_off);
        let mut changes = Changes::new(BootNs(1), want.clone(), &have, &mut put_off);
        assert_eq!(changes.next(&put_off), Some(Action::Publish(other, entry)));
        assert!(changes.entries_failed);
        let later = BootNs(0).after(RETRY);
        let mut changes = Changes::new(later, want, &have, &mut put_off);
        assert_eq!(changes.next(&put_off), Some(first));
    }
}
