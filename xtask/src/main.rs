//! `cargo xtask …`: set up, demo, test, bench, lint. Each step of CI is one of these commands.
#![forbid(unsafe_code)]

mod cluster;
mod fuzz;
mod image;
mod kube;
mod lint;
mod mutants;
mod nightly;
mod setup;
mod shell;
mod test;
mod tidy;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Everything that a developer or CI runs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the build and the tests need; says what and why.
    Setup {
        /// Also build the real Kubernetes servers and a container runtime, from Go modules.
        #[arg(long)]
        kube: bool,
    },
    /// Three nodes, eleven faults, one table: watch the VIPs survive without two owners. Needs root.
    Demo {
        /// Only faults whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Against a real kube-apiserver and etcd instead of the stand-in.
        #[arg(long)]
        kube: bool,
    },
    /// Run every test and count them. Needs root for the programs and the namespaces.
    Test {
        /// Only one rung of the ladder.
        #[arg(long, value_enum)]
        only: Option<test::Rung>,
        /// The inner loop: unit, packets, controller and a handful of labs.
        #[arg(long, conflicts_with_all = ["only", "filter"])]
        quick: bool,
        /// Only tests whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// What takes hours and finds something once in a long while: every kernel, long simulations,
    /// frames by the million, and all planted bugs. Needs root.
    Nightly,
    /// Measure. Needs root.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Check format, lints (host and bpf), dependencies and the rules of the house.
    Lint,
    /// Check the rules of the house: file sizes, manifests, leftovers.
    Tidy,
    /// Feed frames, Leases and configurations that nobody would write, guided by coverage.
    Fuzz {
        /// Seconds for each target; 0 only builds them.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Where the mutations begin.
        #[arg(long, default_value_t = 1)]
        seed: u32,
        /// Only targets whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Add a small corpus of the coverage that was reached to the committed one.
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests of devices, packets and labs in guests with other kernels, under QEMU.
    Vm {
        /// A kernel; may be given more than once. Default: all.
        #[arg(long, value_enum)]
        kernel: Vec<vm::Kernel>,
        /// Only tests whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Simulate the election and the plan for longer than the tests do, and list the states that were
    /// met.
    Simulate {
        /// Hours of simulated time; a million take some hours of real time.
        #[arg(long, default_value_t = 1_000_000)]
        hours: u64,
        /// The hour to begin with, a multiple of 8: many hours can be played in parts.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Make the OCI image `target/image/xvip.tar`: one static program, no registry.
    Image,
    /// A real cluster of three kubelets in network namespaces, to look at.
    Cluster {
        #[command(subcommand)]
        what: cluster::What,
    },
    /// Send as many mutated frames as you like through the loaded programs and through the same rules
    /// on the host: they must agree on every byte. Needs root
    Soak {
        /// How many.
        #[arg(long, default_value_t = 100_000_000)]
        frames: u32,
    },
    /// Break the code in the ways that matter, one at a time: a named test must fail each time.
    Mutants {
        /// Only mutations whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Nanoseconds per packet, by `BPF_PROG_TEST_RUN`.
    Packets,
    /// How long VIPs are dark after the six main faults, on a real API, run by run into a results
    /// file.
    Failover {
        /// Runs of each fault; those that are in the results file already count.
        #[arg(long, default_value_t = 100)]
        runs: usize,
        /// Where the runs are kept, one JSON object a line.
        #[arg(long, default_value = "docs/failover.jsonl")]
        results: String,
        /// Also run this program in the same lab.
        #[arg(long)]
        peer: Option<String>,
        /// Labs beside each other: less time, more noise.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
        jobs: u8,
        /// The development build, as it is: shows that the bench works, and measures nothing that
        /// counts.
        #[arg(long)]
        debug: bool,
    },
    /// Answers per second on one core against the kernel's own, a daemon with 10 000 VIPs, one with 500
    /// interfaces.
    Host,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Of a backtrace (`RUST_BACKTRACE`), only the last frames would stay on the screen.
            if !error.is::<test::Failed>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    shell::enter_workspace()?;
    match cli.command {
        Command::Setup { kube } => {
            setup::setup(setup::Extent::Tests)?;
            if kube {
                kube::servers()?;
                kube::runtime()?;
            }
            Ok(())
        }
        Command::Demo { only, kube } => {
            setup::setup(setup::Extent::Build)?;
            if kube {
                kube::servers()?;
            }
            test::programs(&[])?;
            let kube: &[&str] = if kube { &["--kube"] } else { &[] };
            shell::run("target/debug/xvip-demo", &[&["--only", &only], kube].concat())
        }
        Command::Test { only, quick, filter } => {
            setup::setup(setup::Extent::Tests)?;
            test::test(&test::Choice::of(only, quick, filter)?)
        }
        Command::Nightly => nightly::nightly(),
        Command::Bench { what } => {
            setup::setup(setup::Extent::Build)?;
            if let Bench::Failover { peer, .. } = &what {
                kube::servers()?;
                setup::peer(peer.as_deref())?;
            }
            // The daemon is measured as a release build.
            let debug = matches!(what, Bench::Failover { debug: true, .. });
            let profile: &[&str] = if debug { &[] } else { &["--release"] };
            test::programs(profile)?;
            match what {
                Bench::Packets => shell::run("target/release/xvip-bench", &[]),
                Bench::Host => shell::run("target/release/xvip-bench-host", &[]),
                Bench::Failover { runs, results, peer, jobs, debug } => {
                    let (runs, jobs) = (runs.to_string(), jobs.to_string());
                    let mut args = vec!["--runs", &runs, "--results", &results, "--jobs", &jobs];
                    args.extend(peer.iter().flat_map(|peer| ["--peer", peer]));
                    let profile = if debug { "debug" } else { "release" };
                    shell::run(&format!("target/{profile}/xvip-bench-failover"), &args)
                }
            }
        }
        Command::Soak { frames } => nightly::soak(frames),
        Command::Lint => {
            setup::setup(setup::Extent::Lint)?;
            lint::lint()
        }
        Command::Fuzz { seconds, seed, only, keep } => {
            setup::setup(setup::Extent::Tests)?;
            fuzz::fuzz(seconds, seed, &only, keep)
        }
        Command::Simulate { hours, from } => nightly::simulate(hours, from),
        Command::Image => {
            setup::setup(setup::Extent::Build)?;
            image::image()
        }
        Command::Cluster { what } => cluster::cluster(&what),
        Command::Tidy => tidy::tidy(),
        Command::Vm { kernel, filter } => {
            setup::setup(setup::Extent::Tests)?;
            let all = <vm::Kernel as clap::ValueEnum>::value_variants();
            let kernels = if kernel.is_empty() { all } else { &kernel };
            vm::vm(kernels, vm::Extent::Whole, &filter)?.verdict()
        }
        Command::Mutants { filter } => {
            setup::setup(setup::Extent::Tests)?;
            mutants::mutants(&filter)
        }
    }
}
