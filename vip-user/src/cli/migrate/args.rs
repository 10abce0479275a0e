//! The command line of `xvip migrate`.

use crate::cli::{Output, Place};
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};

/// A step of the move.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Say what stands against the move of this node, and in which order nodes are moved. Changes
    /// nothing.
    Plan(Plan),
    /// Move this node; if it does not arrive, put kube-vip back.
    Apply(Apply),
    /// List what kube-vip has left once all nodes are moved; with --yes, remove it.
    Finish(Finish),
    /// Put kube-vip back on this node.
    Rollback(Rollback),
}

impl Migrate {
    /// Whether it may change this host. Then the end of a terminal or of a reader must not end it.
    pub const fn changes(&self) -> bool {
        !matches!(self, Self::Plan(_))
    }
}

/// What all steps need.
#[derive(Debug, Args)]
pub struct Common {
    /// The folder of the static pods.
    #[arg(long, default_value = "/etc/kubernetes/manifests")]
    pub manifests: PathBuf,
    /// A kubeconfig. Default: the one that the manifest mounts, else /etc/kubernetes/admin.conf.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Where backups are, and what was done.
    #[arg(long, default_value = "/var/lib/xvip/migrate")]
    pub state: PathBuf,
    /// The instance on this host.
    #[command(flatten)]
    pub place: Place,
}

/// `xvip migrate plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// This node. Default: the host name.
    pub node: Option<String>,
    /// The image to which nodes are moved, for the steps of a DaemonSet.
    #[arg(long)]
    pub image: Option<String>,
    /// What all steps need.
    #[command(flatten)]
    pub common: Common,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `xvip migrate apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// This node. Default: the host name.
    pub node: Option<String>,
    /// The image of xvip, with its tag.
    #[arg(long)]
    pub image: String,
    /// How many seconds the node has to arrive. Then kube-vip is put back.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub timeout: u64,
    /// The folder of the sysctls of this host.
    #[arg(long, default_value = "/etc/sysctl.d")]
    pub sysctls: PathBuf,
    /// What all steps need.
    #[command(flatten)]
    pub common: Common,
}

/// `xvip migrate finish`.
#[derive(Debug, Args)]
pub struct Finish {
    /// A node of the control plane that never gets xvip.
    #[arg(long, value_name = "NODE")]
    pub without: Vec<String>,
    /// Remove what is listed.
    #[arg(long)]
    pub yes: bool,
    /// What all steps need.
    #[command(flatten)]
    pub common: Common,
}

/// `xvip migrate rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// This node. Default: the host name.
    pub node: Option<String>,
    /// Go without the API: the Lease may note a tenure of this node as xvip's.
    #[arg(long)]
    pub offline: bool,
    /// How many seconds each wait may take.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub timeout: u64,
    /// What all steps need.
    #[command(flatten)]
    pub common: Common,
}

/// Seconds of the command line.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
