//! The guard: no claim of a VIP leaves a host that does not hold it, whichever program sends it.

use std::{net::IpAddr, time::Duration};
use vip_tests::{
    faults::watched,
    frames,
    lab::{API, ASKER_MAC, Lab, Options, VIP4, VIP6, eventually},
    netns::sh,
    packet_socket::PacketSocket,
};

fn lab() -> (Lab, usize) {
    let mut lab = Lab::new(&Options::default()).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    (lab, owner)
}

#[test]
fn nothing_on_a_standby_can_claim_a_vip() {
    let (mut lab, owner) = lab();
    let standby = (owner + 1) % 3;
    let recording = watched(&mut lab, |lab| {
        let node = &lab.nodes[standby];
        // The kernel with the address on its NIC: duplicate address detection, announcements, answers.
        node.ns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_notify", "1"))??;
        node.ns.ip("addr add 192.0.2.10/32 dev eth0")?;
        node.ns.ip("addr add 2001:db8::10/128 dev eth0")?;
        // Another program.
        for args in ["-U -c 3 -w 2 -I eth0 192.0.2.10", "-A -c 3 -w 2 -I eth0 192.0.2.10"] {
            let mut arping = node.ns.command("arping");
            let _ = arping.args(args.split(' ')).output()?;
        }
        // Raw frames.
        node.ns.run(|| -> anyhow::Result<()> {
            let socket = PacketSocket::open("eth0")?;
            let mac = node.mac;
            let all_nodes =
                ([0x33, 0x33, 0, 0, 0, 1], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            let na = frames::advertisement(all_nodes, mac, VIP6, 0x20);
            for frame in [frames::arp_request(mac, VIP4, VIP4), na] {
                let _ = socket.send(&frame);
            }
            Ok(())
        })??;
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    })
    .unwrap();
    let by_standby = recording.claims.iter().filter(|claim| claim.node == standby).count();
    assert_eq!(by_standby, 0, "claims left a standby");
    assert!(recording.claims.iter().any(|claim| claim.node == owner));
    let status = lab.nodes[standby].status().unwrap();
    assert!(status["counters"]["claim_not_held"].as_u64().unwrap_or(0) >= 5, "{status}");
}

#[test]
fn a_claim_by_a_stranger_is_counted_and_passed() {
    let (lab, owner) = lab();
    lab.asker
        .run(|| PacketSocket::open("eth0").unwrap().send(&frames::arp_request(ASKER_MAC, VIP4, VIP4)))
        .unwrap()
        .unwrap();
    let counted = eventually(Duration::from_secs(2), || {
        lab.nodes.iter().all(|node| {
            node.status()
                .is_ok_and(|status| status["counters"]["foreign_claim"].as_u64().unwrap_or(0) >= 1)
        })
    });
    assert!(counted, "{}", lab.nodes[owner].status().unwrap());
    // The frame passed, so a candidate's kernel may have learned the stranger as the VIP's
    // neighbour. The owner still answers.
    assert!(lab.nodes[owner].owns());
}

#[test]
fn the_vip_is_never_chosen_as_a_source_address() {
    let (lab, owner) = lab();
    let node = &lab.nodes[owner];
    let addresses = node.ns.ip("addr show dev lo").unwrap();
    assert!(addresses.contains("192.0.2.10/32 scope host"), "{addresses}");
    assert!(addresses.contains("valid_lft") && !addresses.contains("192.0.2.10/32 scope global"));
    let v4 = node.ns.ip("route get 192.0.2.200").unwrap();
    assert!(v4.contains("src 192.0.2.1") && !v4.contains("src 192.0.2.10 "), "{v4}");
    let v6 = node.ns.ip("-6 route get 2001:db8::200").unwrap();
    assert!(!v6.contains("src 2001:db8::10 "), "{v6}");
}

#[test]
fn every_candidate_is_in_the_solicited_node_group() {
    let (lab, _) = lab();
    for node in &lab.nodes {
        let groups = node.ns.ip("maddr show dev eth0").unwrap();
        assert!(
            groups.contains("ff02::1:ff00:10"),
            "{groups}\n{}\n{}",
            node.log(),
            node.ns.ip("addr").unwrap()
        );
    }
}

#[test]
fn bpftool_shows_named_fields() {
    let (lab, owner) = lab();
    let node = &lab.nodes[owner];
    let pins = lab.dir().join("bpf").join(&node.instance).join("v2");
    let dump = |map: &str| sh(&format!("bpftool map dump pinned {}/{map}", pins.display())).unwrap();
    let vips = dump("VIPS");
    for field in ["octets", "slot", "generation", "answer", "guard"] {
        assert!(vips.contains(&format!("\"{field}\"")), "{vips}");
    }
    let fences = dump("FENCES");
    assert!(fences.contains("\"deadline_ns\"") && fences.contains("\"generation\""));
    let map = node.xvip("map", &[]).unwrap();
    let vips = Lab::vips();
    assert!(vips.iter().map(IpAddr::to_string).all(|vip| map.contains(&vip)), "{map}");
}

/// An interface that becomes excluded may still carry the VIP. While the Lease is unknown, the
/// address stays, and only the guard keeps the kernel from answering. Removing the guard first once
/// made two owners.
#[test]
fn the_guard_stays_on_an_interface_for_as_long_as_it_carries_the_vip() {
    let options = Options {
        nodes: 2,
        lan: Some("lan".into()),
        extra: "placement: interface\n".into(),
        ..Options::default()
    };
    let mut lab = Lab::new(&options).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    lab.nodes[owner].kill();
    let before = lab.nodes[owner].config_text().unwrap();
    let excluded = before.replace("interfaces: [eth0]", "interfaces: [lan]\nexclude: [eth0]");
    let alone = excluded.replace(API, "192.0.2.250:1");
    assert!(before != excluded && excluded != alone, "{alone}");
    lab.nodes[owner].configure(&alone).unwrap();
    let pinned = |lab: &Lab| {
        let dir = lab.dir().join("bpf").join(&lab.nodes[owner].instance);
        !sh(&format!("find {} -name 'link:guard:*:eth0'", dir.display())).unwrap().is_empty()
    };
    let carries = |lab: &Lab| {
        let addresses = lab.nodes[owner].ns.ip("addr show dev eth0").unwrap();
        addresses.contains("192.0.2.10/32") || addresses.contains("2001:db8::10/128")
    };
    let recording = watched(&mut lab, |lab| {
        lab.nodes[owner].start()?;
        let moved = eventually(Duration::from_secs(20), || lab.nodes[1 - owner].owns());
        anyhow::ensure!(moved, "nobody took over: {}", lab.nodes[1 - owner].log());
        std::thread::sleep(Duration::from_secs(1));
        anyhow::ensure!(carries(lab) && pinned(lab), "{}", lab.nodes[owner].log());
        Ok(())
    })
    .unwrap();
    let taken = recording.claims.iter().find(|claim| claim.node != owner).unwrap().at_ns;
    let both =
        recording.claims.iter().filter(|claim| claim.node == owner && claim.at_ns > taken).count();
    assert_eq!(both, 0, "the kernel answered for the VIP after another node had taken it");
    // Once the Lease is read, the address is removed, and then the guard.
    lab.nodes[owner].kill();
    lab.nodes[owner].configure(&excluded).unwrap();
    lab.nodes[owner].start().unwrap();
    let gone = eventually(Duration::from_secs(20), || !carries(&lab) && !pinned(&lab));
    assert!(gone, "{}", lab.nodes[owner].log());
}
