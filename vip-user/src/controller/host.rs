//! The host's side of the loop: its timers, announcing, and looking whether the guard is in place.

use super::{
    Controller,
    harm::Harm,
    schedule::{BURST, RETRY, Schedule},
    watchdog::Step,
};
use crate::{
    clock,
    model::{desired::Links, election::Input, ownership::Ownership, time::BootNs},
    node::dataplane::{Dataplane, Failures},
    sources::chain,
};
use std::{net::IpAddr, time::Duration};

/// An address probe that is so late is not sent.
const LATE_PROBE: Duration = Duration::from_millis(500);
/// The kernel sends no event when a link is detached, so the guard is looked at this often.
const INSPECT_EVERY: Duration = Duration::from_millis(500);
/// A look at a busy host takes some tens of milliseconds. One that began so shortly before a renewal is
/// due would make that late.
const SOON: Duration = Duration::from_millis(100);
/// The host is compared with what it should be at least this often: lifetimes of addresses run down,
/// and maps can be edited by hand.
pub(super) const RECONCILE_EVERY: Duration = Duration::from_secs(5);

impl<D: Dataplane> Controller<D> {
    /// The address goes when it has lingered long enough.
    pub(super) fn schedule_linger_end(&mut self) {
        let now = clock::boot();
        let ends = self.leases.values().filter_map(|leased| match leased.election.ownership(now) {
            Ownership::Ours { until, .. } if until <= now => {
                Some(until.after(self.setup.timing.linger))
            }
            Ownership::Elsewhere { serve_until } | Ownership::Ending { serve_until } => {
                Some(serve_until)
            }
            _ => None,
        });
        let end = ends.filter(|end| *end > now).min();
        self.reconcile_at = [self.reconcile_at, end].into_iter().flatten().min();
    }

    /// Takes in what the host has. An interface that came up, or has another MAC address, is announced
    /// on: the neighbours' caches and the switches know nothing of it yet.
    pub(super) fn use_links(&mut self, links: Links) {
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

    /// What is known of each VIP beside whose it is.
    pub(super) fn specify(&mut self) {
        for spec in &mut self.specs {
            spec.answer = self.links.answer.get(&spec.ip).copied().unwrap_or(0);
            spec.yielded = self.conflicts.is_yielded(spec.ip) || self.links.strays.contains(&spec.ip);
            let leased = self.leases.get(&spec.slot);
            spec.admitted = leased.is_some_and(|leased| leased.election.admits(spec.ip));
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
        if !self.makes_way(now) {
            if self.inspect_at <= now && self.watchdog.has_time() {
                self.inspect(now).await;
            }
            if self.reconcile_at.is_some_and(|at| at <= now) {
                self.reconcile().await;
            }
        }
        self.watch_links(now);
        self.harms.forget(now);
        self.weigh().await;
        for slot in self.leases.keys().copied().collect::<Vec<_>>() {
            self.speak(slot, now).await;
        }
    }

    /// When the host is to be looked at, or brought to what it should be.
    pub(super) fn host_due(&self) -> BootNs {
        self.reconcile_at.map_or(self.inspect_at, |at| at.min(self.inspect_at))
    }

    /// Whether an election has something to do before work on the host would be over. What was begun,
    /// or is asked for by an election, is not put off.
    fn makes_way(&mut self, now: BootNs) -> bool {
        let settled = self.reconciled && self.settled_at.is_some();
        let soon = now.after(SOON.min(self.setup.timing.renew_every / 4));
        let wakes = self.leases.values().filter_map(|leased| leased.election.wake_at(now));
        let next = wakes.filter(|at| settled && *at > now && *at < soon).min();
        self.precedence.puts_off(now, self.host_due(), next)
    }

    /// Looks whether the guard is in place. Where it cannot look, what was last seen counts.
    async fn inspect(&mut self, now: BootNs) {
        self.inspect_at = now.after(INSPECT_EVERY);
        let looked = self.watchdog.run(Step::Guard, self.dataplane.is_guarded()).await.flatten();
        let guarded = *looked.as_ref().unwrap_or(&true);
        if !guarded {
            self.links_stale = true;
            self.reconcile_at = Some(now);
        }
        self.problem("guard", looked.err().map(|error| chain(&error)));
        self.forget_conflicts(now);
    }

    /// Sends what is due for one Lease. What finds no time in this turn stays due.
    async fn speak(&mut self, slot: u32, now: BootNs) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        if self.watchdog.has_time() && leased.announce_at.take_due(now) && leased.serves(now) {
            let ask = leased.announce_at.left() >= BURST.len() - 2;
            if leased.announce_at.left() == 0 && !self.setup.refresh.is_zero() {
                leased.announce_at.then(now.after(self.setup.refresh));
            }
            let silent =
                |vip: &IpAddr| self.conflicts.is_yielded(*vip) || !leased.election.admits(*vip);
            let vips: Vec<IpAddr> = leased.vips.iter().copied().filter(|vip| !silent(vip)).collect();
            if !vips.is_empty() {
                self.announce(slot, &vips, ask).await;
            }
        }
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        if self.watchdog.has_time() && leased.probe_at.take_due(now) {
            let vips = self.asked_vips(slot);
            let probed = self.watchdog.run(Step::Probe, self.dataplane.probe(&vips)).await;
            // A question that did not leave has no answer: silence then means nothing.
            let unasked: Vec<IpAddr> = match &probed {
                Ok(failures) => failures.keys().copied().collect(),
                Err(_) => vips.clone(),
            };
            if let Some(leased) = self.leases.get_mut(&slot) {
                for vip in unasked {
                    leased.election.cannot_ask(clock::now(), vip);
                }
            }
            let problem = match probed {
                Ok(failures) => named(&failures),
                Err(error) => Some(chain(&error)),
            };
            self.problem_of("address probe", slot, problem);
        }
    }

    /// The time for an answer counts from when the question was to leave: one that leaves much later is
    /// asked anew. So this comes first in a turn: the process may have stood still.
    pub(super) fn give_up_late_probes(&mut self) {
        let now = clock::now();
        for leased in self.leases.values_mut() {
            if leased.probe_at.next().is_some_and(|at| at.after(LATE_PROBE) <= now.boot) {
                leased.probe_at.clear();
                for vip in leased.election.asking() {
                    leased.election.cannot_ask(now, vip);
                }
            }
        }
    }

    /// Announces VIPs of one Lease. What fails is sent again.
    pub(super) async fn announce(&mut self, slot: u32, vips: &[IpAddr], ask: bool) {
        let announce = self.dataplane.announce(vips, ask);
        let sent = self.watchdog.run(Step::Announce, announce).await;
        let now = clock::boot();
        let problem = match sent {
            Ok(failures) => {
                for vip in vips {
                    match failures.get(vip) {
                        Some(error) => {
                            let why = chain(error);
                            self.harms.failed(*vip, Harm::Announcement, why, now);
                        }
                        None => self.harms.worked(*vip, Harm::Announcement),
                    }
                }
                named(&failures)
            }
            Err(error) => Some(chain(&error)),
        };
        if problem.is_some()
            && let Some(leased) = self.leases.get_mut(&slot)
        {
            leased.announce_at.again_by(now.after(RETRY));
        }
        self.problem_of("announcement", slot, problem);
    }
}

/// Failures in words, with the VIP of each.
fn named(failures: &Failures) -> Option<String> {
    let words = failures.iter().map(|(vip, error)| format!("{vip}: {}", chain(error)));
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join("; "))
}
