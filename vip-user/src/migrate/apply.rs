//! Whether a node may be moved now, and whether it has arrived.

use super::{
    facts::{Facts, Problem},
    plan,
    pod::Program,
};
use std::net::IpAddr;

/// So many rounds in a row must be good. Single frames can be lost.
const GOOD_ROUNDS: u32 = 3;
/// So many rounds in a row show two owners: the first may hear the old owner's last answer.
const BAD_ROUNDS: u32 = 2;

/// What stands against moving this node now.
pub fn refusals(facts: &Facts) -> Vec<Problem> {
    let plan = plan::plan(facts);
    let mut problems = plan.problems;
    if let Some(name) = plan.daemonset {
        problems.push(Problem::new(
            "kube-vip runs as a DaemonSet, which is not changed node by node here",
            format!("DaemonSet {name}"),
            "follow the steps of xvip migrate plan",
        ));
    }
    if facts.manifests.first().is_some_and(|manifest| manifest.program == Program::Xvip) {
        problems.push(Problem::new("this node runs xvip already", &facts.node, "go to the next node"));
    }
    if facts.holds(&facts.node) {
        let others: Vec<&str> = facts
            .known_nodes()
            .iter()
            .map(|node| node.name.as_str())
            .filter(|node| *node != facts.node && facts.runs(node, Program::KubeVip))
            .collect();
        if !others.is_empty() {
            problems.push(Problem::new(
                format!("this node holds the Lease, and kube-vip still runs on {}", others.join(", ")),
                &facts.node,
                format!("the holder is the last one: move {} first", others.join(", ")),
            ));
        }
    }
    problems
}

/// What one look shows while the pod changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Why the pod is not ready with the new image; `None` if it is.
    pub pod: Option<String>,
    /// Why the daemon is not ready, or the guard is off; `None` if all is well.
    pub daemon: Option<String>,
    /// How many owners each VIP has, and which.
    pub owners: Vec<(IpAddr, usize, String)>,
}

/// What follows from all looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet. Why.
    Wait(String),
    /// The node has arrived.
    Arrived,
    /// It must go back. Why.
    Failed(String),
}

/// Watches a node that is being moved.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    good: u32,
    bad: u32,
}

impl Watch {
    /// Takes a look into account.
    pub fn take(&mut self, round: &Round) -> Verdict {
        let two = round.owners.iter().find(|(_, owners, _)| *owners > 1);
        self.bad = if two.is_some() { self.bad + 1 } else { 0 };
        if let Some((vip, _, stations)) = two {
            self.good = 0;
            let what = format!("more than one station answers for {vip}: {stations}");
            return if self.bad >= BAD_ROUNDS { Verdict::Failed(what) } else { Verdict::Wait(what) };
        }
        let none = round.owners.iter().find(|(_, owners, _)| *owners == 0);
        let none = none.map(|(vip, ..)| format!("no station answers for {vip}"));
        if let Some(why) = round.pod.clone().or_else(|| round.daemon.clone()).or(none) {
            self.good = 0;
            return Verdict::Wait(why);
        }
        self.good += 1;
        if self.good >= GOOD_ROUNDS {
            Verdict::Arrived
        } else {
            Verdict::Wait("all is well so far".into())
        }
    }
}
