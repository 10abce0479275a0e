//! The command line; one file per subcommand.

pub mod cleanup;
pub mod config;
mod feeds;
pub mod handover;
pub mod health;
pub mod map;
mod parts;
pub mod probe;
pub mod run;
pub mod settings;
pub mod status;
pub mod table;

use crate::{config::DEFAULT_PIN_ROOT, escape, node::pins::Pins};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode};

/// The variable that replaces the default of every `--pin-root`, and `pin_root` of the file.
const PIN_ROOT: &str = "XVIP_PIN_ROOT";

/// Virtual IPs for bare-metal Kubernetes whose ownership the Linux kernel enforces.
#[derive(Debug, Parser)]
#[command(name = "xvip", version)]
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
        /// Where the maps are pinned, whatever the file says.
        #[arg(long, env = PIN_ROOT)]
        pin_root: Option<PathBuf>,
    },
    /// Who owns the VIPs, for how long, on which interfaces; works while no daemon runs.
    Status(View),
    /// The VIP map, decoded; works while no daemon runs.
    Map(View),
    /// Ask the LAN who answers for VIPs: 0 one owner, 1 nobody, 2 two owners, 3 could not ask.
    Probe(probe::Probe),
    /// Whether the daemon works: 0 yes, 1 no. For probes: it asks no port, which others may have.
    Health(health::Health),
    /// Check a configuration file, or show what is in force; touches nothing.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Move VIPs of this node to another node; 0: done, 1: this node keeps them.
    Handover(handover::Handover),
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
        /// Where the maps are pinned, whatever the file says.
        #[arg(long, env = PIN_ROOT)]
        pin_root: Option<PathBuf>,
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
    #[arg(long, env = PIN_ROOT, default_value = DEFAULT_PIN_ROOT)]
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

/// Prints JSON. Text from outside is escaped here too, because people look at the output.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", escape::json(&serde_json::to_string_pretty(value)?));
    Ok(())
}

/// The pins of an instance; `None` if there are none. A directory that may not be read is an error.
fn pins_of(place: &Place) -> anyhow::Result<Option<Pins>> {
    let pins = Pins::new(&place.pin_root, &place.instance);
    let looked = pins.try_exist();
    let there = looked
        .with_context(|| format!("cannot look into {} (root is needed)", pins.dir().display()))?;
    Ok(there.then_some(pins))
}

/// Runs a command.
pub fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run { config, pin_root } => {
            let runtime = async_runtime()?;
            let ended = runtime.block_on(run::run(&config, pin_root));
            // Does not wait for threads that still wait for the kernel.
            runtime.shutdown_background();
            ended
        }
        Command::Status(view) => async_runtime()?.block_on(status::status(&view)),
        Command::Health(args) => async_runtime()?.block_on(health::health(&args)),
        Command::Map(view) => map::map(&view),
        Command::Probe(args) => async_runtime()?.block_on(probe::probe(&args)),
        Command::Config { what: ConfigCommand::Check { file } } => config::check(&file),
        Command::Config { what: ConfigCommand::Show { file, pin_root, output } } => {
            config::show(&file, pin_root, output)
        }
        Command::Handover(args) => async_runtime()?.block_on(handover::handover(&args)),
        Command::Cleanup(place) => async_runtime()?.block_on(cleanup::cleanup(&place)),
    }
}

/// One thread is enough for one loop, and a network namespace belongs to a thread.
fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
