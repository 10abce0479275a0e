//! Which interface answers, when a dead link moves VIPs, and changes of interfaces in use.

use std::{thread::sleep, time::Duration};
use vip_tests::{
    faults::watched,
    frames,
    judge::{Claim, two_owner_ms},
    kernel_run,
    lab::{Lab, Options, VIP4, eventually, lan_mac, mac_text, node::Node},
    netns::sh,
    packet_socket::PacketSocket,
};

const LONG: Duration = Duration::from_secs(20);

/// Two nodes that reach the API over `eth0` and serve on `lan0`, with a lease long enough to tell a
/// release from an expiry.
fn two_links(extra: &str, lease: &str) -> (Lab, usize) {
    let mut lab = Lab::new(&Options {
        nodes: 2,
        duration_s: 10,
        interfaces: Some("[lan0]".into()),
        lan: Some("lan0".into()),
        extra: extra.into(),
        lease: lease.into(),
        ..Options::default()
    })
    .unwrap();
    lab.nodes[0].start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    assert_eq!(owner, 0);
    lab.nodes[1].start().unwrap();
    let waits = |node: &Node| {
        node.status().is_ok_and(|status| status["daemon"]["leases"][0]["state"] == "waiting")
    };
    assert!(eventually(LONG, || waits(&lab.nodes[1])), "{}", lab.nodes[1].log());
    (lab, owner)
}

fn holder(lab: &Lab) -> String {
    let lease = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

fn fitness(lab: &Lab) -> String {
    let lease = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    lease["metadata"]["annotations"]["xvip.io/fitness"].as_str().unwrap_or_default().to_owned()
}

fn set_link(lab: &Lab, node: usize, up: bool) {
    let state = if up { "up" } else { "down" };
    lab.bridge.ip(&format!("link set n{}lan0 {state}", node + 1)).unwrap();
}

fn by(claims: &[Claim], node: usize) -> usize {
    claims.iter().filter(|claim| claim.node == node).count()
}

/// Answers at TC go through a queue, here one with a delay of a second. The API is reached over
/// another interface, so the release could overtake them.
/// More than a holder waits before it says that it is in doubt, and a candidate before it offers.
const SETTLED: Duration = Duration::from_secs(45);

#[test]
fn the_lease_is_released_when_the_answers_before_have_left() {
    let (mut lab, owner) = two_links("attach: tc\n", ", margin_ms: 2000");
    let node = lab.nodes[owner].ns.name().to_owned();
    sh(&format!("tc -n {node} qdisc replace dev lan0 root tbf rate 64kbit burst 1600 limit 6000"))
        .unwrap();
    let mut stopped_at = 0;
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_secs(2));
        stopped_at = vip_user::clock::boot().0;
        lab.nodes[owner].signal(libc::SIGTERM);
        sleep(Duration::from_secs(4));
        Ok(())
    })
    .unwrap();
    let last =
        recording.claims.iter().filter(|claim| claim.node == owner).map(|claim| claim.at_ns).max();
    assert!(last > Some(stopped_at + 300_000_000), "nothing was queued");
    assert!(by(&recording.claims, 1 - owner) > 0, "{}", lab.nodes[1 - owner].log());
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}

#[test]
fn a_dead_link_moves_the_vip_while_the_api_is_reached_over_another() {
    let (mut lab, owner) = two_links("", "");
    let recording = watched(&mut lab, |lab| {
        set_link(lab, owner, false);
        anyhow::ensure!(eventually(LONG, || lab.nodes[1].owns()), "{}", lab.nodes[0].log());
        sleep(Duration::from_secs(1));
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(by(&recording.claims, 1) > 0);
    let log = lab.nodes[owner].log();
    assert!(log.contains("giving way") && log.contains("leadership released"), "{log}");
    // The link comes back: nothing moves.
    set_link(&lab, owner, true);
    sleep(Duration::from_secs(5));
    assert!(lab.nodes[1].owns() && !lab.nodes[0].owns());
    assert_eq!(fitness(&lab), "able");
}

#[test]
fn with_no_other_link_up_the_owner_stays_and_serves_when_it_is_back() {
    let (lab, owner) = two_links("", "");
    set_link(&lab, 1, false);
    sleep(Duration::from_millis(300));
    set_link(&lab, owner, false);
    assert!(eventually(LONG, || fitness(&lab) == "unable"), "{}", lab.nodes[0].log());
    sleep(Duration::from_secs(2));
    assert_eq!(holder(&lab), "node1", "{}", lab.nodes[0].log());
    set_link(&lab, owner, true);
    let answers = || Node::probe(&lab.asker, &["192.0.2.10"]).unwrap().1 == 0;
    assert!(eventually(LONG, answers), "{}", lab.nodes[0].log());
    assert_eq!(holder(&lab), "node1");
}

#[test]
fn a_flapping_link_moves_the_vip_once() {
    let (mut lab, owner) = two_links("", "");
    let before = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    let recording = watched(&mut lab, |lab| {
        for _ in 0..20 {
            for up in [false, true] {
                set_link(lab, owner, up);
                sleep(Duration::from_millis(100));
            }
        }
        sleep(Duration::from_secs(2));
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    let after = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    let moves = after["spec"]["leaseTransitions"].as_i64().unwrap()
        - before["spec"]["leaseTransitions"].as_i64().unwrap();
    assert_eq!(moves, 1, "{}\n{}", lab.nodes[0].log(), lab.nodes[1].log());
    assert!(lab.nodes[1].owns());
}

#[test]
fn a_node_without_the_interface_is_no_candidate_while_another_is() {
    let mut lab = Lab::new(&Options {
        nodes: 2,
        interfaces: Some("[lan0]".into()),
        lan: Some("lan0".into()),
        ..Options::default()
    })
    .unwrap();
    lab.nodes[0].ns.ip("link del lan0").unwrap();
    lab.nodes[0].start().unwrap();
    let told = || {
        let status = lab.nodes[0].status().unwrap_or_default();
        let problem = &status["daemon"]["problems"]["selection lan0"];
        problem.as_str().is_some_and(|why| why.contains("does not exist; this host has"))
    };
    assert!(eventually(LONG, told), "{}", lab.nodes[0].log());
    lab.nodes[1].start().unwrap();
    assert_eq!(lab.wait_for_owner(LONG).unwrap(), 1);
    // The interface appears: it is guarded, and the node is a candidate.
    let (node, bridge) = (&lab.nodes[0].ns, &lab.bridge);
    let mac = mac_text(lan_mac(0, 7));
    bridge
        .ip(&format!("link add again type veth peer name lan0 address {mac} netns {}", node.name()))
        .unwrap();
    bridge.ip("link set again master br0 up").unwrap();
    node.ip("link set lan0 up").unwrap();
    let ready = || {
        let status = lab.nodes[0].status().unwrap_or_default();
        status["daemon"]["not_ready"].as_array().is_some_and(Vec::is_empty)
    };
    assert!(eventually(LONG, ready), "{}", lab.nodes[0].log());
}

/// The rules, end to end: `auto` chooses the interface whose subnet contains the VIP, the other one
/// is guarded, a container's veth is left alone.
#[test]
fn auto_chooses_by_subnet_and_guards_the_rest() {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        interfaces: None,
        lan: Some("lan0".into()),
        ..Options::default()
    })
    .unwrap();
    lab.nodes[0].ns.ip("link add veth0 type veth peer name veth1").unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let status = lab.nodes[0].status().unwrap();
    let interfaces = status["interfaces"].as_array().unwrap();
    let of = |name: &str| interfaces.iter().find(|interface| interface["name"] == name);
    assert_eq!(of("eth0").unwrap()["answers_by"], "native");
    assert!(of("lan0").unwrap()["answers_by"].is_null() && of("lan0").unwrap()["guarded"] == true);
    assert!(of("veth0").is_none() && of("veth1").is_none(), "{status}");
}

#[test]
fn a_new_interface_is_guarded_as_soon_as_it_appears() {
    let mut lab = Lab::new(&Options { nodes: 2, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let standby = 1 - owner;
    lab.add_interface(standby, "eth9", 9).unwrap();
    let guarded = || {
        let status = lab.nodes[standby].status().unwrap_or_default();
        let found = status["interfaces"].as_array().cloned().unwrap_or_default();
        found.iter().any(|interface| interface["name"] == "eth9" && interface["guarded"] == true)
    };
    assert!(eventually(LONG, guarded), "{}", lab.nodes[standby].log());
    let recording = watched(&mut lab, |lab| {
        let node = &lab.nodes[standby];
        node.ns.ip("addr add 192.0.2.10/32 dev eth9")?;
        node.ns.ip("addr add 2001:db8::10/128 dev eth9")?;
        let mut arping = node.ns.command("arping");
        let _ = arping.args("-U -c 3 -w 2 -I eth9 192.0.2.10".split(' ')).output()?;
        Ok(())
    })
    .unwrap();
    assert_eq!(by(&recording.claims, standby), 0, "claims left over the new interface");
    assert!(by(&recording.claims, owner) > 0);
}

/// After any change of an owner's interface, the guard is attached, and answers carry the MAC
/// address of the interface.
#[test]
fn an_interface_that_changes_in_use_is_followed() {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        interfaces: Some("['eth0', 'wan*']".into()),
        ..Options::default()
    })
    .unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let answered_with = |mac: &str| {
        let (text, code) =
            Node::probe(&lab.asker, &["192.0.2.10", "2001:db8::10", "--wait", "300"]).unwrap();
        code == 0 && text.matches(mac).count() == 2
    };
    let node = &lab.nodes[0];
    let guarded = |name: &str| {
        let status = node.status().unwrap_or_default();
        let found = status["interfaces"].as_array().cloned().unwrap_or_default();
        found.len() == 1 && found[0]["name"] == name && found[0]["guarded"] == true
    };
    let first = mac_text(node.mac);
    assert!(eventually(LONG, || answered_with(&first)));
    node.ns.ip("link set eth0 mtu 1400").unwrap();
    node.ns.ip("link set eth0 address 02:00:00:00:09:09").unwrap();
    assert!(eventually(LONG, || answered_with("02:00:00:00:09:09")), "{}", node.log());
    // Renamed: the programs stay, the pins follow.
    for command in [
        "link set eth0 down",
        "link set eth0 name wan0",
        "link set wan0 up",
        "addr add 2001:db8::11/64 dev wan0 nodad",
    ] {
        // IPv6 addresses disappear with the link; the API is reached by IPv4.
        let _ = node.ns.ip(command);
    }
    assert!(
        eventually(LONG, || guarded("wan0") && answered_with("02:00:00:00:09:09")),
        "{}",
        node.log()
    );
    assert!(node.log().contains("renamed"), "{}", node.log());
    // Moved to another namespace: nothing of xvip stays on it, and it does not answer there.
    let elsewhere = vip_tests::netns::NetNs::new(&format!("{}-x", node.ns.name())).unwrap();
    node.ns.ip(&format!("link set wan0 netns {}", elsewhere.name())).unwrap();
    let links = || sh(&format!("find {} -name 'link:*'", lab.dir().join("bpf").display())).unwrap();
    assert!(eventually(LONG, || links().trim().is_empty()), "{}", links());
    elsewhere.ip("link set wan0 up").unwrap();
    let shown = elsewhere.ip("-d link show wan0").unwrap();
    assert!(!shown.contains("xdp"), "{shown}");
    assert_eq!(Node::probe(&lab.asker, &["192.0.2.10"]).unwrap().1, 1);
}

/// xvip does not touch a port of a bridge; the bridge answers.
#[test]
fn an_interface_that_becomes_a_port_is_left_and_the_bridge_answers() {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        interfaces: Some("['eth*', 'bri*']".into()),
        ..Options::default()
    })
    .unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let node = &lab.nodes[0];
    for command in [
        "link add bri0 type bridge forward_delay 0",
        "link set eth0 master bri0",
        "link set bri0 up",
        "addr flush dev eth0",
        "addr add 192.0.2.11/24 dev bri0",
        "addr add 2001:db8::11/64 dev bri0 nodad",
    ] {
        node.ns.ip(command).unwrap();
    }
    // A guest behind the bridge, with its own address.
    let guest = vip_tests::netns::NetNs::new(&format!("{}-g", node.ns.name())).unwrap();
    node.ns.ip(&format!("link add tap0 type veth peer name eth0 netns {}", guest.name())).unwrap();
    node.ns.ip("link set tap0 master bri0 up").unwrap();
    guest.ip("link set eth0 up").unwrap();
    guest.ip("addr add 192.0.2.77/24 dev eth0").unwrap();
    let alone = || {
        let status = node.status().unwrap_or_default();
        let found = status["interfaces"].as_array().cloned().unwrap_or_default();
        found.len() == 1 && found[0]["name"] == "bri0" && !found[0]["answers_by"].is_null()
    };
    assert!(eventually(LONG, alone), "{}\n{}", node.status().unwrap(), node.log());
    let one = || {
        let asked = ["192.0.2.10", "2001:db8::10", "192.0.2.77"];
        Node::probe(&lab.asker, &asked).unwrap().1 == 0
    };
    assert!(eventually(LONG, one), "{}", node.log());
    let (text, _) = Node::probe(&guest, &["192.0.2.10"]).unwrap();
    assert!(text.contains("one owner"), "the guest asks too: {text}");
}

/// A chain as with Cilium: a frame that one program passes reaches the next program.
#[test]
fn programs_before_and_after_the_guard_still_see_the_traffic() {
    let (lab, owner) = {
        let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
        lab.start().unwrap();
        let owner = lab.wait_for_owner(LONG).unwrap();
        (lab, owner)
    };
    let node = &lab.nodes[owner];
    let after = kernel_run::Chained::behind(&node.ns, "eth0", [192, 0, 2, 55]).unwrap();
    sleep(Duration::from_secs(1));
    let status = node.status().unwrap();
    assert_eq!(status["interfaces"][0]["guarded"], true, "{status}");
    assert!(node.has_no_problem().unwrap(), "{status}");
    // Only the later program knows this address. Its counter is raised, so the frame reached it.
    let mac = node.mac;
    let claim = move || {
        PacketSocket::open("eth0").unwrap().send(&frames::arp_request(mac, [192, 0, 2, 55], VIP4))
    };
    let _ = node.ns.run(claim).unwrap();
    assert!(eventually(LONG, || after.claims_seen().unwrap() > 0));
    assert!(node.owns());
}

#[test]
fn labels_decide_which_nodes_may_hold() {
    let mut lab =
        Lab::new(&Options { extra: "nodes: {role: edge}\n".into(), ..Options::default() }).unwrap();
    lab.api.set_labels("node2", &[("role", "edge")]);
    lab.start().unwrap();
    assert_eq!(lab.wait_for_owner(LONG).unwrap(), 1);
    // The label moves, and the VIP after it.
    lab.api.set_labels("node3", &[("role", "edge")]);
    lab.api.set_labels("node2", &[]);
    assert!(eventually(LONG, || lab.nodes[2].owns()), "{}\n{}", lab.nodes[1].log(), lab.nodes[2].log());
    // If no node has the label, the owner stays.
    lab.api.set_labels("node3", &[]);
    sleep(Duration::from_secs(4));
    assert!(eventually(LONG, || lab.nodes[2].owns()), "{}", lab.nodes[2].log());
}

#[test]
fn a_cordoned_node_gives_way_and_stays_where_there_is_none_better() {
    let mut lab = Lab::new(&Options::default()).unwrap();
    lab.start().unwrap();
    let first = lab.wait_for_owner(LONG).unwrap();
    let name = |node: usize| format!("node{}", node + 1);
    lab.api.cordon(&name(first), true);
    let moved = || lab.nodes.iter().enumerate().any(|(index, node)| index != first && node.owns());
    // A tenure of less than 30 seconds is not given up for a doubt.
    assert!(eventually(SETTLED, moved), "{}", lab.nodes[first].log());
    let second = lab.wait_for_owner(LONG).unwrap();
    // The owner is the last to be cordoned: it would give way to a node that does not know yet.
    let third = 3 - first - second;
    lab.api.cordon(&name(third), true);
    let knows = || lab.nodes[third].log().contains("doubtful: this node is cordoned");
    assert!(eventually(LONG, knows), "{}", lab.nodes[third].log());
    lab.api.cordon(&name(second), true);
    assert!(eventually(SETTLED, || fitness(&lab) == "doubtful"), "{}", lab.nodes[second].log());
    sleep(Duration::from_secs(4));
    assert!(lab.nodes[second].owns(), "{}", lab.nodes[second].log());
    // An uncordoned one is better again.
    lab.api.cordon(&name(first), false);
    assert!(eventually(LONG, || lab.nodes[first].owns()), "{}", lab.nodes[first].log());
}

#[test]
fn a_lan_that_is_away_moves_the_vip_only_to_a_node_that_sees_it() {
    let (mut lab, owner) = two_links("lan_check: {peers: [192.0.2.200], every_ms: 300}\n", "");
    // The link has no address, so the probe uses none.
    sleep(Duration::from_secs(2));
    assert_eq!(fitness(&lab), "able", "{}", lab.nodes[0].log());
    // Both nodes are in a wrong VLAN: the carrier stays, but frames are lost. No node is better.
    let detach = |lab: &Lab, node: usize| {
        lab.bridge.ip(&format!("link set n{}lan0 nomaster", node + 1)).unwrap();
    };
    detach(&lab, 1);
    sleep(Duration::from_secs(3));
    detach(&lab, owner);
    assert!(eventually(SETTLED, || fitness(&lab) == "doubtful"), "{}", lab.nodes[0].log());
    sleep(Duration::from_secs(2));
    assert_eq!(holder(&lab), "node1");
    // The other node reaches the LAN again.
    let recording = watched(&mut lab, |lab| {
        lab.bridge.ip("link set n2lan0 master br0")?;
        anyhow::ensure!(eventually(LONG, || lab.nodes[1].owns()), "{}", lab.nodes[1].log());
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}

/// The number of VIPs without an interface.
fn unserved(node: &Node) -> usize {
    let status = node.status().unwrap_or_default();
    let problems = status["daemon"]["problems"].as_object().cloned().unwrap_or_default();
    problems.keys().filter(|subject| subject.starts_with("selection ")).count()
}

/// Several next hops, next-hop objects, an IPv6 gateway of IPv4, another table: each is a default
/// route.
#[test]
fn a_default_route_is_known_in_every_form() {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        interfaces: Some("[default-route]".into()),
        ..Options::default()
    })
    .unwrap();
    for id in ["1 via 192.0.2.200", "2 via 192.0.2.201", "4 via 2001:db8::200", "5 via 2001:db8::201"] {
        lab.nodes[0].ns.ip(&format!("nexthop add id {id} dev eth0")).unwrap();
    }
    lab.nodes[0].ns.ip("nexthop add id 3 group 1/2").unwrap();
    lab.nodes[0].ns.ip("nexthop add id 6 group 4/5").unwrap();
    lab.nodes[0].ns.ip("rule add pref 1000 lookup 1000").unwrap();
    lab.nodes[0].ns.ip("-6 rule add pref 1000 lookup 1000").unwrap();
    lab.start().unwrap();
    let v6 = "via 2001:db8::200 dev eth0";
    for (v4, v6, compatible) in [
        (
            "nexthop via 192.0.2.200 dev eth0 nexthop via 192.0.2.201 dev eth0",
            "nexthop via 2001:db8::200 dev eth0 nexthop via 2001:db8::201 dev eth0",
            "1",
        ),
        ("nhid 1", "nhid 4", "1"),
        ("nhid 1", "nhid 4", "0"),
        ("nhid 3", "nhid 6", "1"),
        ("nhid 3", "nhid 6", "0"),
        ("via inet6 2001:db8::200 dev eth0", v6, "1"),
        ("via 192.0.2.200 dev eth0 table 1000", "via 2001:db8::200 dev eth0 table 1000", "1"),
    ] {
        let node = &lab.nodes[0];
        let mut sysctl = node.ns.command("sysctl");
        let form = format!("net.ipv4.nexthop_compat_mode={compatible}");
        assert!(sysctl.args(["-qw", &form]).status().unwrap().success());
        node.ns.ip(&format!("-4 route add default {v4}")).unwrap();
        node.ns.ip(&format!("-6 route add default {v6}")).unwrap();
        let served = || lab.nodes[0].owns() && unserved(&lab.nodes[0]) == 0;
        assert!(eventually(LONG, served), "{v4}, {v6}: {}", lab.nodes[0].log());
        let table = if v4.contains("table") { "table 1000" } else { "" };
        node.ns.ip(&format!("route del default {table}")).unwrap();
        // One command removes one of several next hops of IPv6.
        while node.ns.ip(&format!("-6 route del default {table}")).is_ok() {}
        let lost = || unserved(&lab.nodes[0]) == 2;
        assert!(eventually(LONG, lost), "{v4}: {}", lab.nodes[0].log());
    }
}

/// With two gateways the LAN counts as working while one of them answers.
#[test]
fn the_lan_check_asks_every_gateway() {
    let extra = "lan_check: {gateway: true, every_ms: 300}\n";
    let mut lab = Lab::new(&Options { nodes: 1, extra: extra.into(), ..Options::default() }).unwrap();
    let two = "route add default nexthop via 192.0.2.200 dev eth0 nexthop via 192.0.2.201 dev eth0";
    lab.nodes[0].ns.ip(two).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let told = || {
        let status = lab.nodes[0].status().unwrap();
        status["daemon"]["problems"]["LAN"].is_string()
    };
    lab.asker.ip("link set eth0 down").unwrap();
    assert!(!eventually(Duration::from_secs(4), told), "{}", lab.nodes[0].log());
    lab.user.ip("link set eth0 down").unwrap();
    assert!(eventually(LONG, told), "{}", lab.nodes[0].log());
    lab.asker.ip("link set eth0 up").unwrap();
    assert!(eventually(LONG, || !told()), "{}", lab.nodes[0].log());
}

/// A CNI puts the uplink under its own bridge, whose name `exclude` matches by default.
#[test]
fn an_uplink_that_moves_under_a_bridge_is_followed() {
    for (exclude, served) in [("", true), ("exclude: ['br-*']\n", false)] {
        let mut lab = Lab::new(&Options {
            nodes: 1,
            interfaces: None,
            extra: exclude.into(),
            ..Options::default()
        })
        .unwrap();
        lab.start().unwrap();
        lab.wait_for_owner(LONG).unwrap();
        let node = &lab.nodes[0];
        for command in [
            "link add br-ex type bridge forward_delay 0",
            "link set eth0 master br-ex",
            "link set br-ex up",
            "addr flush dev eth0",
            "addr add 192.0.2.11/24 dev br-ex",
            "addr add 2001:db8::11/64 dev br-ex nodad",
        ] {
            node.ns.ip(command).unwrap();
        }
        let problem = |subject: &str| {
            let status = node.status().unwrap();
            status["daemon"]["problems"][subject].as_str().unwrap_or_default().to_owned()
        };
        if served {
            let followed = || {
                let status = node.status().unwrap();
                let shown = status["interfaces"].as_array().cloned().unwrap_or_default();
                let bridge = shown.iter().any(|one| one["name"] == "br-ex" && one["guarded"] == true);
                bridge && node.owns()
            };
            assert!(eventually(LONG, followed), "{}", node.log());
            let mut arping = lab.asker.command("arping");
            let arping = arping.args(["-c", "3", "-w", "3", "-I", "eth0", "192.0.2.10"]);
            assert!(arping.output().unwrap().status.success(), "{}", node.log());
        } else {
            let told = || problem("selection br-ex").contains("`exclude` (br-*) leaves it alone");
            assert!(eventually(LONG, told), "{}", node.log());
            assert!(problem("selection 192.0.2.10").contains("no interface"), "{}", node.log());
        }
    }
}
