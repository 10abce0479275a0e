//! The ladder of tests: the least powerful rung that can fail for the right reason comes first.

use crate::vm::Kernel;
use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use std::{
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

/// One rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rung {
    /// Pure functions, beside their code.
    Unit,
    /// The election under a simulation of hundreds of hours, and under a model checker.
    Simulation,
    /// The packet rules on the host and through the loaded programs. Root.
    Packets,
    /// The controller with a fake dataplane and the stand-in API.
    Controller,
    /// The real binary in network namespaces. Root.
    Lab,
    /// The same against a real kube-apiserver and etcd. Root.
    Kube,
    /// The image and the manifests on a real cluster. Root.
    Cluster,
    /// The kinds of device that this kernel may lack, in a guest.
    Vm,
}

impl Rung {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["-p", "vip-user", "-p", "xtask", "-p", "vip-tests", "--lib", "--bins"],
            Self::Simulation => &["-p", "vip-user", "--test", "simulation", "--test", "exhaustive"],
            Self::Packets => &["-p", "vip-tests", "--test", "packets"],
            Self::Controller => &["-p", "vip-tests", "--test", "controller"],
            Self::Lab => &["-p", "vip-tests", "--test", "lab"],
            Self::Kube => &["-p", "vip-tests", "--test", "kube"],
            Self::Cluster => &["-p", "vip-tests", "--test", "cluster"],
            Self::Vm => &["-p", "vip-tests", "--test", "devices"],
        }
    }

    /// What each run of it hands to the test runner. Labs that measure time on the wire do not run beside each other.
    fn runs(self) -> Vec<Vec<String>> {
        let skip = |tests: &[&str]| tests.iter().map(|name| format!("--skip={name}")).collect();
        match self {
            Self::Lab => {
                let mut measured: Vec<String> = skip(NOT_MEASURED);
                measured.push("--test-threads=1".into());
                vec![measured, skip(MEASURED)]
            }
            _ => vec![Vec::new()],
        }
    }
}

/// The labs that measure time, and those that do not.
const MEASURED: &[&str] = &["faults::", "story::", "upgrade::"];
const NOT_MEASURED: &[&str] = &[
    "guard::",
    "harm::",
    "host::",
    "interfaces::",
    "leaving::",
    "probe::",
    "restart::",
    "seen::",
    "start::",
];

/// How many passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    /// `test result: ok. 45 passed; 0 failed; …`
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let number = |what: &str| {
            rest.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")? })
    }

    /// Prints the count; an error if a test failed, or if none ran.
    pub fn verdict(self) -> anyhow::Result<()> {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What came of a rung.
struct Played {
    rung: Rung,
    count: Count,
    /// It ran to its end, and what failed has been counted.
    whole: bool,
    seconds: u64,
}

/// Runs the rungs and prints the count; fails if a test did, or if none ran.
pub fn test(only: Option<Rung>, filter: &str) -> anyhow::Result<()> {
    // The labs run this binary, and upgrade to and from one whose map layouts differ.
    let build = ["build", "--quiet", "--locked", "-p", "vip-user"];
    crate::shell::run("cargo", &[&build[..], &["--features", "abi-next"]].concat())?;
    std::fs::copy("target/debug/xvip", "target/debug/xvip-next").context("target/debug/xvip")?;
    crate::shell::run("cargo", &build)?;
    let mut played = Vec::new();
    let mut beside = None;
    let rungs = Rung::value_variants().iter().filter(|rung| only.is_none_or(|only| only == **rung));
    for &rung in rungs {
        // It needs the processor and nothing else, and the labs mostly wait: it gets what they leave.
        if rung == Rung::Simulation && only.is_none() {
            println!("\n=== {rung:?}: runs beside the labs");
            // Where this does not compile, neither does the run, and that is counted at the end.
            let _built_before_the_labs =
                crate::shell::run_command(cargo_test(rung, &[]).arg("--no-run"));
            let filter = filter.to_owned();
            beside = Some(thread::spawn(move || {
                let mut lines = Vec::new();
                let idle = &["chrt", "--idle", "0"];
                let played = timed(rung, || run_rung(rung, &filter, idle, |line| lines.push(line)));
                (played, lines)
            }));
            continue;
        }
        println!("\n=== {rung:?}");
        played.push(timed(rung, || play(rung, filter)));
        if rung == Rung::Lab
            && let Some(beside) = beside.take()
        {
            let (simulated, lines) =
                beside.join().map_err(|_| anyhow!("{:?} panicked", Rung::Simulation))?;
            println!("\n=== {:?}, beside the labs\n{}", simulated.rung, lines.join("\n"));
            played.push(simulated);
        }
    }
    println!();
    let mut total = Count::default();
    for Played { rung, count, whole, seconds } in &played {
        println!("{rung:?}: {} passed, {} failed, {seconds} s", count.passed, count.failed);
        total += *count;
        if !whole && count.failed == 0 {
            println!("{rung:?} did not run to its end");
            total.failed += 1;
        }
    }
    total.verdict()
}

fn play(rung: Rung, filter: &str) -> anyhow::Result<(Count, bool)> {
    let run = || run_rung(rung, filter, &[], |line| println!("{line}"));
    match rung {
        Rung::Kube => crate::kube::servers().and_then(|()| run()),
        Rung::Cluster => crate::cluster::prepare().and_then(|()| run()),
        // The oldest of the kernels, whose verifier is the least patient and which has no tcx.
        Rung::Vm => crate::vm::vm(&[Kernel::Bookworm], filter).map(|count| (count, true)),
        _ => run(),
    }
}

#[expect(clippy::disallowed_methods, reason = "says how long a rung took")]
fn timed(rung: Rung, run: impl FnOnce() -> anyhow::Result<(Count, bool)>) -> Played {
    let begun = Instant::now();
    let (count, whole) = run().unwrap_or_else(|error| {
        println!("{rung:?}: {error:#}");
        (Count::default(), false)
    });
    Played { rung, count, whole, seconds: begun.elapsed().as_secs() }
}

/// `cargo test` for a rung, started by the command `by` if there is one.
fn cargo_test(rung: Rung, by: &[&str]) -> Command {
    let mut words = by.iter().chain(&["cargo"]);
    let mut command = Command::new(words.next().unwrap_or(&"cargo"));
    command.args(words).args(["test", "--locked", "--no-fail-fast"]).args(rung.arguments());
    command
}

fn run_rung(
    rung: Rung,
    filter: &str,
    by: &[&str],
    mut show: impl FnMut(String),
) -> anyhow::Result<(Count, bool)> {
    let (mut count, mut ok) = (Count::default(), true);
    for arguments in rung.runs() {
        let mut cargo = cargo_test(rung, by);
        cargo.arg("--").arg(filter).args(arguments).stdout(Stdio::piped());
        let mut child = cargo.spawn().with_context(|| format!("cannot run {cargo:?}"))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                // The runner's own closing lines are summed up into one at the end.
                match Count::parse(&line) {
                    Some(one) => count += one,
                    None => show(line),
                }
            }
        }
        ok &= child.wait()?.success();
    }
    Ok((count, ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.68s";
        assert_eq!(Count::parse(line), Some(Count { passed: 4, failed: 2 }));
        assert_eq!(Count::parse("test result_of_something ... ok"), None);
    }
}
