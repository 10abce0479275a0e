//! Stopping and cleaning up: another program can take over, and nothing stays behind.

use serde_json::json;
use std::time::Duration;
use vip_tests::{
    faults::watched,
    lab::{Lab, Options, eventually, node::Node},
    netns::sh,
    standin::Outage,
};

fn lab_of(nodes: usize) -> (Lab, usize) {
    let mut lab = Lab::new(&Options { nodes, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
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
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let running = footprint(&lab.nodes[0], &lab);
    assert_ne!(running, before);
    let refused = lab.nodes[0].xvip("cleanup", &[]).unwrap_err().to_string();
    assert!(refused.contains("is running; stop it first"), "{refused}");
    lab.nodes[0].kill();
    let removed = lab.nodes[0].xvip("cleanup", &[]).unwrap();
    assert!(removed.contains("map VIPS") && removed.contains("guard program on eth0"), "{removed}");
    // The kernel frees a link a moment after its pin is gone.
    eventually(Duration::from_secs(10), || footprint(&lab.nodes[0], &lab) == before);
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

/// Another program holds the Lease for a long time, so the node stays a candidate.
fn held_by_another(lab: &Lab) {
    lab.api.put(
        "kube-system",
        "plndr-cp-lock",
        json!({
            "metadata": {"name": "plndr-cp-lock", "namespace": "kube-system"},
            "spec": {"holderIdentity": "elsewhere", "leaseDurationSeconds": 600, "leaseTransitions": 3,
                     "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z"},
        }),
    );
}

/// Some pins were removed by hand; cleanup removes the rest.
#[test]
fn cleanup_does_with_what_is_left() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    held_by_another(&lab);
    let before = footprint(&lab.nodes[0], &lab);
    let pins = lab.dir().join("bpf").join(&lab.nodes[0].instance).join("v2");
    let all = [
        "VIPS",
        "FENCES",
        "IFACES",
        "TENURES",
        "GRACE",
        "link:guard:*",
        "link:native:*",
        "link:*",
        "*S",
    ];
    for gone in all {
        lab.start().unwrap();
        let node = &lab.nodes[0];
        let standby = eventually(Duration::from_secs(10), || {
            node.status()
                .is_ok_and(|status| status["vips"].as_array().is_some_and(|vips| vips.len() == 2))
        });
        assert!(standby, "{gone}: {}", node.log());
        lab.nodes[0].kill();
        // Cleanup finds addresses by the map `ADDRS`; the next test is about its loss.
        sh(&format!("cd {} && for f in {gone}; do [ $f = ADDRS ] || rm $f; done", pins.display()))
            .unwrap();
        lab.nodes[0].xvip("cleanup", &[]).unwrap();
        // The kernel frees a link a moment after its pin is gone.
        eventually(Duration::from_secs(10), || footprint(&lab.nodes[0], &lab) == before);
        assert_eq!(footprint(&lab.nodes[0], &lab), before, "without {gone}");
    }
}

/// Without the map `ADDRS` xvip cannot tell its addresses from others: they expire.
#[test]
fn an_address_whose_note_is_gone_has_a_lifetime() {
    let (mut lab, owner) = lab_of(1);
    lab.nodes[owner].kill();
    let pins = lab.dir().join("bpf").join(&lab.nodes[0].instance).join("v2");
    std::fs::remove_file(pins.join("ADDRS")).unwrap();
    let said = lab.nodes[owner].xvip("cleanup", &[]).unwrap();
    assert!(said.contains("their list is gone"), "{said}");
    let shown = lab.nodes[owner].ns.ip("addr show dev lo").unwrap();
    let lifetimes: Vec<&str> = shown.lines().filter(|line| line.contains("valid_lft")).collect();
    assert!(shown.contains("192.0.2.10/32"), "{shown}");
    assert!(
        lifetimes.iter().any(|line| line.contains("sec") && !line.contains("valid_lft forever")),
        "{shown}"
    );
}

/// The map of VIPs is gone while the guard's programs run. The next start does not open the guard,
/// even before the API has answered.
#[test]
fn a_start_after_damage_stays_silent() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    held_by_another(&lab);
    lab.start().unwrap();
    let node = &lab.nodes[0];
    assert!(eventually(Duration::from_secs(10), || node
        .status()
        .is_ok_and(|s| s["vips"][0].is_object())));
    lab.nodes[0].kill();
    let pins = lab.dir().join("bpf").join(&lab.nodes[0].instance).join("v2");
    std::fs::remove_file(pins.join("VIPS")).unwrap();
    lab.api.set_outage(Outage::Hangs);
    lab.nodes[0].ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    let recording = watched(&mut lab, |lab| {
        lab.nodes[0].start()?;
        for _ in 0..40 {
            let mut arping = lab.nodes[0].ns.command("arping");
            let _ = arping.args(["-U", "-c1", "-w1", "-I", "eth0", "192.0.2.10"]).output()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
    .unwrap();
    lab.api.set_outage(Outage::None);
    assert_eq!(recording.claims, []);
    assert!(lab.nodes[0].log().contains("xvip is running"), "{}", lab.nodes[0].log());
}
