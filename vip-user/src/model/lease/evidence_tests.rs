//! What a read proves, and what only a watch proves. An older content may have been restored after
//! writes that this node has not seen. `tests/exhaustive.rs` found the first two of these ways to two
//! owners.

use super::{
    election::{Input, Source},
    election_tests::{
        answered, at, fresh, held, holder, own_record, quorum, released, watched, writes,
    },
    record::Version,
    state::State,
};
use crate::model::effects::Outgoing;

#[test]
fn an_older_content_that_a_read_shows_restarts_the_timer() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    // Version 11 was a renewal that the watch did not show. Version 12 has the content of version 10.
    let mut restored = held("other", 4, 10);
    restored.version = Version("12".into());
    election.step(at(3_000), quorum(Some(restored.clone())));
    assert!(writes(&election.step(at(6_299), Input::Tick)).is_empty());
    // The same version again changes nothing.
    election.step(at(6_299), quorum(Some(restored)));
    assert_eq!(writes(&election.step(at(6_300), Input::Tick)).len(), 1);
}

#[test]
fn a_holder_whose_fence_has_run_out_waits_like_any_other_unless_it_knows_what_was_written() {
    for (seen_by_watch, known) in [(false, false), (true, false), (false, true)] {
        let mut election = holder();
        election.step(at(6_100), Input::Tick);
        let record = own_record(&election, if known { 11 } else { 20 });
        let seen = if seen_by_watch { watched(record) } else { quorum(Some(record)) };
        election.step(at(6_200), seen);
        let goes_on = matches!(election.state(), State::Holding(_));
        assert_eq!(goes_on, seen_by_watch || known, "by watch {seen_by_watch}, known {known}");
    }
}

#[test]
fn a_take_over_that_a_read_shows_late_is_waited_for_like_any_other() {
    for (read_at, is_taken) in [(3_900, true), (6_100, false)] {
        let mut election = fresh();
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        let write = writes(&election.step(at(3_400), Input::Tick))[0].clone();
        let mut elsewhere = fresh();
        elsewhere.step(at(0), quorum(Some(held("other", 4, 10))));
        let same = writes(&elsewhere.step(at(3_400), Input::Tick))[0].clone();
        assert_eq!(write, same);
        elsewhere.step(at(3_420), answered(&same, 11));
        election.step(at(read_at), quorum(Some(own_record(&elsewhere, 11))));
        assert_eq!(matches!(election.state(), State::Holding(_)), is_taken, "read at {read_at}");
    }
}

#[test]
fn a_release_counts_where_a_watch_shows_it_and_not_where_a_read_does() {
    for (seen_by_watch, taken_at_once) in [(true, true), (false, false)] {
        let mut election = fresh();
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        // A read may have missed that the node took the Lease again, and that its release was then
        // restored.
        let release = released(held("other", 4, 10), 14);
        let seen = if seen_by_watch { watched(release) } else { quorum(Some(release)) };
        let turn = election.step(at(100), seen);
        assert_eq!(!writes(&turn).is_empty(), taken_at_once, "by watch {seen_by_watch}");
        let early = election.step(at(3_399), Input::Tick);
        assert!(writes(&early).is_empty() || taken_at_once);
        let late = election.step(at(3_400), Input::Tick);
        assert!(!writes(&late).is_empty() || taken_at_once);
    }
}

#[test]
fn the_release_of_a_tenure_that_is_not_the_newest_counts_for_nothing() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 5, 10))));
    // Two older contents are restored, one after the other.
    election.step(at(100), watched(held("other", 4, 11)));
    let early = election.step(at(200), watched(released(held("other", 4, 11), 12)));
    assert!(writes(&early).is_empty(), "taken at once");
    assert!(writes(&election.step(at(3_499), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(3_500), Input::Tick)).len(), 1);
}

/// Two reads of the election or its watch are on their way. The answer to the earlier one comes last.
#[test]
fn an_answer_that_was_overtaken_deposes_nobody_and_is_asked_for_again() {
    let began = |ms| move |record| Input::Observed(Source::Quorum(at(ms).boot), record);
    let older = || Some(held("other", 4, 10));
    for shown in [older(), None] {
        let mut election = holder();
        let now = own_record(&election, 20);
        election.step(at(3_600), began(3_550)(Some(now)));
        let turn = election.step(at(3_700), began(3_500)(shown.clone()));
        assert!(matches!(election.state(), State::Holding(_)), "{shown:?}");
        assert!(turn.sends.contains(&Outgoing::Read), "{turn:?}");
        // A read that began later shows the present state: etcd was restored, or the Lease was deleted
        // by hand.
        let turn = election.step(at(3_800), began(3_750)(shown.clone()));
        assert!(!turn.sends.contains(&Outgoing::Read), "{turn:?}");
        let deposed = matches!(election.state(), State::Waiting(_));
        let reasserted = !writes(&turn).is_empty();
        assert!(deposed || reasserted, "{shown:?}: {turn:?}");
    }
    // A write that was stored is evidence too.
    let mut election = holder();
    let write = writes(&election.step(at(4_100), Input::Tick))[0].clone();
    election.step(at(4_150), answered(&write, 12));
    election.step(at(4_200), began(4_120)(older()));
    assert!(matches!(election.state(), State::Holding(_)));
    // A newer version counts whenever it arrives.
    let mut candidate = fresh();
    candidate.step(at(0), began(0)(Some(held("other", 4, 10))));
    candidate.step(at(100), began(0)(Some(held("another", 5, 11))));
    assert!(format!("{:?}", candidate.state()).contains("another"));
}
