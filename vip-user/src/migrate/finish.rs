//! What is left of kube-vip when all nodes have been moved.

use super::{
    facts::{Facts, Problem},
    pod::Program,
};
use serde::Serialize;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};
use vip_common::abi::{HostAddr, Ip};

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
        /// The length of its prefix.
        prefix: u8,
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
            Self::Address { vip, prefix, interface } => {
                write!(formatter, "address {vip}/{prefix} on {interface}")
            }
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
    problems.extend(facts.stranger());
    for pod in facts.known_pods().iter().filter(|pod| pod.program == Program::KubeVip) {
        let remedy = if without.contains(&pod.node) {
            "stop kube-vip there: its address, its role and its account are removed"
        } else {
            "move it first: xvip migrate apply"
        };
        let what = format!("kube-vip still runs there, as {}/{}", pod.namespace, pod.name);
        problems.push(Problem::new(what, &pod.node, remedy));
    }
    for node in facts.known_nodes().iter().filter(|node| !without.contains(&node.name)) {
        if facts.runs(&node.name, Program::KubeVip) {
            continue;
        }
        if !facts.pods_on(&node.name).any(|pod| pod.program == Program::Xvip && pod.ready) {
            let remedy = "move it first, or leave it out with --without";
            problems.push(Problem::new("no xvip is ready there", &node.name, remedy));
        }
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

/// What kube-vip's guides create: the ClusterRoleBinding, the ClusterRole, and the service account.
pub const BINDING: &str = "system:kube-vip-binding";
/// The ClusterRole.
pub const ROLE: &str = "system:kube-vip-role";
/// The service account: its namespace and its name.
pub const ACCOUNT: (&str, &str) = ("kube-system", "kube-vip");

/// A binding in the cluster, of whatever role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingFact {
    /// Its namespace; `None`: it is a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The ClusterRole that it grants; empty if it grants a Role.
    pub role: String,
    /// Kind, namespace and name of each subject.
    pub subjects: Vec<(String, String, String)>,
}

impl BindingFact {
    fn is_guides(&self) -> bool {
        self.namespace.is_none() && self.name == BINDING
    }

    fn names_account(&self) -> bool {
        self.subjects.iter().any(is_account)
    }
}

fn is_account((kind, namespace, name): &(String, String, String)) -> bool {
    kind == "ServiceAccount" && (namespace.as_str(), name.as_str()) == ACCOUNT
}

/// Which rights exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// All bindings that grant the ClusterRole, or name the service account.
    pub bindings: Vec<BindingFact>,
    /// Whether the ClusterRole exists.
    pub role: bool,
    /// Whether the service account exists.
    pub account: bool,
}

/// Which rights are left of kube-vip alone. `Err`: why all of them stay.
pub fn unused(rights: &Rights, users: &[String]) -> Result<Vec<Leftover>, String> {
    let (namespace, name) = ACCOUNT;
    if let Some(pod) = users.first() {
        return Err(format!("pod {pod} uses the ServiceAccount {namespace}/{name}"));
    }
    for binding in &rights.bindings {
        let at = binding.namespace.as_ref().map_or_else(String::new, |name| format!("{name}/"));
        if !binding.is_guides() && (binding.role == ROLE || binding.names_account()) {
            return Err(format!("the binding {at}{} uses the role or the account", binding.name));
        }
        if binding.is_guides() && binding.role != ROLE {
            return Err(format!("{BINDING} grants another role: {}", binding.role));
        }
        if binding.is_guides() && !(binding.subjects.len() == 1 && binding.names_account()) {
            return Err(format!("{BINDING} has other subjects than {namespace}/{name}"));
        }
    }
    let mut found = Vec::new();
    if rights.bindings.iter().any(BindingFact::is_guides) {
        found.push(Leftover::Binding(BINDING.into()));
    }
    if rights.role {
        found.push(Leftover::Role(ROLE.into()));
    }
    if rights.account {
        found.push(Leftover::Account(format!("{namespace}/{name}")));
    }
    Ok(found)
}

/// The labels of kube-vip: that of a VIP's owner, and those of Services.
pub fn is_label(key: &str) -> bool {
    key == "kube-vip.io/has-ip" || (key.starts_with("service-provided.") && key.contains("kube-vip"))
}

/// An address as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The address.
    pub ip: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// The index of the interface.
    pub ifindex: u32,
    /// Whether it goes away with another address of its subnet.
    pub secondary: bool,
}

impl Carried {
    /// Whether xvip has not put it there. `owned`: what xvip has noted; it adds IPv4 as /32 only.
    pub fn is_foreign(&self, owned: &[HostAddr]) -> bool {
        let noted = owned.contains(&HostAddr { ip: Ip::from(self.ip), ifindex: self.ifindex });
        !noted || (self.ip.is_ipv4() && !self.is_host())
    }

    /// Whether it is the only address of its subnet by its length.
    pub fn is_host(&self) -> bool {
        self.prefix == if self.ip.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the kernel may remove addresses of the host along with this one.
    pub fn takes_others(&self, all: &[Self]) -> bool {
        let (IpAddr::V4(ip), false, false) = (self.ip, self.secondary, self.is_host()) else {
            return false;
        };
        let network = |ip: Ipv4Addr| {
            u32::from(ip)
                & u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(self.prefix))).unwrap_or(0)
        };
        all.iter().any(|other| match other.ip {
            IpAddr::V4(found) => {
                found != ip
                    && (other.ifindex, other.prefix) == (self.ifindex, self.prefix)
                    && network(found) == network(ip)
            }
            IpAddr::V6(_) => false,
        })
    }
}
