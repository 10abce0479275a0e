//! The DaemonSet of `deploy/`: roll-outs, upgrades, drains, kills and power cuts.

use serde_json::{Value, json};
use std::{collections::BTreeSet, thread::sleep, time::Duration};
use vip_tests::{
    cluster::{Cluster, manifests},
    faults::{Recording, Watch, loses_no_echo},
    judge::{spans, two_owner_ms_between},
    lab::eventually,
};
use vip_user::clock;

pub type Test = (&'static str, fn(&mut Cluster));

pub const TESTS: [Test; 9] = [
    ("daemonset::it_gets_ready_and_one_node_answers", gets_ready),
    ("daemonset::a_rollout_loses_no_echo", rollout),
    ("daemonset::an_upgrade_to_another_image_and_back_loses_no_echo", upgrade),
    ("daemonset::a_drained_node_gives_the_vip_away", drained),
    ("daemonset::a_killed_process_is_back_and_the_vip_is_owned_once", killed),
    ("daemonset::a_killed_kubelet_moves_nothing", killed_kubelet),
    ("daemonset::a_stopped_kubelet_moves_the_vip", stopped_kubelet),
    ("daemonset::a_node_that_loses_its_power_loses_the_vip", power_cut),
    ("daemonset::deleting_it_leaves_silence", deleted),
];

/// How long pods may take to settle.
const SETTLE: Duration = Duration::from_mins(1);
/// How long all pods may take to be replaced, one after the other.
const ROLLED: Duration = Duration::from_mins(4);
const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/xvip";

pub fn deploy(cluster: &Cluster) {
    for manifest in manifests::daemonset() {
        cluster.apply(&manifest).unwrap();
    }
    cluster.wait_for_pods("xvip", 3).unwrap();
    cluster.wait_for_owner().unwrap();
}

/// Deploys the DaemonSet, if an earlier test has changed it.
fn deployed(cluster: &Cluster) -> usize {
    if cluster.pods("xvip").unwrap().len() != 3 {
        deploy(cluster);
    }
    cluster.wait_for_pods("xvip", 3).unwrap();
    cluster.wait_for_owner().unwrap()
}

/// Listens and probes while `work` runs, then judges. `work` records when the VIP may move.
pub fn judged(
    cluster: &mut Cluster,
    work: impl FnOnce(&mut Cluster, &mut Vec<u64>),
) -> (Recording, u64, u64) {
    let watch = Watch::begin(&cluster.lab);
    sleep(Duration::from_millis(700));
    let (from, mut moves) = (clock::boot().0, Vec::new());
    work(cluster, &mut moves);
    let to = clock::boot().0;
    sleep(Duration::from_millis(300));
    let recording = watch.finish().unwrap();
    assert!(!recording.claims.is_empty());
    let double = two_owner_ms_between(&recording.claims, &moves);
    assert_eq!(double, 0.0, "two owners, moves at {moves:?}:\n{}", spans(&recording.claims));
    (recording, from, to)
}

fn gets_ready(cluster: &mut Cluster) {
    deploy(cluster);
    assert_eq!(cluster.owners().len(), 1);
    let (recording, ..) = judged(cluster, |_, _| sleep(Duration::from_secs(2)));
    let owners: BTreeSet<usize> = recording.claims.iter().map(|claim| claim.node).collect();
    assert_eq!(owners.len(), 1, "one node answers");
}

fn rollout(cluster: &mut Cluster) {
    deployed(cluster);
    roll(cluster, restart);
}

/// As `kubectl rollout restart` does.
fn restart(cluster: &Cluster) {
    let mark = json!({"metadata": {"annotations": {"restarted": clock::boot().0.to_string()}}});
    cluster.patch(DAEMONSET, &json!({"spec": {"template": mark}})).unwrap();
}

/// The next version has other map layouts. Then the old version is rolled out again.
fn upgrade(cluster: &mut Cluster) {
    deployed(cluster);
    for image in ["xvip:next", "xvip:0.1.0"] {
        roll(cluster, |cluster| cluster.apply(&manifests::daemonset_of(image)).unwrap());
        let pods = cluster.pods("xvip").unwrap();
        assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image), "{image}");
    }
}

/// `kubectl drain --ignore-daemonsets` cordons the node, then evicts all pods but those of
/// DaemonSets. If the pod of xvip is evicted too, the DaemonSet creates another on the node.
fn drained(cluster: &mut Cluster) {
    loses_no_echo(|| drain(cluster));
}

fn drain(cluster: &mut Cluster) -> (Recording, u64, u64) {
    let owner = deployed(cluster);
    let node = format!("/api/v1/nodes/{}", cluster.nodes[owner].name);
    let cordon = |cluster: &Cluster, yes: bool| {
        cluster.patch(&node, &json!({"spec": {"unschedulable": yes}})).unwrap();
    };
    judged(cluster, |cluster, _| {
        cordon(cluster, true);
        let moved = || cluster.owners().iter().any(|other| *other != owner);
        assert!(eventually(SETTLE, moved), "another node takes over");
        let pods = cluster.pods("xvip").unwrap();
        let here = |pod: &&Value| pod["spec"]["nodeName"] == cluster.nodes[owner].name;
        let name = pods.iter().find(here).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
        cluster.evict("kube-system", &name).unwrap();
        assert!(eventually(SETTLE, || !names(cluster).contains(&name)));
        cluster.wait_for_pods("xvip", 3).unwrap();
        assert!(!cluster.owners().contains(&owner), "it stays away");
        cordon(cluster, false);
        sleep(Duration::from_secs(2));
    })
}

/// Replaces all pods by `change`, without losing a ping.
fn roll(cluster: &mut Cluster, change: impl FnOnce(&Cluster)) {
    let mut change = Some(change);
    loses_no_echo(|| match change.take() {
        Some(change) => replace_all(cluster, change),
        None => replace_all(cluster, restart),
    });
}

fn replace_all(cluster: &mut Cluster, change: impl FnOnce(&Cluster)) -> (Recording, u64, u64) {
    let before: BTreeSet<String> = names(cluster);
    judged(cluster, |cluster, moves| {
        // Read before the change, because the first pod may already be replaced when it returns.
        let mut owner = cluster.owners();
        change(cluster);
        let renewed = eventually(ROLLED, || {
            let now = cluster.owners();
            if now != owner {
                // A VIP that returns to a node is not a second owner.
                moves.push(clock::boot().0);
                owner = now;
            }
            let names = names(cluster);
            names.len() == 3 && names.is_disjoint(&before)
        });
        assert!(renewed, "every pod is another one");
        cluster.wait_for_pods("xvip", 3).unwrap();
    })
}

fn names(cluster: &Cluster) -> BTreeSet<String> {
    let pods = cluster.pods("xvip").unwrap();
    pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn killed(cluster: &mut Cluster) {
    let owner = deployed(cluster);
    let (recording, from, to) = judged(cluster, |cluster, moves| {
        cluster.nodes[owner].kill_xvip().unwrap();
        sleep(Duration::from_secs(6));
        moves.push(clock::boot().0);
        cluster.wait_for_pods("xvip", 3).unwrap();
    });
    println!("dark for {:.0} ms", recording.asked.dark_ms(from, to));
    cluster.wait_for_owner().unwrap();
}

fn killed_kubelet(cluster: &mut Cluster) {
    let owner = deployed(cluster);
    let (recording, from, to) = judged(cluster, |cluster, _| {
        cluster.nodes[owner].kill_kubelet().unwrap();
        sleep(Duration::from_secs(5));
    });
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "it stays where it is");
    assert_eq!(recording.echoes.unanswered(from, to).0, 0, "and nobody notices");
}

/// The fail-over test of kube-vip's guide for high availability.
fn stopped_kubelet(cluster: &mut Cluster) {
    let owner = deployed(cluster);
    // A tenure of less than 30 seconds is not given up for a doubt.
    sleep(Duration::from_secs(30));
    let (recording, from, to) = judged(cluster, |cluster, _| {
        cluster.nodes[owner].stop_kubelet().unwrap();
        let stopped = clock::boot();
        let moved = || cluster.owners().iter().any(|other| *other != owner);
        let has_moved = eventually(SETTLE, moved);
        let after_s = stopped.until(clock::boot()).as_secs_f64();
        println!("another node owns the VIP {after_s:.1} s after the stop");
        assert!(has_moved, "another node takes over:\n{}", cluster.nodes[owner].pod_logs());
        sleep(Duration::from_secs(2));
    });
    let (lost, sent) = recording.echoes.unanswered(from, to);
    println!("{lost} of {sent} echoes lost");
    assert!(lost * 100 < sent, "{lost} of {sent} echoes lost");
    cluster.nodes[owner].start_kubelet().unwrap();
    cluster.wait_for_pods("xvip", 3).unwrap();
}

fn power_cut(cluster: &mut Cluster) {
    let owner = deployed(cluster);
    let (recording, from, to) = judged(cluster, |cluster, _| {
        cluster.lab.bridge.ip(&format!("link set n{} down", owner + 1)).unwrap();
        cluster.nodes[owner].power_off();
        let moved = || cluster.owners().iter().any(|other| *other != owner);
        assert!(eventually(SETTLE, moved), "another node takes over");
        sleep(Duration::from_secs(1));
    });
    println!("dark for {:.0} ms", recording.asked.dark_ms(from, to));
    cluster.lab.bridge.ip(&format!("link set n{} up", owner + 1)).unwrap();
    cluster.nodes[owner].power_on().unwrap();
    // The API server reports the old pod as ready all the time, so ask the node.
    assert!(eventually(SETTLE, || cluster.nodes[owner]
        .status()
        .is_ok_and(|status| status["daemon"].is_object())));
    cluster.wait_for_pods("xvip", 3).unwrap();
}

fn deleted(cluster: &mut Cluster) {
    deployed(cluster);
    cluster.delete(DAEMONSET).unwrap();
    assert!(eventually(SETTLE, || cluster.pods("xvip").is_ok_and(|pods| pods.is_empty())));
    let watch = Watch::begin(&cluster.lab);
    sleep(Duration::from_secs(2));
    let claims = watch.finish().unwrap().claims;
    let logs = || cluster.nodes[claims[0].node].pod_logs();
    assert!(claims.is_empty(), "node {} answers:\n{}", claims[0].node, logs());
    for node in &cluster.nodes {
        assert!(node.cleanup().is_ok(), "what is left can be removed");
        let left = node.run("ls -A /sys/fs/bpf; ip -o addr show dev lo").unwrap();
        assert!(!left.contains("xvip") && !left.contains("192.0.2.10"), "{left}");
    }
}
