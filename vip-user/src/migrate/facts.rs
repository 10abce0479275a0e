//! What was found in the cluster and on this host. Text from outside: escape it before it is shown.

use super::pod::Program;
use serde::Serialize;
use std::net::IpAddr;

/// Something that stands against a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// Where: a file, a node, an object.
    pub at: String,
    /// What helps.
    pub remedy: String,
}

impl Problem {
    /// A problem.
    pub fn new(what: impl Into<String>, at: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), at: at.into(), remedy: remedy.into() }
    }
}

/// A node of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// Whether its kubelet reports that it is ready.
    pub ready: bool,
    /// The boot id that its kubelet has reported.
    pub boot_id: String,
    /// The labels of kube-vip on it.
    pub labels: Vec<String>,
}

/// A pod of kube-vip, or of xvip in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodFact {
    /// The node.
    pub node: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Which program it runs.
    pub program: Program,
    /// kube-vip's version, if the tag says so.
    pub version: Option<(u32, u32, u32)>,
    /// D in seconds, as its settings say, or its version's default.
    pub duration_s: u32,
    /// Whether it leaves its address when it loses the Lease.
    pub preserves: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// The DaemonSet that it belongs to.
    pub daemonset: Option<String>,
    /// Its service account.
    pub account: Option<String>,
}

/// The Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeaseFact {
    /// `namespace/name`.
    pub name: String,
    /// The holder; empty if there is none.
    pub holder: String,
    /// Whether an xvip holds it.
    pub ours: bool,
    /// D in seconds, as it is written there.
    pub duration_s: u32,
    /// Whether it was renewed while it was watched.
    pub fresh: bool,
}

/// What the LAN and this host say of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VipFact {
    /// The VIP.
    pub vip: IpAddr,
    /// The stations that answer for it, in words. This host counts if it carries the address and holds
    /// the Lease.
    pub stations: Vec<String>,
    /// How many owners that are.
    pub owners: usize,
    /// The interfaces of this host that carry the address, and not for xvip.
    pub carried_on: Vec<String>,
}

/// The manifest of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestFact {
    /// Its path.
    pub path: String,
    /// The name of the pod, without the node's name.
    pub name: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// Which program it runs.
    pub program: Program,
    /// What xvip refuses of its settings.
    pub refused: Vec<String>,
    /// What an operator should know of its settings.
    pub notes: Vec<String>,
    /// What will be changed in it.
    pub changes: Vec<String>,
    /// Why it cannot be changed.
    pub unfit: Option<String>,
    /// Whether kube-vip leaves its address when it loses the Lease.
    pub preserves: bool,
    /// The node name that is written in it.
    pub node: Option<String>,
    /// D in seconds.
    pub duration_s: u32,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
}

/// Everything. What could not be asked says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The node that is to be moved.
    pub node: String,
    /// The boot id of this host.
    pub boot_id: String,
    /// The folder of the manifests.
    pub folder: String,
    /// The manifests with a container of kube-vip, or of xvip in its place.
    pub manifests: Vec<ManifestFact>,
    /// Files there that cannot be read, and why.
    pub unread: Vec<(String, String)>,
    /// The nodes of the control plane.
    pub nodes: Result<Vec<NodeFact>, String>,
    /// Their pods.
    pub pods: Result<Vec<PodFact>, String>,
    /// The Lease, if there is one.
    pub lease: Result<Option<LeaseFact>, String>,
    /// The VIPs.
    pub vips: Result<Vec<VipFact>, String>,
    /// What an earlier command has begun and not ended.
    pub unfinished: Option<String>,
}

impl Facts {
    /// The nodes, if they are known.
    pub fn known_nodes(&self) -> &[NodeFact] {
        self.nodes.as_ref().map(Vec::as_slice).unwrap_or_default()
    }

    /// The pods, if they are known.
    pub fn known_pods(&self) -> &[PodFact] {
        self.pods.as_ref().map(Vec::as_slice).unwrap_or_default()
    }

    /// The pods of a node.
    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PodFact> {
        self.known_pods().iter().filter(move |pod| pod.node == node)
    }

    /// Whether a pod of a node runs this program.
    pub fn runs(&self, node: &str, program: Program) -> bool {
        self.pods_on(node).any(|pod| pod.program == program)
    }

    /// The Lease, if it is known and exists.
    pub fn known_lease(&self) -> Option<&LeaseFact> {
        self.lease.as_ref().ok().and_then(Option::as_ref)
    }

    /// Whether a node holds the Lease. Older versions of kube-vip write the name in capitals, too.
    pub fn holds(&self, node: &str) -> bool {
        self.known_lease().is_some_and(|lease| lease.holder.eq_ignore_ascii_case(node))
    }
}
