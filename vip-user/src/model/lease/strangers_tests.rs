//! Leases that another program held last: the LAN is asked before they are taken.

use super::{
    admission::{Mark, PROBE_TIME},
    election::{Election, Input},
    election_tests::{answered, asks, at, fresh, held, quorum, raised, released, watched, writes},
    record::{Record, Version},
};
use crate::model::{effects::Outgoing, policy::ForeignConflict};
use std::net::IpAddr;
use vip_common::mac::Mac;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 99]);

/// kube-vip on another node holds the Lease.
fn foreign(version: u64) -> Record {
    Record { note: None, ..held("kube-vip-node", 4, version) }
}

/// What client-go writes when it releases a Lease: no holder, a D of one second, and the time.
fn emptied(seen: Record, version: u64) -> Record {
    let now = Some(900 + version as i64);
    let version = Version(version.to_string());
    Record { holder: String::new(), duration_s: 1, acquire_us: now, renew_us: now, version, ..seen }
}

/// A candidate that has seen a foreign holder release the Lease at 5 s.
fn after_a_release() -> Election {
    let mut election = fresh();
    election.admit_only("lease-m", &[VIP], PROBE_TIME);
    election.step(at(0), quorum(Some(foreign(10))));
    let turn = election.step(at(5_000), watched(emptied(foreign(10), 11)));
    assert!(!asks(&turn) && writes(&turn).is_empty(), "it removes its address now: {turn:?}");
    let turn = election.step(at(5_400), Input::Tick);
    assert!(asks(&turn) && election.asks_for_all(), "{turn:?}");
    election
}

#[test]
fn a_lease_that_a_stranger_gave_up_is_taken_as_soon_as_the_lan_was_silent() {
    let mut election = after_a_release();
    assert!(writes(&election.step(at(6_899), Input::Tick)).is_empty());
    let write = writes(&election.step(at(6_900), Input::Tick))[0].clone();
    let turn = election.step(at(6_910), answered(&write, 12));
    assert!(raised(&turn).is_some());
    // Only the other Leases are read now. The LAN need not be asked again.
    assert!(turn.sends.contains(&Outgoing::List(1)) && !asks(&turn), "{turn:?}");
    let turn = election.step(at(6_920), Input::Listed(1, Ok(Vec::new())));
    let admits = writes(&turn)[0].vips.as_ref().and_then(|marks| marks.get(&VIP)).copied();
    assert_eq!((asks(&turn), admits), (false, Some(Mark::Admitted)));
}

#[test]
fn a_stranger_that_still_answers_after_its_release_has_time_to_stop() {
    let mut election = after_a_release();
    let turn = election.step(at(5_600), Input::Heard(VIP, THEIRS));
    assert!(turn.sends.contains(&Outgoing::Visit(VIP)), "{turn:?}");
    assert!(election.held_back().unwrap().to_string().contains("02:00:00:00:00:63"));
    for ms in (5_700..16_000).step_by(100) {
        assert!(writes(&election.step(at(ms), Input::Tick)).is_empty(), "taken at {ms} ms");
    }
    // By then the LAN was silent.
    assert_eq!(writes(&election.step(at(16_000), Input::Tick)).len(), 1);
    assert_eq!(election.held_back(), None);
}

/// It was killed, and its host's kernel answers for ever. The service on that host is alive.
#[test]
fn a_lease_is_not_taken_while_another_station_serves_the_vip() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(foreign(10))));
    let mut questions = 0;
    for ms in (0..400_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        assert!(writes(&turn).is_empty(), "taken at {ms} ms");
        if asks(&turn) {
            questions += 1;
            election.step(at(ms + 10), Input::Heard(VIP, THEIRS));
            election.step(at(ms + 20), Input::Visited(VIP, Some(true)));
        }
    }
    assert!((70..90).contains(&questions), "asked {questions} times");
    // The address was removed by hand.
    let turns = (400_000..407_000).step_by(100).map(|ms| election.step(at(ms), Input::Tick));
    assert!(turns.into_iter().any(|turn| !writes(&turn).is_empty()));
}

/// A proxy, or a bridge that suppresses ARP, answers for an address that nobody has any more.
#[test]
fn a_station_that_answers_and_does_not_serve_holds_the_lease_back_for_a_while() {
    let mut election = fresh();
    election.admit_only("lease-m", &[VIP], PROBE_TIME);
    election.step(at(0), quorum(Some(foreign(10))));
    let mut taken = None;
    for ms in (0..100_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        if let [write] = writes(&turn)[..] {
            taken = Some((ms, write.clone()));
            break;
        }
        if asks(&turn) {
            election.step(at(ms + 10), Input::Heard(VIP, THEIRS));
            election.step(at(ms + 20), Input::Visited(VIP, Some(false)));
        }
    }
    // The grace is 16 s here, and 30 s are added to it.
    let (ms, write) = taken.expect("it was never taken");
    assert!((46_000..46_200).contains(&ms), "taken at {ms} ms");
    election.step(at(ms + 10), answered(&write, 12));
    election.step(at(ms + 15), Input::Heard(VIP, THEIRS));
    let turn = election.step(at(ms + 20), Input::Listed(1, Ok(Vec::new())));
    let admits = writes(&turn)[0].vips.as_ref().and_then(|marks| marks.get(&VIP)).copied();
    assert_eq!(admits, Some(Mark::Admitted));
}

/// An administrator blanks the Lease, or a release is put back from a backup: only a read shows it.
#[test]
fn a_lease_that_a_read_shows_empty_is_waited_out() {
    let mut election = fresh();
    let mut other = emptied(foreign(10), 11);
    other.transitions = 7;
    election.step(at(0), quorum(Some(other)));
    assert!(asks(&election.step(at(9_500), Input::Tick)));
    assert!(writes(&election.step(at(10_999), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(11_000), Input::Tick)).len(), 1);
    // A client-go program has blanked the live tenure of another xvip node.
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(100), watched(emptied(held("other", 4, 10), 11)));
    assert!(!asks(&turn), "it is no release");
    assert!(writes(&election.step(at(9_000), Input::Tick)).is_empty());
}

#[test]
fn silence_that_was_observed_too_long_ago_does_not_count() {
    let mut election = after_a_release();
    // The process was paused. The answers may still be in its queue.
    let turn = election.step(at(7_901), Input::Tick);
    assert!(writes(&turn).is_empty() && asks(&turn), "{turn:?}");
    election.could_not_ask(at(8_000));
    assert!(writes(&election.step(at(9_500), Input::Tick)).is_empty(), "nobody was asked");
    assert_eq!(writes(&election.step(at(11_000), Input::Tick)).len(), 1);
}

#[test]
fn with_foreign_conflict_take_the_lan_is_not_asked() {
    let mut election = fresh();
    election.on_foreign_conflict(ForeignConflict::Take);
    election.step(at(0), quorum(Some(foreign(10))));
    election.step(at(50), watched(emptied(foreign(10), 11)));
    assert!(writes(&election.step(at(11_049), Input::Tick)).is_empty());
    let turn = election.step(at(11_050), Input::Tick);
    assert!(!asks(&turn) && writes(&turn).len() == 1);
}

/// The service on that host ends, but its address stays.
#[test]
fn a_station_that_served_until_now_has_its_time_from_then_on() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(foreign(10))));
    let mut taken = None;
    for ms in (0..120_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        taken = taken.or_else(|| (!writes(&turn).is_empty()).then_some(ms));
        if asks(&turn) {
            election.step(at(ms + 10), Input::Heard(VIP, THEIRS));
            election.step(at(ms + 20), Input::Visited(VIP, Some(ms < 60_000)));
        }
    }
    assert!(taken.is_some_and(|ms| (86_000..96_000).contains(&ms)), "taken at {taken:?}");
}

/// This node no longer hears the station, whose service may be back.
#[test]
fn an_answer_to_earlier_questions_makes_no_lease_overdue() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(foreign(10))));
    for ms in (0..90_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        assert!(writes(&turn).is_empty(), "taken at {ms} ms");
        if asks(&turn) && ms < 20_000 {
            election.step(at(ms + 10), Input::Heard(VIP, THEIRS));
            election.step(at(ms + 20), Input::Visited(VIP, Some(false)));
        } else if asks(&turn) {
            election.could_not_ask(at(ms));
        }
    }
}

/// A station answers for the VIP and serves nothing, so its answers do not count. What the LAN says of
/// other VIPs counts, and a question that fails changes nothing.
#[test]
fn answers_that_do_not_count_are_those_for_the_vips_of_the_take_over() {
    let later = IpAddr::from([192, 0, 2, 11]);
    let mut election = fresh();
    election.admit_only("lease-m", &[VIP], PROBE_TIME);
    election.on_foreign_conflict(ForeignConflict::Take);
    election.step(at(0), quorum(Some(foreign(10))));
    let write = writes(&election.step(at(16_000), Input::Tick))[0].clone();
    election.step(at(16_010), answered(&write, 11));
    election.cannot_ask(at(16_020), VIP);
    let turn = election.step(at(16_030), Input::Listed(1, Ok(Vec::new())));
    let write = writes(&turn)[0].clone();
    assert_eq!(write.vips.as_ref().and_then(|marks| marks.get(&VIP)), Some(&Mark::Admitted));
    election.step(at(16_040), answered(&write, 12));
    election.want(&[VIP, later]);
    for ms in (16_100..30_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        if let [write] = writes(&turn)[..] {
            let version = ms / 100;
            let write = write.clone();
            election.step(at(ms + 5), answered(&write, version));
        }
        for send in turn.sends {
            if let Outgoing::List(number) = send {
                election.step(at(ms + 10), Input::Listed(number, Ok(Vec::new())));
            }
        }
        election.step(at(ms + 20), Input::Heard(later, THEIRS));
    }
    assert!(election.admits(VIP) && !election.admits(later));
}

/// Only a watch shows that nothing was written in between.
#[test]
fn a_read_that_shows_a_release_of_a_stranger_shortens_no_wait() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(foreign(10))));
    election.step(at(5_000), quorum(Some(emptied(foreign(10), 11))));
    for ms in (5_000..21_000).step_by(100) {
        assert!(writes(&election.step(at(ms), Input::Tick)).is_empty(), "taken at {ms} ms");
    }
    assert_eq!(writes(&election.step(at(21_000), Input::Tick)).len(), 1);
}

/// Another tenure of xvip may have had a live fence when the stranger took the Lease.
#[test]
fn a_stranger_that_gives_up_soon_is_waited_for_like_a_tenure_of_xvip() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    election.step(at(100), watched(foreign(11)));
    election.step(at(200), watched(emptied(foreign(11), 12)));
    assert!(!asks(&election.step(at(1_899), Input::Tick)));
    assert!(asks(&election.step(at(1_900), Input::Tick)));
    assert!(writes(&election.step(at(3_399), Input::Tick)).is_empty());
    assert_eq!(writes(&election.step(at(3_400), Input::Tick)).len(), 1);
}

/// Another node of xvip may have held the Lease between the release and the read.
#[test]
fn a_read_after_the_release_of_a_stranger_shortens_no_wait() {
    let mut election = after_a_release();
    let later = Record { transitions: 9, ..emptied(foreign(10), 14) };
    election.step(at(6_000), quorum(Some(later)));
    for ms in (6_000..17_000).step_by(100) {
        assert!(writes(&election.step(at(ms), Input::Tick)).is_empty(), "taken at {ms} ms");
    }
}

/// The answers to the last questions are late, and the API cannot be written.
#[test]
fn an_overdue_lease_is_taken_while_answers_are_late_and_no_timer_stays_in_the_past() {
    let mut election = fresh();
    election.admit_only("lease-m", &[VIP], PROBE_TIME);
    election.step(at(0), quorum(Some(foreign(10))));
    let mut asked = 0;
    let mut writes_sent = Vec::new();
    for ms in (0..60_000).step_by(100) {
        let turn = election.step(at(ms), Input::Tick);
        let wake = election.wake_at(at(ms).boot).unwrap();
        assert!(wake > at(ms).boot, "at {ms} ms the timer stays in the past");
        writes_sent.extend(writes(&turn).into_iter().cloned());
        asked = if asks(&turn) { ms } else { asked };
        if asked > 0 && ms == asked + 600 {
            election.step(at(ms), Input::Heard(VIP, THEIRS));
            election.step(at(ms), Input::Visited(VIP, Some(false)));
        }
    }
    let write = writes_sent.last().expect("it is taken").clone();
    election.step(at(60_000), answered(&write, 12));
    election.step(at(60_010), Input::Heard(VIP, THEIRS));
    let turn = election.step(at(60_020), Input::Listed(1, Ok(Vec::new())));
    let admits = writes(&turn)[0].vips.as_ref().and_then(|marks| marks.get(&VIP)).copied();
    assert_eq!(admits, Some(Mark::Admitted));
}

#[test]
fn a_release_by_xvip_asks_nobody() {
    let mut election = fresh();
    election.step(at(0), quorum(Some(held("other", 4, 10))));
    let turn = election.step(at(100), watched(released(held("other", 4, 10), 11)));
    assert!(!asks(&turn) && writes(&turn).len() == 1);
}
