//! Two Leases, one VIP, and nodes that are configured with different Leases for it, as during a
//! rolling change of the file. The real election and the real admission run under a model checker.
//! Messages arrive in any order and with any delay, timers are late, clocks run at 0.9 and 1.1, a
//! process restarts, a Lease is taken over. Probes of the LAN get no answer.

#[path = "admission/world.rs"]
mod world;

use stateright::{Checker, Model as _};
use world::{Before, Beginning, Bounds, Turn, Walk, World};

/// Worlds are cloned all the time, so the allocator is a third of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How fast the clocks of the old holder, the new holder and the candidate run, in percent.
const RATES: [[u64; 3]; 2] = [[90, 110, 110], [110, 90, 90]];

/// States that are searched breadth first, which finds the shortest way to two owners.
const NEARBY_STATES: usize = 20_000;

/// States of random walks, if a world has too many to search all. `cargo xtask nightly` visits
/// more.
const WALKED_STATES: usize = 1_000_000;

#[expect(clippy::disallowed_methods, reason = "set by cargo xtask nightly")]
fn walked_states() -> usize {
    let states = std::env::var("XVIP_WALKED_STATES").ok();
    states.and_then(|states| states.parse().ok()).unwrap_or(WALKED_STATES)
}

/// Whether two owners were found, in all states, or on random walks if there are too many states.
fn two_owners(bounds: &Bounds) -> bool {
    let nearby = bounds.clone().checker().threads(2).target_state_count(NEARBY_STATES);
    if let Some(path) = nearby.spawn_bfs().join().discovery("one owner") {
        println!("{bounds:?}: two owners after {:?}", path.into_actions());
        return true;
    }
    let checker = bounds.clone().checker().threads(2);
    if bounds.is_wide() {
        let walks = checker.target_state_count(walked_states());
        judge(bounds, &walks.spawn_simulation(1, Walk).join())
    } else {
        judge(bounds, &checker.spawn_dfs().join())
    }
}

fn judge(bounds: &Bounds, checker: &impl Checker<Bounds>) -> bool {
    println!("{bounds:?}: {} states", checker.state_count());
    if let Some(path) = checker.discovery("one owner") {
        println!("two owners after {:?}", path.into_actions());
        return true;
    }
    // A model in which nothing can happen proves nothing.
    assert!(checker.discovery("the other Lease serves").is_some(), "{bounds:?}: nothing moves");
    false
}

/// Both have just taken their Lease for the first time.
#[test]
fn one_owner_when_two_claim_at_once() {
    for rate in RATES {
        for restart in [None, Some(0), Some(1)] {
            assert!(!two_owners(&Bounds::of(Beginning::BothNew, rate, 2, restart)));
        }
    }
}

/// One Lease serves the VIP. Its holder may stop renewing, and a candidate may take it over.
#[test]
fn one_owner_when_a_lease_is_left_behind() {
    for rate in RATES {
        // The holder stalls for good and its candidate takes over; or there is no candidate and the
        // holder resumes late.
        for still in [0, 2] {
            assert!(!two_owners(&Bounds::of(Beginning::OneServes, rate, still, None)));
        }
    }
}

/// The last holder of a Lease did not write what it guarded. The Lease is taken while another one
/// serves the VIP, or two such Leases are taken at once.
#[test]
fn one_owner_after_a_holder_that_said_nothing() {
    for before in [Before::Stranger, Before::OldVersion] {
        for beginning in [Beginning::BothNew, Beginning::OneServes] {
            assert!(!two_owners(&Bounds::of(beginning, RATES[0], 2, None).after(before)));
        }
    }
}

/// Once no node is slow, lost or restarted, one answers soon.
#[test]
fn never_dark_for_good() {
    for rate in RATES {
        for beginning in [Beginning::BothNew, Beginning::OneServes] {
            let bounds = Bounds::of(beginning, rate, 2, None);
            for silent in [None, Some(0), Some(1)] {
                // A holder that is switched off leaves its Lease behind. Its candidate then has the
                // other configuration too.
                let only_b = silent == Some(0);
                let served = bounds.promptly(silent, only_b, 12_000_000);
                assert!(served, "{beginning:?}, {rate:?}, without {silent:?}: dark");
            }
        }
    }
}

#[test]
fn the_world_moves() {
    let bounds = Bounds::of(Beginning::BothNew, RATES[0], 2, None);
    let world: World = bounds.init_states().pop().unwrap();
    let mut turns: Vec<Turn> = Vec::new();
    bounds.actions(&world, &mut turns);
    assert!(turns.len() > 1, "{turns:?}");
}
