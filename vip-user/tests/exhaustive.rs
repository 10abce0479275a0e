//! Everything that can happen to two or three nodes and one Lease around a take-over, in every order:
//! messages that are late, lost or overtaken, late timers, clocks at their worst, and one mishap. The
//! election is the real one.

mod every;

use Mishap::{Blank, Break, Delete, Edit, Fail, FailRead, Leave, Restart, Restore, RollBack};
use every::{Beginning, Bounds, Mishap};
use stateright::{Checker as _, Model as _};
use std::time::Duration;
use vip_user::model::timing::Timing;

/// Worlds are cloned all the time, so the allocator is a third of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The holder's clock is slow and the taker's fast, and the reverse.
const RATES: [[u64; 2]; 2] = [[90, 110], [110, 90]];

fn bounds<const N: usize>(duration_s: [u32; N], rate: [u64; N], mishap: Option<Mishap>) -> Bounds {
    let longest = u64::from(duration_s.into_iter().max().unwrap_or(1));
    let timing = |duration_s: u32| Timing {
        renew_every: Duration::from_millis(600 * u64::from(duration_s)),
        ..Timing::of(duration_s)
    };
    Bounds {
        timing: duration_s.map(timing).into(),
        rate: rate.into(),
        queued: 40_000,
        horizon: 1_300_000 * longest,
        step: 700_000 * longest,
        messages: usize::MAX,
        mishap,
        beginning: Beginning::Held,
    }
}

/// Whether worlds of more than a million states are played too: three of them have more states than all
/// others together. `cargo xtask nightly` plays them.
fn plays_large_worlds() -> bool {
    std::env::var_os("XVIP_LARGE_WORLDS").is_some()
}

/// States that are searched breadth first, which finds the shortest way to two owners.
const NEARBY_STATES: usize = 20_000;

/// The rules that must hold in every state.
const RULES: [&str; 3] = ["one owner", "nobody is lost", "no timer spins"];

/// Searches all states. Returns whether one breaks a rule. Only the first part is breadth first:
/// for all states that takes 35 times the memory. But depth first can miss two owners nine steps
/// away for minutes.
fn two_owners(bounds: Bounds) -> bool {
    let durations: Vec<u32> = bounds.timing.iter().map(|timing| timing.duration_s).collect();
    let name = format!("D {durations:?}, clocks {:?}, {:?}", bounds.rate, bounds.mishap);
    let nearby = bounds.clone().checker().threads(2).target_state_count(NEARBY_STATES);
    let nearby = nearby.spawn_bfs().join();
    let broken = RULES.into_iter().find_map(|rule| Some((rule, nearby.discovery(rule)?)));
    if let Some((rule, path)) = broken {
        println!("{name}: not {rule:?} after {:?}", path.into_actions());
        return true;
    }
    let checker = bounds.checker().threads(2).spawn_dfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    let broken = RULES.into_iter().find_map(|rule| Some((rule, checker.discovery(rule)?)));
    if let Some((rule, path)) = broken {
        println!("not {rule:?} after {:?}", path.into_actions());
        return true;
    }
    // A model in which nothing can happen proves nothing.
    assert!(checker.discovery("another node takes over").is_some(), "{name}: nobody takes over");
    false
}

#[test]
fn one_owner_whatever_the_order() {
    for rate in RATES {
        for duration_s in [[1, 1], [2, 1], [1, 2]] {
            let is_large = duration_s == [1, 2] && rate == RATES[1];
            if !is_large || plays_large_worlds() {
                assert!(!two_owners(bounds(duration_s, rate, None)));
            }
        }
    }
}

/// Two candidates that want to take over at once. With a mishap each has one message in flight,
/// because more means millions of states. A slow holder whose Lease is edited, and three nodes that
/// find no Lease, also have millions of states.
#[test]
fn one_owner_among_three_nodes() {
    let among_three = |rate, mishap: Option<Mishap>| {
        let messages = if mishap.is_some() { 1 } else { usize::MAX };
        two_owners(Bounds { messages, ..bounds([1, 1, 1], rate, mishap) })
    };
    let nodes = [Restart(1), Break(0), Break(1), Fail(0), Fail(1)];
    for mishap in [Blank, Restore, Edit(1), Edit(2), Restart(0)].into_iter().chain(nodes) {
        assert!(!among_three([90, 110, 110], Some(mishap)));
    }
    for mishap in nodes {
        assert!(!among_three([110, 90, 110], Some(mishap)));
    }
    assert!(!among_three([90, 110, 110], None) && !among_three([110, 90, 110], None));
}

#[test]
fn one_owner_whatever_happens_to_the_lease() {
    for rate in RATES {
        for mishap in [Blank, Restore, Edit(1), Edit(2)] {
            assert!(!two_owners(bounds([1, 1], rate, Some(mishap))));
        }
        // After a deletion both nodes write at once; more messages mean millions of states.
        let messages = if plays_large_worlds() { 2 } else { 1 };
        assert!(!two_owners(Bounds { messages, ..bounds([1, 1], rate, Some(Delete)) }));
        for mishap in [Restore, Edit(1)] {
            assert!(!two_owners(bounds([2, 1], rate, Some(mishap))));
        }
    }
}

/// Node 1 last saw the tenure of node 0, which has released the Lease; node 2 holds it. Then the
/// release is restored. If node 0 missed the answer to its release, its tenure is restored instead.
#[test]
fn one_owner_when_an_old_release_is_put_back() {
    for [taker, holder] in RATES {
        let bounds = bounds([1, 1, 1], [100, taker, holder], Some(Restore));
        let came = Bounds { beginning: Beginning::Released, messages: 1, ..bounds.clone() };
        assert!(!two_owners(came));
        // Node 0 soon tries again, so more time would mean many millions of states.
        let beginning = Beginning::ReleaseLost;
        assert!(!two_owners(Bounds { beginning, messages: 1, horizon: 300_000, ..bounds }));
    }
}

/// Node 0's request to create the Lease left under a live fence, and is late. Another node has
/// taken a Lease since, and that one is deleted too.
#[test]
fn one_owner_when_a_lease_is_created_late() {
    for [late, taker] in RATES {
        let soon = |bounds: Bounds| Bounds { messages: 1, horizon: 300_000, ..bounds };
        let two = soon(bounds([1, 1], [late, taker], Some(Delete)));
        assert!(!two_owners(Bounds { beginning: Beginning::CreateLate, ..two }));
        let three = soon(bounds([1, 1, 1], [late, 100, taker], Some(Delete)));
        // All of this can happen in one instant.
        assert!(!two_owners(Bounds { beginning: Beginning::CreateLateLeaving, horizon: 0, ..three }));
    }
}

#[test]
fn one_owner_whatever_happens_to_a_node() {
    for rate in RATES {
        for mishap in [Restart(0), Restart(1), Break(0), Break(1), Fail(0), Fail(1)] {
            assert!(!two_owners(bounds([1, 1], rate, Some(mishap))));
        }
    }
    assert!(!two_owners(bounds([1, 1], RATES[0], Some(Leave(0)))));
}

/// A holder that gives way but cannot write the release. By then another node has taken over, and
/// the holder must find out.
#[test]
fn nobody_is_lost_when_a_read_fails() {
    for rate in RATES {
        for mishap in [None, Some(FailRead(0)), Some(Break(0))] {
            let mut bounds = Bounds { messages: 1, horizon: 300_000, ..bounds([1, 1], rate, mishap) };
            for timing in &mut bounds.timing {
                // The end of this time would wake the node once more.
                timing.linger = Duration::ZERO;
            }
            assert!(!two_owners(Bounds { beginning: Beginning::GivingWay, ..bounds }));
        }
    }
}

/// client-go acts for longer than D·(1+ρ), but not longer than its grace.
#[test]
fn one_owner_when_a_client_go_program_renews_a_tenure_of_ours() {
    for rate in RATES {
        if rate == RATES[1] && !plays_large_worlds() {
            continue;
        }
        let mut bounds = Bounds { horizon: 1_900_000, ..bounds([1, 1], rate, Some(RollBack)) };
        for timing in &mut bounds.timing {
            timing.foreign_grace = Some(Duration::from_millis(1_500));
        }
        assert!(!two_owners(bounds));
    }
}

#[test]
fn the_model_can_fail() {
    let without = |change: fn(&mut Timing)| {
        let mut bounds = bounds([1, 1], RATES[0], None);
        bounds.timing.iter_mut().for_each(change);
        two_owners(bounds)
    };
    assert!(without(|timing| timing.clock_error_percent = 0), "without the clock error");
    assert!(without(|timing| timing.margin = Duration::ZERO), "without the margin");
}
