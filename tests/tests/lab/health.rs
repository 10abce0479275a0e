//! What ails a node moves its VIPs; weights and wishes move them too.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    process::Command,
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    faults::watched,
    judge::two_owner_ms,
    lab::{
        Lab, Options, eventually,
        node::{Node, xvip},
        service::{Health, Service},
    },
};

const LONG: Duration = Duration::from_secs(30);
/// More than a holder waits before it mentions a doubt, and a candidate before it offers.
const SETTLED: Duration = Duration::from_secs(50);
const API: u16 = 6444;
const KUBELET: u16 = 10248;

fn nodes(count: usize, extra: &str) -> Lab {
    Lab::new(&Options { nodes: count, extra: extra.into(), ..Options::default() }).unwrap()
}

fn fitness(node: &Node) -> String {
    let status = node.status().unwrap_or_default();
    status["daemon"]["leases"][0]["fitness"].as_str().unwrap_or_default().into()
}

fn services(lab: &Lab, port: u16, health: Health) -> Vec<Service> {
    lab.nodes.iter().map(|node| Service::start(&node.ns, port, health)).collect()
}

/// The API server of the owner's node is dead, and its xvip lives and reaches another API server.
#[test]
fn a_dead_api_server_beside_a_living_xvip_moves_the_vip() {
    let url = format!("health: {{api_server: 'http://127.0.0.1:{API}'}}\n");
    let mut lab = nodes(2, &url);
    let api = services(&lab, API, Health::Good);
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let other = 1 - owner;
    // A server that does not know xvip works.
    api[owner].be(Health::Unauthorized);
    sleep(Duration::from_secs(4));
    assert_eq!(fitness(&lab.nodes[owner]), "able", "{}", lab.nodes[owner].log());
    assert!(eventually(LONG, || fitness(&lab.nodes[other]) == "able"), "{}", lab.nodes[other].log());
    let recording = watched(&mut lab, |lab| {
        api[owner].be(Health::Refuses);
        anyhow::ensure!(eventually(LONG, || lab.nodes[other].owns()), "{}", lab.nodes[owner].log());
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    let log = lab.nodes[owner].log();
    assert!(log.contains("unable: API server: connection refused"), "{log}");
    // With nobody better the owner stays.
    api[other].be(Health::Refuses);
    assert!(eventually(LONG, || fitness(&lab.nodes[other]) == "unable"), "{}", lab.nodes[other].log());
    sleep(Duration::from_secs(4));
    assert!(lab.nodes[other].owns(), "{}", lab.nodes[other].log());
    // A server that is not ready is a doubt, which goes when it has been well for ten seconds.
    api[owner].be(Health::Good);
    assert!(eventually(LONG, || lab.nodes[owner].owns()), "{}", lab.nodes[owner].log());
    api[owner].be(Health::Hangs);
    assert!(
        eventually(LONG, || fitness(&lab.nodes[owner]) == "doubtful"),
        "{}",
        lab.nodes[owner].log()
    );
    assert!(lab.nodes[owner].owns(), "a young tenure is not given up for a doubt");
}

#[test]
fn a_dead_kubelet_moves_the_vip() {
    let mut lab = nodes(2, "");
    // Nothing listens there on one of the nodes: that says nothing.
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let kubelet = Service::start(&lab.nodes[owner].ns, KUBELET, Health::Good);
    sleep(Duration::from_secs(35));
    assert_eq!(fitness(&lab.nodes[owner]), "able", "{}", lab.nodes[owner].log());
    let recording = watched(&mut lab, |lab| {
        kubelet.be(Health::Refuses);
        anyhow::ensure!(eventually(LONG, || lab.nodes[1 - owner].owns()), "{}", lab.nodes[owner].log());
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(lab.nodes[owner].log().contains("doubtful: kubelet: connection refused"));
}

/// `xvip handover` with these words: its output and exit code.
fn handover(node: &Node, words: &[&str]) -> (String, i32) {
    let mut command = node.command().unwrap();
    command.args(["handover", "--instance", &node.instance, "--pin-root"]).arg(node.pin_root());
    let output = command.args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.code().unwrap_or(-1))
}

#[test]
fn root_hands_the_vip_over_to_the_node_that_it_names() {
    let mut lab = nodes(3, "");
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let (heir, third) = ((owner + 1) % 3, (owner + 2) % 3);
    let waits = |node: &Node| {
        node.status().is_ok_and(|status| status["daemon"]["leases"][0]["state"] == "waiting")
    };
    for node in [heir, third] {
        assert!(eventually(LONG, || waits(&lab.nodes[node])), "{}", lab.nodes[node].log());
    }
    let name = lab.nodes[heir].name.clone();
    let (said, code) = handover(&lab.nodes[heir], &[]);
    assert!(code == 1 && said.contains("this node holds no Lease"), "{code}: {said}");
    let (said, code) = handover(&lab.nodes[owner], &["--to", &lab.nodes[owner].name]);
    assert!(code == 1 && said.contains("is this node"), "{code}: {said}");
    let mut outcome = (String::new(), 0);
    let recording = watched(&mut lab, |lab| {
        outcome = handover(&lab.nodes[owner], &["--to", &name, "-o", "json"]);
        Ok(())
    })
    .unwrap();
    let (said, code) = outcome;
    assert_eq!((two_owner_ms(&recording.claims), code), (0.0, 0), "{said}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told[0]["holder"], name, "{said}");
    assert!(eventually(LONG, || lab.nodes[heir].owns()), "{}", lab.nodes[heir].log());
    // Nobody of this name takes it.
    let (said, code) = handover(&lab.nodes[heir], &["--to", "nobody-of-this-name"]);
    assert!(code == 1 && said.contains("this node keeps it"), "{code}: {said}");
    assert!(lab.nodes[heir].owns(), "{}", lab.nodes[heir].log());
}

/// A pod on the host's network that runs as root reaches the socket, but not the pins.
#[test]
fn who_cannot_write_beside_the_pins_hands_nothing_over() {
    let mut lab = nodes(1, "");
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let node = &lab.nodes[owner];
    for user in ["65534", "0"] {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", node.ns.name())).args(["unshare", "--mount"]);
        command.args(["setpriv", "--reuid", user, "--clear-groups"]).arg(xvip().unwrap());
        command.args(["handover", "--instance", &node.instance, "--pin-root", "/sys/fs/bpf/elsewhere"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains("cannot write beside the pins"),
            "{said}"
        );
    }
    // The same without the program: root writes to the socket itself.
    let said = node.ns.run(|| forged(&format!("xvip/{}", node.instance))).unwrap().unwrap();
    assert!(said.contains("only root of this host"), "{said}");
    assert!(node.owns());
}

/// Sends a request with a proof that nobody has made, and returns the answer.
fn forged(name: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.write_all(br#"{"proof":"ask-0123456789abcdef","lease":null,"to":null}"#)?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The VIP belongs to the second node, which comes late.
#[test]
fn a_vip_comes_back_to_the_node_to_which_it_belongs() {
    let mut lab = nodes(2, "weights: {node2: 10}\n");
    lab.nodes[0].start().unwrap();
    assert_eq!(lab.wait_for_owner(LONG).unwrap(), 0);
    let recording = watched(&mut lab, |lab| {
        lab.nodes[1].start()?;
        sleep(SETTLED);
        anyhow::ensure!(lab.nodes[0].owns(), "it was in a hurry: {}", lab.nodes[1].log());
        anyhow::ensure!(eventually(LONG, || lab.nodes[1].owns()), "{}", lab.nodes[1].log());
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}
