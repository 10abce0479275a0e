//! The command line; one file per subcommand.

pub mod cleanup;
pub mod config;
pub mod map;
pub mod probe;
pub mod run;
pub mod status;
pub mod table;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, process::ExitCode};

/// Virtual IPs for bare-metal Kubernetes whose ownership the Linux kernel enforces.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold VIPs on this node until stopped.
    Run {
        /// The configuration file (YAML).
        #[arg(long)]
        config: PathBuf,
    },
    /// Who owns the VIPs, for how long, on which interfaces; works while no daemon runs.
    Status(View),
    /// The VIP map, decoded; works while no daemon runs.
    Map(View),
    /// Ask the LAN who answers for VIPs: 0 one owner, 1 nobody, 2 two owners.
    Probe(probe::Probe),
    /// Check a configuration file, or show what is in force; touches nothing.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Remove everything that xvip has put on this host. Refuses while a daemon runs.
    Cleanup(Place),
}

/// What to do with a configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether it is valid.
    Check {
        /// The file (YAML).
        file: PathBuf,
    },
    /// Print every setting in force and where it comes from.
    Show {
        /// The file (YAML).
        file: PathBuf,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Which instance.
#[derive(Debug, Args)]
pub struct Place {
    /// The instance.
    #[arg(long, default_value = "default")]
    pub instance: String,
    /// Where its maps are pinned.
    #[arg(long, env = "XVIP_PIN_ROOT", default_value = "/sys/fs/bpf/xvip")]
    pub pin_root: PathBuf,
}

/// Which instance, and how to print.
#[derive(Debug, Args)]
pub struct View {
    /// Which instance.
    #[command(flatten)]
    pub place: Place,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned, for people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// Runs a command.
pub fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run { config } => async_runtime()?.block_on(run::run(&config)),
        Command::Status(view) => status::status(&view),
        Command::Map(view) => map::map(&view),
        Command::Probe(args) => async_runtime()?.block_on(probe::probe(&args)),
        Command::Config { what: ConfigCommand::Check { file } } => config::check(&file),
        Command::Config { what: ConfigCommand::Show { file, output } } => config::show(&file, output),
        Command::Cleanup(place) => async_runtime()?.block_on(cleanup::cleanup(&place)),
    }
}

/// One thread: the loop is one, and a network namespace belongs to a thread.
fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
