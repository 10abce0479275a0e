//! Everything that can happen to two nodes and one Lease around a take-over, in every order: messages that are
//! late, lost or overtaken, late timers, clocks at their worst, and one mishap. The election is the real one.

mod every;

use Mishap::{Blank, Break, Delete, Edit, Fail, Leave, Restart, Restore};
use every::{Bounds, Mishap};
use stateright::{Checker as _, Model as _};
use std::time::Duration;
use vip_user::model::timing::Timing;

/// The holder's clock slow and the taker's fast, and the other way round.
const RATES: [[u64; 2]; 2] = [[90, 110], [110, 90]];

fn bounds(duration_s: [u32; 2], rate: [u64; 2], mishap: Option<Mishap>) -> Bounds {
    let longest = u64::from(duration_s[0].max(duration_s[1]));
    let timing = |duration_s: u32| Timing {
        renew_every: Duration::from_millis(600 * u64::from(duration_s)),
        ..Timing::of(duration_s)
    };
    Bounds {
        timing: duration_s.map(timing),
        rate,
        queued: 40_000,
        horizon: 1_300_000 * longest,
        step: 700_000 * longest,
        // Both nodes write at once then: more than this has millions of states.
        messages: if mishap == Some(Delete) { 2 } else { usize::MAX },
        mishap,
    }
}

/// Looks at every state; whether two owners were found.
fn two_owners(bounds: Bounds) -> bool {
    let name = format!("D {:?}, clocks {:?}, {:?}", durations(&bounds), bounds.rate, bounds.mishap);
    let checker = bounds.checker().threads(2).spawn_dfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    if let Some(path) = checker.discovery("one owner") {
        println!("two owners after {:?}", path.into_actions());
        return true;
    }
    // A model in which nothing can happen proves nothing.
    assert!(checker.discovery("node 1 takes over").is_some(), "{name}: node 1 never takes over");
    false
}

fn durations(bounds: &Bounds) -> [u32; 2] {
    [bounds.timing[0].duration_s, bounds.timing[1].duration_s]
}

#[test]
fn one_owner_whatever_the_order() {
    for rate in RATES {
        for duration_s in [[1, 1], [2, 1], [1, 2]] {
            assert!(!two_owners(bounds(duration_s, rate, None)));
        }
    }
}

#[test]
fn one_owner_whatever_happens_to_the_lease() {
    for rate in RATES {
        for mishap in [Delete, Blank, Restore, Edit(1), Edit(2)] {
            assert!(!two_owners(bounds([1, 1], rate, Some(mishap))));
        }
        for mishap in [Restore, Edit(1)] {
            assert!(!two_owners(bounds([2, 1], rate, Some(mishap))));
        }
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
