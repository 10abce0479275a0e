//! The host's side of the loop: reconciling, announcing, and looking whether the guard still stands.

use super::Controller;
use crate::{
    model::{
        desired::{Link, desired},
        election::{Input, State},
        plan::{Action, plan},
        time::BootNs,
    },
    node::{clock, dataplane::Dataplane},
};
use std::{
    collections::{BTreeSet, VecDeque},
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
        let ends = self.elections.values().filter_map(|election| match election.state() {
            State::Holding(holding) if holding.lapsed => {
                Some(holding.until.after(self.setup.timing.linger))
            }
            State::Holding(_) => None,
            _ => Some(election.linger_until()),
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
                for election in self.elections.values_mut() {
                    election.set_eligible(false);
                }
                return self.retry("host", &error);
            }
        };
        self.problem("host", None);
        let now = clock::boot();
        let want = desired(
            now,
            &self.elections,
            &self.timings,
            &self.specs,
            &self.links,
            self.setup.placement,
        );
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
        // Interfaces whose guard is not known to stand are no ground to take a VIP on.
        let eligible = room && !self.links_stale && self.is_usable();
        for election in self.elections.values_mut() {
            election.set_eligible(eligible);
        }
        if !failed {
            self.problem("change of the host", None);
            self.settled_at = (!self.links_stale).then_some(now);
            self.reconcile_at.get_or_insert(now.after(RECONCILE_EVERY));
        }
        self.schedule_linger_end();
    }

    fn use_links(&mut self, links: Vec<Link>) {
        let came_up = |new: &Link| {
            let old = self.links.iter().find(|old| old.ifindex == new.ifindex);
            new.answer && new.up && old.is_none_or(|old| !old.up || old.mac != new.mac)
        };
        if !self.links.is_empty() && links.iter().any(came_up) && self.serving() {
            self.announce_at = Schedule::of(&BURST);
        }
        self.links = links;
        let unusable = (!self.is_usable()).then(|| "no answering interface is up and guarded".into());
        self.problem("link", unusable);
    }

    /// Whether an answering interface is up and guarded.
    pub(super) fn is_usable(&self) -> bool {
        self.links.iter().any(|link| link.answer && link.up)
    }

    pub(super) async fn run_timers(&mut self) {
        let now = clock::boot();
        if self.silence_at.is_some_and(|at| at <= now) && self.silence(self.setup.slot).await {
            Box::pin(self.step(Input::Silenced)).await;
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
        if self.announce_at.take_due(now) && self.serving() {
            let ask = self.announce_at.0.len() >= BURST.len() - 2;
            let announced = self.dataplane.announce(&self.setup.vips, ask).await;
            self.outcome("announcement", announced);
            if self.announce_at.0.is_empty() && !self.setup.refresh.is_zero() {
                self.announce_at.0.push_back(now.after(self.setup.refresh));
            }
        }
        if self.probe_at.take_due(now) {
            let probed = self.dataplane.probe(&self.setup.vips).await;
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
