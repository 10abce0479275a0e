//! What the loop tells: log, standing problems, the state that `xvip status` shows.

use super::{Controller, leased::Leased, problems::Line, schedule::RETRY, watchdog};
use crate::{
    clock,
    cluster::events::Reason,
    model::{
        news::{Notice, TakeReason},
        ownership::Ownership,
        time::BootNs,
    },
    node::dataplane::Dataplane,
    notice::{log_notice, reason},
    sources::chain,
    state::{DaemonState, LeaseState},
};
use std::{collections::BTreeMap, time::Duration};

impl<D: Dataplane> Controller<D> {
    /// A change of leadership, at `now`. This node may not have answered since `silent_since`.
    pub(super) fn notice(
        &mut self,
        slot: u32,
        notice: &Notice,
        silent_since: Option<BootNs>,
        now: BootNs,
    ) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (lease, node) = (leased.api.full_name(), self.setup.me.node.clone());
        log_notice(notice, &lease, &node);
        let metrics = &self.setup.metrics;
        metrics.transition(&lease, reason(notice));
        let tell = |reason, text| {
            self.setup.recorder.tell(leased.news(reason, lease.clone(), text));
        };
        match notice {
            Notice::TookOver(why) => {
                if let Some(since) = silent_since.map(|since| since.until(now)) {
                    let hold = self.setup.timing.hold(self.setup.timing.duration_s);
                    let (handover, dark) = match why {
                        TakeReason::Released => (since, since),
                        // The old holder's kernel may have answered until its fence.
                        TakeReason::Expired => (since, since.saturating_sub(hold)),
                        TakeReason::Created => (Duration::ZERO, Duration::ZERO),
                    };
                    metrics.took_over(reason(notice), handover, dark);
                }
                let text = format!("node {node} answers for the VIPs: {}", reason(notice));
                tell(Reason::TookOver, text);
            }
            Notice::Regained => {
                if let Some(dark) = silent_since.map(|since| since.until(now)) {
                    metrics.took_over(reason(notice), dark, dark);
                }
                let text = format!("node {node} answers for the VIPs again");
                tell(Reason::TookOver, text);
            }
            Notice::Yields { to, .. } => {
                let why = leased.weakness.clone().unwrap_or_default();
                let text = format!("node {node} gives way to node {to}: {why}");
                tell(Reason::GaveWay, text);
            }
            Notice::Lost(holder) => {
                let text = format!("node {node} is silent: {holder:?} holds the Lease");
                tell(Reason::Lost, text);
            }
            Notice::Lapsed => {
                let text = format!("node {node} is silent: no renewal was confirmed in time");
                tell(Reason::Lost, text);
            }
            _ => {}
        }
    }

    pub(super) fn retry(&mut self, subject: &str, error: &(dyn std::error::Error + 'static)) {
        self.retry_after(subject, chain(error));
    }

    /// Notes why the host was not brought to what it should be; it is tried again.
    pub(super) fn retry_after(&mut self, subject: &str, why: String) {
        self.reconcile_at = Some(clock::boot().after(RETRY));
        self.problem(subject, Some(why));
    }

    pub(super) fn outcome<E: std::error::Error + 'static>(
        &mut self,
        subject: &str,
        slot: u32,
        result: Result<(), E>,
    ) -> bool {
        let ok = result.is_ok();
        self.problem_of(subject, slot, result.err().map(|error| chain(&error)));
        ok
    }

    /// Notes a problem of one Lease, or that it is over. What works for one Lease says nothing about
    /// another.
    pub(super) fn problem_of(&mut self, subject: &str, slot: u32, problem: Option<String>) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let subject = format!("{subject} {}", leased.api.full_name());
        self.problem(&subject, problem);
    }

    /// Notes a problem, or that it is over; logs only what changes.
    pub(super) fn problem(&mut self, subject: &str, problem: Option<String>) {
        let why = problem.clone().unwrap_or_default();
        match self.problems.set(subject, problem, clock::boot()) {
            Some(Line::New) => tracing::warn!(subject, %why, "problem"),
            Some(Line::Changed) => tracing::warn!(subject, %why, "problem has another reason now"),
            Some(Line::Over) => tracing::info!(subject, "problem is over"),
            None => {}
        }
    }

    pub(super) fn publish_state(&mut self) {
        let now = clock::boot();
        let late = self.watchdog.problem();
        self.problem(watchdog::SUBJECT, late);
        let leases = self
            .leases
            .iter()
            .map(|(slot, leased)| LeaseState::of(now, leased.api.full_name(), *slot, &leased.election));
        let problems: BTreeMap<String, String> =
            self.problems.iter().chain(self.dataplane.problems()).collect();
        let metrics = self.setup.metrics.clone();
        let state = DaemonState {
            pid: std::process::id(),
            turned_ns: now.0,
            not_ready: self.not_ready(),
            leases: leases.collect(),
            nodes: self.conflicts.nodes(),
            problems,
        };
        // The watchdog's thread changes the state too: the metric follows in the same moment.
        self.state.send_modify(|known| {
            for over in known.problems.keys().filter(|over| !state.problems.contains_key(*over)) {
                metrics.problem(over, false);
            }
            for subject in state.problems.keys() {
                metrics.problem(subject, true);
            }
            *known = state;
        });
    }

    fn not_ready(&self) -> Vec<String> {
        let now = clock::boot();
        let unread = |leased: &Leased| leased.election.ownership(now) == Ownership::Unknown;
        let lacks = [
            (!self.reconciled, "the entries of this host have not been reconciled yet"),
            (self.leases.values().any(unread), "the Lease has not been read yet"),
            (!self.is_usable(), "no answering interface is up and guarded"),
            (self.cannot_list.is_some(), "it may not list Leases: apply the Role of this version"),
            (self.stopping.is_some(), "this process is stopping"),
        ];
        lacks.iter().filter(|(lacks, _)| *lacks).map(|(_, what)| (*what).to_owned()).collect()
    }
}
