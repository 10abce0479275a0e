//! N nodes, one API and one Lease under a deterministic simulation: clocks within ±ρ, any delay and
//! loss, pauses between any two steps, crashes and restarts, stale watches, edits by hand. At no
//! instant may two kernels answer. A failure prints its seed.

mod world;

use std::{
    collections::BTreeSet,
    panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};
use vip_user::model::fitness::Fitness;
use world::{
    World,
    knobs::Knobs,
    shape::{Shape, report},
};

/// Worlds are cloned all the time, so the allocator is a third of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOUR_MS: u64 = 3_600_000;
/// Fewer shapes of state and input mean that the simulation no longer reaches something.
const LEAST_SHAPES: usize = 200;

fn play(seed: u64, knobs: &Knobs, hours: u64) -> World {
    let mut world = World::new(seed, knobs.clone());
    world.run_until(hours * HOUR_MS);
    if world.crime.is_some() {
        world = World::new(seed, knobs.clone());
        world.tracing = true;
        world.run_until(hours * HOUR_MS);
        let crime = world.crime.as_deref().unwrap_or("not reproduced");
        panic!("seed {seed}: {crime}\n{}", world.trace());
    }
    world
}

/// The result of one thread.
#[derive(Default)]
struct Sum {
    owned: f64,
    takeovers: u64,
    outsiders: u64,
    quiet_times: u64,
    settled_times: u64,
    shapes: BTreeSet<Shape>,
}

#[expect(clippy::disallowed_methods, reason = "set by cargo xtask simulate")]
fn hours_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|hours| hours.parse().ok()).unwrap_or(default)
}

/// 3 000 hours reach as many shapes as 10 000. `cargo xtask nightly` simulates many more hours: it
/// sets `XVIP_SIMULATED_HOURS`, as `cargo xtask simulate` does.
#[test]
fn no_two_owners_in_thousands_of_hours_of_faults() {
    const HOURS: u64 = 8;
    let seeds = hours_from("XVIP_SIMULATED_HOURS", 3_000).div_ceil(HOURS);
    let first = hours_from("XVIP_SIMULATED_FROM", 0) / HOURS;
    let next = AtomicU64::new(0);
    let simulate = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return sum;
            }
            if seed % 1_250 == 1_249 {
                println!("{} of {} simulated hours", (seed + 1) * HOURS, seeds * HOURS);
            }
            let knobs = Knobs { weighted: (first + seed) % 2 == 1, ..Knobs::hostile() };
            let world = panic::catch_unwind(|| play(first + seed, &knobs, HOURS));
            let world = world.unwrap_or_else(|crime| {
                // The other threads can stop.
                next.store(seeds, Ordering::Relaxed);
                panic::resume_unwind(crime);
            });
            sum.owned += world.owned_share();
            sum.takeovers += world.takeovers;
            sum.outsiders += world.outsiders;
            sum.quiet_times += world.quiet_times;
            sum.settled_times += world.settled_times;
            sum.shapes.extend(world.shapes);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let sums: Vec<Sum> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(simulate)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let quiet_times: u64 = sums.iter().map(|sum| sum.quiet_times).sum();
    let settled_times: u64 = sums.iter().map(|sum| sum.settled_times).sum();
    let outsiders: u64 = sums.iter().map(|sum| sum.outsiders).sum();
    let takeovers: u64 = sums.iter().map(|sum| sum.takeovers).sum();
    let owned = sums.iter().map(|sum| sum.owned).sum::<f64>() * 100.0 / seeds as f64;
    let shapes: BTreeSet<Shape> = sums.into_iter().flat_map(|sum| sum.shapes).collect();
    let (hours, from) = (seeds * HOURS, first * HOURS);
    println!("{hours} simulated hours from {from} on: {takeovers} take-overs, owned {owned:.1} %");
    println!("{}", report(&shapes));
    for shape in &shapes {
        println!("  {shape}");
    }
    println!("{quiet_times} times without faults, after which one node answered and the others waited");
    assert!(quiet_times >= 2 * hours, "liveness was judged {quiet_times} times only");
    println!("{outsiders} times kube-vip on another host took the Lease and ended");
    assert!(outsiders > hours / 2, "kube-vip took the Lease {outsiders} times only");
    println!("{settled_times} of them after which the heaviest node answered");
    assert!(settled_times > hours / 10, "weights were judged {settled_times} times only");
    assert!(takeovers > 5 * hours, "the faults did not bite: {takeovers} take-overs");
    assert!(shapes.len() >= LEAST_SHAPES, "only {} shapes were met", shapes.len());
}

#[test]
fn a_calm_cluster_has_one_owner_nearly_always() {
    let world = play(1, &Knobs::calm(), 1);
    assert_eq!(world.takeovers, 1);
    assert!(world.owned_share() > 0.99, "owned only {}", world.owned_share());
}

#[test]
fn a_slow_api_does_not_keep_the_vip_dark() {
    // Half a second for request and answer together, with a lease of three seconds.
    let knobs = Knobs { delay_ms: 250..260, ..Knobs::calm() };
    let world = play(2, &knobs, 1);
    assert!(world.owned_share() > 0.99, "owned only {}", world.owned_share());
}

/// A slow etcd: the API servers of all nodes fall ill and recover one after the other, again and again.
#[test]
fn a_vip_does_not_go_round_when_all_nodes_fall_ill() {
    let mut world = World::new(3, Knobs::calm());
    for (round, at) in (40..600).step_by(40).enumerate() {
        for turn in 0..3 {
            let (node, late) = ((round + turn) % 3, turn as u64 * 900);
            world.ail(at * 1_000 + late, node, Some(Fitness::Doubtful));
            world.ail((at + 20) * 1_000 + late, node, None);
        }
    }
    world.run_until(HOUR_MS / 6);
    assert_eq!((world.crime.as_deref(), world.takeovers), (None, 1));
}

/// The load of the VIP makes its holder ill, whichever node that is.
#[test]
fn a_vip_that_makes_its_holder_ill_moves_twice_a_minute_at_most() {
    let mut world = World::new(4, Knobs::calm());
    for second in 10..600 {
        world.run_until(second * 1_000);
        for node in 0..3 {
            let ill = world.owns(node).then_some(Fitness::Doubtful);
            world.ail(second * 1_000, node, ill);
        }
    }
    assert_eq!(world.crime, None);
    assert!((15..=20).contains(&world.takeovers), "{} take-overs in ten minutes", world.takeovers);
}

/// `kubeadm upgrade` on one node after the other: each API server refuses for 20 seconds.
#[test]
fn an_upgrade_moves_the_vip_once_per_node_that_serves_and_never_back() {
    for seed in 0..20 {
        let mut world = World::new(seed, Knobs::calm());
        let mut served = 0;
        for node in 0..3 {
            let begin = 60_000 + node as u64 * 60_000;
            world.run_until(begin);
            served += u64::from(world.owns(node));
            world.ail(begin, node, Some(Fitness::Unable));
            world.ail(begin + 20_000, node, None);
        }
        world.run_until(HOUR_MS / 6);
        assert_eq!((world.crime.as_deref(), world.takeovers), (None, 1 + served), "seed {seed}");
    }
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
    // Clocks worse than ρ allows: the promise must break, or the judge cannot see two owners.
    let knobs = Knobs { clock_error_percent: 40, extreme_clocks: true, ..Knobs::hostile() };
    let broken = (0..20).any(|seed| {
        let mut world = World::new(seed, knobs.clone());
        world.run_until(2 * HOUR_MS);
        world.crime.is_some_and(|crime| crime.contains("both answer"))
    });
    assert!(broken, "clocks 40 % off went unnoticed");
}
