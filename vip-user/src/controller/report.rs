//! What the loop tells: log, standing problems, the state that `xvip status` shows.

use super::{Controller, host::RETRY, leased::Leased};
use crate::{
    cluster::events::News,
    model::election::{Notice, State, TakeReason},
    node::{clock, dataplane::Dataplane},
    notice::{log_notice, reason},
    state::{DaemonState, LeaseState},
};
use std::{collections::BTreeMap, time::Duration};

impl<D: Dataplane> Controller<D> {
    /// A change of leadership. `before` is where the election stood until then.
    pub(super) fn notice(&mut self, slot: u32, notice: &Notice, before: &State) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (lease, node) = (leased.api.full_name(), self.setup.me.node.clone());
        log_notice(notice, &lease, &node);
        let metrics = &self.setup.metrics;
        metrics.transition(&lease, reason(notice));
        let now = clock::boot();
        let news = |reason, warning, text| News { reason, warning, subject: lease.clone(), text };
        match notice {
            Notice::TookOver(why) => {
                if let State::Waiting(waiting) = before {
                    let since = waiting.since.until(now);
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
                self.setup.recorder.tell(news("TookOver", false, text));
            }
            Notice::Regained => {
                if let State::Holding(holding) = before {
                    let dark = holding.until.until(now);
                    metrics.took_over(reason(notice), dark, dark);
                }
                let text = format!("node {node} answers for the VIPs again");
                self.setup.recorder.tell(news("TookOver", false, text));
            }
            Notice::Yields { to, .. } => {
                let why = leased.weakness.clone().unwrap_or_default();
                let text = format!("node {node} gives way to node {to}: {why}");
                self.setup.recorder.tell(news("GaveWay", true, text));
            }
            Notice::Lost(holder) => {
                let text = format!("node {node} is silent: {holder:?} holds the Lease");
                self.setup.recorder.tell(news("Lost", true, text));
            }
            Notice::Lapsed => {
                let text = format!("node {node} is silent: no renewal was confirmed in time");
                self.setup.recorder.tell(news("Lost", true, text));
            }
            _ => {}
        }
    }

    pub(super) fn retry(&mut self, subject: &str, error: &dyn std::error::Error) {
        self.reconcile_at = Some(clock::boot().after(RETRY));
        self.problem(subject, Some(chain(error)));
    }

    pub(super) fn outcome<E: std::error::Error>(
        &mut self,
        subject: &str,
        result: Result<(), E>,
    ) -> bool {
        let ok = result.is_ok();
        self.problem(subject, result.err().map(|error| chain(&error)));
        ok
    }

    /// Notes a standing problem, or that it is gone; logs only the change.
    pub(super) fn problem(&mut self, subject: &str, problem: Option<String>) {
        match problem {
            Some(why) => {
                if self.problems.insert(subject.into(), why.clone()).is_none() {
                    tracing::warn!(subject, %why, "problem");
                }
            }
            None => {
                if self.problems.remove(subject).is_some() {
                    tracing::info!(subject, "problem is over");
                }
            }
        }
    }

    pub(super) fn publish_state(&mut self) {
        let now = clock::boot();
        let leases = self
            .leases
            .iter()
            .map(|(slot, leased)| LeaseState::of(now, leased.api.full_name(), *slot, &leased.election));
        let problems: BTreeMap<String, String> =
            self.problems.clone().into_iter().chain(self.dataplane.problems()).collect();
        for subject in self.state.borrow().problems.keys().filter(|over| !problems.contains_key(*over))
        {
            self.setup.metrics.problem(subject, false);
        }
        for subject in problems.keys() {
            self.setup.metrics.problem(subject, true);
        }
        let state = DaemonState {
            pid: std::process::id(),
            turned_ns: now.0,
            not_ready: self.not_ready(),
            leases: leases.collect(),
            nodes: self.conflicts.nodes(),
            problems,
        };
        self.state.send_replace(state);
    }

    fn not_ready(&self) -> Vec<String> {
        let unread = |leased: &Leased| matches!(leased.election.state(), State::Unknown);
        let lacks = [
            (!self.reconciled, "the entries of this host have not been reconciled yet"),
            (self.leases.values().any(unread), "the Lease has not been read yet"),
            (!self.is_usable(), "no answering interface is up and guarded"),
            (self.stopping, "this process is stopping"),
        ];
        lacks.iter().filter(|(lacks, _)| *lacks).map(|(_, what)| (*what).to_owned()).collect()
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
