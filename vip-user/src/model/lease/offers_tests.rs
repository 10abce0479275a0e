//! Where the VIPs go: doubts, weights, and wishes to hand over.

use super::{
    election::{Election, Input},
    election_tests::{
        answered, at, fresh, held, holder, own_record, quorum, released, tenure_of, watched, writes,
    },
    offers::{Better, Heir, Offer, Preference, Suits},
    record::{LeaseWrite, Record, Version},
    state::State,
};
use crate::model::{
    effects::{Effects, Outgoing},
    fitness::Fitness::{self, Able, Barred, Doubtful, Impaired, Unable},
    news::{Notice, Why},
};

fn offers(turn: &Effects) -> Vec<Offer> {
    let offer = |send: &Outgoing| match send {
        Outgoing::Offer(_, offer) => Some(offer.clone()),
        _ => None,
    };
    turn.sends.iter().filter_map(offer).collect()
}

fn with(mut record: Record, fitness: Fitness, weight: u8, heir: Option<Heir>) -> Record {
    let (transitions, acquire_us) = (record.transitions, record.acquire_us.unwrap());
    record.fitness = fitness;
    record.preference = Some(Preference { transitions, acquire_us, weight, heir, impaired: false });
    record
}

/// Whether a holder gives way to the offer of a node of this fitness and weight.
fn gives_way(election: &mut Election, ms: u64, (node, fitness, weight): (&str, Fitness, u8)) -> bool {
    let newest: u64 = election.accepted().unwrap().0.parse().unwrap();
    let mut seen = own_record(election, newest + 1);
    let note = tenure_of(election).note;
    let (transitions, acquire_us) = (note.transitions, note.acquire_us);
    seen.offer = Some(Offer { node: node.into(), fitness, weight, transitions, acquire_us });
    election.step(at(ms), watched(seen)).silence == Some(Why::Yielding)
}

/// Lets a holder renew until `to`, in milliseconds. Returns when it wrote what.
fn renew(election: &mut Election, (from, to): (u64, u64)) -> Vec<(u64, LeaseWrite)> {
    let mut written = Vec::new();
    for ms in (from..to).step_by(10) {
        if let Some(write) = writes(&election.step(at(ms), Input::Tick)).first() {
            let write = (*write).clone();
            election.step(at(ms + 1), answered(&write, 1_000 + ms));
            written.push((ms, write));
        }
    }
    written
}

/// The holder took the Lease at 3.3 s.
#[test]
fn a_young_tenure_is_not_given_up_for_a_doubt() {
    let mut election = holder();
    election.set_fitness(Doubtful, Vec::new());
    let written = renew(&mut election, (3_600, 33_200));
    assert!(written.iter().all(|(_, write)| write.fitness == Able), "it does not mention doubts yet");
    assert!(!gives_way(&mut election, 33_210, ("other", Able, 0)));
    let written = renew(&mut election, (33_220, 34_500));
    let told = written.iter().find(|(_, write)| write.fitness == Doubtful).expect("it says so");
    assert!((33_300..33_700).contains(&told.0), "at once when it may: {}", told.0);
    assert!(gives_way(&mut election, 34_510, ("other", Able, 0)));
}

#[test]
fn what_is_worse_than_a_doubt_counts_in_a_young_tenure_too() {
    for fitness in [Impaired, Unable, Barred] {
        let mut election = holder();
        election.set_fitness(fitness, Vec::new());
        let write = writes(&election.step(at(3_600), Input::Tick))[0].clone();
        assert_eq!(write.fitness, fitness);
        election.step(at(3_610), answered(&write, 12));
        assert!(gives_way(&mut election, 3_620, ("other", Doubtful, 0)));
    }
}

/// When a candidate offers that sees this record from 0 ms on; `None`: not within two minutes.
fn offers_at(mut election: Election, record: Record) -> Option<u64> {
    let mut turn = election.step(at(0), quorum(Some(record.clone())));
    for ms in (0..120_000).step_by(100) {
        if !offers(&turn).is_empty() {
            return Some(ms);
        }
        // The holder renews.
        let mut seen = record.clone();
        seen.version = Version((100 + ms).to_string());
        seen.renew_us = Some(1_000 + ms as i64);
        turn = election.step(at(ms + 100), watched(seen));
    }
    None
}

#[test]
fn a_candidate_waits_longer_the_less_urgent_it_is() {
    let record = |fitness, weight| with(held("other", 4, 10), fitness, weight, None);
    let candidate = |fitness, weight| {
        let mut election = fresh();
        election.set_fitness(fitness, Vec::new());
        election.set_weight(weight);
        election
    };
    for (own, holder, wanted) in [
        ((Able, 0), (Unable, 0), Some(0)),
        ((Able, 0), (Impaired, 0), Some(0)),
        ((Doubtful, 0), (Impaired, 0), Some(0)),
        ((Able, 0), (Doubtful, 0), Some(3_000)),
        ((Able, 0), (Doubtful, 200), Some(3_000)),
        ((Able, 5), (Able, 4), Some(60_000)),
        ((Able, 5), (Able, 5), None),
        ((Doubtful, 5), (Doubtful, 4), None),
        ((Unable, 5), (Barred, 0), None),
    ] {
        let at = offers_at(candidate(own.0, own.1), record(holder.0, holder.1));
        assert_eq!(at, wanted, "{own:?} {holder:?}");
    }
}

#[test]
fn a_candidate_that_was_in_doubt_meanwhile_starts_to_count_anew() {
    let record = with(held("other", 4, 10), Doubtful, 0, None);
    let mut election = fresh();
    election.step(at(0), quorum(Some(record)));
    election.set_fitness(Doubtful, Vec::new());
    election.step(at(2_000), Input::Tick);
    election.set_fitness(Able, Vec::new());
    assert!(offers(&election.step(at(2_100), Input::Tick)).is_empty());
    assert!(offers(&election.step(at(5_000), Input::Tick)).is_empty());
    assert_eq!(offers(&election.step(at(5_100), Input::Tick)).len(), 1);
}

#[test]
fn a_holder_gives_way_to_a_heavier_node_only_while_both_are_able() {
    for (own, theirs, wanted) in
        [((Able, 4), (Able, 5), true), ((Able, 5), (Able, 5), false), ((Able, 4), (Doubtful, 5), false)]
    {
        let mut election = holder();
        election.set_fitness(own.0, Vec::new());
        election.set_weight(own.1);
        let offer = ("other", theirs.0, theirs.1);
        assert_eq!(gives_way(&mut election, 3_600, offer), wanted, "{own:?} {theirs:?}");
    }
}

#[test]
fn a_wish_to_hand_over_is_written_at_once_and_ends() {
    let mut election = holder();
    let heir = |write: &LeaseWrite| write.preference.clone().and_then(|it| it.heir);
    let other = Some(Heir::Node("other".into()));
    let turn = election.step(at(3_600), Input::HandOver(Heir::Node("other".into())));
    assert_eq!(heir(writes(&turn)[0]), other, "it is urgent");
    let write = writes(&turn)[0].clone();
    election.step(at(3_601), answered(&write, 1_000));
    let written = renew(&mut election, (3_610, 13_500));
    assert!(written.len() > 10 && written.iter().all(|(_, write)| heir(write) == other));
    let turn = election.step(at(13_600), Input::Tick);
    assert!(turn.news.contains(&Notice::NobodyTook));
    let written = renew(&mut election, (13_610, 15_000));
    assert!(written.iter().all(|(_, write)| write.preference.is_none()), "the wish is over");
    assert!(!gives_way(&mut election, 15_010, ("other", Able, 0)));
}

#[test]
fn the_heir_offers_at_once_and_gets_the_lease() {
    let record = |heir| with(held("other", 4, 10), Able, 9, Some(heir));
    assert_eq!(offers_at(fresh(), record(Heir::Node("me".into()))), Some(0));
    assert_eq!(offers_at(fresh(), record(Heir::Anyone)), Some(0));
    assert_eq!(offers_at(fresh(), record(Heir::Node("third".into()))), None);
    let unable = || {
        let mut election = fresh();
        election.set_fitness(Unable, Vec::new());
        election
    };
    assert_eq!(offers_at(unable(), record(Heir::Node("me".into()))), None);
    for (heir, node, fitness, wanted) in [
        (Heir::Node("other".into()), "other", Doubtful, true),
        (Heir::Node("other".into()), "third", Able, false),
        (Heir::Node("other".into()), "other", Unable, false),
        (Heir::Anyone, "third", Able, true),
        (Heir::Anyone, "third", Doubtful, false),
    ] {
        let mut election = holder();
        election.step(at(3_600), Input::HandOver(heir.clone()));
        let offer = (node, fitness, 0);
        assert_eq!(gives_way(&mut election, 3_610, offer), wanted, "{heir:?} {node} {fitness}");
    }
}

/// What an older version of xvip has left in the Lease says nothing about the tenure of today.
#[test]
fn a_preference_of_an_earlier_tenure_does_not_count() {
    let mut record = with(held("other", 4, 10), Able, 0, Some(Heir::Anyone));
    record.preference.as_mut().unwrap().transitions = 3;
    assert_eq!(offers_at(fresh(), record.clone()), None);
    record.preference = None;
    let suits = Suits { fitness: Able, weight: 1 };
    assert_eq!(record.invites("me", suits), Some(Better::Heavier), "no weight is weight 0");
}

#[test]
fn a_lease_that_was_given_up_for_another_node_is_left_to_it_for_an_interval() {
    for (heir, wanted) in [("third", 601), ("me", 1)] {
        let mut election = fresh();
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        let end = released(held("other", 4, 10), 11);
        let end = with(end, Able, 0, Some(Heir::Node(heir.into())));
        let mut turn = election.step(at(1), watched(end));
        let mut ms = 1;
        while writes(&turn).is_empty() {
            ms += 1;
            turn = election.step(at(ms), Input::Tick);
        }
        assert_eq!(ms, wanted, "{heir}");
    }
}

/// The heir may be worse than others: it was asked for, or nobody better has offered.
#[test]
fn the_heir_takes_a_released_lease_at_once_however_it_serves() {
    for fitness in [Able, Doubtful, Impaired] {
        let mut election = fresh();
        election.set_fitness(fitness, Vec::new());
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        let end = with(released(held("other", 4, 10), 11), Able, 0, Some(Heir::Node("me".into())));
        assert_eq!(writes(&election.step(at(1), watched(end))).len(), 1, "{fitness}");
    }
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    // Its links have just gone down: others come first.
    election.set_fitness(Unable, Vec::new());
    let end = with(released(held("other", 4, 10), 11), Able, 0, Some(Heir::Node("me".into())));
    assert!(writes(&election.step(at(1), watched(end))).is_empty());
}

/// A planned stop is no expiry, even if no other node can serve.
#[test]
fn a_released_lease_is_taken_by_an_unable_node_after_three_intervals() {
    let mut election = fresh();
    election.set_fitness(Unable, Vec::new());
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    election.step(at(1), watched(released(held("other", 4, 10), 11)));
    assert!(writes(&election.step(at(1_800), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(1_801), Input::Tick)).len(), 1);
}

/// The heaviest node fails whenever it holds the Lease. It must not take it back every minute.
#[test]
fn a_node_that_gives_up_soon_takes_the_lease_back_ever_later() {
    let mut election = fresh();
    election.set_weight(9);
    let mut version = 100;
    let mut offered_after = Vec::new();
    let mut ms = 0;
    for round in 0..4_i64 {
        let mut record = held("other", 4 + 2 * round, version);
        election.step(at(ms), quorum(Some(record.clone())));
        let begun = ms;
        loop {
            (ms, version) = (ms + 500, version + 1);
            record.version = Version(version.to_string());
            record.renew_us = Some(ms as i64);
            if !offers(&election.step(at(ms), watched(record.clone()))).is_empty() {
                break;
            }
        }
        offered_after.push((ms - begun) / 60_000);
        version += 1;
        let end = released(record, version);
        let turn =
            election.step(at(ms + 10), watched(with(end, Able, 0, Some(Heir::Node("me".into())))));
        let write = writes(&turn)[0].clone();
        version += 1;
        election.step(at(ms + 20), answered(&write, version));
        election.set_fitness(Unable, Vec::new());
        ms += 2_000;
        assert!(gives_way(&mut election, ms, ("other", Able, 0)), "round {round}");
        let turn = election.step(at(ms + 10), Input::Silenced);
        version += 2;
        let release = writes(&turn)[0].clone();
        election.step(at(ms + 20), answered(&release, version));
        election.set_fitness(Able, Vec::new());
        (ms, version) = (ms + 30, version + 1);
    }
    assert_eq!(offered_after, [1, 2, 4, 8]);
}

/// An older version of xvip takes the offer for no better one, and strips it with each renewal.
#[test]
fn a_candidate_that_is_ignored_stops_to_offer_for_its_weight() {
    let mut election = fresh();
    election.set_weight(9);
    let mut count = 0;
    for ms in (0..600_000_u64).step_by(500) {
        let mut record = held("other", 4, 10 + ms);
        record.renew_us = Some(ms as i64);
        let input = if ms == 0 { quorum(Some(record)) } else { watched(record) };
        count += offers(&election.step(at(ms), input)).len();
    }
    assert_eq!(count, 8);
}

/// An older content was restored: the release of a tenure that is not the newest does not count. Once
/// the later tenure is dead for certain, it does.
#[test]
fn a_restored_tenure_counts_once_the_later_one_is_dead() {
    for (renewals, broken, wanted) in [(40, false, true), (20, false, false), (40, true, false)] {
        let mut election = fresh();
        election.step(at(0), quorum(Some(held("other", 7, 10))));
        let mut record = held("third", 5, 11);
        election.step(at(100), watched(record.clone()));
        for renewal in 1..=renewals {
            record = held("third", 5, 11 + renewal);
            let seen = record.clone();
            let gap = broken && renewal == renewals / 2;
            let input = if gap { quorum(Some(seen)) } else { watched(seen) };
            election.step(at(100 + renewal * 100), input);
        }
        let end = released(record.clone(), 90);
        election.step(at(101 + renewals * 100), watched(end));
        let State::Waiting(waiting) = election.state() else { panic!("{:?}", election.state()) };
        assert_eq!(waiting.released, wanted, "{renewals} renewals, broken: {broken}");
    }
}
