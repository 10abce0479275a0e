//! N nodes, one API and one Lease under a deterministic simulation: clocks within ±ρ, any delay and
//! loss, pauses between any two steps, crashes and restarts, stale watches, edits by hand. At no
//! instant may two kernels answer. A failure prints its seed.

mod world;

use world::{Knobs, World};

const HOUR_MS: u64 = 3_600_000;

fn play(seed: u64, knobs: &Knobs, hours: u64) -> World {
    let mut world = World::new(seed, knobs.clone());
    world.run_until(hours * HOUR_MS);
    if world.two_owners.is_some() {
        world = World::new(seed, knobs.clone());
        world.tracing = true;
        world.run_until(hours * HOUR_MS);
        let crime = world.two_owners.as_deref().unwrap_or("not reproduced");
        panic!("seed {seed}: {crime}\n{}", world.trace());
    }
    world
}

#[test]
fn no_two_owners_in_200_hours_of_faults() {
    let mut owned = 0.0;
    let mut takeovers = 0;
    for seed in 0..50 {
        let world = play(seed, &Knobs::hostile(), 4);
        owned += world.owned_share();
        takeovers += world.takeovers;
    }
    println!("200 simulated hours, {takeovers} take-overs, owned {:.1} % of the time", owned * 2.0);
    assert!(takeovers > 1_000, "the faults did not bite: {takeovers} take-overs");
}

#[test]
fn a_calm_cluster_has_one_owner_nearly_always() {
    let world = play(1, &Knobs::calm(), 1);
    assert_eq!(world.takeovers, 1);
    assert!(world.owned_share() > 0.99, "owned only {}", world.owned_share());
}

#[test]
fn a_slow_api_does_not_keep_the_vip_dark() {
    // Half a second per request and answer, with a lease of three.
    let knobs = Knobs { delay_ms: 250..260, ..Knobs::calm() };
    let world = play(2, &knobs, 1);
    assert!(world.owned_share() > 0.99, "owned only {}", world.owned_share());
}

#[test]
fn clocks_at_opposite_extremes_are_covered_by_rho() {
    for seed in 0..20 {
        let knobs = Knobs { extreme_clocks: true, ..Knobs::hostile() };
        play(1_000 + seed, &knobs, 2);
    }
}

#[test]
fn the_simulation_can_fail() {
    // Clocks that are worse than ρ allows: the promise must break, or the judge is blind.
    let knobs = Knobs { clock_error_percent: 40, extreme_clocks: true, ..Knobs::hostile() };
    let broken = (0..20).any(|seed| {
        let mut world = World::new(seed, knobs.clone());
        world.run_until(2 * HOUR_MS);
        world.two_owners.is_some()
    });
    assert!(broken, "clocks 40 % off went unnoticed");
}
