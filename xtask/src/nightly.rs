//! Tests that take too long for every change.

use crate::{mutants, setup, shell::run_command, test::MODEL, vm};
use clap::ValueEnum as _;
use std::process::Command;

/// Simulated hours of one night. Two faults of the election took 20 000 and 120 000 hours to turn up.
const HOURS: u64 = 100_000;
/// States of each world of two Leases in one night.
const STATES: usize = 50_000_000;
/// Frames of one night. The harness itself once failed after 54 s of frames.
const FRAMES: u32 = 10_000_000;

type Part = fn() -> anyhow::Result<()>;

/// Runs all parts, even if some fail, and names those that failed.
pub fn nightly() -> anyhow::Result<()> {
    setup::setup(setup::Extent::Tests)?;
    let parts: [(&str, Part); 6] = [
        ("guests with every kernel", || {
            vm::vm(vm::Kernel::value_variants(), vm::Extent::Whole, "")?.verdict()
        }),
        ("simulation", || simulate(HOURS, 0)),
        ("worlds of millions of states", large_worlds),
        ("two Leases", || walk(STATES)),
        ("frames", || soak(FRAMES)),
        ("planted bugs", || mutants::mutants("")),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        println!("\n=== nightly: {name}");
        if let Err(error) = part() {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    println!("\n{} passed, {} failed", parts.len() - failed.len(), failed.len());
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Simulates the election and the plan for this many hours, starting at `from`.
pub fn simulate(hours: u64, from: u64) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked"]).args(MODEL);
    cargo.args(["--test", "simulation", "hours", "--", "--nocapture"]);
    cargo.env("XVIP_SIMULATED_HOURS", hours.to_string());
    run_command(cargo.env("XVIP_SIMULATED_FROM", from.to_string()))
}

/// Searches the worlds of one Lease that have millions of states, and the small ones.
fn large_worlds() -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked"]).args(MODEL).args(["--test", "exhaustive"]);
    run_command(cargo.env("XVIP_LARGE_WORLDS", "1"))
}

/// Walks through this many states of each world of two Leases.
fn walk(states: usize) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked"]).args(MODEL).args(["--test", "admission", "one_owner"]);
    run_command(cargo.env("XVIP_WALKED_STATES", states.to_string()))
}

/// Sends this many mutated frames through the programs, and through the same rules on the host.
pub fn soak(frames: u32) -> anyhow::Result<()> {
    setup::setup(setup::Extent::Build)?;
    let test = "test --locked --release -p vip-tests --test packets host_equals_kernel";
    let mut cargo = Command::new("cargo");
    cargo.args(test.split(' ')).args(["--", "--nocapture"]).env("XVIP_FRAMES", frames.to_string());
    run_command(&mut cargo)?;
    println!("{frames} frames: the programs and the host agree on every byte");
    Ok(())
}
