//! Whether a node may be moved, and in which order the nodes are.

use super::{
    facts::{Facts, ManifestFact, PodFact, Problem},
    pod::Program,
};
use serde::Serialize;

/// Up to this version kube-vip waits for its own D, and not for that of the Lease.
const WAITS_ITS_OWN: (u32, u32, u32) = (0, 6, 0);
/// From this version on kube-vip may release a tenure of another node after it was paused.
const MAY_RELEASE: (u32, u32, u32) = (1, 0, 1);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub node: String,
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
    let daemonset = facts
        .known_pods()
        .iter()
        .find_map(|pod| pod.daemonset.as_ref().map(|name| format!("{}/{name}", pod.namespace)));
    let mut problems = Vec::new();
    if daemonset.is_none() {
        manifests(facts, &mut problems);
    }
    cluster(facts, &mut problems);
    lease(facts, &mut problems);
    addresses(facts, &mut problems);
    pods(facts, &mut problems);
    if let Some(what) = &facts.unfinished {
        let remedy = "run the same command again, or xvip migrate rollback";
        problems.push(Problem::new(what.clone(), &facts.node, remedy));
    }
    Plan { rows: rows(facts), notes: notes(facts), problems, daemonset }
}

fn rows(facts: &Facts) -> Vec<Row> {
    let row = |node: &super::facts::NodeFact| {
        let pod = facts.pods_on(&node.name).min_by_key(|pod| pod.program == Program::Xvip);
        let turn = match pod.map(|pod| pod.program) {
            None => Turn::Nothing,
            Some(Program::Xvip) => Turn::Done,
            Some(Program::KubeVip) if facts.holds(&node.name) => Turn::Last,
            Some(Program::KubeVip) => Turn::Now,
        };
        Row {
            node: node.name.clone(),
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
        [manifest] => of_manifest(facts, manifest, problems),
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

fn of_manifest(facts: &Facts, manifest: &ManifestFact, problems: &mut Vec<Problem>) {
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
    let Some(node) = nodes.iter().find(|node| node.name == facts.node) else {
        let what = format!("{} is no node of the control plane", facts.node);
        let remedy = "name the node: its label node-role.kubernetes.io/control-plane is needed";
        return problems.push(Problem::new(what, "the API", remedy));
    };
    if !node.boot_id.is_empty() && node.boot_id != facts.boot_id {
        let remedy = format!("run this command on {}", facts.node);
        let what = format!("this host is not {}: its boot id differs", facts.node);
        problems.push(Problem::new(what, "this host", remedy));
    }
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
        for interface in &vip.carried_on {
            let length = if vip.vip.is_ipv4() { 32 } else { 128 };
            let what = format!("this host carries it on {interface}, and does not hold the Lease");
            let remedy = format!("ip addr del {}/{length} dev {interface}", vip.vip);
            problems.push(Problem::new(what, &at, remedy));
        }
    }
}

fn pods(facts: &Facts, problems: &mut Vec<Problem>) {
    let ours = facts.manifests.first().map_or(0, |manifest| manifest.duration_s);
    for pod in facts.known_pods() {
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
    let kube_vip = || facts.known_pods().iter().filter(|pod| pod.program == Program::KubeVip);
    let mut durations: Vec<u32> = kube_vip().map(|pod| pod.duration_s).collect();
    durations.extend(facts.manifests.iter().map(|manifest| manifest.duration_s));
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
    for manifest in &facts.manifests {
        notes.extend(manifest.notes.iter().cloned());
    }
    notes
}

/// The commands that move a DaemonSet (`namespace/name`), each with what it does.
pub fn of_daemonset(name: &str, rows: &[Row], image: &str) -> Vec<(String, String)> {
    let (namespace, name) = name.split_once('/').unwrap_or(("kube-system", name));
    let kubectl = format!("kubectl -n {namespace}");
    let mut steps = vec![
        (
            "no pod is replaced by itself".into(),
            format!(
                "{kubectl} patch daemonset {name} -p \
                 '{{\"spec\":{{\"updateStrategy\":{{\"type\":\"OnDelete\",\"rollingUpdate\":null}}}}}}'"
            ),
        ),
        (
            "the rights".into(),
            format!(
                "{kubectl} patch daemonset {name} --patch-file \
                 deploy/components/kube-vip-rights/daemonset.yaml"
            ),
        ),
        ("the image".into(), format!("{kubectl} set image daemonset/{name} kube-vip={image}")),
    ];
    for row in rows.iter().filter(|row| matches!(row.turn, Turn::Now | Turn::Last)) {
        let last = if row.turn == Turn::Last { ", which holds the Lease" } else { "" };
        steps.push((
            format!("{}{last}; wait until its pod is ready, and probe", row.node),
            format!(
                "{kubectl} delete pod --field-selector spec.nodeName={} -l \
                 app.kubernetes.io/name={name}",
                row.node
            ),
        ));
    }
    steps.push(("leftovers of kube-vip".into(), "xvip migrate finish".into()));
    steps
}
