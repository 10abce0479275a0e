//! Moving a Lease to a node that can serve better.

use super::{
    election::{Election, Input, Written},
    election_tests::{
        answered, at, deadline, fresh, held, holder, own_record, quorum, released, watched, writes,
    },
    offers::Offer,
    record::{Record, Version},
    state::State,
};
use crate::model::{
    effects::{Effects, Outgoing},
    fitness::Fitness,
    news::{Notice, Why},
};

fn offer_of(record: &Record, node: &str, fitness: Fitness) -> Offer {
    let tenure = record.tenure().unwrap();
    let (transitions, acquire_us) = (tenure.note.transitions, tenure.note.acquire_us);
    Offer { node: node.into(), fitness, weight: 0, transitions, acquire_us }
}

fn offers(turn: &Effects) -> Vec<(&Version, &Offer)> {
    fn offer(send: &Outgoing) -> Option<(&Version, &Offer)> {
        if let Outgoing::Offer(base, offer) = send { Some((base, offer)) } else { None }
    }
    turn.sends.iter().filter_map(offer).collect()
}

/// A holder that can no longer serve, and whose last write says so.
fn unable_holder() -> Election {
    let mut election = holder();
    assert!(election.set_fitness(Fitness::Unable, Vec::new()));
    let turn = election.step(at(3_600), Input::Tick);
    let write = writes(&turn)[0].clone();
    assert_eq!(write.fitness, Fitness::Unable, "a holder that cannot serve says so at once");
    election.step(at(3_610), answered(&write, 12));
    election
}

#[test]
fn a_holder_gives_way_to_a_better_offer_and_is_silent_before_it_releases() {
    let mut election = unable_holder();
    let mut seen = own_record(&election, 13);
    seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
    let turn = election.step(at(3_700), watched(seen));
    assert!(turn.silence == Some(Why::Yielding));
    let yields = Notice::Yields { to: "other".into(), fitness: Fitness::Unable };
    assert!(turn.news.contains(&yields));
    assert!(writes(&turn).is_empty(), "the release waits for silence");
    let turn = election.step(at(3_710), Input::Silenced);
    let release = writes(&turn)[0].clone();
    assert!(release.release);
    election.step(at(3_720), answered(&release, 14));
    assert!(matches!(election.state(), State::Waiting(_)), "it must stay a candidate");
    // If it could serve, it would take the Lease back at once. As it cannot, others come first.
    assert!(writes(&election.step(at(3_730), Input::Tick)).is_empty());
    // Three renewal intervals for nodes that suit better, and one for the node that it was given to.
    assert!(writes(&election.step(at(3_720 + 2_399), Input::Tick)).is_empty());
    let turn = election.step(at(3_720 + 2_400), Input::Tick);
    assert_eq!(writes(&turn).len(), 1, "no VIP may stay without an owner");
}

#[test]
fn offers_that_are_no_better_or_for_another_tenure_change_nothing() {
    let mut election = unable_holder();
    let mut seen = own_record(&election, 13);
    seen.offer = Some(offer_of(&seen, "other", Fitness::Unable));
    election.step(at(3_700), watched(seen.clone()));
    assert!(matches!(election.state(), State::Holding(_)));
    seen.version = Version("14".into());
    seen.offer = Some(Offer { transitions: 4, ..offer_of(&seen, "other", Fitness::Able) });
    election.step(at(3_710), watched(seen.clone()));
    assert!(matches!(election.state(), State::Holding(_)));
    // The holder is able again before it sees the offer, so it keeps the Lease.
    election.set_fitness(Fitness::Able, Vec::new());
    seen.version = Version("15".into());
    seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
    election.step(at(3_720), watched(seen));
    assert!(matches!(election.state(), State::Holding(_)));
}

#[test]
fn with_nobody_better_the_owner_stays_and_goes_on_renewing() {
    let mut election = unable_holder();
    let turn = election.step(at(4_300), Input::Tick);
    let write = writes(&turn)[0].clone();
    assert!(deadline(&election.step(at(4_310), answered(&write, 13))).is_some());
}

#[test]
fn saying_so_happens_once_and_does_not_spin() {
    let mut election = holder();
    election.set_fitness(Fitness::Impaired, Vec::new());
    assert_eq!(writes(&election.step(at(3_600), Input::Tick)).len(), 1);
    for ms in 3_601..3_650 {
        assert!(writes(&election.step(at(ms), Input::Tick)).is_empty());
    }
    let wake = election.wake_at(at(3_650).boot).unwrap();
    assert!(wake > at(3_650).boot, "nothing to do until the next renewal");
}

#[test]
fn a_candidate_offers_once_only_if_it_is_better_and_able_to_answer() {
    let mut record = held("other", 4, 10);
    record.fitness = Fitness::Impaired;
    let mut election = fresh();
    let turn = election.step(at(0), quorum(Some(record.clone())));
    let wanted = (Version("10".into()), offer_of(&record, "me", Fitness::Able));
    assert_eq!(offers(&turn), [(&wanted.0, &wanted.1)]);
    assert!(offers(&election.step(at(10), Input::Tick)).is_empty());
    // The record already contains the offer, so nothing is sent.
    record.offer = Some(wanted.1);
    record.version = Version("11".into());
    assert!(offers(&election.step(at(5_000), watched(record.clone()))).is_empty());

    for (mine, theirs) in [
        (Fitness::Doubtful, Fitness::Doubtful),
        (Fitness::Able, Fitness::Able),
        (Fitness::Unable, Fitness::Barred),
    ] {
        let mut election = fresh();
        election.set_fitness(mine, Vec::new());
        let mut record = held("other", 4, 10);
        record.fitness = theirs;
        assert!(offers(&election.step(at(0), quorum(Some(record)))).is_empty(), "{mine:?} {theirs:?}");
    }
}

#[test]
fn an_offer_restarts_no_timer() {
    let mut election = fresh();
    election.set_fitness(Fitness::Unable, Vec::new());
    let mut record = held("other", 4, 10);
    election.step(at(0), quorum(Some(record.clone())));
    record.version = Version("11".into());
    record.offer = Some(offer_of(&record, "third", Fitness::Able));
    election.step(at(3_000), watched(record));
    assert_eq!(election.wake_at(at(3_000).boot), Some(at(6_600).boot));
}

#[test]
fn a_stranger_is_offered_nothing() {
    let mut record = held("other", 4, 10);
    record.fitness = Fitness::Unable;
    record.note = None;
    assert!(offers(&fresh().step(at(0), quorum(Some(record)))).is_empty());
}

#[test]
fn a_node_that_is_ruled_out_takes_nothing() {
    let mut election = fresh();
    election.set_fitness(Fitness::Barred, Vec::new());
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    assert!(writes(&election.step(at(10_000_000), Input::Tick)).is_empty());
}

#[test]
fn one_in_doubt_lets_the_able_begin() {
    let mut election = fresh();
    election.set_fitness(Fitness::Doubtful, Vec::new());
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    assert!(writes(&election.step(at(3_899), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(3_900), Input::Tick)).len(), 1);
}

#[test]
fn a_release_of_its_own_counts_where_a_watch_shows_it_and_not_where_a_read_does() {
    for seen_by_watch in [true, false] {
        let mut election = unable_holder();
        let mut seen = own_record(&election, 13);
        let end = released(seen.clone(), 14);
        seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
        election.step(at(3_700), watched(seen));
        let turn = election.step(at(3_710), Input::Silenced);
        let release = writes(&turn)[0].clone();
        election.step(at(3_720), Input::Written { id: release.id, outcome: Written::Failed });
        election.step(at(3_730), if seen_by_watch { watched(end) } else { quorum(Some(end)) });
        let counts = matches!(election.state(), State::Waiting(waiting) if waiting.released);
        assert_eq!(counts, seen_by_watch);
    }
}

#[test]
fn after_a_release_whose_answer_is_lost_nothing_that_is_only_read_is_released() {
    // Whether the answer is lost (or a refusal), the next version, whether a watch shows it, and
    // whether it is released again.
    for (lost, version, watched_it, again) in [
        (true, 14, false, false),
        (true, 14, true, true),
        (true, 13, false, true),
        (false, 14, false, true),
    ] {
        let mut election = unable_holder();
        let mut seen = own_record(&election, 13);
        let mut back = seen.clone();
        back.version = Version(version.to_string());
        seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
        election.step(at(3_700), watched(seen));
        let turn = election.step(at(3_710), Input::Silenced);
        let id = writes(&turn)[0].id;
        let outcome = if lost { Written::Failed } else { Written::Conflict };
        election.step(at(3_720), Input::Written { id, outcome });
        if lost {
            let id = writes(&election.step(at(3_900), Input::Tick))[0].id;
            election.step(at(3_920), Input::Written { id, outcome: Written::Conflict });
        }
        let seen = if watched_it { watched(back) } else { quorum(Some(back)) };
        let turn = election.step(at(3_930), seen);
        let released = writes(&turn).iter().any(|write| write.release);
        assert_eq!(released, again, "lost {lost}, version {version}, watched {watched_it}");
        assert_eq!(turn.news.contains(&Notice::ReleaseFailed), !again);
    }
}

#[test]
fn a_release_whose_answer_is_lost_ends_as_a_candidate_too() {
    let mut election = unable_holder();
    let mut seen = own_record(&election, 13);
    seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
    election.step(at(3_700), watched(seen));
    let turn = election.step(at(3_710), Input::Silenced);
    let release = writes(&turn)[0].clone();
    election.step(at(3_720), Input::Written { id: release.id, outcome: Written::Failed });
    let taken = held("other", 6, 15);
    election.step(at(3_730), watched(taken));
    assert!(matches!(election.state(), State::Waiting(waiting) if !waiting.released));
    // If the outcome cannot be found out, the election starts again with a read.
    let mut election = unable_holder();
    let mut seen = own_record(&election, 13);
    seen.offer = Some(offer_of(&seen, "other", Fitness::Able));
    election.step(at(3_700), watched(seen));
    election.step(at(3_710), Input::Silenced);
    let turn = election.step(at(7_100), Input::Tick);
    assert!(turn.sends.contains(&Outgoing::Read) && *election.state() == State::Unknown);
}
