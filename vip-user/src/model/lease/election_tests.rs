//! Tests of the election. Each one applies one rule of ownership to a hand-made record.

use super::{
    election::{AdoptedFence, Election, Identity, Input, Source, Written},
    record::{LeaseWrite, Record, Tenure, TenureNote, Version},
    state::State,
};
use crate::model::{
    effects::{Effects, FenceChange, Outgoing},
    fitness::Fitness,
    news::{Notice, TakeReason, Why},
    ownership::Ownership,
    time::{BootNs, Now},
    timing::Timing,
    turn::{Step, Turn},
};
use std::{collections::BTreeSet, time::Duration};

pub(super) const D: u32 = 3;
pub(super) const UID: &str = "uid-1";

fn timing(duration_s: u32) -> Timing {
    Timing {
        duration_s,
        renew_every: Duration::from_millis(600),
        margin: Duration::from_millis(50),
        clock_error_percent: 10,
        foreign_grace: None,
        linger: Duration::from_secs(2),
    }
}

pub(super) fn at(ms: u64) -> Now {
    Now { boot: BootNs(1_000_000_000_000 + ms * 1_000_000), wall_us: 1_700_000_000_000_000 + ms as i64 }
}

pub(super) fn me() -> Identity {
    Identity { node: "me".into(), process: "p1".into(), boot_id: "b1".into() }
}

pub(super) fn fresh() -> Election {
    Election::new(me(), timing(D), 0, None)
}

fn note(holder: &str, transitions: i64) -> TenureNote {
    TenureNote {
        holder: holder.into(),
        transitions,
        acquire_us: 1_000 + transitions,
        process: format!("process-of-{holder}"),
        boot_id: "b".into(),
    }
}

/// Whether the LAN is asked.
pub(super) fn asks(effects: &Effects) -> bool {
    effects.sends.contains(&Outgoing::Probe)
}

/// A record as xvip on the node `holder` writes it.
pub(super) fn held(holder: &str, transitions: i64, version: u64) -> Record {
    let note = note(holder, transitions);
    Record {
        uid: UID.into(),
        version: Version(version.to_string()),
        holder: holder.into(),
        duration_s: D,
        transitions,
        acquire_us: Some(note.acquire_us),
        renew_us: Some(version as i64),
        note: Some(note),
        noted_renew_us: None,
        released: None,
        fitness: Fitness::Able,
        offer: None,
        preference: None,
        macs: Vec::new(),
        guarded: None,
    }
}

/// A Lease that has just been created.
pub(super) fn unheld() -> Record {
    Record::unheld(UID.into(), 20, D)
}

/// The release of the tenure in `record`.
pub(super) fn released(mut record: Record, version: u64) -> Record {
    record.version = Version(version.to_string());
    record.holder.clear();
    record.renew_us = Some(version as i64);
    record.released.clone_from(&record.note);
    record
}

/// The answer to a read that has just begun.
pub(super) fn quorum(record: Option<Record>) -> Input {
    Input::Observed(Source::Quorum(BootNs(u64::MAX)), record)
}

pub(super) fn watched(record: Record) -> Input {
    Input::Observed(Source::Watch, Some(record))
}

pub(super) fn writes(turn: &Effects) -> Vec<&LeaseWrite> {
    turn.writes().collect()
}

pub(super) fn deadline(turn: &Effects) -> Option<BootNs> {
    turn.fences.iter().find_map(|change| match change {
        FenceChange::Raise { deadline, .. } => Some(*deadline),
        FenceChange::Lower(_) => None,
    })
}

/// The generation of the fence that is raised, and whether no fence was live before.
pub(super) fn raised(turn: &Effects) -> Option<(u64, bool)> {
    turn.fences.iter().find_map(|change| match change {
        FenceChange::Raise { generation, new, .. } => Some((*generation, *new)),
        FenceChange::Lower(_) => None,
    })
}

pub(super) fn answered(write: &LeaseWrite, version: u64) -> Input {
    Input::Written { id: write.id, outcome: Written::Stored(write.stored(UID.into(), version)) }
}

/// An election that has taken over an expired Lease. Its write left at 3400 ms and was answered at 3420
/// ms with version 11.
pub(super) fn holder() -> Election {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(3_400), Input::Tick);
    let write = writes(&turn)[0].clone();
    let turn = election.step(at(3_420), answered(&write, 11));
    assert_eq!(deadline(&turn), Some(BootNs(at(3_400).boot.0 + 2_650_000_000)));
    election
}

pub(super) fn tenure_of(election: &Election) -> Tenure {
    match election.state() {
        State::Holding(holding) => holding.tenure.clone(),
        other => panic!("not holding: {other:?}"),
    }
}

pub(super) fn own_record(election: &Election, version: u64) -> Record {
    let tenure = tenure_of(election);
    let note = tenure.note;
    Record {
        uid: tenure.uid,
        version: Version(version.to_string()),
        holder: note.holder.clone(),
        duration_s: D,
        transitions: note.transitions,
        acquire_us: Some(note.acquire_us),
        renew_us: Some(1),
        note: Some(note),
        noted_renew_us: None,
        released: None,
        fitness: Fitness::Able,
        offer: None,
        preference: None,
        macs: Vec::new(),
        guarded: None,
    }
}

#[test]
fn a_taker_waits_a_full_lease_and_takes_the_version_it_saw() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    assert!(writes(&election.step(at(3_299), Input::Tick)).is_empty());
    assert_eq!(election.wake_at(at(3_299).boot), Some(at(3_300).boot));
    let turn = election.step(at(3_300), Input::Tick);
    let write = writes(&turn)[0];
    assert_eq!(write.base, Some(Version("10".into())));
    assert_eq!((write.note.transitions, write.note.holder.as_str()), (5, "me"));
}

#[test]
fn every_renewal_seen_restarts_the_timer() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    election.step(at(3_000), watched(held("other", 4, 11)));
    assert!(writes(&election.step(at(6_299), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(6_300), Input::Tick)).len(), 1);
}

#[test]
fn an_edited_label_restarts_no_timer_but_moves_the_version() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let mut labelled = held("other", 4, 10);
    labelled.version = Version("12".into());
    election.step(at(3_000), watched(labelled));
    let turn = election.step(at(3_300), Input::Tick);
    assert_eq!(writes(&turn)[0].base, Some(Version("12".into())));
}

#[test]
fn a_lagging_watch_changes_nothing() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    election.step(at(3_000), watched(held("other", 4, 9)));
    assert_eq!(writes(&election.step(at(3_300), Input::Tick)).len(), 1);
}

#[test]
fn the_longest_lease_of_the_tenure_is_waited_for() {
    let mut election = fresh();
    let mut long = held("other", 4, 10);
    long.duration_s = 10;
    election.step(at(0), quorum(Some(long)));
    election.step(at(1_000), watched(held("other", 4, 11)));
    assert!(writes(&election.step(at(11_999), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(12_000), Input::Tick)).len(), 1);
}

#[test]
fn a_release_of_the_observed_tenure_is_taken_at_once() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(100), watched(released(held("other", 4, 10), 11)));
    assert_eq!(writes(&turn).len(), 1);
}

#[test]
fn an_empty_holder_that_is_no_release_is_waited_out() {
    let blank = |change: fn(&mut Record)| {
        let mut record = released(held("other", 4, 10), 11);
        change(&mut record);
        let mut election = fresh();
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        let early = election.step(at(100), watched(record));
        assert!(writes(&early).is_empty(), "taken at once");
        assert!(writes(&election.step(at(3_399), Input::Tick)).is_empty());
        assert_eq!(writes(&election.step(at(3_400), Input::Tick)).len(), 1);
    };
    // An administrator blanks the holder.
    blank(|record| record.released = None);
    // The annotation was already there before the holder was emptied.
    let mut marked = held("other", 4, 10);
    marked.released.clone_from(&marked.note);
    let mut election = fresh();
    election.step(at(0), quorum(Some(marked.clone())));
    let early = election.step(at(100), watched(released(marked, 11)));
    assert!(writes(&early).is_empty(), "taken at once");
    // The annotation names another tenure.
    blank(|record| record.released = Some(note("other", 3)));
    // The release is in another Lease (another uid).
    blank(|record| record.uid = "uid-2".into());
}

#[test]
fn a_release_that_was_never_seen_held_is_waited_out() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(released(held("other", 4, 10), 11))));
    assert!(writes(&election.step(at(3_299), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(3_300), Input::Tick)).len(), 1);
}

#[test]
fn a_foreign_holder_is_waited_out_longer() {
    let mut foreign = held("kube-vip-node", 4, 10);
    foreign.note = None;
    let mut election = fresh();
    election.step(at(0), quorum(Some(foreign)));
    assert!(!asks(&election.step(at(14_499), Input::Tick)));
    assert!(asks(&election.step(at(14_500), Input::Tick)), "the LAN is asked before the take-over");
    assert!(writes(&election.step(at(15_999), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(16_000), Input::Tick)).len(), 1);
}

#[test]
fn our_own_name_without_our_tenure_is_another_program_here() {
    let mut foreign = held("me", 4, 10);
    foreign.note = None;
    let mut election = fresh();
    let turn = election.step(at(0), quorum(Some(foreign)));
    assert_eq!(election.ownership(BootNs(0)), Ownership::ProgramHere);
    assert!(turn.news.contains(&Notice::Foreign { holder: "me".into(), own_name: true }));
}

#[test]
fn a_tenure_of_a_dead_process_of_this_node_is_a_strangers() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("me", 4, 10))));
    assert_ne!(election.ownership(BootNs(0)), Ownership::ProgramHere);
    assert!(writes(&election.step(at(3_299), Input::Tick)).is_empty());
}

#[test]
fn the_fence_counts_from_before_the_request_left() {
    let mut election = holder();
    let turn = election.step(at(4_000), Input::Tick);
    let write = writes(&turn)[0].clone();
    let turn = election.step(at(4_900), answered(&write, 12));
    assert_eq!(deadline(&turn), Some(BootNs(at(4_000).boot.0 + 2_650_000_000)));
}

#[test]
fn the_shorter_of_written_and_returned_duration_counts() {
    let mut election = holder();
    let turn = election.step(at(4_000), Input::Tick);
    let write = writes(&turn)[0].clone();
    let mut record = write.stored(UID.into(), 12);
    record.duration_s = 2;
    let id = write.id;
    let outcome = Written::Stored(record);
    let turn = election.step(at(4_010), Input::Written { id, outcome });
    // The present fence was raised for 3 s. Takers that start now see only 2 s.
    assert_eq!(turn.fences[0], FenceChange::Lower(BootNs(at(3_400).boot.0 + 1_750_000_000)));
    assert_eq!(deadline(&turn), Some(BootNs(at(4_000).boot.0 + 1_750_000_000)));
}

#[test]
fn an_answer_that_stored_nothing_raises_nothing() {
    let mut election = holder();
    let turn = election.step(at(4_000), Input::Tick);
    let write = writes(&turn)[0].clone();
    // 200 with the version that was sent: the API server found nothing to change.
    let turn = election.step(at(4_010), answered(&write, 11));
    assert_eq!(deadline(&turn), None);
    assert!(turn.sends.contains(&Outgoing::Read));
}

#[test]
fn every_write_carries_a_new_renew_time() {
    let mut election = holder();
    let mut last = 0;
    for (step, version) in (12..20).enumerate() {
        let mut now = at(4_000 + 600 * step as u64);
        // The wall clock does not advance.
        now.wall_us = 1_700_000_000_000_000;
        let turn = election.step(now, Input::Tick);
        let write = writes(&turn)[0].clone();
        assert!(write.renew_us > last, "renewTime must change with every write");
        last = write.renew_us;
        election.step(now, answered(&write, version));
    }
}

#[test]
fn a_slow_attempt_is_joined_by_another_and_still_counts() {
    let mut election = holder();
    let turn = election.step(at(4_000), Input::Tick);
    let first = writes(&turn)[0].clone();
    let turn = election.step(at(4_600), Input::Tick);
    let second = writes(&turn)[0].clone();
    assert_eq!((first.in_flight, second.in_flight), (0, 1));
    assert_eq!(first.base, second.base);
    let turn = election.step(at(4_700), answered(&first, 12));
    assert_eq!(deadline(&turn), Some(BootNs(at(4_000).boot.0 + 2_650_000_000)));
    let id = second.id;
    let turn = election.step(at(4_710), Input::Written { id, outcome: Written::Conflict });
    assert!(!turn.sends.contains(&Outgoing::Read), "the conflict was with our own write");
}

#[test]
fn another_holder_silences_now_and_not_at_the_deadline() {
    let mut election = holder();
    let turn = election.step(at(3_500), watched(held("other", 6, 12)));
    assert_eq!(turn.silence, Some(Why::Deposed));
    assert!(matches!(election.state(), State::Waiting(_)));
}

#[test]
fn an_edit_that_hands_the_lease_to_a_stranger_silences() {
    let mut election = holder();
    let mut edited = own_record(&election, 12);
    edited.holder = "stranger".into();
    let turn = election.step(at(3_500), watched(edited));
    assert_eq!(turn.silence, Some(Why::Deposed));
}

#[test]
fn a_deleted_lease_is_recreated_at_once_under_a_live_fence() {
    let mut election = holder();
    let turn = election.step(at(3_500), quorum(None));
    let write = writes(&turn)[0].clone();
    assert_eq!((write.base.clone(), write.note.transitions), (None, 5));
    let mut record = write.stored(UID.into(), 20);
    record.uid = "uid-2".into();
    let id = write.id;
    let turn = election.step(at(3_510), Input::Written { id, outcome: Written::Stored(record) });
    assert_eq!(deadline(&turn), Some(BootNs(at(3_500).boot.0 + 2_650_000_000)));
    assert_eq!(tenure_of(&election).uid, "uid-2");
}

#[test]
fn a_deleted_lease_is_not_recreated_after_the_fence() {
    let mut election = holder();
    let turn = election.step(at(6_100), quorum(None));
    assert!(writes(&turn).is_empty());
    assert!(turn.silence == Some(Why::Deposed));
}

#[test]
fn a_lease_that_another_node_created_is_waited_for_as_long_as_any() {
    let mut election = fresh();
    election.step(at(0), quorum(None));
    election.step(at(1_000), watched(held("other", 0, 10)));
    assert!(writes(&election.step(at(4_299), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(4_300), Input::Tick)).len(), 1);
}

#[test]
fn a_blanked_lease_is_reasserted_under_a_live_fence() {
    let mut election = holder();
    let mut blank = own_record(&election, 12);
    blank.holder.clear();
    let turn = election.step(at(3_500), watched(blank));
    assert_eq!(writes(&turn)[0].base, Some(Version("12".into())));
    assert_eq!(turn.silence, None);
}

#[test]
fn an_older_content_is_overwritten_under_a_live_fence() {
    let mut election = holder();
    let turn = election.step(at(3_500), quorum(Some(held("other", 4, 9))));
    assert_eq!(writes(&turn)[0].base, Some(Version("9".into())));
}

#[test]
fn a_release_of_our_tenure_is_never_overwritten() {
    let mut election = holder();
    let record = released(own_record(&election, 12), 12);
    let turn = election.step(at(3_500), quorum(Some(record)));
    assert_eq!(turn.silence, Some(Why::Deposed));
}

#[test]
fn silence_comes_before_the_release() {
    let mut election = holder();
    let turn = election.step(at(3_500), Input::Leave);
    assert_eq!(turn.silence, Some(Why::Leaving));
    assert!(writes(&turn).is_empty(), "released before the kernel was silent");
    assert!(writes(&election.step(at(3_550), Input::Tick)).is_empty());
    let turn = election.step(at(3_600), Input::Silenced);
    let write = writes(&turn)[0].clone();
    assert!(write.release);
    let turn = election.step(at(3_610), answered(&write, 12));
    assert!(turn.news.contains(&Notice::Released));
    assert_eq!(election.state(), &State::Left);
}

#[test]
fn a_renewal_that_ends_after_the_stop_raises_nothing() {
    let mut election = holder();
    let turn = election.step(at(4_000), Input::Tick);
    let renewal = writes(&turn)[0].clone();
    election.step(at(4_010), Input::Leave);
    let turn = election.step(at(4_020), answered(&renewal, 12));
    assert_eq!(deadline(&turn), None);
    let turn = election.step(at(4_030), Input::Silenced);
    assert_eq!(writes(&turn)[0].base, Some(Version("12".into())));
}

#[test]
fn a_take_over_whose_answer_was_lost_is_recognised() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(3_300), Input::Tick);
    let write = writes(&turn)[0].clone();
    election.step(at(4_000), Input::Written { id: write.id, outcome: Written::Failed });
    let turn = election.step(at(4_010), quorum(Some(write.stored(UID.into(), 11))));
    assert_eq!(deadline(&turn), None, "without an answer, only a renewal raises the fence");
    assert!(matches!(election.state(), State::Holding(_)));
    assert_eq!(writes(&turn)[0].base, Some(Version("11".into())));
}

#[test]
fn a_restart_adopts_the_tenure_of_its_own_boot() {
    let tenure = Tenure { uid: UID.into(), note: note("me", 4) };
    let until = at(2_000).boot;
    let slot = AdoptedFence { tenure: tenure.clone(), until, duration_s: D, served: BTreeSet::new() };
    let mut election = Election::new(me(), timing(D), 7, Some(slot));
    let turn = election.step(at(1_000), quorum(Some(held("me", 4, 10))));
    assert!(turn.news.contains(&Notice::Adopted));
    let write = writes(&turn)[0].clone();
    assert_eq!(write.note, tenure.note);
    let turn = election.step(at(1_010), answered(&write, 11));
    assert_eq!((raised(&turn), turn.host), (Some((7, false)), false));
}

#[test]
fn a_restart_after_the_fence_adopts_nothing() {
    let tenure = Tenure { uid: UID.into(), note: note("me", 4) };
    let slot = AdoptedFence { tenure, until: at(900).boot, duration_s: D, served: BTreeSet::new() };
    let mut election = Election::new(me(), timing(D), 7, Some(slot));
    let turn = election.step(at(1_000), quorum(Some(held("me", 4, 10))));
    assert_eq!(turn.silence, Some(Why::NotAdopted));
    assert!(writes(&election.step(at(4_299), Input::Tick)).is_empty());
    let turn = election.step(at(4_300), Input::Tick);
    let write = writes(&turn)[0].clone();
    let turn = election.step(at(4_310), answered(&write, 11));
    assert!(turn.news.contains(&Notice::TookOver(TakeReason::Expired)));
    assert!(matches!(raised(&turn), Some((8, _))));
}

#[test]
fn a_restart_under_another_holder_is_silent_at_once() {
    let tenure = Tenure { uid: UID.into(), note: note("me", 4) };
    let slot = AdoptedFence { tenure, until: at(2_000).boot, duration_s: D, served: BTreeSet::new() };
    let mut election = Election::new(me(), timing(D), 7, Some(slot));
    let turn = election.step(at(1_000), quorum(Some(held("other", 5, 11))));
    assert_eq!(turn.silence, Some(Why::Deposed));
}

#[test]
fn a_shorter_lease_lowers_the_fence_before_it_is_written() {
    let tenure = Tenure { uid: UID.into(), note: note("me", 4) };
    let sent = at(0).boot;
    let slot = AdoptedFence {
        tenure,
        until: sent.after(timing(10).hold(10)),
        duration_s: 10,
        served: BTreeSet::new(),
    };
    let mut election = Election::new(me(), timing(3), 7, Some(slot));
    let mut record = held("me", 4, 10);
    record.duration_s = 10;
    let effects = election.step(at(500), quorum(Some(record)));
    let id = writes(&effects)[0].id;
    let mut turn = Turn::of(1, effects);
    let lower = FenceChange::Lower(sent.after(timing(3).hold(3)));
    assert_eq!(turn.next(true), Some(Step::Fence(1, lower.clone())));
    // If that fails, the write must not leave.
    let (mut works, mut fails) = (turn.clone(), turn);
    fails.failed_to_lower(1);
    let leaves = |turn: &mut Turn, reconciled| {
        let mut steps = std::iter::from_fn(|| turn.next(reconciled));
        steps.any(|step| matches!(step, Step::Send(1, Outgoing::Write(_))))
    };
    assert!(!leaves(&mut works.clone(), false), "the entries have never been reconciled");
    assert!(leaves(&mut works, true) && !leaves(&mut fails, true));
    // The fence must be lowered before the next attempt.
    election.step(at(500), Input::NotLowered(sent.after(timing(3).hold(3))));
    election.step(at(500), Input::Written { id, outcome: Written::Failed });
    let mut later = (500..5_000).map(|ms| election.step(at(ms), Input::Tick));
    let next = later.find(|turn| !writes(turn).is_empty()).unwrap();
    assert_eq!(next.fences, [lower]);
}

#[test]
fn a_shorter_lease_and_a_worse_clock_at_once_lower_the_fence_as_far() {
    let tenure = Tenure { uid: UID.into(), note: note("me", 4) };
    let slot = AdoptedFence {
        tenure,
        until: at(0).boot.after(timing(10).hold(10)),
        duration_s: 10,
        served: BTreeSet::new(),
    };
    let worse = Timing { clock_error_percent: 30, ..timing(3) };
    let mut election = Election::new(me(), worse.clone(), 7, Some(slot));
    let turn = election.step(at(500), quorum(Some(Record { duration_s: 10, ..held("me", 4, 10) })));
    // A node that sees the shorter D sees it only after this write has left.
    assert!(turn.fences.contains(&FenceChange::Lower(worse.fence(at(500).boot, 3))), "{turn:?}");
}

#[test]
fn a_lapsed_holder_that_nobody_replaced_goes_on() {
    let mut election = holder();
    let turn = election.step(at(6_050), Input::Tick);
    assert!(turn.news.contains(&Notice::Lapsed));
    let write = writes(&turn)[0].clone();
    let turn = election.step(at(6_100), answered(&write, 12));
    assert!(turn.news.contains(&Notice::Regained));
    assert_eq!(raised(&turn), Some((1, true)));
}

#[test]
fn a_node_that_cannot_serve_is_last_choice_and_not_excluded() {
    let mut election = fresh();
    election.set_fitness(Fitness::Unable, Vec::new());
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    assert!(writes(&election.step(at(6_599), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(6_600), Input::Tick)).len(), 1);
}

#[test]
fn extreme_numbers_in_a_lease_cost_time_and_never_the_vip() {
    let mut garbage = held("other", 4, 10);
    garbage.duration_s = u32::MAX;
    garbage.transitions = i64::from(i32::MAX);
    garbage.renew_us = Some(253_402_300_799_999_999);
    garbage.note = None;
    let mut election = fresh();
    election.step(at(0), quorum(Some(garbage)));
    election.step(at(1_208_500), Input::Tick);
    let turn = election.step(at(1_210_000), Input::Tick);
    let write = writes(&turn)[0].clone();
    assert_eq!(write.note.transitions, 0);
    assert_eq!(write.renew_us, at(1_210_000).wall_us);
    let turn = election.step(at(1_210_010), answered(&write, 11));
    assert!(deadline(&turn).is_some());
}
