//! The static pod of `deploy/`, which starts before the API is reachable.

use crate::daemonset::{Test, judged};
use std::{fs, thread::sleep, time::Duration};
use vip_tests::{
    cluster::{Cluster, manifests},
    kube::objects,
    lab::{API, eventually},
    netns::sh,
};
use vip_user::clock;

pub const TESTS: [Test; 4] = [
    ("static_pod::it_gets_ready_and_one_node_answers", gets_ready),
    ("static_pod::a_kubeconfig_that_is_replaced_is_read", kubeconfig_replaced),
    ("static_pod::a_container_starts_again_while_the_api_hangs", while_the_api_hangs),
    ("static_pod::a_node_is_powered_on_while_the_api_hangs", powered_on_while_the_api_hangs),
];

fn deploy(cluster: &Cluster) {
    if cluster.pods("xvip-static").unwrap().len() == 3 {
        return;
    }
    cluster.apply(manifests::daemonset().first().unwrap()).unwrap();
    exchange_kubeconfigs(cluster, FIRST);
    for node in &cluster.nodes {
        fs::write(node.etc().join("xvip/xvip.yaml"), manifests::static_config(&node.name)).unwrap();
        fs::write(node.manifests().join("xvip.yaml"), manifests::STATIC_POD).unwrap();
    }
    cluster.wait_for_pods("xvip-static", 3).unwrap();
}

/// A token is bound to each of these Secrets, and valid while the Secret exists.
const FIRST: &str = "static-token-1";
const SECOND: &str = "static-token-2";
/// The API server's cache accepts a revoked token for up to ten more seconds.
const TOKEN_CACHE: Duration = Duration::from_secs(11);

/// Renames a kubeconfig with a new token into its place on every node, as tools that rotate tokens do.
fn exchange_kubeconfigs(cluster: &Cluster, secret: &str) {
    let metadata = format!("metadata: {{name: {secret}, namespace: kube-system}}");
    cluster.apply(&format!("apiVersion: v1\nkind: Secret\n{metadata}\n")).unwrap();
    let plane = &cluster.lab.api.real().unwrap().plane;
    let token = cluster.lab.dir().join(secret);
    objects::write_bound_token(plane, "xvip", secret, &token).unwrap();
    let ca = sh(&format!("base64 -w0 {}", plane.pki.ca().display())).unwrap();
    let token = fs::read_to_string(token).unwrap();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: lab, cluster: {{server: 'https://{API}', certificate-authority-data: {ca}}}}}]\n\
         users: [{{name: lab, user: {{token: {token}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n"
    );
    for node in &cluster.nodes {
        let path = node.etc().join("xvip/kubeconfig");
        fs::write(path.with_extension("new"), &kubeconfig).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }
}

/// A container with a single mounted file would keep the old file, and its token.
fn kubeconfig_replaced(cluster: &mut Cluster) {
    deploy(cluster);
    let owner = cluster.wait_for_owner().unwrap();
    exchange_kubeconfigs(cluster, SECOND);
    objects::delete_secret(&cluster.lab.api.real().unwrap().plane, FIRST).unwrap();
    sleep(TOKEN_CACHE);
    // Several Lease lengths, in which only a valid token can renew.
    let (recording, from, to) = judged(cluster, |_, _| sleep(Duration::from_secs(10)));
    let logs = || cluster.nodes[owner].pod_logs();
    assert_eq!(cluster.owners(), [owner], "it renews with the new token: {}", logs());
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "it has not moved");
    let (lost, sent) = recording.echoes.unanswered(from, to);
    assert!(lost == 0 && sent > 0, "{lost} of {sent} echoes lost: {}", logs());
}

fn gets_ready(cluster: &mut Cluster) {
    deploy(cluster);
    cluster.wait_for_owner().unwrap();
    let (recording, ..) = judged(cluster, |_, _| sleep(Duration::from_secs(2)));
    let first = recording.claims[0].node;
    assert!(recording.claims.iter().all(|claim| claim.node == first), "one node answers");
}

/// The API hangs and the owner's process dies: its kernel goes silent at the fence. When the API is
/// back, the VIP is served again.
fn while_the_api_hangs(cluster: &mut Cluster) {
    deploy(cluster);
    let owner = cluster.wait_for_owner().unwrap();
    let (recording, from, to) = judged(cluster, |cluster, moves| {
        let plane = &cluster.lab.api.real().unwrap().plane;
        plane.members[0].signal_api(libc::SIGSTOP);
        cluster.nodes[owner].kill_xvip().unwrap();
        sleep(Duration::from_secs(6));
        assert_eq!(cluster.owners(), Vec::<usize>::new(), "nobody may answer");
        let runs = || cluster.nodes[owner].run("pgrep -x xvip").is_ok();
        assert!(eventually(Duration::from_secs(30), runs), "the kubelet needs no API for that");
        moves.push(clock::boot().0);
        plane.members[0].signal_api(libc::SIGCONT);
        cluster.wait_for_owner().unwrap();
        sleep(Duration::from_secs(1));
    });
    println!("dark for {:.0} ms", recording.asked.dark_ms(from, to));
}

/// The owner has a power cut and starts again while the API hangs. Its pod starts, and claims
/// nothing.
fn powered_on_while_the_api_hangs(cluster: &mut Cluster) {
    deploy(cluster);
    let owner = cluster.wait_for_owner().unwrap();
    let port = |cluster: &Cluster, state: &str| {
        cluster.lab.bridge.ip(&format!("link set n{} {state}", owner + 1)).unwrap();
    };
    let (recording, ..) = judged(cluster, |cluster, moves| {
        port(cluster, "down");
        cluster.nodes[owner].power_off();
        let moved = || cluster.owners().iter().any(|other| *other != owner);
        assert!(eventually(Duration::from_secs(30), moved), "another node takes over");
        cluster.lab.api.real().unwrap().plane.members[0].signal_api(libc::SIGSTOP);
        port(cluster, "up");
        moves.push(clock::boot().0);
        cluster.nodes[owner].power_on().unwrap();
        let runs = || cluster.nodes[owner].run("pgrep -x xvip").is_ok();
        assert!(eventually(Duration::from_mins(1), runs), "{}", cluster.nodes[owner].log());
        sleep(Duration::from_secs(4));
        assert_eq!(cluster.owners(), Vec::<usize>::new(), "nobody may answer");
        moves.push(clock::boot().0);
        cluster.lab.api.real().unwrap().plane.members[0].signal_api(libc::SIGCONT);
        cluster.wait_for_owner().unwrap();
        sleep(Duration::from_secs(1));
    });
    println!("node {} serves again", recording.claims.last().unwrap().node + 1);
    cluster.wait_for_pods("xvip-static", 3).unwrap();
}
