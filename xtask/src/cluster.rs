//! `cargo xtask cluster …`: a cluster for inspection. A background process keeps it up.

use crate::{image, kube, setup, shell};
use anyhow::{Context as _, bail};
use clap::Subcommand;
use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

/// What happens to it.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Start it, with xvip as a DaemonSet.
    Up,
    /// Remove it.
    Down,
    /// Run kubectl as its administrator: `cargo xtask cluster kubectl -- get pods -A`.
    Kubectl {
        /// What kubectl is asked to do.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

const DIR: &str = "target/cluster";
/// How many polls of 100 ms to wait until it is up or down.
const PATIENCE: u32 = 3_000;

/// Builds and installs what a cluster needs.
pub fn prepare() -> anyhow::Result<()> {
    setup::cluster()?;
    kube::servers()?;
    kube::runtime()?;
    image::next()?;
    image::image()?;
    image::pause()
}

/// Starts it, removes it, or runs kubectl.
pub fn cluster(what: &What) -> anyhow::Result<()> {
    match what {
        What::Up => up(),
        What::Down => down(),
        What::Kubectl { args } => kubectl(args),
    }
}

fn up() -> anyhow::Result<()> {
    if Path::new(DIR).join("ready").exists() {
        bail!("it is up already, or `{DIR}` is left over: run `cargo xtask cluster down`");
    }
    setup::setup(setup::Extent::Tests)?;
    setup::kubectl()?;
    prepare()?;
    shell::run("cargo", &["build", "--quiet", "--locked", "-p", "vip-user", "-p", "vip-tests"])?;
    fs::create_dir_all(DIR)?;
    let log = File::create(format!("{DIR}/log"))?;
    let mut keeper = Command::new("target/debug/xvip-cluster");
    keeper.arg(DIR).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // The keeper outlives this command and its terminal.
    let mut child = keeper.process_group(0).spawn().context("cannot run xvip-cluster")?;
    fs::write(format!("{DIR}/pid"), child.id().to_string())?;
    for _ in 0..PATIENCE {
        if Path::new(DIR).join("ready").exists() {
            println!("up: `cargo xtask cluster kubectl -- get pods -A`, `cargo xtask cluster down`");
            return Ok(());
        }
        if child.try_wait()?.is_some() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let log = fs::read_to_string(format!("{DIR}/log")).unwrap_or_default();
    bail!("the cluster does not come up:\n{log}")
}

fn down() -> anyhow::Result<()> {
    let pid = fs::read_to_string(format!("{DIR}/pid")).context("no cluster is up")?;
    let alive = || Path::new("/proc").join(&pid).exists();
    // The keeper ends when this file exists.
    fs::write(format!("{DIR}/stop"), "")?;
    for _ in 0..PATIENCE {
        if !alive() {
            fs::remove_dir_all(DIR)?;
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("process {pid}, which keeps the cluster up, does not end")
}

fn kubectl(args: &[String]) -> anyhow::Result<()> {
    let read = |name: &str| fs::read_to_string(format!("{DIR}/{name}")).context("no cluster is up");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", read("netns")?)).args(["kubectl", "--kubeconfig"]);
    shell::run_command(command.arg(read("kubeconfig")?).args(args))
}
