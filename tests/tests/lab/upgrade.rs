//! Upgrades and downgrades between two builds whose map layouts differ, and several xvips on one host.

use std::{path::Path, thread::sleep, time::Duration};
use vip_tests::{
    faults::{Recording, watched},
    judge::{Judge, two_owner_ms},
    lab::{
        Lab, Options, VIP4, eventually,
        node::{Node, next_xvip, xvip},
    },
    netns::sh,
};

fn lab_that_keeps() -> (Lab, usize) {
    let extra = "on_stop: keep\n".into();
    let mut lab = Lab::new(&Options { duration_s: 10, extra, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_secs(30)).unwrap();
    (lab, owner)
}

#[track_caller]
fn nothing_moved(recording: &Recording, owner: usize) {
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(!recording.claims.is_empty());
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
}

fn versions(lab: &Lab, node: usize) -> String {
    let dir = lab.dir().join("bpf").join(&lab.nodes[node].instance);
    sh(&format!("ls {}", dir.display())).unwrap().replace('\n', " ").trim().to_owned()
}

fn replace_binary(lab: &mut Lab, node: usize, binary: &Path) -> anyhow::Result<()> {
    let node = &mut lab.nodes[node];
    node.signal(libc::SIGTERM);
    anyhow::ensure!(eventually(Duration::from_secs(5), || node.has_ended()), "did not stop");
    node.use_binary(binary.into());
    node.start()?;
    let renewed = eventually(Duration::from_secs(8), || {
        node.status().is_ok_and(|status| status["daemon"]["leases"][0]["state"] == "holding")
    });
    anyhow::ensure!(renewed, "{}", node.log());
    Ok(())
}

/// Nothing shows on the wire: every question and echo is answered while maps of another layout are
/// filled and all programs are replaced, in both directions.
#[test]
fn an_upgrade_and_a_downgrade_lose_nothing_and_move_nothing() {
    let (mut lab, owner) = lab_that_keeps();
    let generation = lab.nodes[owner].status().unwrap()["leases"][0]["generation"].clone();
    for (binary, version) in [(next_xvip().unwrap(), "v3"), (xvip().unwrap(), "v2")] {
        let recording = watched(&mut lab, |lab| {
            sleep(Duration::from_millis(500));
            replace_binary(lab, owner, &binary)?;
            sleep(Duration::from_secs(2));
            Ok(())
        })
        .unwrap();
        nothing_moved(&recording, owner);
        assert_eq!(versions(&lab, owner), version, "the other version's maps are gone");
        let (from, to) =
            (recording.claims[0].at_ns, recording.claims[recording.claims.len() - 1].at_ns);
        let (lost, sent) = recording.asked.lost(from, to);
        assert!(lost <= 2, "{lost} of {sent} questions unanswered while going to {version}");
        let (lost, sent) = recording.echoes.unanswered(from, to);
        assert_eq!(lost, 0, "of {sent} echoes while going to {version}");
        let status = lab.nodes[owner].status().unwrap();
        assert_eq!(status["leases"][0]["generation"], generation, "the tenure went on");
    }
}

/// A process dies at any point between two layouts. Every question is still answered, and by one
/// node only.
#[test]
fn an_upgrade_that_dies_halfway_is_finished_by_the_next() {
    let (mut lab, owner) = lab_that_keeps();
    let next = next_xvip().unwrap();
    let recording = watched(&mut lab, |lab| {
        lab.nodes[owner].kill();
        for round in 0..12 {
            let binary = if round % 4 == 3 { xvip()? } else { next.clone() };
            lab.nodes[owner].use_binary(binary);
            lab.nodes[owner].start()?;
            sleep(Duration::from_millis(8 * round + 10));
            lab.nodes[owner].kill();
        }
        lab.nodes[owner].use_binary(next.clone());
        lab.nodes[owner].start()?;
        sleep(Duration::from_secs(3));
        Ok(())
    })
    .unwrap();
    nothing_moved(&recording, owner);
    assert_eq!(versions(&lab, owner), "v3");
    assert!(lab.nodes[owner].owns(), "{}", lab.nodes[owner].log());
}

/// A candidate's guard has no gap either: an address that it carries stays silent while the maps
/// change.
#[test]
fn a_standby_stays_silent_through_an_upgrade() {
    let (mut lab, owner) = lab_that_keeps();
    let standby = (owner + 1) % 3;
    lab.nodes[standby].ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    let next = next_xvip().unwrap();
    let recording = watched(&mut lab, |lab| {
        lab.nodes[standby].signal(libc::SIGTERM);
        let node = &mut lab.nodes[standby];
        anyhow::ensure!(eventually(Duration::from_secs(5), || node.has_ended()), "did not stop");
        node.use_binary(next);
        node.start()?;
        for _ in 0..60 {
            let mut arping = node.ns.command("arping");
            let _ = arping.args(["-U", "-c1", "-w1", "-I", "eth0", "192.0.2.10"]).output()?;
            sleep(Duration::from_millis(10));
        }
        Ok(())
    })
    .unwrap();
    nothing_moved(&recording, owner);
}

/// A binary of another version says whose pins they are, and removes them all the same.
#[test]
fn any_version_cleans_up_after_any_other() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let before = lab.nodes[0].ns.ip("-o addr").unwrap();
    lab.nodes[0].use_binary(next_xvip().unwrap());
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    lab.nodes[0].kill();
    lab.nodes[0].use_binary(xvip().unwrap());
    let status = lab.nodes[0].xvip("status", &[]).unwrap();
    assert!(status.contains("another version of xvip (v3)"), "{status}");
    let removed = lab.nodes[0].xvip("cleanup", &[]).unwrap();
    assert!(removed.contains("map VIPS") && removed.contains("fence of slot 0"), "{removed}");
    assert_eq!(lab.nodes[0].ns.ip("-o addr").unwrap(), before);
    let left = sh(&format!("find {} -name 'VIPS*'", lab.dir().join("bpf").display())).unwrap();
    assert_eq!(left, "");
}

fn arp_ignore(node: &Node) -> String {
    node.ns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/arp_ignore").unwrap()).unwrap()
}

/// Two instances on one host: each holds its own VIP behind its own guard, and each can leave
/// alone.
#[test]
fn a_second_instance_lives_beside_the_first() {
    beside_each_other(Vec::new());
}

/// The same for kernels before 6.6: both guards are filters of one clsact qdisc.
#[test]
fn a_second_instance_lives_beside_the_first_without_tcx() {
    beside_each_other(vec![("XVIP_NO_TCX".into(), "1".into())]);
}

fn beside_each_other(environment: Vec<(String, String)>) {
    let mut lab = Lab::new(&Options { nodes: 1, environment, ..Options::default() }).unwrap();
    let sysctl = arp_ignore(&lab.nodes[0]);
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let mut second = lab.nodes[0].second_instance("192.0.2.77").unwrap();
    second.start().unwrap();
    assert!(eventually(Duration::from_secs(20), || second.owns()), "{}", second.log());
    let guarded = |node: &Node| node.status().unwrap()["interfaces"][0]["guarded"] == true;
    assert!(guarded(&second) && guarded(&lab.nodes[0]));
    assert!(lab.nodes[0].status().unwrap()["daemon"]["problems"]["interface eth0"].is_null());
    let answered = |ip: &str| {
        let mut arping = lab.asker.command("arping");
        arping.args(["-c", "2", "-w", "2", "-I", "eth0", ip]).output().unwrap().status.success()
    };
    assert!(answered("192.0.2.77") && answered("192.0.2.10"));
    lab.nodes[0].kill();
    let silent = || !lab.nodes[0].owns();
    assert!(eventually(Duration::from_secs(20), silent), "its fence does not run out");
    // Its guard still works, whatever the other instance has attached since.
    let stopped = || lab.nodes[0].status().unwrap()["counters"]["claim_expired"].as_u64().unwrap_or(0);
    let before = stopped();
    let judge = Judge::listen(&lab.bridge, lab.ports(), &[VIP4.into()]);
    let mut arping = lab.nodes[0].ns.command("arping");
    let _ = arping.args(["-U", "-c", "2", "-w", "2", "-I", "eth0", "192.0.2.10"]).output().unwrap();
    assert_eq!(judge.finish().unwrap(), [], "a claim left without a fence");
    assert!(stopped() > before, "the guard has seen no claim");
    lab.nodes[0].xvip("cleanup", &[]).unwrap();
    assert!(second.owns() && answered("192.0.2.77"));
    assert_eq!(arp_ignore(&second).trim(), "1", "the second instance still needs it");
    second.kill();
    second.xvip("cleanup", &[]).unwrap();
    assert_eq!(arp_ignore(&second), sysctl);
}
