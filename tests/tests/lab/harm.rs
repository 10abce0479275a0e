//! A failure of one VIP affects only that VIP, and is a reason to give way.

use std::{fs::OpenOptions, os::fd::AsRawFd as _, thread::sleep, time::Duration};
use vip_tests::{
    lab::{Lab, Options, VIP4, VIP6, eventually, node::Node},
    netns::sh,
};
use vip_user::node::raw_map::RawMap;

const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

fn fitness(node: &Node) -> String {
    let status = node.status().unwrap_or_default();
    status["daemon"]["leases"][0]["fitness"].as_str().unwrap_or_default().to_owned()
}

/// The first VIP cannot be added, and its announcements are stopped. The second VIP is announced.
#[test]
fn one_vip_that_cannot_be_added_leaves_the_other_announced() {
    let vips = Some(vec![VIP6.into(), VIP4.into()]);
    let mut lab = Lab::new(&Options { nodes: 1, vips, ..Options::default() }).unwrap();
    lab.nodes[0].ns.run(|| std::fs::write(IPV6_OFF, "1")).unwrap().unwrap();
    lab.start().unwrap();
    let node = &lab.nodes[0];
    let sent = || {
        let status = node.status().unwrap_or_default();
        status["counters"]["claim_sent"].as_u64().unwrap_or_default()
    };
    // A burst is six rounds of two frames; answers are not counted there.
    assert!(eventually(Duration::from_mins(1), || sent() >= 2), "{}", node.log());
    assert_eq!(fitness(node), "impaired", "{}", node.log());
    let problems = node.status().unwrap()["daemon"]["problems"].to_string();
    assert!(problems.contains("2001:db8::10: IPv6 is off on lo"), "{problems}");
}

/// A node that can carry only one of two VIPs gives way to one that can carry both, and does not
/// get them back.
#[test]
fn a_node_on_which_ipv6_is_turned_off_gives_way() {
    let mut lab = Lab::new(&Options { nodes: 2, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let other = 1 - owner;
    assert!(eventually(Duration::from_mins(1), || fitness(&lab.nodes[other]) == "able"));
    lab.nodes[owner].ns.run(|| std::fs::write(IPV6_OFF, "1")).unwrap().unwrap();
    assert!(
        eventually(Duration::from_mins(1), || lab.nodes[other].owns()),
        "{}\n---\n{}",
        lab.nodes[owner].log(),
        lab.nodes[other].log()
    );
    assert!(eventually(Duration::from_secs(10), || fitness(&lab.nodes[owner]) == "impaired"));
    lab.nodes[owner].ns.run(|| std::fs::write(IPV6_OFF, "0")).unwrap().unwrap();
    assert!(eventually(Duration::from_secs(20), || fitness(&lab.nodes[owner]) == "able"));
}

/// Clearing a fence waits until no program runs on the old value. An update of a map of maps makes
/// the kernel wait for that, so each clear puts a new map there.
#[test]
fn a_clear_waits_for_the_programs() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let pins = lab.dir().join("bpf").join(&lab.nodes[0].instance);
    let path = sh(&format!("ls -d {}/*/GRACE", pins.display())).unwrap();
    let inner = || {
        let map = RawMap::open(std::path::Path::new(path.trim())).unwrap().unwrap();
        let id = map.entries().ok().and_then(|entries| entries.into_iter().next());
        id.map(|(_, id)| id)
    };
    let mut seen = vec![inner()];
    for _ in 0..2 {
        lab.wait_for_owner(Duration::from_mins(1)).unwrap();
        lab.nodes[0].signal(libc::SIGTERM);
        assert!(eventually(Duration::from_secs(20), || lab.nodes[0].has_ended()));
        seen.push(inner());
        lab.nodes[0].start().unwrap();
    }
    assert!(seen[1].is_some() && seen[1] != seen[0] && seen[2] != seen[1], "{seen:?}");
}

/// In a pod the log is a pipe whose reader may hang. Renewals continue.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let environment = vec![("RUST_LOG".into(), "trace".into())];
    let mut lab = Lab::new(&Options { nodes: 1, environment, ..Options::default() }).unwrap();
    let path = lab.nodes[0].log_path().display().to_string();
    sh(&format!("mkfifo {path}")).unwrap();
    let pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let unread = || {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD stores one int.
        assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
        bytes
    };
    lab.start().unwrap();
    let node = &lab.nodes[0];
    assert!(eventually(Duration::from_mins(1), || node.owns()));
    assert!(eventually(Duration::from_mins(1), || unread() > 60_000), "{} bytes", unread());
    // Twice as long as a fence lasts without renewals.
    for _ in 0..60 {
        assert!(node.owns(), "the fence has run out");
        sleep(Duration::from_millis(100));
    }
}
