//! Holders that are not xvip, under another name and under our own.

use super::{
    election::{Election, Input},
    election_tests::{answered, asks, at, fresh, held, holder, quorum, watched, writes},
    record::{Record, Version},
    state::State,
};
use crate::model::{
    desired::{Desired, Link, LinkRole, Placement, VipSpec, desired},
    news::Why,
    ownership::Ownership,
    plan::{Action, Actual, plan},
    time::BootNs,
    timing::Timing,
};
use std::collections::BTreeMap;
use vip_common::{
    abi::{HostAddr, Ip, Port, Vip},
    mac::Mac,
};

const X: Ip = Ip::v4([192, 0, 2, 10]);

/// The same tenure after a client-go program of the same name has renewed it.
fn renewed_by_client_go(mut record: Record, version: u64) -> Record {
    record.version = Version(version.to_string());
    record.renew_us = record.renew_us.map(|renew_us| renew_us + 2_000_000);
    record
}

/// A tenure as xvip on the node `other` writes it.
fn tenure_of_other() -> Record {
    let mut other = holder();
    let write = writes(&other.step(at(4_000), Input::Tick))[0].clone();
    let mut record = write.stored("uid-1".into(), 12);
    record.holder = "other".into();
    if let Some(note) = &mut record.note {
        note.holder = "other".into();
    }
    assert!(record.tenure().is_some());
    record
}

#[test]
fn a_tenure_that_a_client_go_program_has_renewed_is_a_strangers() {
    let ours = tenure_of_other();
    let theirs = renewed_by_client_go(ours.clone(), 13);
    assert_eq!(theirs.tenure(), None);
    let mut election = fresh();
    election.step(at(0), quorum(Some(ours)));
    election.step(at(100), watched(theirs));
    // The wait is 2·D + 10 s, not D·(1+ρ).
    assert!(asks(&election.step(at(14_600), Input::Tick)));
    assert!(writes(&election.step(at(16_099), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(16_100), Input::Tick)).len(), 1);
}

/// Both programs run on one host. The record shows that the renewal was not ours, so this node goes
/// silent.
#[test]
fn a_holder_whose_tenure_a_client_go_program_renews_is_silent_at_once() {
    let mut election = holder();
    let write = writes(&election.step(at(4_000), Input::Tick))[0].clone();
    election.step(at(4_010), answered(&write, 12));
    let theirs = renewed_by_client_go(write.stored("uid-1".into(), 12), 13);
    let turn = election.step(at(4_500), watched(theirs));
    assert_eq!(turn.silence, Some(Why::Deposed));
    assert_eq!(election.ownership(BootNs(0)), Ownership::ProgramHere);
    // Another node takes the Lease, so the guard is back at once.
    let turn = election.step(at(4_600), watched(held("other", 9, 14)));
    assert_ne!(election.ownership(BootNs(0)), Ownership::ProgramHere);
    assert!(turn.host, "{turn:?}");
}

/// In a rolling upgrade, an older version does not repeat `renewTime` in the annotation.
#[test]
fn an_annotation_that_repeats_no_renew_time_counts() {
    let mut older = tenure_of_other();
    older.noted_renew_us = None;
    assert!(older.tenure().is_some());
    let mut election = fresh();
    election.step(at(0), quorum(Some(older)));
    assert_eq!(writes(&election.step(at(3_300), Input::Tick)).len(), 1);
}

fn want(election: &Election, ms: u64) -> Desired {
    let owners = BTreeMap::from([(0, election.ownership(at(ms).boot))]);
    let specs = [VipSpec {
        ip: "192.0.2.10".parse().unwrap(),
        slot: 0,
        answer: 1,
        yielded: false,
        admitted: true,
    }];
    let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
    let link = Link { port, bit: 0, role: LinkRole::Answer, mac: Mac([2; 6]), up: true, guarded: true };
    desired(at(ms).boot, &owners, &Timing::of(3), &specs, &[link], Placement::Loopback)
}

/// kube-vip on this node takes the Lease. Its address is already on eth0.
#[test]
fn the_guard_is_out_of_the_way_of_a_program_of_this_node_that_holds_the_lease() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let mut have = Actual::default();
    have.vips.insert(X, Vip::new(0, 0, 1, u64::MAX));
    have.addrs.insert(HostAddr { ip: X, ifindex: 2 }, u32::MAX);
    let withdraws =
        |election: &Election, ms: u64| plan(&want(election, ms), &have).contains(&Action::Withdraw(X));
    assert!(!withdraws(&election, 50), "another node holds it");
    let mut taken = held("other", 5, 11);
    taken.holder = "me".into();
    election.step(at(100), watched(taken.clone()));
    assert!(withdraws(&election, 200));
    // The program renews, so its frames still pass.
    election.step(at(10_100), watched(renewed_by_client_go(taken, 12)));
    assert!(withdraws(&election, 20_000));
    // The program was killed, and its address stays. Other nodes may take the Lease 16 s after the last
    // renewal. The guard must be back before, even if their clocks are 10 % fast and this one is 10 %
    // slow.
    let back = 10_100 + 16_000 * 90 / 110;
    election.step(at(back - 1), Input::Tick);
    assert!(withdraws(&election, back - 1));
    let wake = election.wake_at(at(back - 1).boot).unwrap();
    assert!(at(back - 1).boot < wake && wake <= at(back + 1).boot);
    election.step(at(back + 1), Input::Tick);
    have.vips.clear();
    let actions = plan(&want(&election, back + 1), &have);
    assert!(matches!(
        actions[..],
        [Action::SetIface(..), Action::Publish(X, Vip { generation: 0, .. })]
    ));
}

#[test]
fn the_guard_is_back_at_once_when_another_node_has_taken_the_lease() {
    let mut election = fresh();
    let mut taken = held("other", 5, 11);
    taken.holder = "me".into();
    election.step(at(0), quorum(Some(taken)));
    assert!(want(&election, 1).passing.contains(&X));
    election.step(at(100), watched(held("other", 6, 12)));
    assert!(
        matches!(election.state(), State::Waiting(_))
            && (election.ownership(BootNs(0)) != Ownership::ProgramHere)
    );
    assert!(want(&election, 100).vips.contains_key(&X));
}
