//! Makes the host what it should be, a part at a time.
//!
//! A plan of ten thousand changes must not keep a renewal waiting. When a turn has no time left, the
//! rest is planned again in the next turn, from what the host looks like then. Every prefix of a plan
//! is safe.

use super::{
    Controller, fitness::Look, harm::Harm, host::RECONCILE_EVERY, leased::Leased, schedule::RETRY,
    watchdog::Step,
};
use crate::{
    clock,
    model::{
        desired::{AddrSpec, Desired, GUARD_BIT, desired},
        plan::{Action, Actual, plan},
        time::BootNs,
    },
    node::dataplane::{Dataplane, HostError},
    sources::chain,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use vip_common::{abi::Ip, wire::solicited_node};

/// Changes that were cut off, and when they are tried again. Without it one that hangs would be the
/// first of every plan, and nothing behind it would ever be done.
#[derive(Debug, Default)]
pub(super) struct PutOff(Vec<(Action, BootNs)>);

/// One walk along a plan.
#[derive(Debug, Default)]
struct Pass {
    /// Addresses whose entry could not be written: nothing would guard them.
    without_entry: BTreeMap<Ip, String>,
    /// Addresses and groups that could not be added.
    without_address: BTreeMap<Ip, String>,
    /// Addresses that could not be removed: their entries must stay.
    still_there: BTreeSet<Ip>,
    /// Some entry is not as it should be.
    entries_failed: bool,
    /// What has failed, in words.
    failed: Vec<String>,
    /// The time was over before the plan was.
    unfinished: bool,
}

impl Pass {
    /// Whether an action would answer for, or leave without its guard, what an earlier failure has left
    /// behind.
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
            Action::AddAddr(addr, _) => drop(self.without_address.insert(addr.ip, why.clone())),
            Action::DelAddr(addr) => drop(self.still_there.insert(addr.ip)),
            Action::SetIface(..) | Action::RemoveIface(_) | Action::Withdraw(_) => {}
        }
        // The guard's program stops every claim where an interface has no entry.
        let harmless = match action {
            Action::AddAddr(..) | Action::DelAddr(_) => true,
            Action::SetIface(_, iface) => iface.bit == GUARD_BIT,
            _ => false,
        };
        self.entries_failed |= !harmless;
        self.failed.push(why);
    }

    /// The first failure, and how many there are.
    fn problem(&self) -> Option<String> {
        let first = self.failed.first()?;
        Some(match self.failed.len() - 1 {
            0 => first.clone(),
            more => format!("{first}; {more} more changes have failed"),
        })
    }
}

impl<D: Dataplane> Controller<D> {
    /// Makes the host what it should be. What fails is reported and tried again; one failure does
    /// not keep the rest from being done. After a step that was cut off, the host has to wait for the
    /// next turn.
    pub(super) async fn reconcile(&mut self) {
        self.settled_at = None;
        let now = clock::boot();
        if !self.watchdog.has_time() {
            self.reconcile_at.get_or_insert(now);
            return;
        }
        self.reconcile_at = None;
        if self.links_stale {
            self.look_at_interfaces().await;
        }
        self.harms.foretell(self.dataplane.refused());
        let read = self.watchdog.run(Step::Read, self.dataplane.actual()).await.flatten();
        let actual = match read {
            Ok(actual) => actual,
            Err(error) => {
                self.host.entries = self.host.entries.after(&error);
                self.retry("host", &error);
                drop(self.update_fitness());
                return;
            }
        };
        self.host.entries = Look::Good;
        self.problem("host", None);
        let now = clock::boot();
        self.specify();
        let owner = |(slot, leased): (&u32, &Leased)| (*slot, leased.election.ownership(now));
        let owners = self.leases.iter().map(owner).collect();
        let (timing, placement) = (&self.setup.timing, self.setup.placement);
        let want = desired(now, &owners, timing, &self.specs, &self.links.links, placement);
        let pass = self.walk(&want, &actual).await;
        self.note_harms(&want, &pass);
        // The first look at the interfaces also ends what another version has left: before that, its
        // programs may go on under fences that this process no longer lowers.
        self.reconciled |= !pass.entries_failed && !pass.unfinished && !self.links_stale;
        drop(self.update_fitness());
        if let Some(why) = pass.problem() {
            self.retry_after("change of the host", why);
        }
        if pass.unfinished {
            self.reconcile_at = Some(clock::boot());
        } else if pass.failed.is_empty() {
            self.problem("change of the host", None);
            self.settled_at = (!self.links_stale).then_some(now);
            self.reconcile_at.get_or_insert(now.after(RECONCILE_EVERY));
        }
        self.schedule_linger_end();
    }

    async fn look_at_interfaces(&mut self) {
        match self.watchdog.run(Step::Interfaces, self.dataplane.links()).await.flatten() {
            Ok(links) => {
                self.problem("interfaces", None);
                self.links_stale = false;
                self.host.interfaces = Look::Good;
                self.use_links(links);
            }
            Err(error) => {
                self.host.interfaces = self.host.interfaces.after(&error);
                self.retry("interfaces", &error);
            }
        }
    }

    /// Does what a plan says, as far as the time of a turn goes; at least one change.
    async fn walk(&mut self, want: &Desired, actual: &Actual) -> Pass {
        let mut pass = Pass::default();
        let began = clock::boot();
        self.put_off.0.retain(|(_, until)| *until > began);
        for action in plan(want, actual) {
            if pass.forbids(&action) {
                continue;
            }
            if self.put_off.0.iter().any(|(late, _)| *late == action) {
                pass.failed(&action, "a change that was cut off waits to be tried again".into());
                continue;
            }
            let change = self.dataplane.apply(action);
            if let Err(error) = self.watchdog.run(Step::Change, change).await.flatten() {
                if matches!(error, HostError::CutOff { .. }) {
                    self.put_off.0.push((action, clock::boot().after(RETRY)));
                }
                pass.failed(&action, chain(&error));
            }
            if self.watchdog.is_used_up(began) {
                pass.unfinished = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        pass
    }

    /// Notes which VIPs could not be brought to where they should be. A pass that was not finished
    /// shows failures only.
    fn note_harms(&mut self, want: &Desired, pass: &Pass) {
        let now = clock::boot();
        let wanted: BTreeSet<Ip> = want.addrs.keys().map(|addr| addr.ip).collect();
        for vip in self.specs.iter().map(|spec| spec.ip) {
            let ip = Ip::from(vip);
            let address = |harm, ip| (harm, wanted.contains(&ip), pass.without_address.get(&ip));
            let entry = (Harm::Entry, want.vips.contains_key(&ip), pass.without_entry.get(&ip));
            let group = group(vip).map(|group| address(Harm::Group, group));
            for (harm, wanted, failed) in [entry, address(Harm::Address, ip)].into_iter().chain(group) {
                match failed {
                    Some(why) => self.harms.failed(vip, harm, why.clone(), now),
                    None if wanted && !pass.unfinished => self.harms.worked(vip, harm),
                    None => {}
                }
            }
        }
        // One VIP that finds no room is its own harm; a host that has room for none is no candidate.
        if !pass.unfinished {
            let full = |ip: &Ip| pass.without_entry.contains_key(ip);
            self.host.full = !want.vips.is_empty() && want.vips.keys().all(full);
        }
    }
}

/// The group in which an IPv6 address is asked for.
fn group(vip: IpAddr) -> Option<Ip> {
    match vip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(Ip::v6(solicited_node(&v6.octets()))),
    }
}
