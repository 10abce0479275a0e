//! The stand-in for kube-vip does on a node, in the Lease and on the wire what kube-vip does. No
//! xvip runs in this lab.

use crate::trial;
use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{net::IpAddr, thread::sleep, time::Duration};
use vip_tests::{
    faults::{Recording, watched},
    judge::Judge,
    kube::foreign::{Foreign, Settings},
    lab::{Kube, Lab, Options, eventually},
};
use vip_user::clock;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "plndr-cp-lock";
/// The two names that hold the Lease: kube-vip's, which is that of its node, and another.
const NODE: &str = "node1";
const OTHER: &str = "node7";
const LIMIT: Duration = Duration::from_secs(20);
/// Its lease, and a little more.
const LEASE: Duration = Duration::from_secs(6);

pub fn trials() -> Vec<Trial> {
    vec![trial("foreign::the_stand_in_does_what_kube_vip_does", stands_in)]
}

/// One lab for all, because its API server takes seconds to start.
fn stands_in() {
    let mut lab = Lab::new(&Options { kube: Kube::One, nodes: 1, ..Options::default() }).unwrap();
    announces(&lab);
    releases_before_its_address_goes(&mut lab);
    leaves_its_address_when_it_is_killed(&mut lab);
    renews_under_any_name(&lab);
    takes_an_emptied_lease_again(&lab);
    waits_for_the_record_or_for_its_own_time(&lab);
}

fn spec(lab: &Lab) -> Value {
    lab.api.lease(NAMESPACE, NAME).map_or(Value::Null, |lease| lease["spec"].clone())
}

fn is_held_by(lab: &Lab, name: &str) -> bool {
    spec(lab)["holderIdentity"] == name
}

fn carries_all(foreign: &Foreign) -> bool {
    Lab::vips().into_iter().all(|vip| foreign.carries(vip).unwrap())
}

fn carries_none(foreign: &Foreign) -> bool {
    !Lab::vips().into_iter().any(|vip| foreign.carries(vip).unwrap())
}

/// Starts it, and waits until it leads and carries its addresses.
#[track_caller]
fn leading(lab: &Lab, settings: &Settings) -> Foreign {
    let foreign = Foreign::start(lab, 0, settings).unwrap();
    let leads = eventually(LIMIT, || is_held_by(lab, NODE) && carries_all(&foreign));
    assert!(leads, "{}\n{}", spec(lab), foreign.log());
    foreign
}

#[track_caller]
fn stop(lab: &Lab, mut foreign: Foreign) {
    foreign.terminate();
    assert!(eventually(LIMIT, || foreign.has_ended()), "{}", foreign.log());
    assert!(is_held_by(lab, ""), "{}", spec(lab));
    assert!(carries_none(&foreign), "{}", foreign.log());
}

/// Nobody asks, so that no claim is an answer.
fn announces(lab: &Lab) {
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    let every = Duration::from_millis(300);
    let foreign = leading(lab, &Settings { announce_every: every, ..Settings::default() });
    sleep(4 * every);
    let claims = judge.finish().unwrap();
    for vip in Lab::vips() {
        let of_vip = claims.iter().filter(|claim| claim.vip == vip).count();
        assert!(of_vip >= 3, "{of_vip} announcements of {vip}:\n{}", foreign.log());
    }
    let spec = spec(lab);
    assert_eq!(spec["leaseDurationSeconds"], 5);
    stop(lab, foreign);
}

/// The MAC addresses that answered for a VIP between two instants, without repetition.
fn answered_by(recording: &Recording, vip: IpAddr, from: u64, to: u64) -> Vec<[u8; 6]> {
    let answers = recording.asked.answers.get(&vip).into_iter().flatten();
    let mut macs: Vec<[u8; 6]> =
        answers.filter(|(at, _)| (from..to).contains(at)).map(|(_, mac)| *mac).collect();
    macs.dedup();
    macs
}

fn releases_before_its_address_goes(lab: &mut Lab) {
    let late_release = Duration::from_secs(2);
    let mut foreign = leading(lab, &Settings { late_release, ..Settings::default() });
    let (mut begun, mut released, mut ended) = (0, 0, 0);
    let recording = watched(lab, |lab| {
        begun = clock::boot().0;
        sleep(Duration::from_secs(1));
        foreign.terminate();
        ensure!(eventually(LIMIT, || is_held_by(lab, "")), "no release: {}", foreign.log());
        released = clock::boot().0;
        // So writes client-go's release.
        ensure!(spec(lab)["leaseDurationSeconds"] == 1, "{}", spec(lab));
        ensure!(carries_all(&foreign), "the addresses went first: {}", foreign.log());
        ensure!(eventually(LIMIT, || foreign.has_ended()), "it runs on: {}", foreign.log());
        ended = clock::boot().0;
        ensure!(carries_none(&foreign), "an address stayed: {}", foreign.log());
        sleep(Duration::from_millis(500));
        Ok(())
    });
    let recording = recording.unwrap();
    let mac = lab.nodes[0].mac;
    for vip in Lab::vips() {
        assert_eq!(answered_by(&recording, vip, begun, released), [mac], "as leader");
        assert_eq!(answered_by(&recording, vip, released, ended), [mac], "after its release");
        // An answer may have been on its way.
        let after = ended + 100_000_000;
        assert_eq!(answered_by(&recording, vip, after, u64::MAX), [[0; 6]; 0], "after its end");
    }
}

fn leaves_its_address_when_it_is_killed(lab: &mut Lab) {
    let mut foreign = leading(lab, &Settings::default());
    foreign.pause();
    sleep(LEASE);
    assert!(carries_all(&foreign), "a paused process deletes nothing");
    foreign.resume();
    let renewed = spec(lab)["renewTime"].clone();
    assert!(eventually(LIMIT, || spec(lab)["renewTime"] != renewed), "{}", foreign.log());
    foreign.kill();
    sleep(LEASE);
    let mut begun = 0;
    let recording = watched(lab, |_| {
        begun = clock::boot().0;
        sleep(Duration::from_millis(500));
        Ok(())
    });
    let recording = recording.unwrap();
    for vip in Lab::vips() {
        let by = answered_by(&recording, vip, begun, u64::MAX);
        assert_eq!(by, [lab.nodes[0].mac], "the kernel answers though the lease is over");
    }
    assert!(is_held_by(lab, NODE), "nobody has released it");
    foreign.remove_addresses(&Lab::vips()).unwrap();
    assert!(carries_none(&foreign));
    // The same name takes the Lease at once, and counts as the same tenure.
    let transitions = spec(lab)["leaseTransitions"].clone();
    let foreign = leading(lab, &Settings::default());
    assert_eq!(spec(lab)["leaseTransitions"], transitions);
    stop(lab, foreign);
}

fn renews_under_any_name(lab: &Lab) {
    let foreign = Foreign::renew_as(lab, 0, OTHER).unwrap();
    assert!(eventually(LIMIT, || is_held_by(lab, OTHER)), "{}", foreign.log());
    assert!(carries_none(&foreign), "it is the election alone");
    foreign.terminate();
    assert!(eventually(LIMIT, || is_held_by(lab, "")), "{}", foreign.log());
}

fn takes_an_emptied_lease_again(lab: &Lab) {
    let foreign = leading(lab, &Settings::default());
    let before = spec(lab)["leaseTransitions"].as_i64().unwrap();
    Foreign::blank(lab, 0, &Settings::default()).unwrap();
    let again = || {
        let spec = spec(lab);
        spec["holderIdentity"] == NODE && spec["leaseTransitions"] == before + 1
    };
    assert!(eventually(LIMIT, again), "{}\n{}", spec(lab), foreign.log());
    assert!(carries_all(&foreign), "it has not stopped leading");
    stop(lab, foreign);
}

/// A dead holder has written a long duration. Only an old client-go ignores it.
fn waits_for_the_record_or_for_its_own_time(lab: &Lab) {
    lab.api.edit(NAMESPACE, NAME, |lease| {
        lease["spec"]["holderIdentity"] = "dead".into();
        lease["spec"]["leaseDurationSeconds"] = 60.into();
        lease["spec"]["renewTime"] = json!(format!("{:.6}", jiff::Timestamp::now()));
    });
    let settings = Settings { timers_s: [3, 2, 1], ..Settings::default() };
    let new = Foreign::start(lab, 0, &settings).unwrap();
    sleep(Duration::from_secs(8));
    assert!(is_held_by(lab, "dead") && carries_none(&new), "{}", new.log());
    drop(new);
    let old = leading(lab, &Settings { old: true, ..settings });
    stop(lab, old);
}
