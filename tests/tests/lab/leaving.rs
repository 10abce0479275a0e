//! Stopping and cleaning up: another program can take over, and nothing is left.

use std::time::Duration;
use vip_tests::{
    faults::watched,
    lab::{Lab, Options, eventually, node::Node},
    netns::sh,
};

fn lab_of(nodes: usize) -> (Lab, usize) {
    let mut lab = Lab::new(&Options { nodes, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_secs(20)).unwrap();
    (lab, owner)
}

/// Everything on a host that xvip could have changed.
fn footprint(node: &Node, lab: &Lab) -> String {
    let sysctls = node
        .ns
        .run(|| {
            ["arp_ignore", "arp_announce"].map(|name| {
                std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}")).unwrap()
            })
        })
        .unwrap();
    let pins = sh(&format!("find {} -mindepth 1 | sort", lab.dir().join("bpf").display())).unwrap();
    let addresses = node.ns.ip("-o addr").unwrap();
    let links = node.ns.ip("link").unwrap();
    let groups = node.ns.ip("maddr").unwrap();
    let net = sh(&format!("nsenter --net=/run/netns/{} bpftool net", node.ns.name())).unwrap();
    format!("{sysctls:?}\n{pins}\n{addresses}\n{links}\n{groups}\n{net}")
}

#[test]
fn cleanup_after_a_crash_leaves_nothing() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let before = footprint(&lab.nodes[0], &lab);
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_secs(20)).unwrap();
    let running = footprint(&lab.nodes[0], &lab);
    assert_ne!(running, before);
    let refused = lab.nodes[0].xvip("cleanup", &[]).unwrap_err().to_string();
    assert!(refused.contains("is running; stop it first"), "{refused}");
    lab.nodes[0].kill();
    let removed = lab.nodes[0].xvip("cleanup", &[]).unwrap();
    assert!(removed.contains("map VIPS") && removed.contains("guard program on eth0"), "{removed}");
    let after = footprint(&lab.nodes[0], &lab);
    assert_eq!(after, before);
    assert!(lab.nodes[0].xvip("cleanup", &[]).unwrap().contains("nothing to remove"));
}

#[test]
fn after_a_planned_stop_another_program_may_own_the_vip() {
    let (mut lab, owner) = lab_of(1);
    lab.nodes[owner].signal(libc::SIGTERM);
    let node = &mut lab.nodes[owner];
    assert!(eventually(Duration::from_secs(10), || node.has_ended()), "{}", node.log());
    let addresses = node.ns.ip("addr").unwrap();
    assert!(!addresses.contains("192.0.2.10/"), "{addresses}");
    node.ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    let recording = watched(&mut lab, |_| {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })
    .unwrap();
    assert!(recording.claims.iter().any(|claim| claim.vip.is_ipv4()), "the kernel may answer now");
}

#[test]
fn after_a_crash_the_host_stays_silent() {
    let (mut lab, owner) = lab_of(1);
    lab.nodes[owner].kill();
    assert!(eventually(Duration::from_secs(5), || !lab.nodes[owner].owns()));
    lab.nodes[owner].ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    let recording = watched(&mut lab, |_| {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })
    .unwrap();
    assert_eq!(recording.claims, []);
}
