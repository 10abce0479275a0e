//! Keeps a cluster up for `cargo xtask cluster`, until a file named `stop` appears in the given
//! directory.

use anyhow::Context as _;
use std::{env, fs, path::PathBuf, thread::sleep, time::Duration};
use vip_tests::cluster::{Cluster, manifests};

fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(env::args_os().nth(1).context("usage: xvip-cluster DIR")?);
    let cluster = Cluster::start(3)?;
    let (kubeconfig, _) = cluster.kubectl()?;
    fs::write(dir.join("kubeconfig"), kubeconfig.display().to_string())?;
    fs::write(dir.join("netns"), cluster.lab.api_ns.name())?;
    for manifest in manifests::daemonset() {
        cluster.apply(&manifest)?;
    }
    cluster.wait_for_pods("xvip", 3)?;
    fs::write(dir.join("ready"), "")?;
    while !dir.join("stop").exists() {
        sleep(Duration::from_millis(200));
    }
    Ok(())
}
