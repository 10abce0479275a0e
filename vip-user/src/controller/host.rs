//! The host's side of the loop: reconciling, announcing, and looking whether the guard still stands.

use super::Controller;
use crate::{
    model::{
        desired::{Links, desired},
        election::{Input, State},
        plan::{Action, plan},
        time::BootNs,
    },
    node::{clock, dataplane::Dataplane},
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

/// Rounds of an announcement burst, after the fence went up.
pub(super) const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Rounds of an address probe (RFC 5227 section 2.1.1).
pub(super) const PROBES: [Duration; 3] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];
/// A host that did not take a change is tried again after this.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The kernel sends no event when a link is detached, so the guard is looked at this often.
const INSPECT_EVERY: Duration = Duration::from_millis(500);
/// The host is compared with what it should be at least this often: lifetimes of addresses run down,
/// and maps can be edited by hand.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);

impl<D: Dataplane> Controller<D> {
    /// The address goes when it has lingered long enough.
    pub(super) fn schedule_linger_end(&mut self) {
        let now = clock::boot();
        let ends = self.leases.values().filter_map(|leased| match leased.election.state() {
            State::Holding(holding) if holding.lapsed => {
                Some(holding.until.after(self.setup.timing.linger))
            }
            State::Holding(_) => None,
            _ => Some(leased.election.linger_until()),
        });
        let end = ends.filter(|end| *end > now).min();
        self.reconcile_at = [self.reconcile_at, end].into_iter().flatten().min();
    }

    /// Makes the host what it should be. What fails is reported and tried again; one failure does
    /// not keep the rest from being done.
    pub(super) async fn reconcile(&mut self) {
        self.reconcile_at = None;
        self.settled_at = None;
        if self.links_stale {
            match self.dataplane.links().await {
                Ok(links) => {
                    self.problem("interfaces", None);
                    self.links_stale = false;
                    self.use_links(links);
                }
                Err(error) => self.retry("interfaces", &error),
            }
        }
        let actual = match self.dataplane.actual().await {
            Ok(actual) => actual,
            Err(error) => {
                self.retry("host", &error);
                drop(self.update_fitness());
                return;
            }
        };
        self.problem("host", None);
        let now = clock::boot();
        self.specify();
        let elections = self.leases.iter().map(|(slot, leased)| (*slot, &leased.election)).collect();
        let (timing, placement) = (&self.setup.timing, self.setup.placement);
        let want = desired(now, &elections, timing, &self.specs, &self.links.links, placement);
        let (mut failed, mut entries_failed, mut unpublished) = (false, false, BTreeSet::new());
        let mut without_address = BTreeSet::new();
        for action in plan(&want, &actual) {
            // An entry must not answer for an address that this host could not take in.
            if matches!(action, Action::Publish(ip, vip) if vip.generation != 0 && without_address.contains(&ip))
            {
                continue;
            }
            if let Err(error) = self.dataplane.apply(action).await {
                failed = true;
                if let Action::Publish(ip, _) = action {
                    unpublished.insert(ip);
                }
                match action {
                    Action::AddAddr(addr, _) => drop(without_address.insert(addr.ip)),
                    Action::DelAddr(_) => {}
                    _ => entries_failed = true,
                }
                self.retry("change of the host", &error);
            }
        }
        // The first look at the interfaces also ends what another version has left: before that, its
        // programs may go on under fences that this process no longer lowers.
        self.reconciled |= !entries_failed && !self.links_stale;
        // One VIP that finds no room is its own harm; a host that has room for none is no candidate.
        let room = want.vips.is_empty() || want.vips.keys().any(|ip| !unpublished.contains(ip));
        self.problem("no room", (!room).then(|| "no VIP could be published".into()));
        drop(self.update_fitness());
        if !failed {
            self.problem("change of the host", None);
            self.settled_at = (!self.links_stale).then_some(now);
            self.reconcile_at.get_or_insert(now.after(RECONCILE_EVERY));
        }
        self.schedule_linger_end();
    }

    /// Takes in what the host has. An interface that came up, or has another MAC address, is announced
    /// on: the neighbours' caches and the switches know nothing of it yet.
    fn use_links(&mut self, links: Links) {
        let now = clock::boot();
        let known = !self.links.links.is_empty();
        for leased in self.leases.values_mut().filter(|leased| known && leased.serves(now)) {
            let came_up = leased.vips.iter().any(|vip| {
                links.of(*vip).any(|new| {
                    let old = self.links.of(*vip).find(|old| old.port == new.port);
                    new.up && old.is_none_or(|old| !old.up || old.mac != new.mac)
                })
            });
            if came_up {
                leased.announce_at = Schedule::of(&BURST);
            }
        }
        self.links = links;
        for leased in self.leases.values_mut() {
            leased.use_links(&self.links);
        }
        self.watch_links(now);
        let unusable = (!self.is_usable()).then(|| "no answering interface is up and guarded".into());
        self.problem("link", unusable);
    }

    /// What is known of each VIP beside its election.
    fn specify(&mut self) {
        for spec in &mut self.specs {
            spec.answer = self.links.answer.get(&spec.ip).copied().unwrap_or(0);
            spec.yielded = self.conflicts.is_yielded(spec.ip);
        }
    }

    /// Whether an answering interface is up and guarded.
    pub(super) fn is_usable(&self) -> bool {
        self.links.links.iter().any(|link| link.answers() && link.up)
    }

    pub(super) async fn run_timers(&mut self) {
        let now = clock::boot();
        let slots: Vec<u32> = self.leases.keys().copied().collect();
        for slot in slots {
            let silence_at = self.leases.get(&slot).and_then(|leased| leased.silence_at);
            if silence_at.is_some_and(|at| at <= now) && self.silence(slot).await {
                Box::pin(self.step(slot, Input::Silenced)).await;
            }
        }
        if self.inspect_at <= now {
            self.inspect_at = now.after(INSPECT_EVERY);
            if !self.dataplane.is_guarded().await {
                self.links_stale = true;
                self.reconcile_at = Some(now);
            }
            self.forget_conflicts(now);
        }
        if self.reconcile_at.is_some_and(|at| at <= now) {
            self.reconcile().await;
        }
        self.watch_links(now);
        self.weigh().await;
        for slot in self.leases.keys().copied().collect::<Vec<_>>() {
            self.speak(slot, now).await;
        }
    }

    /// Sends what is due for one Lease.
    async fn speak(&mut self, slot: u32, now: BootNs) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        if leased.announce_at.take_due(now) && leased.serves(now) {
            let ask = leased.announce_at.0.len() >= BURST.len() - 2;
            if leased.announce_at.0.is_empty() && !self.setup.refresh.is_zero() {
                leased.announce_at.0.push_back(now.after(self.setup.refresh));
            }
            let silent =
                |vip: &IpAddr| self.conflicts.is_yielded(*vip) || !leased.election.admits(*vip);
            let vips: Vec<IpAddr> = leased.vips.iter().copied().filter(|vip| !silent(vip)).collect();
            if !vips.is_empty() {
                let announced = self.dataplane.announce(&vips, ask).await;
                self.outcome("announcement", announced);
            }
        }
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        if leased.probe_at.take_due(now) {
            let vips = self.asked_vips(slot);
            let probed = self.dataplane.probe(&vips).await;
            self.outcome("address probe", probed);
        }
    }
}

/// Instants at which something is due.
#[derive(Debug, Default)]
pub(super) struct Schedule(VecDeque<BootNs>);

impl Schedule {
    /// These rounds, from now on.
    pub(super) fn of(rounds: &[Duration]) -> Self {
        let now = clock::boot();
        Self(rounds.iter().map(|after| now.after(*after)).collect())
    }

    /// The next one.
    pub(super) fn next(&self) -> Option<BootNs> {
        self.0.front().copied()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes everything that is due off; says whether anything was.
    fn take_due(&mut self, now: BootNs) -> bool {
        let waiting = self.0.len();
        self.0.retain(|at| *at > now);
        self.0.len() < waiting
    }
}
