//! Tests of the admission. Each one applies one of its rules.

use super::{
    admission::{Admission, Guarded, Mark, Marks, Obstacle, PROBE_TIME, Request},
    election::{AdoptedFence, Election, Input},
    election_tests::{
        D, answered, at, fresh, held, me, own_record, quorum, raised, released, unheld, watched, writes,
    },
    record::{LeaseWrite, Record, Version},
};
use crate::model::{effects::Outgoing, timing::Timing};
use std::{collections::BTreeSet, net::IpAddr};
use vip_common::mac::Mac;

const OWN: &str = "lease-m";

fn vip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn marks(of: &[(u8, Mark)]) -> Marks {
    of.iter().map(|(last, mark)| (vip(*last), *mark)).collect()
}

fn naming(mut record: Record, of: &[(u8, Mark)]) -> Record {
    let acquire_us = record.acquire_us.unwrap_or_default();
    record.guarded = Some(Guarded::of(record.transitions, acquire_us, &marks(of)));
    record
}

/// The admission of a holder whose Lease says this of its VIPs 10 and 20.
fn holding(of: &[(u8, Mark)]) -> Admission {
    let mut admission = Admission::new(OWN, &[vip(10), vip(20)], PROBE_TIME);
    let _ = admission.take(&naming(held("before", 1, 5), of));
    admission.took(&naming(held("me", 2, 6), of));
    admission
}

fn list(admission: &mut Admission, ms: u64, leases: &[(&str, Record)]) {
    admission.act(at(ms).boot);
    let number = admission.take_requests().iter().find_map(|request| match request {
        Request::List(number) => Some(*number),
        _ => None,
    });
    let leases = leases.iter().map(|(name, record)| ((*name).to_owned(), record.clone())).collect();
    let number = number.expect("no list was requested");
    admission.listed(at(ms).boot, &Timing::of(D), number, Ok(leases));
}

const BOTH: [(u8, Mark); 2] = [(10, Mark::Admitted), (20, Mark::Claimed)];

#[test]
fn a_claim_that_stands_alone_is_admitted_when_the_lan_was_asked() {
    let mut admission = holding(&BOTH);
    assert!(admission.admits(vip(10)) && !admission.admits(vip(20)));
    list(&mut admission, 0, &[("lease-x", naming(held("x", 7, 9), &[(30, Mark::Admitted)]))]);
    admission.act(at(10).boot);
    assert_eq!(admission.take_requests(), [Request::Probe]);
    assert_eq!(admission.asking(), [vip(20)]);
    admission.act(at(4_009).boot);
    assert!(!admission.has_news());
    admission.act(at(4_010).boot);
    assert!(admission.has_news());
    let both = [(10, Mark::Admitted), (20, Mark::Admitted)];
    assert_eq!(admission.write(false), marks(&both));
    assert!(!admission.admits(vip(20)), "nothing is confirmed yet");
    admission.stored(&naming(held("me", 2, 8), &both), true);
    assert!(admission.admits(vip(20)) && admission.wake_at().is_none());
}

/// At least one of two holders sees the other, but only if each lists after its claim was stored.
#[test]
fn a_list_that_was_begun_before_the_claim_was_stored_counts_for_nothing() {
    let mut admission = holding(&BOTH);
    admission.act(at(0).boot);
    assert_eq!(admission.take_requests(), [Request::List(1)]);
    // The claim disappears from the Lease and comes back.
    admission.stored(&naming(held("me", 2, 7), &[(10, Mark::Admitted)]), true);
    admission.stored(&naming(held("me", 2, 8), &BOTH), true);
    admission.listed(at(10).boot, &Timing::of(D), 1, Ok(Vec::new()));
    assert!(admission.asking().is_empty());
    list(&mut admission, 2_000, &[]);
    admission.act(at(2_000).boot);
    assert_eq!(admission.asking(), [vip(20)]);
}

#[test]
fn of_two_claims_the_lease_with_the_first_name_keeps_its_own() {
    let claims = |record| naming(record, &[(20, Mark::Claimed)]);
    let mut first = holding(&BOTH);
    list(&mut first, 0, &[("lease-z", claims(held("z", 7, 9)))]);
    assert!(
        !first.has_news() && first.asking().is_empty(),
        "it must wait until the other one gives way"
    );
    let mut second = holding(&BOTH);
    list(&mut second, 0, &[("lease-a", claims(held("a", 7, 9)))]);
    assert!(second.has_news());
    assert_eq!(second.write(false), marks(&[(10, Mark::Admitted)]));
    second.stored(&naming(held("me", 2, 8), &[(10, Mark::Admitted)]), true);
    list(&mut second, 1_000, &[("lease-a", naming(held("a", 7, 10), &[]))]);
    assert_eq!(second.write(false), marks(&BOTH), "the VIP is claimed again");
}

#[test]
fn a_vip_that_another_lease_guards_is_refused_and_no_other_one() {
    let mut admission = holding(&BOTH);
    let other = naming(held("node-x", 7, 9), &[(20, Mark::Admitted)]);
    list(&mut admission, 0, &[("lease-x", other)]);
    let obstacles = admission.take_obstacles().unwrap();
    let lease = Obstacle::Lease { lease: "lease-x".into(), holder: "node-x".into() };
    assert_eq!(obstacles, [(vip(10), None), (vip(20), Some(lease))]);
    assert!(admission.admits(vip(10)));
    assert_eq!(admission.write(false), marks(&[(10, Mark::Admitted)]), "the claim is withdrawn");
}

/// Candidates of the other Lease would publish the VIPs that it names, at any later time. So the VIP is
/// first struck out.
#[test]
fn a_lease_that_nobody_renews_is_waited_for_and_struck() {
    let mut admission = holding(&BOTH);
    let other = naming(held("x", 7, 9), &[(20, Mark::Admitted), (30, Mark::Admitted)]);
    list(&mut admission, 0, &[("lease-x", other.clone())]);
    let strike = |admission: &mut Admission| {
        admission.take_requests().into_iter().find_map(|request| match request {
            Request::Strike(strike) => Some(strike),
            _ => None,
        })
    };
    // 2·D·(1+ρ): candidates of that Lease go first.
    list(&mut admission, 6_599, &[("lease-x", other.clone())]);
    assert_eq!(strike(&mut admission), None);
    list(&mut admission, 7_200, &[("lease-x", other.clone())]);
    let strike = strike(&mut admission).expect("the VIP was not struck out");
    assert_eq!((strike.lease.as_str(), strike.base.clone()), ("lease-x", Version("9".into())));
    let left = Guarded::of(7, other.acquire_us.unwrap(), &marks(&[(30, Mark::Admitted)]));
    assert_eq!(strike.guarded, left);
    assert!(admission.asking().is_empty(), "asked before the strike was stored");
    // After a release the wait is shorter. A renewal starts it again.
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[("lease-x", released(other.clone(), 10))]);
    list(&mut admission, 3_300, &[("lease-x", released(other.clone(), 10))]);
    assert!(admission.take_requests().iter().any(|request| matches!(request, Request::Strike(_))));
    list(&mut admission, 4_000, &[("lease-x", released(other, 11))]);
    assert_eq!(admission.take_requests(), []);
}

/// For example, an admission webhook refuses each strike.
#[test]
fn a_lease_that_cannot_be_changed_is_asked_less_and_less_and_told() {
    let mut admission = holding(&BOTH);
    let other = naming(held("x", 7, 9), &[(20, Mark::Admitted)]);
    list(&mut admission, 0, &[("lease-x", other.clone())]);
    let (mut now, mut pauses) = (6_600, Vec::new());
    for _ in 0..12 {
        list(&mut admission, now, &[("lease-x", other.clone())]);
        let wake = admission.wake_at().expect("no further list is planned");
        pauses.push((wake.0 - at(now).boot.0) / 1_000_000);
        now += pauses.last().unwrap();
    }
    assert_eq!(pauses[..4], [100, 200, 400, 800]);
    assert_eq!(pauses.last(), Some(&8_000));
    let left = Obstacle::LeftBehind { lease: "lease-x".into(), holder: "x".into() };
    assert_eq!(admission.take_obstacles().unwrap()[1].1, Some(left));
    list(&mut admission, now, &[("lease-x", naming(held("x", 7, 10), &[]))]);
    assert_eq!(admission.take_obstacles().unwrap()[1].1, None);
}

#[test]
fn a_lease_that_vanishes_is_waited_for() {
    let mut admission = holding(&BOTH);
    let other = naming(held("x", 7, 9), &[(20, Mark::Admitted)]);
    list(&mut admission, 0, &[("lease-x", other)]);
    list(&mut admission, 1_000, &[]);
    assert!(admission.take_obstacles().unwrap()[1].1.is_some());
    list(&mut admission, 7_600, &[]);
    assert_eq!(admission.take_obstacles().unwrap()[1].1, None);
}

#[test]
fn an_address_in_use_is_asked_for_again() {
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[]);
    admission.act(at(0).boot);
    admission.heard(at(500).boot, vip(20), Mac([6; 6]));
    admission.heard(at(500).boot, vip(10), Mac([6; 6]));
    let obstacles = admission.take_obstacles().unwrap();
    assert_eq!(obstacles, [(vip(10), None), (vip(20), Some(Obstacle::InUse(Mac([6; 6]))))]);
    admission.act(at(5_000).boot);
    assert!(admission.asking().is_empty() && !admission.has_news());
    let _ = admission.take_requests();
    admission.act(at(5_500).boot);
    assert_eq!(admission.take_requests(), [Request::Probe]);
    admission.act(at(9_500).boot);
    assert!(admission.has_news());
}

/// The fence had run out in between, so the question was not sent when it was due.
#[test]
fn the_time_for_answers_begins_with_the_question() {
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[]);
    admission.act(at(0).boot);
    admission.heard(at(500).boot, vip(20), Mac([6; 6]));
    let _ = admission.take_requests();
    admission.act(at(60_000).boot);
    assert_eq!(admission.take_requests(), [Request::Probe]);
    assert_eq!(admission.asking(), [vip(20)]);
    admission.act(at(63_999).boot);
    assert!(!admission.has_news());
    admission.act(at(64_000).boot);
    assert!(admission.has_news());
}

/// An answer arrives while the write that admits the VIP is on its way.
#[test]
fn an_address_that_is_heard_at_last_is_not_published() {
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[]);
    admission.act(at(0).boot);
    admission.act(at(4_000).boot);
    let both = [(10, Mark::Admitted), (20, Mark::Admitted)];
    assert_eq!(admission.write(false), marks(&both));
    // Two stations answer. The second answer must not undo the first.
    admission.heard(at(4_010).boot, vip(20), Mac([6; 6]));
    admission.heard(at(4_010).boot, vip(20), Mac([7; 6]));
    admission.stored(&naming(held("me", 2, 8), &both), true);
    assert!(!admission.admits(vip(20)) && admission.admits(vip(10)));
    assert_eq!(admission.write(false), marks(&BOTH), "the VIP is claimed again");
    admission.stored(&naming(held("me", 2, 9), &BOTH), true);
    admission.act(at(9_010).boot);
    admission.act(at(13_010).boot);
    assert_eq!(admission.write(false), marks(&both));
    admission.stored(&naming(held("me", 2, 10), &both), true);
    assert!(admission.admits(vip(20)));
}

/// The take-over by an election with two VIPs that has seen this record.
fn takes(seen: Record) -> LeaseWrite {
    let mut election = fresh();
    election.admit_only(OWN, &[vip(10), vip(20)], PROBE_TIME);
    election.step(at(0), quorum(Some(seen)));
    // The LAN is asked first if another program held the Lease.
    let turn = election.step(at(60_000), Input::Tick);
    let turn = if writes(&turn).is_empty() { election.step(at(61_500), Input::Tick) } else { turn };
    writes(&turn)[0].clone()
}

#[test]
fn a_successor_publishes_what_was_admitted_and_asks_for_the_rest() {
    let before = [(10, Mark::Admitted), (20, Mark::Claimed), (30, Mark::Admitted)];
    let write = takes(naming(held("other", 4, 10), &before));
    assert_eq!(write.vips, Some(marks(&BOTH)), "a VIP that is not configured is dropped");
    assert_eq!(takes(unheld()).vips, Some(marks(&[(10, Mark::Claimed), (20, Mark::Claimed)])));
    // An older version that names no VIPs, another program, and an annotation that another program has
    // left.
    let none = Some(marks(&[(10, Mark::Claimed), (20, Mark::Claimed)]));
    let inherited = Some(marks(&[(10, Mark::Inherited), (20, Mark::Inherited)]));
    assert_eq!(takes(held("other", 4, 10)).vips, inherited);
    assert_eq!(takes(Record { note: None, ..held("kube-vip", 4, 10) }).vips, none);
    let stale = Record { transitions: 5, ..naming(held("other", 4, 10), &BOTH) };
    assert_eq!(takes(Record { note: None, ..stale }).vips, none);
    // A client-go program under the name of its node renews a tenure of xvip. It changes only the time.
    // Its address may be on that node.
    let renewed = Record { noted_renew_us: Some(9), ..naming(held("other", 4, 10), &BOTH) };
    assert_eq!(takes(renewed.clone()).vips, none);
    // An administrator then empties the holder by hand.
    assert_eq!(takes(Record { holder: String::new(), ..renewed }).vips, none);
}

/// Another Lease may have admitted the VIP since the older version wrote. So the Leases are listed
/// first.
#[test]
fn what_is_taken_from_an_old_version_is_published_after_one_list_and_asks_nobody() {
    let mut admission = Admission::new(OWN, &[vip(10)], PROBE_TIME);
    let claimed = admission.take(&held("old", 1, 5));
    assert_eq!(claimed, marks(&[(10, Mark::Inherited)]));
    let mine = |version, of: &[(u8, Mark)]| naming(held("me", 2, version), of);
    admission.took(&mine(6, &[(10, Mark::Inherited)]));
    assert!(!admission.admits(vip(10)));
    let mut alone = admission.clone();
    list(&mut alone, 0, &[]);
    assert!(alone.has_news() && alone.take_requests().is_empty(), "the LAN must not be asked");
    alone.stored(&mine(7, &[(10, Mark::Admitted)]), true);
    assert!(alone.admits(vip(10)));
    assert_eq!(alone.wake_at(), None, "one list is enough");
    // Another Lease of the older version is no obstacle: its holder should have been given other VIPs.
    // If it was given this one, it answers now.
    let mut beside = admission.clone();
    list(&mut beside, 0, &[("lease-x", held("old", 3, 3))]);
    beside.act(at(0).boot);
    assert_eq!(beside.take_requests(), [Request::Probe]);
    beside.heard(at(500).boot, vip(10), Mac([6; 6]));
    beside.act(at(4_000).boot);
    assert!(!beside.has_news(), "the address is in use");
    // The holder dies meanwhile. Its successor does not wait for the older version either.
    let mut next = Admission::new(OWN, &[vip(10)], PROBE_TIME);
    assert_eq!(next.take(&mine(7, &[(10, Mark::Inherited)])), marks(&[(10, Mark::Inherited)]));
    next.took(&naming(held("next", 3, 8), &[(10, Mark::Inherited)]));
    list(&mut next, 0, &[("lease-x", held("old", 3, 3))]);
    next.act(at(0).boot);
    assert_eq!(next.take_requests(), [Request::Probe]);
    // The same applies after a release, and to a process that restarts under a live fence.
    assert_eq!(admission.clone().write(true), marks(&[(10, Mark::Inherited)]));
    let mut again = Admission::new(OWN, &[vip(10)], PROBE_TIME);
    again.stored(&mine(7, &[(10, Mark::Inherited)]), true);
    assert_eq!(again.write(false), marks(&[(10, Mark::Inherited)]));
    list(&mut again, 0, &[("lease-x", held("old", 3, 3))]);
    again.act(at(0).boot);
    assert_eq!(again.take_requests(), [Request::Probe]);
    for other in [Mark::Admitted, Mark::Claimed] {
        let mut second = admission.clone();
        let rival = naming(held("x", 7, 9), &[(10, other)]);
        list(&mut second, 0, &[("lease-a", rival), ("lease-x", held("old", 3, 3))]);
        assert_eq!(second.write(false), Marks::new(), "{other:?}");
    }
}

/// The tenure was adopted from an older version on this host, which already answers. The VIP stays
/// published until another Lease is seen that has admitted it.
#[test]
fn what_was_adopted_from_an_old_version_is_looked_at_once() {
    let mut admission = Admission::new(OWN, &[vip(10)], PROBE_TIME);
    admission.stored(&held("me", 2, 6), true);
    assert!(admission.admits(vip(10)), "a restart must not ask the LAN");
    let mine = |version| naming(held("me", 2, version), &[(10, Mark::Admitted)]);
    admission.write(false);
    admission.act(at(0).boot);
    assert!(admission.take_requests().is_empty(), "a list counts only once the Lease names the VIP");
    admission.stored(&mine(7), true);
    let mut alone = admission.clone();
    list(&mut alone, 0, &[("lease-x", naming(held("x", 3, 3), &[(20, Mark::Admitted)]))]);
    assert!(alone.admits(vip(10)) && alone.wake_at().is_none());
    list(&mut admission, 0, &[("lease-x", naming(held("x", 7, 9), &[(10, Mark::Admitted)]))]);
    assert!(!admission.admits(vip(10)), "the VIP must be silent before the Lease says so");
    // A write that left earlier is stored late.
    admission.stored(&mine(8), true);
    assert!(!admission.admits(vip(10)));
    assert_eq!(admission.write(false), Marks::new());
}

/// A version of xvip that does not say what it guards may guard this VIP.
#[test]
fn nothing_new_is_admitted_beside_a_holder_that_does_not_say() {
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[("lease-x", held("old", 3, 3))]);
    let silent = Obstacle::Silent { lease: "lease-x".into(), holder: "old".into() };
    assert_eq!(admission.take_obstacles().unwrap()[1].1, Some(silent));
    // A client-go program guards no VIPs.
    let mut admission = holding(&BOTH);
    list(&mut admission, 0, &[("lease-x", Record { note: None, ..held("kcm", 3, 3) })]);
    assert_eq!(admission.take_obstacles().unwrap()[1].1, None);
}

/// The fence had run out, and another node struck the VIP out of the Lease before the next renewal.
#[test]
fn what_was_struck_out_while_the_fence_was_over_does_not_wake_with_it() {
    let mut election = fresh();
    election.admit_only(OWN, &[vip(10)], PROBE_TIME);
    election.step(at(0), quorum(Some(naming(held("other", 4, 10), &[(10, Mark::Admitted)]))));
    let write = writes(&election.step(at(3_400), Input::Tick))[0].clone();
    election.step(at(3_420), answered(&write, 11));
    let generation = election.generation();
    assert!(election.admits(vip(10)));
    let struck = naming(own_record(&election, 12), &[]);
    let turn = election.step(at(9_000), watched(struck));
    assert!(!election.admits(vip(10)) && election.generation() == generation + 1);
    let write = writes(&turn)[0].clone();
    assert_eq!(write.vips, Some(marks(&[(10, Mark::Claimed)])));
    let turn = election.step(at(9_010), answered(&write, 13));
    assert_eq!(raised(&turn).map(|(new, _)| new), Some(generation + 1), "{turn:?}");
}

/// A process restarts under a live fence and finds the Lease deleted. It writes the Lease again with
/// the VIPs for which the kernel answers. The kernel answers all the time.
#[test]
fn what_the_kernel_answers_for_outlives_a_deleted_lease() {
    let tenure = held("me", 2, 6).tenure().unwrap();
    let (until, served) = (at(2_000).boot, BTreeSet::from([vip(10)]));
    let slot = AdoptedFence { tenure, until, duration_s: D, served };
    let blank = Record { holder: String::new(), ..naming(held("me", 2, 7), &BOTH) };
    for found in [None, Some(blank)] {
        let mut election = Election::new(me(), Timing::of(D), 3, Some(slot.clone()));
        election.admit_only(OWN, &[vip(10), vip(20)], PROBE_TIME);
        let turn = election.step(at(0), quorum(found));
        assert!(election.admits(vip(10)) && !election.admits(vip(20)));
        assert_eq!(writes(&turn)[0].vips, Some(marks(&BOTH)));
        // While no process ran, another Lease may have admitted the VIP. A list must show that.
        let stored = election.step(at(10), answered(writes(&turn)[0], 8));
        let later = election.step(at(11), Input::Tick);
        let mut sends = stored.sends.iter().chain(&later.sends);
        assert!(sends.any(|send| matches!(send, Outgoing::List(_))));
    }
}
