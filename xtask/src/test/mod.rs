//! The ladder of tests: the least powerful rung that can fail for the right reason comes first.

mod again;
mod count;
mod rung;
mod table;

pub use count::{Count, Failed};
pub use rung::{MODEL, PACKAGES, Rung};

use crate::{
    shell::{run, run_command},
    vm::{self, Kernel},
};
use again::Failures;
use anyhow::{Context as _, anyhow, bail};
use rung::{Lane, Pass, Stage};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};
use table::Played;

/// Which tests run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Every rung.
    All,
    /// The inner loop: no API server, no guests, a handful of labs.
    Quick,
    /// One rung, and only its tests whose name contains the filter.
    Only(Rung, String),
}

impl Choice {
    /// The choice of the command line. A filter needs a rung.
    pub fn of(only: Option<Rung>, quick: bool, filter: String) -> anyhow::Result<Self> {
        match only {
            Some(rung) => Ok(Self::Only(rung, filter)),
            None if quick => Ok(Self::Quick),
            None if filter.is_empty() => Ok(Self::All),
            None => bail!("a filter needs a rung: cargo xtask test --only RUNG {filter}"),
        }
    }
}

/// Runs the rungs and prints the count; fails if a test did, or if none ran.
pub fn test(choice: &Choice) -> anyhow::Result<()> {
    build(choice)?;
    let (stages, background) = match choice {
        Choice::All => (rung::stages(), rung::background()),
        Choice::Quick => (rung::quick(), Lane::new()),
        Choice::Only(rung, filter) => (rung::only(*rung, filter), Lane::new()),
    };
    let servers = Servers::default();
    let played = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            if !background.is_empty() {
                leave_the_processor_to_others();
                // The stages that need the servers come last, and report a failure.
                let _told_by_the_stages = servers.cluster();
            }
            play_lane(&background, &servers)
        });
        // A pod with a small request gets less processor time than a process of the lowest
        // priority. So stages that measure pods run alone.
        let (alone, others): (Vec<_>, Vec<_>) = stages.into_iter().partition(rung::is_of_cluster);
        let mut played = play_stages(&others, &servers);
        played.extend(beside.join().unwrap_or_default());
        played.extend(play_stages(&alone, &servers));
        played
    });
    let played: Vec<Played> = played.into_iter().map(repeat).collect();
    table::print(&played).verdict()
}

/// Repeats late labs that failed beside others, one after the other and with nothing beside them.
fn repeat(mut played: Played) -> Played {
    let failed = played.failures.to_repeat(played.rung, played.count).to_vec();
    for name in failed {
        println!("\n=== again, alone: {name}");
        let arguments = [played.rung.arguments(), vec!["--", "--exact", &name]].concat();
        if run_command(Command::new("cargo").args(["test", "--locked"]).args(arguments)).is_ok() {
            println!("{name} failed beside others, and passes alone");
            played.failures.excuse(&name);
            played.count.failed -= 1;
            played.count.passed += 1;
            played.whole |= played.count.failed == 0;
        }
    }
    played
}

/// Builds the programs of the passes. The labs run the binary, and upgrade to and from a binary
/// with other map layouts.
fn build(choice: &Choice) -> anyhow::Result<()> {
    let program = [&["build", "--quiet", "--locked", "--bin", "xvip"][..], &PACKAGES].concat();
    if *choice != Choice::Quick {
        run("cargo", &[&program[..], &["--features", "vip-user/abi-next"]].concat())?;
        fs::copy("target/debug/xvip", "target/debug/xvip-next").context("target/debug/xvip")?;
    }
    run("cargo", &program)?;
    if *choice == Choice::All {
        // A failure is ignored here: then the passes do not compile either, which counts at the
        // end.
        let all = ["test", "--quiet", "--locked", "--no-run", "--lib", "--bins", "--tests"];
        let _passes_tell = run_command(Command::new("cargo").args(all).args(PACKAGES));
    }
    Ok(())
}

/// Builds the programs of the demo and the benches.
pub fn programs(profile: &[&str]) -> anyhow::Result<()> {
    let build = ["build", "--quiet", "--locked", "--bins"];
    run("cargo", &[&build[..], &PACKAGES, profile].concat())
}

/// The Kubernetes servers and the image. The first pass that needs them builds them.
#[derive(Default)]
struct Servers {
    kube: OnceLock<Result<(), String>>,
    cluster: OnceLock<Result<(), String>>,
}

impl Servers {
    fn kube(&self) -> Result<(), String> {
        let made = self.kube.get_or_init(|| crate::kube::servers().map_err(|why| format!("{why:#}")));
        made.clone()
    }

    fn cluster(&self) -> Result<(), String> {
        self.kube()?;
        let made =
            self.cluster.get_or_init(|| crate::cluster::prepare().map_err(|why| format!("{why:#}")));
        made.clone()
    }
}

/// From here on, commands of this thread get only idle processor time. They inherit the scheduling
/// class of the thread.
fn leave_the_processor_to_others() {
    let task = fs::read_link("/proc/thread-self").unwrap_or_default();
    let Some(id) = task.file_name().and_then(|id| id.to_str()) else { return };
    if let Err(error) = run("chrt", &["--idle", "--pid", "0", id]) {
        println!("the background runs at normal priority: {error:#}");
    }
}

fn play_stages(stages: &[Stage], servers: &Servers) -> Vec<Played> {
    let mut played = Vec::new();
    for stage in stages {
        let lanes = thread::scope(|scope| {
            let lanes: Vec<_> =
                stage.iter().map(|lane| scope.spawn(|| play_lane(lane, servers))).collect();
            lanes.into_iter().map(|lane| lane.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        played.extend(lanes.into_iter().flatten());
    }
    played
}

#[expect(clippy::disallowed_methods, reason = "says how long a pass took")]
fn play_lane(lane: &[Pass], servers: &Servers) -> Vec<Played> {
    let mut played = Vec::new();
    for pass in lane {
        println!("\n=== {}", table::name(pass));
        let begun = Instant::now();
        let mut failures = Failures::default();
        let (count, whole) = play(pass, servers, &mut failures).unwrap_or_else(|error| {
            println!("{}: {error:#}", table::name(pass));
            (Count::default(), false)
        });
        let (name, took): (_, Duration) = (table::name(pass), begun.elapsed());
        played.push(Played { name, rung: pass.rung, count, whole, failures, took });
    }
    played
}

/// Runs a pass. Returns the count, and whether the pass ran to its end.
fn play(pass: &Pass, servers: &Servers, failures: &mut Failures) -> anyhow::Result<(Count, bool)> {
    match pass.rung {
        Rung::Kube => servers.kube().map_err(|why| anyhow!(why))?,
        Rung::Cluster => servers.cluster().map_err(|why| anyhow!(why))?,
        // The oldest kernel that CI boots: it has the strictest verifier and no tcx.
        Rung::Vm => {
            let (filter, extent) = (pass.arguments.join(" "), vm::Extent::of_a_change());
            if extent == vm::Extent::Core {
                println!("no KVM here: of the guest its core; cargo xtask nightly runs all of it");
            }
            return vm::vm(&[Kernel::Bookworm], extent, &filter).map(|count| (count, true));
        }
        _ => {}
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--no-fail-fast"]).args(pass.rung.arguments());
    cargo.arg("--").args(&pass.arguments).stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("cannot run {cargo:?}"))?;
    let mut count = Count::default();
    let prefix = table::name(pass);
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            failures.take_in(&line);
            // The runner's result lines are summed up at the end.
            match Count::parse(&line) {
                Some(one) => count += one,
                // Passes run in parallel, so each line names its pass.
                None if !line.is_empty() => println!("{prefix:14} | {line}"),
                None => {}
            }
        }
    }
    Ok((count, child.wait()?.success()))
}
