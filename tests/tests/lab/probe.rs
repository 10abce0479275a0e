//! `xvip probe`, and how xvip handles claims by others.

use serde_json::Value;
use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    frames,
    judge::Judge,
    lab::{ASKER_MAC, Lab, Options, VIP4, eventually, mac_text, node::Node},
    packet_socket::PacketSocket,
};

const LONG: Duration = Duration::from_secs(30);

fn lab(extra: &str) -> (Lab, usize) {
    let mut lab = Lab::new(&Options { nodes: 2, extra: extra.into(), ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    (lab, owner)
}

#[test]
fn a_probe_says_plainly_who_answers() {
    let (lab, owner) = lab("");
    let mac = mac_text(lab.nodes[owner].mac);
    let (text, code) = Node::probe(&lab.asker, &["192.0.2.10", "2001:db8::10"]).unwrap();
    assert_eq!((code, text.matches(&format!("one owner: {mac} on eth0")).count()), (0, 2), "{text}");
    let (text, code) = Node::probe(&lab.asker, &["192.0.2.66"]).unwrap();
    assert_eq!((code, text.contains("nobody")), (1, true), "{text}");
    // Another host answers too.
    lab.user.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    let (text, code) = Node::probe(&lab.asker, &["192.0.2.10", "--wait", "500"]).unwrap();
    assert_eq!((code, text.contains("two owners: ")), (2, true), "{text}");
    lab.user.ip("addr del 192.0.2.10/32 dev eth0").unwrap();
    // A node knows the MAC addresses of the others, and whether it answers itself.
    for node in &lab.nodes {
        let text = node.xvip("probe", &["192.0.2.10", "2001:db8::10"]).unwrap();
        let wanted = format!("one owner: {mac} (node node{}) on eth0", owner + 1);
        assert_eq!(text.matches(&wanted).count(), 2, "{text}\n{}", node.log());
        // A question on the owner itself does not cross the LAN, and the output says so.
        let own = node.name == lab.nodes[owner].name;
        assert_eq!(text.contains("which is this host"), own, "{text}");
        assert!(text.contains("asked from ") && text.contains(" on eth0"), "{text}");
    }
    for (args, code, says) in [
        (
            vec!["192.0.2.10", "--interface", "eth7"],
            3,
            "--interface: eth7 does not exist; this host has",
        ),
        (vec!["192.0.2.10", "--http", "healthz"], 3, "--http: "),
        (vec!["192.0.2.10", "--for", "3"], 3, "--watch"),
        (vec!["192.0.2.300"], 64, "192.0.2.300"),
    ] {
        let (text, got) = Node::probe(&lab.asker, &args).unwrap();
        assert!(got == code && text.contains(says), "{args:?}: {got} {text}");
    }
}

#[test]
fn a_watch_draws_what_a_user_feels() {
    let (mut lab, owner) = lab("");
    // A service on the VIP, on every node.
    for node in &lab.nodes {
        let serve = || {
            let listener = TcpListener::bind("0.0.0.0:8080")?;
            for stream in listener.incoming() {
                use std::io::{Read as _, Write as _};
                let mut stream = stream?;
                let _ = stream.read(&mut [0; 1024])?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
            Ok(())
        };
        drop(node.ns.spawn(serve));
    }
    let report = lab.dir().join("report.html");
    let mut command = Node::probe_command(&lab.asker).unwrap();
    command.args([
        "192.0.2.10",
        "--watch",
        "--interval",
        "100",
        "--for",
        "9",
        "--tcp",
        "8080",
        "--http",
        "/",
    ]);
    command.arg("--report").arg(&report);
    let watch = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let watch = watch.spawn().unwrap();
    sleep(Duration::from_secs(2));
    lab.nodes[owner].kill();
    let output = watch.wait_with_output().unwrap();
    let (text, live) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "it was dark for a while: {text}\n{live}");
    assert!(text.contains("two owners for 0 ms, served "), "{text}");
    let bar = text.lines().find(|line| line.starts_with("  |")).unwrap();
    assert!(bar.contains('A') && bar.contains('.') && bar.contains('B'), "{text}");
    assert!(live.contains("nobody") && live.matches("one owner").count() >= 2, "{live}");
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("<svg") && page.contains(&mac_text(lab.nodes[1 - owner].mac)), "{page}");
}

/// A foreign host keeps claiming the VIP from behind the bridge.
fn claim(lab: &Lab) {
    let send = || PacketSocket::open("eth0").unwrap().send(&frames::arp_request(ASKER_MAC, VIP4, VIP4));
    lab.asker.run(send).unwrap().unwrap();
}

#[test]
fn a_conflict_names_mac_interface_and_node() {
    let (lab, owner) = lab("");
    // A claim during the handover does not count; only a later one is reported.
    let told = || {
        claim(&lab);
        let problems = lab.nodes[owner].status().unwrap()["daemon"]["problems"].clone();
        problems["conflict 192.0.2.10"].as_str().unwrap_or_default().to_owned()
    };
    let wanted = "is also claimed by 02:00:00:00:00:c8 on eth0, which is not a node of xvip";
    assert!(eventually(LONG, || told().contains(wanted)), "{}", told());
}

#[test]
fn a_conflict_is_defended_at_most_once_in_ten_seconds() {
    let (lab, owner) = lab("conflict: defend\nannounce: {refresh_s: 0}\n");
    sleep(Duration::from_secs(9));
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    for _ in 0..16 {
        claim(&lab);
        sleep(Duration::from_millis(500));
    }
    let claims = judge.finish().unwrap();
    let defences = claims.iter().filter(|claim| claim.node == owner).count();
    // One round: a request and a reply.
    assert_eq!(defences, 2, "{claims:?}\n{}", lab.nodes[owner].log());
}

#[test]
fn a_vip_is_yielded_to_a_claim_that_goes_on_and_served_again_when_it_ends() {
    let (lab, owner) = lab("conflict: yield\n");
    let answers = |vip: &str| Node::probe(&lab.user, &[vip, "--wait", "200"]).unwrap().1 == 0;
    assert!(answers("192.0.2.10"));
    sleep(Duration::from_secs(7));
    let mut yielded = false;
    for _ in 0..60 {
        claim(&lab);
        sleep(Duration::from_millis(400));
        yielded = !answers("192.0.2.10");
        if yielded {
            break;
        }
    }
    assert!(yielded, "{}", lab.nodes[owner].log());
    assert!(answers("2001:db8::10"), "the other VIP is not harmed");
    let lease = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], Value::from(format!("node{}", owner + 1)));
    assert!(
        eventually(Duration::from_secs(50), || answers("192.0.2.10")),
        "{}",
        lab.nodes[owner].log()
    );
}

/// The neighbour cache of a node that uses the VIP itself keeps the owner, whatever a foreign host
/// claims. Once the node's view of the Lease is stale, claims pass again.
#[test]
fn claims_that_contradict_the_lease_do_not_reach_the_neighbour_cache() {
    let (lab, owner) = lab("guard_neighbours: true\nplacement: none\n");
    let standby = &lab.nodes[1 - owner];
    let stranger = mac_text(ASKER_MAC);
    let knows = || standby.ns.ip("neigh show 192.0.2.10 dev eth0").unwrap();
    let dropped = || {
        let status = standby.status().unwrap();
        status["counters"]["foreign_claim_dropped"].as_u64().unwrap_or(0)
    };
    standby.ns.ip("neigh replace 192.0.2.10 lladdr 02:00:00:00:00:01 dev eth0 nud stale").unwrap();
    assert!(eventually(LONG, || {
        claim(&lab);
        sleep(Duration::from_millis(100));
        dropped() > 0
    }));
    assert!(!knows().contains(&stranger), "{}", knows());
    // The candidate is cut off from the API, and its view becomes stale.
    let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
    standby.ns.ip(nowhere).unwrap();
    let reaches = || {
        claim(&lab);
        sleep(Duration::from_millis(200));
        knows().contains(&stranger)
    };
    assert!(eventually(LONG, reaches), "{}", knows());
}

#[test]
fn traffic_to_a_vip_that_is_lost_is_dropped_in_strict_mode() {
    let (mut lab, owner) = lab("on_loss: drop\n");
    // The owner's process is stopped but its address stays. The user keeps sending to it.
    let mac = mac_text(lab.nodes[owner].mac);
    lab.user.ip(&format!("neigh replace 192.0.2.10 lladdr {mac} dev eth0 nud permanent")).unwrap();
    // No program listens on this port, so a refusal shows that a host accepted the packet.
    let connect = || {
        TcpStream::connect_timeout(&([192, 0, 2, 10], 9).into(), Duration::from_secs(1))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let reached = || lab.user.run(connect).unwrap();
    assert!(eventually(LONG, reached), "the owner serves");
    lab.nodes[owner].signal(libc::SIGSTOP);
    sleep(Duration::from_secs(4));
    assert!(!reached(), "a node that does not hold the VIP takes nothing in");
    let carried = lab.nodes[owner].ns.ip("addr show dev lo").unwrap();
    assert!(carried.contains("192.0.2.10/32"), "its address is still there: {carried}");
    let status = lab.nodes[owner].status().unwrap();
    assert!(status["counters"]["traffic_dropped"].as_u64().unwrap_or(0) > 0, "{status}");
    lab.nodes[owner].signal(libc::SIGCONT);
    lab.nodes[owner].kill();
}
