//! What a read proves, and what only a watch does: an older content may have been put back after writes that
//! nobody here has seen. `tests/exhaustive.rs` found the first two of these ways to two owners.

use super::{
    election::{Input, State},
    election_tests::{answered, at, fresh, held, holder, own_record, quorum, watched, writes},
    record::Version,
};

#[test]
fn an_older_content_that_a_read_shows_restarts_the_timer() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    // Version 11 was a renewal that the watch did not bring; version 12 has the content of 10.
    let mut restored = held("other", 4, 10);
    restored.version = Version("12".into());
    election.step(at(3_000), quorum(Some(restored.clone())));
    assert!(writes(&election.step(at(6_299), Input::Tick)).is_empty());
    // The same version again is no news.
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
