//! What the loop reports: log, present problems, metrics, Kubernetes Events, and the state that `xvip
//! status` shows.

use super::{Controller, problems::Line, watchdog};
use crate::{
    clock,
    cluster::events::{self, Reason},
    model::{
        desired::Placement,
        news::{News, Notice, Of, Subject, TakeReason},
        time::BootNs,
    },
    node::{dataplane::Dataplane, host::interface_name},
    notice::{log_broadcast, log_notice, log_remains, reason},
    state::{DaemonState, LeaseState},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

impl<D: Dataplane> Controller<D> {
    /// Reports what the agent has noticed. The last fence was changed at `now`.
    pub(super) fn tell(&mut self, news: News, now: BootNs) {
        match news {
            News::Leadership { slot, notice, silent_since } => {
                self.notice(slot, &notice, silent_since, now);
            }
            News::Problem(subject, why) => self.problem_about(subject, why),
            News::Fitness(slot, fitness) => {
                if let Some(lease) = self.lease_of(slot) {
                    self.setup.metrics.fitness(&lease, fitness);
                }
            }
            News::Conflict { slot, vip, mac, ifindex, node } => {
                let interface = interface_name(ifindex);
                let who = match node {
                    Some(node) => format!("which is node {node}"),
                    None => "which is not a node of xvip".into(),
                };
                let text = format!("{vip} is also claimed by {mac} on {interface}, {who}");
                self.setup.metrics.conflict(vip);
                self.event(slot, Reason::Conflict, vip.to_string(), text.clone());
                self.problem_about(Subject { what: "conflict", of: Of::Vip(vip) }, Some(text));
            }
            News::Yielded(vip, true) => {
                tracing::warn!(%vip, "another station goes on claiming the VIP; it is yielded");
            }
            News::Yielded(vip, false) => {
                tracing::info!(%vip, "nobody else claims the VIP any more; it is served again");
            }
            News::Refused(slot, vip, why) => self.refused(slot, vip, &why),
        }
    }

    pub(super) fn lease_of(&self, slot: u32) -> Option<String> {
        self.requests.get(&slot).map(|requests| requests.api.full_name())
    }

    /// Queues a Kubernetes Event about the Lease of a group.
    fn event(&self, slot: u32, reason: Reason, subject: String, text: String) {
        let Some(requests) = self.requests.get(&slot) else { return };
        let uid = self.agent.group(slot).and_then(|group| group.election().uid());
        let (lease, uid) = (requests.api.name().into(), uid.map(Into::into));
        self.setup.recorder.tell(events::News { lease, uid, reason, subject, text });
    }

    fn refused(&mut self, slot: u32, vip: IpAddr, why: &str) {
        let Some(lease) = self.lease_of(slot) else { return };
        let why = format!("not answered under the Lease {lease}: {why}");
        let subject = Subject { what: "VIP", of: Of::Vip(vip) };
        if !self.problems.contains(&format!("VIP {vip}")) {
            self.event(slot, Reason::Refused, vip.to_string(), format!("{vip} is {why}"));
        }
        self.problem_about(subject, Some(why));
    }

    /// Reports a change of leadership at `now`. This node may not have answered since `silent_since`.
    fn notice(&self, slot: u32, notice: &Notice, silent_since: Option<BootNs>, now: BootNs) {
        let Some(lease) = self.lease_of(slot) else { return };
        let node = &self.setup.policy.me.node;
        log_notice(notice, &lease, node);
        let metrics = &self.setup.metrics;
        metrics.transition(&lease, reason(notice));
        if matches!(notice, Notice::Lost(_) | Notice::Lapsed | Notice::Released) {
            self.remains(slot, &lease);
        }
        let tell = |reason, text| self.event(slot, reason, lease.clone(), text);
        match notice {
            Notice::TookOver(why) => {
                if let Some(since) = silent_since.map(|since| since.until(now)) {
                    let timing = &self.setup.policy.timing;
                    let hold = timing.hold(timing.duration_s);
                    let (handover, dark) = match why {
                        TakeReason::Released => (since, since),
                        // The old holder's kernel may have answered until its fence.
                        TakeReason::Expired => (since, since.saturating_sub(hold)),
                        TakeReason::Created => (Duration::ZERO, Duration::ZERO),
                    };
                    metrics.took_over(reason(notice), handover, dark);
                }
                let vips = self.agent.group(slot).map_or(&[][..], |group| group.vips());
                log_broadcast(vips, &lease);
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
                let weakness = self.agent.group(slot).and_then(|group| group.weakness());
                let why = weakness.unwrap_or("the VIPs are wanted there");
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

    /// Logs that addresses stay for late traffic, if they do.
    fn remains(&self, slot: u32, lease: &str) {
        let (linger, placement) = (self.setup.policy.timing.linger, self.setup.policy.placement);
        let vips = self.agent.group(slot).map_or(&[][..], |group| group.vips());
        if !linger.is_zero() && placement != Placement::None {
            log_remains(vips, lease, linger);
        }
    }

    fn problem_about(&mut self, Subject { what, of }: Subject, why: Option<String>) {
        match of {
            Of::Node => self.problem(what, why),
            Of::Group(slot) => self.problem_of(what, slot, why),
            Of::Vip(vip) => self.problem(&format!("{what} {vip}"), why),
        }
    }

    /// Notes a problem of one Lease, or that it is over. Success with one Lease says nothing about
    /// another.
    pub(super) fn problem_of(&mut self, what: &str, slot: u32, problem: Option<String>) {
        let Some(lease) = self.lease_of(slot) else { return };
        self.problem(&format!("{what} {lease}"), problem);
    }

    /// Notes a problem, or that it is over. Only changes are logged.
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
        let leases = self.agent.groups().filter_map(|(slot, group)| {
            Some(LeaseState::of(now, self.lease_of(slot)?, slot, group.election()))
        });
        let problems: BTreeMap<String, String> =
            self.problems.iter().chain(self.dataplane.problems()).collect();
        let metrics = self.setup.metrics.clone();
        let nodes = self.agent.nodes().iter();
        let state = DaemonState {
            pid: std::process::id(),
            turned_ns: now.0,
            not_ready: self.agent.lacks(now).into_iter().map(Into::into).collect(),
            leases: leases.collect(),
            nodes: nodes.map(|(mac, node)| (mac.to_string(), node.clone())).collect(),
            problems,
        };
        // The watchdog's thread also changes the state, so state and metrics must change together.
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
}
