//! Rule 12 in the audit log of a real API server: what candidates request while nothing happens,
//! also after the server restarted and has no history of a Lease that no node writes.

use crate::{rights::requests, trial};
use libtest_mimic::Trial;
use serde_json::json;
use std::{thread::sleep, time::Duration};
use vip_tests::lab::{Kube, Lab, Options, eventually};

pub fn trials() -> Vec<Trial> {
    vec![trial("quiet::a_restart_of_the_api_server_is_followed_by_silence", after_a_restart)]
}

/// A candidate that may not take the Lease, so that no node ever writes it.
fn after_a_restart() {
    let extra = "nodes: {role: edge}\n".into();
    let mut lab =
        Lab::new(&Options { nodes: 1, kube: Kube::One, extra, ..Options::default() }).unwrap();
    let lease = json!({
        "metadata": {"namespace": "kube-system", "name": "plndr-cp-lock"},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 3},
    });
    lab.api.put("kube-system", "plndr-cp-lock", lease);
    // Written later than the Lease: the server has no history from before its start.
    lab.api.set_labels("node1", &[("role", "core")]);
    lab.start().unwrap();
    let read = |lab: &Lab| {
        lab.nodes[0].status().is_ok_and(|status| status["daemon"]["leases"][0]["fitness"] == "barred")
    };
    assert!(eventually(Duration::from_secs(20), || read(&lab)), "{}", lab.nodes[0].log());

    let plane = &mut lab.api.real_mut().unwrap().plane;
    plane.members[0].kill_api();
    plane.members[0].start_api().unwrap();
    plane.wait_ready(0).unwrap();
    // By then all attempts have ended, and both watches run again.
    sleep(Duration::from_secs(10));
    let before = requests(&lab).len();
    sleep(Duration::from_secs(20));
    let asked = requests(&lab);
    // A watch is logged when it has ended.
    assert!(asked.len() - before <= 2, "in 20 s of silence: {:?}", &asked[before..]);
}
