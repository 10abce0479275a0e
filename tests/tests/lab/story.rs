//! An address that moves between interfaces. On a host with many interfaces on one segment, each
//! answers for every address of the host. With xvip one interface of one node answers; without it
//! the same probe sees them all.

use serde_json::Value;
use std::{net::IpAddr, process::Stdio, thread::sleep, time::Duration};
use vip_tests::{
    lab::{Lab, Options, mac_text, node::Node},
    netns::NetNs,
};

/// A pool of ten addresses, half of them IPv6.
fn pool() -> Vec<IpAddr> {
    let v4 = (40..45).map(|host| IpAddr::from([192, 0, 2, host]));
    let v6 = (0x40..0x45).map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]));
    v4.chain(v6).collect()
}

/// Nodes with twelve interfaces each: five up on the segment (`eth0` is chosen), five down, a bridge
/// with a guest, and the veth of a container.
fn many_interfaces() -> (Lab, Vec<NetNs>) {
    let mut lab = Lab::new(&Options { nodes: 2, vips: Some(pool()), ..Options::default() }).unwrap();
    let mut guests = Vec::new();
    for node in 0..lab.nodes.len() {
        for number in 1..10 {
            lab.add_interface(node, &format!("eth{number}"), number).unwrap();
            if number >= 5 {
                lab.nodes[node].ns.ip(&format!("link set eth{number} down")).unwrap();
            }
        }
        let ns = &lab.nodes[node].ns;
        let guest = NetNs::new(&format!("{}-g", ns.name())).unwrap();
        ns.ip("link add bri0 type bridge").unwrap();
        ns.ip("link set bri0 up").unwrap();
        ns.ip(&format!("link add tap0 type veth peer name eth0 netns {}", guest.name())).unwrap();
        ns.ip("link set tap0 master bri0 up").unwrap();
        guest.ip("link set eth0 up").unwrap();
        ns.ip("link add cali123 type veth peer name pod0").unwrap();
        guests.push(guest);
    }
    (lab, guests)
}

fn args<'a>(vips: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    vips.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn stations(text: &str) -> Vec<usize> {
    let value: Value = serde_json::from_str(text).unwrap();
    let vips = value["vips"].as_array().unwrap().clone();
    vips.iter().map(|vip| vip["stations"].as_array().unwrap().len()).collect()
}

#[test]
fn one_interface_of_one_node_answers_before_during_and_after_faults() {
    let (mut lab, _guests) = many_interfaces();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let vips: Vec<String> = pool().iter().map(IpAddr::to_string).collect();
    let (text, code) = Node::probe(&lab.asker, &args(&vips, &["-o", "json"])).unwrap();
    assert_eq!((code, stations(&text)), (0, vec![1; 10]), "{text}");
    assert_eq!(text.matches(&mac_text(lab.nodes[owner].mac)).count(), 10, "{text}");

    let mut watch = Node::probe_command(&lab.asker).unwrap();
    watch.args(args(&vips, &["--watch", "--interval", "50", "-o", "json"]));
    let watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(1));
    // The owner is frozen for longer than its lease, then resumed after another node took over.
    lab.nodes[owner].signal(libc::SIGSTOP);
    sleep(Duration::from_secs(6));
    lab.nodes[owner].signal(libc::SIGCONT);
    sleep(Duration::from_secs(2));
    // Interfaces come up, and a VIP is added to an interface by hand.
    for node in &lab.nodes {
        for number in 5..10 {
            node.ns.ip(&format!("link set eth{number} up")).unwrap();
        }
        node.ns.ip("addr add 192.0.2.41/32 dev eth3").unwrap();
    }
    sleep(Duration::from_secs(1));
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    lab.bridge.ip(&format!("link set n{} down", owner + 1)).unwrap();
    sleep(Duration::from_secs(6));
    lab.bridge.ip(&format!("link set n{} up", owner + 1)).unwrap();
    sleep(Duration::from_secs(2));
    // SAFETY: the process is our child and has not been waited for, so the id is its own.
    unsafe { libc::kill(watch.id().cast_signed(), libc::SIGINT) };
    let output = watch.wait_with_output().unwrap();
    let timelines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(timelines.len(), 10);
    for timeline in &timelines {
        assert_eq!(timeline["two_owners_ms"], 0, "{timeline}");
        // Both nodes have served, each with the MAC address of the chosen interface.
        let names: Vec<String> = lab.nodes.iter().map(|node| mac_text(node.mac)).collect();
        let seen = timeline["spans"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|span| span["names"].as_array().unwrap());
        let seen: std::collections::BTreeSet<&str> = seen.filter_map(Value::as_str).collect();
        assert_eq!(seen, names.iter().map(String::as_str).collect(), "{timeline}");
    }
    let (text, code) = Node::probe(&lab.asker, &args(&vips, &["-o", "json"])).unwrap();
    assert_eq!((code, stations(&text)), (0, vec![1; 10]), "{text}");
}

/// The same hosts without xvip, with the addresses on a bridge without ports. Every interface that
/// is up answers for every IPv4 address, and the probe shows that.
#[test]
fn without_xvip_every_interface_answers() {
    let (lab, _guests) = many_interfaces();
    let ns = &lab.nodes[0].ns;
    ns.ip("link add vips0 type bridge").unwrap();
    ns.ip("link set vips0 up").unwrap();
    let v4: Vec<String> = pool().iter().filter(|ip| ip.is_ipv4()).map(IpAddr::to_string).collect();
    for vip in &v4 {
        ns.ip(&format!("addr add {vip}/32 dev vips0")).unwrap();
    }
    let (text, code) = Node::probe(&lab.asker, &args(&v4, &["-o", "json"])).unwrap();
    assert_eq!((code, stations(&text)), (2, vec![5; 5]), "{text}");
    let (text, _) = Node::probe(&lab.asker, &[&v4[0]]).unwrap();
    assert!(text.contains("two owners: "), "{text}");
}
