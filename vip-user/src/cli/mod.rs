//! The command line; one file per subcommand.

pub mod cleanup;
pub mod config;
mod dump;
mod feeds;
mod find;
pub mod handover;
pub mod health;
mod kube_vip;
pub mod manager;
pub mod manifest;
pub mod map;
pub mod migrate;
mod parts;
pub mod probe;
pub mod run;
pub mod settings;
pub mod status;
pub mod table;

use crate::{adapter::flags, config::DEFAULT_PIN_ROOT, escape, node::pins::Pins};
use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

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
    /// Move a live cluster from kube-vip to xvip, one node after the other; as root on each node.
    Migrate {
        /// The step.
        #[command(subcommand)]
        what: migrate::Migrate,
    },
    /// Hold VIPs with the settings of kube-vip; `--check`: say whether this would run here.
    #[command(visible_alias = "service")]
    Manager(KubeVip),
    /// Print a manifest with the settings of kube-vip.
    Manifest {
        /// What to print.
        #[arg(value_enum)]
        kind: manifest::Kind,
        /// The settings.
        #[command(flatten)]
        settings: KubeVip,
    },
    /// Print a static pod for kubeadm, with the settings of kube-vip.
    Kubeadm {
        /// The step.
        #[arg(value_enum)]
        step: manifest::Step,
        /// The settings.
        #[command(flatten)]
        settings: KubeVip,
    },
    /// Print the version.
    Version,
    /// Print the subcommands.
    Sample,
    /// Refused: old versions of kube-vip began so. Use `manager`.
    #[command(hide = true)]
    Start(KubeVip),
}

/// Settings of kube-vip: its variables, and these flags.
#[derive(Debug, Args)]
pub struct KubeVip {
    /// kube-vip's flags: docs/from-kube-vip.md lists them, and what each becomes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub flags: Vec<OsString>,
}

/// What to do with a configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether it is valid.
    Check {
        /// The file (YAML); without one, the settings of kube-vip in the environment.
        file: Option<PathBuf>,
        /// kube-vip's flags.
        #[arg(last = true, conflicts_with = "file")]
        flags: Vec<OsString>,
    },
    /// Print every setting in force and where it comes from.
    Show {
        /// The file (YAML); without one, the settings of kube-vip in the environment.
        file: Option<PathBuf>,
        /// kube-vip's flags.
        #[arg(last = true, conflicts_with = "file")]
        flags: Vec<OsString>,
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
        Command::Config { what } => config::config(what),
        Command::Handover(args) => async_runtime()?.block_on(handover::handover(&args)),
        Command::Cleanup(place) => async_runtime()?.block_on(cleanup::cleanup(&place)),
        Command::Migrate { what } => {
            let runtime = async_runtime()?;
            let ended = runtime.block_on(migrate::migrate(&what));
            runtime.shutdown_background();
            ended
        }
        Command::Manager(settings) => {
            let runtime = async_runtime()?;
            let ended = runtime.block_on(manager::manager(&settings.flags));
            runtime.shutdown_background();
            ended
        }
        Command::Manifest { kind, settings } => manifest::manifest(kind, &settings.flags),
        Command::Kubeadm { step, settings } => manifest::kubeadm(step, &settings.flags),
        Command::Version => {
            println!("xvip {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Sample => {
            Cli::command().print_long_help().context("cannot print")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Start(_) => {
            let why = "start is a command of kube-vip up to 0.4: run `manager` with the same settings";
            Ok(kube_vip::say(&[why.into()]))
        }
    }
}

/// One thread is enough for one loop, and a network namespace belongs to a thread.
fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// The command line with the subcommand first, and what it prints. kube-vip takes its flags before and
/// between them, too.
pub fn arranged(mut arguments: Vec<OsString>) -> Vec<OsString> {
    const WORDS: [(&str, bool); 4] =
        [("manager", false), ("service", false), ("manifest", true), ("kubeadm", true)];
    let mut front = 1;
    let Some(word) = first_word(&arguments, front) else { return arguments };
    let Some((_, has_kind)) = WORDS.into_iter().find(|(known, _)| word.1 == *known) else {
        return arguments;
    };
    arguments.remove(word.0);
    arguments.insert(front, word.1);
    if has_kind {
        front += 1;
        if let Some((at, kind)) = first_word(&arguments, front) {
            arguments.remove(at);
            arguments.insert(front, kind);
        }
    }
    arguments
}

/// The first word from there on that is neither a flag nor the value of one.
fn first_word(arguments: &[OsString], from: usize) -> Option<(usize, OsString)> {
    let words = arguments.get(from..)?.iter().map(|word| word.to_string_lossy().into_owned());
    let at = from + flags::leading(&words.collect::<Vec<_>>(), &manifest::OWN);
    arguments.get(at).map(|word| (at, word.clone()))
}

#[cfg(test)]
mod tests;
