//! Retries. The election that needs something asks again. It does so no faster than it renews, except
//! once.

use super::{
    election::{Election, Identity, Input, Written},
    election_tests::{
        D, answered, at, deadline, fresh, held, holder, own_record, quorum, tenure_of, watched, writes,
    },
    offers::Offer,
    record::LeaseWrite,
    state::State,
};
use crate::model::{effects::Outgoing, fitness::Fitness, time::BootNs, timing::Timing, turn::Turn};

/// A holder that gives way to a better node, but is not silent yet.
fn yielding() -> Election {
    let mut election = holder();
    assert!(election.set_fitness(Fitness::Impaired, Vec::new()));
    let write = writes(&election.step(at(3_600), Input::Tick))[0].clone();
    election.step(at(3_610), answered(&write, 12));
    let mut seen = own_record(&election, 13);
    let note = tenure_of(&election).note;
    let (transitions, acquire_us) = (note.transitions, note.acquire_us);
    seen.offer = Some(Offer {
        node: "other".into(),
        fitness: Fitness::Able,
        weight: 0,
        transitions,
        acquire_us,
    });
    election.step(at(3_700), watched(seen));
    assert!(matches!(election.state(), State::Leaving(_)));
    election
}

fn failed(write: &LeaseWrite) -> Input {
    Input::Written { id: write.id, outcome: Written::Failed }
}

/// Lets timers run from `from` to `to`, in milliseconds. Each write is answered by `answer` at once.
/// Returns when each write left.
fn play(
    election: &mut Election,
    (from, to): (u64, u64),
    mut answer: impl FnMut(u64, &LeaseWrite) -> Input,
) -> Vec<u64> {
    let mut sent = Vec::new();
    let mut ms = from;
    while let Some(wake) = election.wake_at(at(ms).boot) {
        ms = ms.max(in_ms(wake));
        if ms >= to {
            break;
        }
        for write in election.step(at(ms), Input::Tick).writes() {
            sent.push(ms);
            election.step(at(ms), answer(ms, write));
        }
        ms += 1;
    }
    sent
}

/// The first millisecond at which this timer is due.
fn in_ms(wake: BootNs) -> u64 {
    wake.0.saturating_sub(at(0).boot.0).div_ceil(1_000_000)
}

/// If the release cannot be written in time, the former holder knows nothing about the Lease. Its watch
/// stays open, but reads nothing.
#[test]
fn a_read_that_fails_is_asked_again_by_the_election_that_needs_it() {
    let mut election = yielding();
    election.step(at(3_710), Input::Silenced);
    play(&mut election, (3_711, 7_100), |_, write| failed(write));
    assert_eq!(election.state(), &State::Unknown);
    let mut reads = Vec::new();
    let mut ms = 7_100;
    while ms < 67_100 {
        election.step(at(ms + 1), Input::ReadFailed);
        // A watch that cannot be opened reports the same again and again. That must not delay the
        // retry.
        for later in 2..20 {
            election.step(at(ms + later), Input::ReadFailed);
        }
        election.step(at(ms + 20), watched(held("other", 99, ms)));
        assert_eq!(election.state(), &State::Unknown, "a watch alone proves nothing");
        let wake = election.wake_at(at(ms + 20).boot).expect("it never asks again");
        ms = in_ms(wake);
        assert!(election.step(at(ms), Input::Tick).sends.contains(&Outgoing::Read));
        reads.push(ms);
    }
    // A renewal interval is 600 ms here. Pauses grow to four of them, and up to a quarter more.
    assert!((20..=26).contains(&reads.len()), "{} reads in a minute", reads.len());
    election.step(at(ms + 10), quorum(Some(held("other", 99, 100_000))));
    assert!(matches!(election.state(), State::Waiting(_)));
    assert_eq!(writes(&election.step(at(ms + 10 + 4_500), Input::Tick)).len(), 1);
}

#[test]
fn a_read_that_a_holder_needs_is_asked_again_while_its_fence_lives() {
    let mut election = holder();
    let write = writes(&election.step(at(4_000), Input::Tick))[0].clone();
    let conflict = Input::Written { id: write.id, outcome: Written::Conflict };
    assert!(election.step(at(4_010), conflict).sends.contains(&Outgoing::Read));
    assert!(!election.step(at(4_020), Input::ReadFailed).sends.contains(&Outgoing::Read));
    assert!(
        election.step(at(4_170), Input::Tick).sends.contains(&Outgoing::Read),
        "the first retry comes early"
    );
    // No answer came for a whole interval, so another read is sent.
    assert!(election.step(at(4_770), Input::Tick).sends.contains(&Outgoing::Read));
    let turn = election.step(at(4_780), quorum(Some(own_record(&election, 14))));
    assert_eq!(writes(&turn).len(), 1, "the renewal is overdue");
}

/// An election of each kind that writes.
fn writing() -> [(&'static str, Election); 3] {
    let mut taking = fresh();
    taking.step(at(0), quorum(Some(held("other", 4, 10))));
    let mut releasing = yielding();
    releasing.step(at(3_710), Input::Silenced);
    [("renewing", holder()), ("taking", taking), ("releasing", releasing)]
}

/// The API refuses everything at once. Each renewal interval of 600 ms has one write. In addition,
/// there is one early retry overall.
#[test]
fn refused_writes_come_no_faster_than_renewals_but_for_one() {
    for (name, mut election) in writing() {
        let sent = play(&mut election, (3_300, 13_300), |_, write| failed(write));
        assert!(sent.len() >= 4, "{name}: {sent:?}");
        let early = sent.windows(2).filter(|pair| pair[1] - pair[0] < 600).count();
        assert!(early <= 1, "{name}: {sent:?}");
    }
}

/// A host that is slow to start keeps writes back for long. The API has refused nothing, so the first
/// write that may leave comes soon. A release that never left is not looked for in the Lease either.
#[test]
fn a_write_that_was_kept_back_is_no_failure() {
    for (name, mut election) in writing() {
        let kept_back =
            |_, write: &LeaseWrite| Input::Written { id: write.id, outcome: Written::KeptBack };
        let sent = play(&mut election, (4_000, 6_000), kept_back);
        let soon = sent.windows(2).all(|pair| pair[1] - pair[0] <= 150);
        assert!(sent.len() >= 2 && soon, "{name}: {sent:?}");
        if let State::Leaving(holding) = election.state() {
            assert_eq!(holding.lost_release, None);
        }
    }
}

#[test]
fn creations_and_offers_that_bring_nothing_are_asked_less_and_less() {
    let mut creating = fresh();
    creating.step(at(0), quorum(None));
    let mut offering = fresh();
    let mut record = held("other", 4, 10);
    record.fitness = Fitness::Impaired;
    offering.step(at(0), quorum(Some(record.clone())));
    for version in 11_u64..120 {
        creating.step(at(version * 100), Input::Tick);
        record.version.0 = version.to_string();
        record.renew_us = Some(version as i64);
        offering.step(at(version * 100), watched(record.clone()));
    }
    let count = |mut election: Election, from: u64, renewed: bool| {
        let mut record = record.clone();
        let mut asked = 0;
        for step in 0..300 {
            record.version.0 = (1_000 + step).to_string();
            record.renew_us = Some(1_000 + step as i64);
            let input = if renewed { watched(record.clone()) } else { Input::Tick };
            let turn = election.step(at(from + step * 100), input);
            let asks = |send: &&Outgoing| matches!(send, Outgoing::Create | Outgoing::Offer(..));
            asked += turn.sends.iter().filter(asks).count();
        }
        asked
    };
    // The tests count for half a minute, after ten seconds of requests. The pause is then 2.4 to 3
    // seconds, and the clock advances by a tenth of a second.
    let (created, offered) = (count(creating, 12_000, false), count(offering, 12_000, true));
    assert!((9..=13).contains(&created), "{created}");
    assert!((9..=13).contains(&offered), "{offered}");
}

/// The API refuses at first. If it works again by the last attempt before the end of the fence, the
/// fence must not end.
#[test]
fn a_fence_is_kept_alive_if_the_api_comes_back_within_it() {
    for duration_s in [1, 2, 3, 5, 10, 30] {
        let timing = Timing::of(duration_s);
        let hold = timing.hold(duration_s).as_millis() as u64;
        let last_chance = hold - timing.renew_every.as_millis() as u64 / 4;
        for back_at in (0..=last_chance).step_by(7) {
            let mut election = holding_for(&timing);
            let mut version = 20;
            let mut until = BootNs(at(0).boot.0 + hold * 1_000_000);
            play(&mut election, (1, hold), |ms, write| {
                if ms < back_at {
                    return failed(write);
                }
                version += 1;
                until = timing.fence(at(ms).boot, duration_s);
                answered(write, version)
            });
            assert!(
                until > at(hold).boot,
                "D {duration_s} s: lapsed, the API was back at {back_at} ms"
            );
        }
    }
}

/// A holder whose last write left at 0 ms.
fn holding_for(timing: &Timing) -> Election {
    let me = Identity { node: "me".into(), process: "p1".into(), boot_id: "b1".into() };
    let mut election = Election::new(me, timing.clone(), 0, None);
    let before = |ms: u64| crate::model::time::Now {
        boot: BootNs(at(0).boot.0 - ms * 1_000_000),
        wall_us: at(0).wall_us - ms as i64 * 1_000,
    };
    election.step(before(100_000), quorum(Some(held("other", 4, 10))));
    let write = writes(&election.step(at(0), Input::Tick))[0].clone();
    assert!(deadline(&election.step(at(0), answered(&write, 11))).is_some());
    election
}

/// An API server has refused these nodes at the same time.
#[test]
fn nodes_do_not_come_back_together() {
    let at_of = |node: usize| {
        let me = Identity { node: format!("n{node}"), process: "p".into(), boot_id: "b".into() };
        let mut election = Election::new(me, Timing::of(D), 0, None);
        election.step(at(0), quorum(Some(held("other", 4, 10))));
        play(&mut election, (3_300, 6_000), |_, write| failed(write))
    };
    let third: std::collections::BTreeSet<u64> = (0..20).map(|node| at_of(node)[2]).collect();
    assert!(third.len() > 10, "{third:?}");
    assert!(third.iter().all(|ms| (4_050..=4_200).contains(ms)), "{third:?}");
}

/// If a timer is due, but the step neither moves it nor does anything, the loop spins.
#[test]
fn a_timer_that_has_come_is_moved_or_answered() {
    let leave = |mut election: Election, ms: u64| {
        election.step(at(ms), Input::Leave);
        election
    };
    let mut taking = fresh();
    taking.step(at(0), quorum(Some(held("other", 4, 10))));
    let take = writes(&taking.step(at(3_400), Input::Tick))[0].clone();
    let taken_late = {
        let mut election = leave(taking.clone(), 3_450);
        election.step(at(3_500), answered(&take, 11));
        election
    };
    let mut stale = holder();
    let write = writes(&stale.step(at(4_000), Input::Tick))[0].clone();
    stale.step(at(4_010), Input::Written { id: write.id, outcome: Written::Conflict });
    let mut worse = holder();
    worse.set_fitness(Fitness::Unable, Vec::new());
    let mut nothing = fresh();
    nothing.step(at(0), quorum(None));
    for (name, mut election) in [
        ("a take-over hangs while the node stops", leave(taking.clone(), 3_450)),
        ("it took over while stopping and cannot become silent", taken_late),
        ("a take-over hangs", taking),
        ("it gives way and cannot become silent", yielding()),
        ("it stops and cannot become silent", leave(holder(), 3_500)),
        ("it stops, its base is outdated and no read is answered", leave(stale.clone(), 4_020)),
        ("it holds, its base is outdated and no read is answered", stale),
        ("it serves worse than its last write says", worse),
        ("there is no Lease and none is created", nothing),
        ("nothing is known", fresh()),
    ] {
        for ms in 3_600..30_000 {
            if election.wake_at(at(ms).boot).is_none_or(|wake| wake > at(ms).boot) {
                continue;
            }
            let turn = election.step(at(ms), Input::Tick);
            let later = election.wake_at(at(ms).boot).is_none_or(|wake| wake > at(ms).boot);
            assert!(later || !Turn::of(0, turn).is_quiet(), "{name}: the timer stays at {ms} ms");
        }
    }
}
