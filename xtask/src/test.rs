//! The ladder of tests: the least powerful rung that can fail for the right reason comes first.

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

/// One rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rung {
    /// Pure functions, beside their code.
    Unit,
    /// The election under a simulation of hundreds of hours.
    Simulation,
    /// The packet rules on the host and through the loaded programs. Root.
    Packets,
    /// The controller with a fake dataplane and the stand-in API.
    Controller,
    /// The real binary in network namespaces. Root.
    Lab,
}

impl Rung {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["-p", "vip-user", "-p", "xtask", "-p", "vip-tests", "--lib", "--bins"],
            Self::Simulation => &["-p", "vip-user", "--test", "simulation"],
            Self::Packets => &["-p", "vip-tests", "--test", "packets"],
            Self::Controller => &["-p", "vip-tests", "--test", "controller"],
            Self::Lab => &["-p", "vip-tests", "--test", "lab"],
        }
    }

    /// Labs measure time on the wire, so they do not run beside each other.
    const fn threads(self) -> Option<&'static str> {
        match self {
            Self::Lab => Some("--test-threads=1"),
            _ => None,
        }
    }
}

/// How many passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    passed: u64,
    failed: u64,
}

/// Runs the rungs and prints the count; fails if a test did, or if none ran.
pub fn test(only: Option<Rung>, filter: &str) -> anyhow::Result<()> {
    // The labs run this binary, and upgrade to and from one whose map layouts differ.
    let build = ["build", "--quiet", "--locked", "-p", "vip-user"];
    crate::shell::run("cargo", &[&build[..], &["--features", "abi-next"]].concat())?;
    std::fs::copy("target/debug/xvip", "target/debug/xvip-next").context("target/debug/xvip")?;
    crate::shell::run("cargo", &build)?;
    let mut total = Count::default();
    let mut broken = Vec::new();
    let rungs = Rung::value_variants().iter().filter(|rung| only.is_none_or(|only| only == **rung));
    for rung in rungs {
        println!("\n=== {rung:?}");
        let (count, ok) = run_rung(*rung, filter)?;
        total.passed += count.passed;
        total.failed += count.failed;
        if !ok && count.failed == 0 {
            broken.push(*rung);
        }
    }
    println!("\n{} passed, {} failed", total.passed, total.failed + broken.len() as u64);
    if !broken.is_empty() {
        bail!("these rungs did not run to their end: {broken:?}");
    }
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    if total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn run_rung(rung: Rung, filter: &str) -> anyhow::Result<(Count, bool)> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--no-fail-fast"]).args(rung.arguments());
    cargo.arg("--").arg(filter).args(rung.threads()).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot run cargo test")?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            // The runner's own closing lines are summed up into one at the end.
            match parse(&line) {
                Some(one) => {
                    count.passed += one.passed;
                    count.failed += one.failed;
                }
                None => println!("{line}"),
            }
        }
    }
    Ok((count, child.wait()?.success()))
}

/// `test result: ok. 45 passed; 0 failed; …`
fn parse(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |what: &str| {
        rest.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.68s";
        assert_eq!(parse(line), Some(Count { passed: 4, failed: 2 }));
        assert_eq!(parse("test result_of_something ... ok"), None);
    }
}
