//! What is left of kube-vip when all nodes have been moved.

use super::{
    facts::{Facts, Problem},
    pod::Program,
};
use serde::Serialize;
use std::{fmt, net::IpAddr};

/// kube-vip removes its label within this time, and only then its address.
const SLACK_S: u64 = 10;

/// Something that kube-vip has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftover {
    /// A VIP on an interface of this host, which xvip has not put there.
    Address {
        /// The address.
        vip: IpAddr,
        /// The name of the interface.
        interface: String,
    },
    /// A label of a node.
    Label {
        /// The node.
        node: String,
        /// The label.
        key: String,
    },
    /// A table of nftables.
    Table {
        /// Its family.
        family: String,
        /// Its name.
        name: String,
    },
    /// Rules that are only shown. What they are.
    Rules(String),
    /// The ClusterRoleBinding.
    Binding(String),
    /// The ClusterRole.
    Role(String),
    /// The service account `namespace/name`.
    Account(String),
}

impl Leftover {
    /// Whether `--yes` removes it.
    pub const fn is_removed(&self) -> bool {
        !matches!(self, Self::Rules(_))
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { vip, interface } => write!(formatter, "address {vip} on {interface}"),
            Self::Label { node, key } => write!(formatter, "label {key} of node {node}"),
            Self::Table { family, name } => write!(formatter, "nftables table {family} {name}"),
            Self::Rules(what) => write!(formatter, "{what} (remove it by hand)"),
            Self::Binding(name) => write!(formatter, "ClusterRoleBinding {name}"),
            Self::Role(name) => write!(formatter, "ClusterRole {name}"),
            Self::Account(name) => write!(formatter, "ServiceAccount {name}"),
        }
    }
}

/// How long no foreign program may hold the Lease before anything is removed, in seconds.
pub fn quiet_s(duration_s: u32) -> u64 {
    2 * u64::from(duration_s) + SLACK_S
}

/// What stands against it. `without`: nodes that never get xvip.
pub fn refusals(facts: &Facts, without: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for why in [facts.nodes.as_ref().err(), facts.pods.as_ref().err()].into_iter().flatten() {
        problems.push(Problem::new(why.clone(), "the API", "use a kubeconfig with these rights"));
    }
    for node in without.iter().filter(|_| facts.nodes.is_ok()) {
        if !facts.known_nodes().iter().any(|known| known.name == **node) {
            let remedy = "name a node of the control plane";
            problems.push(Problem::new("--without names a node that is not there", node, remedy));
        }
    }
    for node in facts.known_nodes().iter().filter(|node| !without.contains(&node.name)) {
        if facts.runs(&node.name, Program::KubeVip) {
            let remedy = "move it first: xvip migrate apply";
            problems.push(Problem::new("kube-vip still runs there", &node.name, remedy));
        } else if !facts.pods_on(&node.name).any(|pod| pod.program == Program::Xvip && pod.ready) {
            let remedy = "move it first, or leave it out with --without";
            problems.push(Problem::new("no xvip is ready there", &node.name, remedy));
        }
    }
    for node in without.iter().filter(|node| facts.runs(node, Program::KubeVip)) {
        let remedy = "stop kube-vip there: its address, its role and its account are removed";
        problems.push(Problem::new("kube-vip still runs there", node, remedy));
    }
    problems.extend(foreign(facts));
    problems
}

/// Why the Lease is not safely with xvip.
pub fn foreign(facts: &Facts) -> Option<Problem> {
    let remedy = "wait until an xvip holds it: xvip status";
    match &facts.lease {
        Err(why) => Some(Problem::new(why.clone(), "the Lease", remedy)),
        Ok(None) => Some(Problem::new("the Lease does not exist", "the API", remedy)),
        Ok(Some(lease)) if !lease.ours => {
            let holder = if lease.holder.is_empty() { "nobody" } else { lease.holder.as_str() };
            let what = format!("{holder} holds it, which is no xvip");
            Some(Problem::new(what, format!("Lease {}", lease.name), remedy))
        }
        Ok(Some(_)) => None,
    }
}

/// The service accounts that pods of xvip use: they and their role stay.
pub fn is_account_used(facts: &Facts, account: &str) -> bool {
    facts.known_pods().iter().any(|pod| {
        pod.account.as_ref().is_some_and(|name| format!("{}/{name}", pod.namespace) == account)
    })
}
