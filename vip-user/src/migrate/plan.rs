//! Whether a node may be moved, and in which order the nodes are.

use super::{
    additions::HOST,
    facts::{Facts, ManifestFact, PodFact, Problem},
    pod::Program,
};
use crate::adapter::rights::{MOUNT, PIN_ROOT};
use serde::Serialize;
use serde_json::json;

/// Up to this version kube-vip waits for its own D, and not for that of the Lease.
const WAITS_ITS_OWN: (u32, u32, u32) = (0, 6, 0);
/// From this version on kube-vip may release a tenure of another node after it was paused.
const MAY_RELEASE: (u32, u32, u32) = (1, 0, 1);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub node: String,
    /// The name of its pod.
    pub pod: String,
    /// The name of the pod's container.
    pub container: String,
    /// When it is its turn.
    pub turn: Turn,
    /// Which program runs there.
    pub program: Option<Program>,
    /// Its image.
    pub image: String,
    /// D in seconds.
    pub duration_s: Option<u32>,
    /// Whether node and pod are ready.
    pub ready: bool,
}

/// When it is the turn of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// It runs xvip.
    Done,
    /// It runs kube-vip and does not hold the Lease.
    Now,
    /// It holds the Lease.
    Last,
    /// Nothing is to be moved there.
    Nothing,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The nodes in their order.
    pub rows: Vec<Row>,
    /// What stands against it.
    pub problems: Vec<Problem>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// The DaemonSet of kube-vip (`namespace/name`), if it runs as one.
    pub daemonset: Option<String>,
}

/// Makes the plan.
pub fn plan(facts: &Facts) -> Plan {
    let daemonset = daemonset(facts);
    let mut problems = Vec::new();
    match &facts.template {
        Some(template) if daemonset.is_some() => of_settings(facts, template, &mut problems),
        _ if daemonset.is_some() => {}
        _ => manifests(facts, &mut problems),
    }
    cluster(facts, &mut problems);
    lease(facts, &mut problems);
    addresses(facts, &mut problems);
    pods(facts, &mut problems);
    if let ([manifest], None) = (facts.manifests.as_slice(), &daemonset)
        && manifest.program == Program::KubeVip
    {
        of_kubelet(facts, manifest, &mut problems);
    }
    if let Some(what) = &facts.unfinished {
        let remedy = "run that command again; xvip migrate rollback ends either";
        problems.push(Problem::new(what.clone(), &facts.node, remedy));
    }
    Plan { rows: rows(facts, daemonset.as_deref()), notes: notes(facts), problems, daemonset }
}

/// A static pod on this node, or its manifest, counts first: a DaemonSet may be for Services alone.
fn daemonset(facts: &Facts) -> Option<String> {
    if !facts.manifests.is_empty() || facts.pods_on(&facts.node).any(|pod| pod.mirror) {
        return None;
    }
    let template = facts.template.as_ref();
    let is_it = |pod: &&PodFact| {
        template.is_some_and(|it| (&it.namespace, &it.name) == (&pod.namespace, &pod.name))
    };
    let here = || facts.pods_on(&facts.node);
    // A node that runs none, such as a new one, is shown the DaemonSet of the others.
    here().filter(is_it).chain(here()).chain(facts.pods_of_plane()).find_map(full_name)
}

/// The DaemonSet of a pod as `namespace/name`.
fn full_name(pod: &PodFact) -> Option<String> {
    pod.daemonset.as_ref().map(|name| format!("{}/{name}", pod.namespace))
}

/// `daemonset`: the one that is moved, if it is no static pods.
fn rows(facts: &Facts, daemonset: Option<&str>) -> Vec<Row> {
    let is_meant = |pod: &&PodFact| daemonset.is_none() || full_name(pod).as_deref() == daemonset;
    let row = |node: &super::facts::NodeFact| {
        let pods = facts.pods_on(&node.name).filter(is_meant);
        let pod = pods.min_by_key(|pod| pod.program == Program::Xvip);
        let turn = match pod.map(|pod| pod.program) {
            None => Turn::Nothing,
            Some(Program::Xvip) => Turn::Done,
            Some(Program::KubeVip) if facts.holds(&node.name) => Turn::Last,
            Some(Program::KubeVip) => Turn::Now,
        };
        Row {
            node: node.name.clone(),
            pod: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
            container: pod.map(|pod| pod.container.clone()).unwrap_or_default(),
            turn,
            program: pod.map(|pod| pod.program),
            image: pod.map(|pod| pod.image.clone()).unwrap_or_default(),
            duration_s: pod.map(|pod| pod.duration_s),
            ready: node.ready && pod.is_none_or(|pod| pod.ready),
        }
    };
    let mut rows: Vec<Row> = facts.known_nodes().iter().map(row).collect();
    rows.sort_by(|a, b| (a.turn, &a.node).cmp(&(b.turn, &b.node)));
    rows
}

fn manifests(facts: &Facts, problems: &mut Vec<Problem>) {
    for (path, why) in &facts.unread {
        let remedy = "make the file readable, or move it out of the folder";
        problems.push(Problem::new(format!("the file cannot be read: {why}"), path, remedy));
    }
    match facts.manifests.as_slice() {
        [] => problems.push(Problem::new(
            "no manifest of kube-vip was found",
            &facts.folder,
            "name the folder of the static pods with --manifests",
        )),
        [manifest] => of_settings(facts, manifest, problems),
        all => {
            let paths: Vec<&str> = all.iter().map(|manifest| manifest.path.as_str()).collect();
            problems.push(Problem::new(
                format!("more than one manifest of kube-vip was found: {}", paths.join(", ")),
                &facts.folder,
                "move all but one out of the folder: the kubelet runs every file there",
            ));
        }
    }
}

/// The kubelet of this node must be the one that reads the file, and must have read it.
fn of_kubelet(facts: &Facts, manifest: &ManifestFact, problems: &mut Vec<Problem>) {
    if let Err(why) = &facts.kubelet {
        let what = format!("the kubelet is not well: {why}");
        let remedy = "it must answer at 127.0.0.1:10248/healthz";
        problems.push(Problem::new(what, &facts.node, remedy));
    }
    if facts.pods.is_err() {
        return;
    }
    let name = format!("{}-{}", manifest.name, facts.node);
    let at = format!("pod {}/{name}", manifest.namespace);
    let mut add = |what: &str, remedy: &str| problems.push(Problem::new(what, &at, remedy));
    let is_it = |pod: &&PodFact| pod.name == name && pod.namespace == manifest.namespace;
    let Some(pod) = facts.pods_on(&facts.node).find(is_it) else {
        return add(
            "the API does not show the pod of the manifest",
            "look whether the kubelet reads this folder (--manifests)",
        );
    };
    if !pod.mirror {
        add("the pod is not from a file", "name the folder of the static pods with --manifests");
    }
    if pod.image != manifest.image {
        let remedy = "wait until the kubelet has read the file";
        add("the pod has another image than the manifest", remedy);
    }
    if !pod.ready {
        add("the pod of kube-vip is not ready", "look at its log");
    }
}

fn of_settings(facts: &Facts, manifest: &ManifestFact, problems: &mut Vec<Problem>) {
    let mut add = |what: String, remedy: &str| {
        problems.push(Problem::new(what, &manifest.path, remedy));
    };
    for refused in &manifest.refused {
        add(format!("xvip would not run with it: {refused}"), "change the setting");
    }
    if let Some(why) = &manifest.unfit {
        add(format!("the file cannot be edited: {why}"), "edit it by hand: docs/kubeadm.md");
    }
    if manifest.preserves {
        let what = "vip_preserve_on_leadership_loss is on: kube-vip leaves its address, and answers";
        add(what.into(), "set it to false on every node first");
    }
    if let Some(node) = manifest.node.as_ref().filter(|node| !node.eq_ignore_ascii_case(&facts.node)) {
        let what = format!("vip_nodename is {node}, and the node is {}", facts.node);
        add(what, "name the node that the kubelet runs as");
    }
}

fn cluster(facts: &Facts, problems: &mut Vec<Problem>) {
    let unread = [facts.nodes.as_ref().err(), facts.pods.as_ref().err(), facts.vips.as_ref().err()];
    for why in unread.into_iter().flatten() {
        let remedy = "use a kubeconfig with these rights (--kubeconfig), as root of this host";
        problems.push(Problem::new(why.clone(), "this host", remedy));
    }
    let Ok(nodes) = &facts.nodes else { return };
    problems.extend(facts.stranger());
    for node in nodes.iter().filter(|node| !node.ready) {
        let is_concerned = node.name == facts.node || facts.runs(&node.name, Program::Xvip);
        if is_concerned {
            let remedy = "wait until it is, or repair it first";
            problems.push(Problem::new("the node is not Ready", &node.name, remedy));
        }
    }
}

fn lease(facts: &Facts, problems: &mut Vec<Problem>) {
    let at = |lease: &super::facts::LeaseFact| format!("Lease {}", lease.name);
    match &facts.lease {
        Err(why) => {
            let remedy = "the Lease must be readable: look at the API server and the rights";
            problems.push(Problem::new(why.clone(), "the Lease", remedy));
        }
        Ok(None) => problems.push(Problem::new(
            "the Lease does not exist",
            "the API",
            "look for kube-vip's Lease: kubectl get lease -A",
        )),
        Ok(Some(lease)) if lease.holder.is_empty() => {
            let remedy = "wait until a node holds it";
            problems.push(Problem::new("nobody holds the Lease", at(lease), remedy));
        }
        Ok(Some(lease)) if !lease.fresh => {
            let what = format!("{} does not renew the Lease", lease.holder);
            problems.push(Problem::new(what, at(lease), "repair that node first"));
        }
        Ok(Some(lease)) => {
            let is_known = |node: &super::facts::NodeFact| facts.holds(&node.name);
            if facts.nodes.is_ok() && !facts.known_nodes().iter().any(is_known) {
                let what = format!("the holder {} is no node of the control plane", lease.holder);
                let remedy = "give vip_nodename the names of the Nodes";
                problems.push(Problem::new(what, at(lease), remedy));
            }
        }
    }
}

fn addresses(facts: &Facts, problems: &mut Vec<Problem>) {
    for vip in facts.vips.as_ref().map(Vec::as_slice).unwrap_or_default() {
        let at = format!("VIP {}", vip.vip);
        match vip.owners {
            0 => {
                let remedy = "ask from another host: xvip probe, or arping";
                problems.push(Problem::new("no station answers for it", &at, remedy));
            }
            1 => {}
            _ => {
                let what = format!("more than one station answers for it: {}", vip.stations.join(", "));
                let remedy = "find the second one, and remove the address there";
                problems.push(Problem::new(what, &at, remedy));
            }
        }
        if facts.holds(&facts.node) {
            continue;
        }
        for (length, interface) in &vip.carried_on {
            let what = format!("this host carries it on {interface}, and does not hold the Lease");
            let remedy = format!("ip addr del {}/{length} dev {interface}", vip.vip);
            problems.push(Problem::new(what, &at, remedy));
        }
    }
}

fn pods(facts: &Facts, problems: &mut Vec<Problem>) {
    let own = facts.manifests.first().or(facts.template.as_ref());
    let ours = own.map_or(0, |manifest| manifest.duration_s);
    let is_rival = |pod: &&PodFact| pod.program == Program::KubeVip && pod.holds_plane;
    for pod in facts.known_pods().iter().filter(|pod| facts.is_beside(pod)).filter(is_rival) {
        let what = "a DaemonSet of kube-vip serves the control plane beside a static pod";
        let at = format!("pod {}/{} on {}", pod.namespace, pod.name, pod.node);
        problems.push(Problem::new(what, at, "take it from this node first, or set cp_enable=false"));
    }
    for pod in facts.pods_of_plane() {
        let at = format!("pod {}/{} on {}", pod.namespace, pod.name, pod.node);
        if pod.program == Program::Xvip {
            if !pod.ready {
                let remedy = "look at its log, or put kube-vip back there: xvip migrate rollback";
                problems.push(Problem::new("xvip is not ready there", at, remedy));
            }
            continue;
        }
        if pod.preserves && pod.node != facts.node {
            let what =
                "vip_preserve_on_leadership_loss is on: kube-vip leaves its address, and answers";
            problems.push(Problem::new(what, &at, "set it to false on every node first"));
        }
        if waits_less(pod, ours) {
            let what =
                format!("this version waits for its own D ({} s), xvip has {ours} s", pod.duration_s);
            let remedy = format!("set vip_leaseduration={} on every node", pod.duration_s);
            problems.push(Problem::new(what, &at, remedy));
        }
    }
}

/// An old kube-vip would take the Lease before xvip's fence has run out.
fn waits_less(pod: &PodFact, ours: u32) -> bool {
    pod.duration_s < ours && pod.version.is_some_and(|version| version <= WAITS_ITS_OWN)
}

fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    let kube_vip = || facts.pods_of_plane().filter(|pod| pod.program == Program::KubeVip);
    let mut durations: Vec<u32> = kube_vip().map(|pod| pod.duration_s).collect();
    let own = || facts.manifests.iter().chain(&facts.template);
    durations.extend(own().map(|manifest| manifest.duration_s));
    durations.sort_unstable();
    durations.dedup();
    if durations.len() > 1 {
        let all: Vec<String> = durations.iter().map(u32::to_string).collect();
        notes.push(format!("the nodes have different D: {} s", all.join(", ")));
    }
    if kube_vip().any(|pod| pod.version.is_none_or(|version| version >= MAY_RELEASE)) {
        notes.push(
            "a kube-vip that was paused may release the Lease of another node: finish within hours"
                .into(),
        );
    }
    let others = kube_vip().any(|pod| pod.node != facts.node);
    if others && facts.holds(&facts.node) && facts.runs(&facts.node, Program::KubeVip) {
        notes.push(format!("{} holds the Lease, so it comes last", facts.node));
    }
    notes.extend(shared(facts));
    for manifest in own() {
        notes.extend(manifest.notes.iter().cloned());
    }
    notes
}

/// Nodes with a pod of a DaemonSet beside a static pod.
fn shared(facts: &Facts) -> impl Iterator<Item = String> {
    facts.known_pods().iter().filter(move |pod| facts.is_beside(pod)).map(|pod| {
        format!(
            "two programs share {}: pod {}/{} of a DaemonSet stays as it is",
            pod.node, pod.namespace, pod.name
        )
    })
}

/// The commands that move a DaemonSet (`namespace/name`) to `image`, each with what it does.
pub fn of_daemonset(name: &str, rows: &[Row], (image, perfmon): (&str, bool)) -> Vec<(String, String)> {
    let (namespace, name) = name.split_once('/').unwrap_or(("kube-system", name));
    let kubectl = format!("kubectl -n {}", word(namespace));
    let patch = |what: &serde_json::Value| {
        format!("{kubectl} patch daemonset {} -p {}", word(name), word(&what.to_string()))
    };
    let moves = |row: &&Row| matches!(row.turn, Turn::Now | Turn::Last);
    let named = rows.iter().filter(moves).map(|row| row.container.as_str()).next();
    let container = named.filter(|name| !name.is_empty()).unwrap_or("kube-vip");
    let on_delete = json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
    let mut steps = vec![
        ("the DaemonSet replaces no pod until you delete it".into(), patch(&on_delete)),
        ("the rights".into(), patch(&rights(container, perfmon))),
        (
            "the image".into(),
            format!(
                "{kubectl} set image daemonset/{} {}",
                word(name),
                word(&format!("{container}={image}"))
            ),
        ),
    ];
    for row in rows.iter().filter(moves) {
        let last = if row.turn == Turn::Last { ", which holds the Lease" } else { "" };
        steps.push((
            format!("{}{last}; wait until its pod is ready, and probe", row.node),
            format!("{kubectl} delete pod {}", word(&row.pod)),
        ));
    }
    steps.push(("leftovers of kube-vip".into(), "xvip migrate finish".into()));
    steps
}

/// A strategic merge patch with the rights: it replaces both lists of capabilities, and adds the rest.
fn rights(container: &str, perfmon: bool) -> serde_json::Value {
    let mut add = vec!["BPF", "NET_ADMIN", "NET_RAW"];
    if perfmon {
        add.insert(1, "PERFMON");
    }
    json!({"spec": {"template": {"spec": {
        "containers": [{
            "name": container,
            "securityContext": {"capabilities": {"add": add, "drop": ["ALL"]}},
            "env": [{"name": "XVIP_PIN_ROOT", "value": PIN_ROOT}],
            "volumeMounts": [{"name": "bpf", "mountPath": MOUNT}],
        }],
        "volumes": [{"name": "bpf", "hostPath": {"path": HOST, "type": "Directory"}}],
    }}}})
}

/// A word for a shell.
fn word(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._/:@=".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
