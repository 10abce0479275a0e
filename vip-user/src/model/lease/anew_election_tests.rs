//! A missing Lease is created without a holder. Then nodes wait for it or take it back like any other
//! Lease.

use super::{
    election::{Input, Written},
    election_tests::{
        UID, at, deadline, fresh, held, holder, quorum, tenure_of, unheld, watched, writes,
    },
    record::Record,
};
use crate::model::{
    effects::Outgoing,
    fitness::Fitness,
    news::{Notice, Why},
    time::BootNs,
};

#[test]
fn a_lease_that_is_gone_is_created_without_a_holder_and_waited_for() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(3_200), quorum(None));
    assert!(turn.sends.contains(&Outgoing::Create) && writes(&turn).is_empty());
    // The Lease was not stored. Each renewal interval brings another attempt, and nothing is taken
    // meanwhile.
    assert!(!election.step(at(3_799), Input::Tick).sends.contains(&Outgoing::Create));
    let turn = election.step(at(9_000), Input::Tick);
    assert!(turn.sends.contains(&Outgoing::Create) && writes(&turn).is_empty());
    let turn = election.step(at(9_100), watched(unheld()));
    assert!(!turn.sends.contains(&Outgoing::Probe), "it was held before, so the LAN is not asked");
    assert!(writes(&election.step(at(12_399), Input::Tick)).is_empty());
    let turn = election.step(at(12_400), Input::Tick);
    let write = writes(&turn)[0];
    assert_eq!((write.base.clone(), write.note.transitions), (Some(unheld().version), 5));
}

#[test]
fn the_first_hold_asks_for_the_addresses_first() {
    let mut election = fresh();
    election.step(at(0), quorum(None));
    let turn = election.step(at(100), quorum(Some(unheld())));
    assert!(turn.sends.contains(&Outgoing::Probe));
    // D·(1+ρ) is 3.3 s here.
    assert!(writes(&election.step(at(4_099), Input::Tick)).is_empty());
    let turn = election.step(at(4_100), Input::Tick);
    let write = writes(&turn)[0].clone();
    assert_eq!(write.note.transitions, 1);
    // The longer wait was for the addresses. A tenure is waited for as usual.
    let mut other = fresh();
    other.step(at(0), quorum(Some(unheld())));
    other.step(at(4_110), watched(write.stored(UID.into(), 21)));
    assert!(writes(&other.step(at(7_409), Input::Tick)).is_empty());
    assert_eq!(writes(&other.step(at(7_410), Input::Tick)).len(), 1);
}

#[test]
fn a_node_that_may_not_hold_creates_nothing() {
    let mut election = fresh();
    election.set_fitness(Fitness::Barred, Vec::new());
    assert!(!election.step(at(0), quorum(None)).sends.contains(&Outgoing::Create));
}

#[test]
fn a_lease_that_was_created_anew_is_taken_back_under_a_live_fence() {
    let mut election = holder();
    let anew = Record { uid: "uid-2".into(), ..unheld() };
    let turn = election.step(at(3_500), quorum(Some(anew.clone())));
    let write = writes(&turn)[0].clone();
    assert_eq!(write.base, Some(anew.version));
    let (id, record) = (write.id, write.stored(anew.uid.clone(), 21));
    let mut told_by_a_read = election.clone();
    told_by_a_read.step(at(3_510), quorum(Some(record.clone())));
    assert_eq!(tenure_of(&told_by_a_read).uid, "uid-2", "a lost answer must do no harm");
    // A later renewal that overtakes the first attempt counts too.
    let turn = election.step(at(4_100), Input::Tick);
    let again = writes(&turn)[0].clone();
    let stored = Written::Stored(again.stored(anew.uid, 22));
    let turn = election.step(at(4_110), Input::Written { id: again.id, outcome: stored });
    assert_eq!(deadline(&turn), Some(BootNs(at(4_100).boot.0 + 2_650_000_000)));
    election.step(at(4_120), Input::Written { id, outcome: Written::Stored(record) });
    assert_eq!(tenure_of(&election).uid, "uid-2");
}

/// The new holder counts its tenures from the beginning. Fewer transitions do not make its tenure
/// older.
#[test]
fn another_holder_of_a_lease_that_was_created_anew_silences_now() {
    let mut election = holder();
    election.step(at(3_500), quorum(Some(Record { uid: "uid-2".into(), ..unheld() })));
    let taken = Record { uid: "uid-2".into(), ..held("other", 1, 22) };
    let turn = election.step(at(3_600), watched(taken));
    assert_eq!(turn.silence, Some(Why::Deposed));
    assert!(writes(&turn).is_empty());
}

/// The answer does not show which Leases existed before the write was stored.
#[test]
fn a_lease_that_was_created_late_is_no_proof() {
    let mut election = holder();
    let turn = election.step(at(3_500), quorum(None));
    let create = writes(&turn)[0].clone();
    assert_eq!(create.base, None);
    let stored = create.stored("uid-2".into(), 30);
    let answer = Input::Written { id: create.id, outcome: Written::Stored(stored.clone()) };
    let mut in_time = election.clone();
    in_time.step(at(6_049), answer.clone());
    assert_eq!(tenure_of(&in_time).uid, "uid-2");

    let turn = election.step(at(6_050), answer.clone());
    assert_eq!(turn.silence, Some(Why::Deposed));
    assert!(writes(&turn).is_empty());
    assert!(writes(&election.step(at(9_349), Input::Tick)).is_empty());
    assert_eq!(
        writes(&election.step(at(9_350), Input::Tick)).len(),
        1,
        "it must wait like any other node"
    );
}

#[test]
fn a_lease_that_was_created_late_is_not_released() {
    let mut election = holder();
    let turn = election.step(at(3_500), quorum(None));
    let create = writes(&turn)[0].clone();
    election.step(at(3_600), Input::Leave);
    election.step(at(3_610), Input::Silenced);
    let stored = Written::Stored(create.stored("uid-2".into(), 30));
    let answer = Input::Written { id: create.id, outcome: stored };
    let mut in_time = election.clone();
    let turn = in_time.step(at(6_049), answer.clone());
    assert!(writes(&turn)[0].release);
    let turn = election.step(at(6_050), answer);
    assert!(turn.news.contains(&Notice::ReleaseFailed));
    assert!(writes(&turn).is_empty());
}
