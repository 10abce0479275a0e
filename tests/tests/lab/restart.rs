//! Restarts on the same boot: pinned programs keep working, and a restart adopts only its own live
//! tenure.

use std::{net::TcpListener, time::Duration};
use vip_tests::{
    faults::{Recording, watched},
    judge::two_owner_ms,
    lab::{API, Lab, Options, eventually},
};

fn one_lab(options: &Options) -> (Lab, usize) {
    let mut lab = Lab::new(options).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    (lab, owner)
}

fn generation(lab: &Lab, node: usize) -> u64 {
    lab.nodes[node].status().unwrap()["leases"][0]["generation"].as_u64().unwrap()
}

#[track_caller]
fn nothing_moved(recording: &Recording, owner: usize) {
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(!recording.claims.is_empty());
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
}

#[test]
fn a_killed_owner_that_is_restarted_at_once_keeps_its_tenure() {
    let (mut lab, owner) = one_lab(&Options::default());
    let before = generation(&lab, owner);
    let recording = watched(&mut lab, |lab| {
        std::thread::sleep(Duration::from_millis(500));
        lab.nodes[owner].kill();
        lab.nodes[owner].start()?;
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })
    .unwrap();
    nothing_moved(&recording, owner);
    assert_eq!(generation(&lab, owner), before);
    assert!(lab.nodes[owner].log().contains("leadership preserved"), "{}", lab.nodes[owner].log());
}

#[test]
fn on_stop_keep_moves_nothing_across_a_restart() {
    let options = Options { duration_s: 10, extra: "on_stop: keep\n".into(), ..Options::default() };
    let (mut lab, owner) = one_lab(&options);
    let recording = watched(&mut lab, |lab| {
        std::thread::sleep(Duration::from_millis(500));
        lab.nodes[owner].signal(libc::SIGTERM);
        let node = &mut lab.nodes[owner];
        anyhow::ensure!(eventually(Duration::from_secs(5), || node.has_ended()), "did not stop");
        std::thread::sleep(Duration::from_secs(1));
        node.start()?;
        std::thread::sleep(Duration::from_secs(4));
        Ok(())
    })
    .unwrap();
    nothing_moved(&recording, owner);
    let (from, to) = (recording.claims[0].at_ns, recording.claims[recording.claims.len() - 1].at_ns);
    let (lost, sent) = recording.asked.lost(from, to);
    assert!(lost <= 2, "{lost} of {sent} questions unanswered during the restart");
}

#[test]
fn a_rebooted_owner_does_not_adopt() {
    let (mut lab, owner) = one_lab(&Options::default());
    lab.nodes[owner].kill();
    // A reboot empties the maps.
    lab.nodes[owner].xvip("cleanup", &[]).unwrap();
    lab.nodes[owner].reboot();
    lab.nodes[owner].start().unwrap();
    let new = lab.wait_for_owner(Duration::from_secs(10)).unwrap();
    assert!(!lab.nodes[owner].log().contains("leadership preserved"));
    assert!(lab.nodes[new].owns());
}

#[test]
fn a_second_daemon_waits_for_the_first() {
    let (lab, _) = one_lab(&Options { nodes: 1, ..Options::default() });
    // A second process of the same instance, while the first runs.
    let config = lab.dir().join("node1.yaml");
    let mut command =
        lab.nodes[0].ns.command(&vip_tests::lab::node::xvip().unwrap().display().to_string());
    let log = std::fs::File::create(lab.dir().join("second.log")).unwrap();
    let mut second =
        command.args(["run", "--config"]).arg(&config).stderr(log).spawn().expect("xvip starts");
    let waits = eventually(Duration::from_secs(5), || {
        std::fs::read_to_string(lab.dir().join("second.log"))
            .is_ok_and(|text| text.contains("another xvip runs here"))
    });
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(waits);
    assert!(lab.nodes[0].owns());
}

/// Puts an API endpoint that accepts connections and never answers before the others of a node.
fn with_an_endpoint_that_hangs(lab: &Lab, node: usize) -> TcpListener {
    let bound = lab.nodes[node].ns.run(|| TcpListener::bind("127.0.0.1:7000")).unwrap().unwrap();
    let node = &lab.nodes[node];
    let good = format!("'http://{API}'");
    let text = node.config_text().unwrap();
    let hangs = text.replacen(&good, &format!("'http://127.0.0.1:7000', {good}"), 1);
    assert_ne!(text, hangs);
    std::fs::write(lab.dir().join(format!("{}.yaml", node.name)), hangs).unwrap();
    bound
}

/// An owner that is killed while its first endpoint hangs adopts its tenure from the second one.
#[test]
fn a_killed_owner_keeps_its_tenure_though_its_first_endpoint_hangs() {
    let (mut lab, owner) = one_lab(&Options { duration_s: 6, ..Options::default() });
    let before = generation(&lab, owner);
    let _hangs = with_an_endpoint_that_hangs(&lab, owner);
    let recording = watched(&mut lab, |lab| {
        std::thread::sleep(Duration::from_millis(500));
        lab.nodes[owner].kill();
        lab.nodes[owner].start()?;
        std::thread::sleep(Duration::from_secs(9));
        Ok(())
    })
    .unwrap();
    nothing_moved(&recording, owner);
    assert_eq!(generation(&lab, owner), before);
    assert!(lab.nodes[owner].log().contains("leadership preserved"), "{}", lab.nodes[owner].log());
    assert!(lab.nodes[owner].owns());
}

/// Labels are read although the first endpoint hangs; until then no node is barred.
#[test]
fn a_node_is_read_though_its_first_endpoint_hangs() {
    let options = Options { nodes: 1, extra: "nodes: {role: edge}\n".into(), ..Options::default() };
    let mut lab = Lab::new(&options).unwrap();
    let _hangs = with_an_endpoint_that_hangs(&lab, 0);
    lab.api.set_labels("node1", &[("role", "core")]);
    lab.start().unwrap();
    let fitness = |lab: &Lab| {
        let status = lab.nodes[0].status().unwrap_or_default();
        status["daemon"]["leases"][0]["fitness"].as_str().unwrap_or_default().to_owned()
    };
    assert!(
        eventually(Duration::from_secs(20), || fitness(&lab) == "barred"),
        "{}",
        lab.nodes[0].log()
    );
    lab.api.set_labels("node1", &[("role", "edge")]);
    assert!(eventually(Duration::from_secs(20), || fitness(&lab) == "able"), "{}", lab.nodes[0].log());
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
}
