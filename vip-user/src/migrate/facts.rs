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
}

/// A pod of kube-vip, or of xvip in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct PodFact {
    /// The node.
    pub node: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of its container.
    pub container: String,
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
    /// Whether it serves the VIP of the control plane (`cp_enable`).
    pub holds_plane: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// The DaemonSet that it belongs to.
    pub daemonset: Option<String>,
    /// Whether a kubelet has read it from a file.
    pub mirror: bool,
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
    /// Where this host carries the address, and not for xvip: length of the prefix, and interface.
    pub carried_on: Vec<(u8, String)>,
}

/// The manifest of this node, or what the pod of a DaemonSet says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestFact {
    /// Its path.
    pub path: String,
    /// The name of the pod, without the node's name.
    pub name: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// Its image.
    pub image: String,
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
    /// The same of the DaemonSet's pod on this node, if there is no manifest.
    pub template: Option<ManifestFact>,
    /// Files there that cannot be read, and why.
    pub unread: Vec<(String, String)>,
    /// Whether the kubelet of this host is well; `Err`: what it answers.
    pub kubelet: Result<(), String>,
    /// The nodes of the control plane.
    pub nodes: Result<Vec<NodeFact>, String>,
    /// The pods of kube-vip and xvip, on all nodes.
    pub pods: Result<Vec<PodFact>, String>,
    /// The pods that use the service account of kube-vip's guides, `namespace/name`.
    pub users: Vec<String>,
    /// The labels of kube-vip, on all nodes: node and label.
    pub labels: Vec<(String, String)>,
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

    /// The pods on nodes of the control plane, without those of a DaemonSet beside a static pod.
    pub fn pods_of_plane(&self) -> impl Iterator<Item = &PodFact> {
        self.known_nodes().iter().flat_map(move |node| self.pods_on(&node.name))
    }

    /// The pods of a node. Beside a static pod those of a DaemonSet do not count: it is for Services.
    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PodFact> {
        let on = move |pod: &&PodFact| pod.node == node;
        let has_static = self.known_pods().iter().filter(on).any(|pod| pod.mirror);
        self.known_pods().iter().filter(on).filter(move |pod| pod.mirror || !has_static)
    }

    /// Whether this pod of a DaemonSet has a static pod beside it on its node.
    pub fn is_beside(&self, pod: &PodFact) -> bool {
        !pod.mirror && self.pods_on(&pod.node).any(|other| other.mirror)
    }

    /// Why this host is not the node that is meant.
    pub fn stranger(&self) -> Option<Problem> {
        let nodes = self.nodes.as_ref().ok()?;
        if nodes.is_empty() {
            let remedy =
                "look at --kubeconfig: the label node-role.kubernetes.io/control-plane is needed";
            return Some(Problem::new("no node of the control plane was found", "the API", remedy));
        }
        let Some(node) = nodes.iter().find(|node| node.name == self.node) else {
            let what = format!("{} is no node of the control plane", self.node);
            let remedy = "name the node: its label node-role.kubernetes.io/control-plane is needed";
            return Some(Problem::new(what, "the API", remedy));
        };
        if node.boot_id.is_empty() {
            let what = "the Node has no boot id, so it may be another host";
            return Some(Problem::new(what, &self.node, "wait until its kubelet has reported it"));
        }
        (node.boot_id != self.boot_id).then(|| {
            let what = format!("this host is not {}: its boot id differs", self.node);
            Problem::new(what, "this host", format!("run this command on {}", self.node))
        })
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
