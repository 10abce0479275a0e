//! One node of the cluster: a network namespace of the lab with its own mounts, processes, containerd
//! and kubelet.

use crate::{
    kube::assets,
    lab::{
        VIP4, VIP6, eventually,
        node::{Node, next_xvip, xvip},
    },
    netns::{NetNs, sh},
};
use anyhow::Context as _;
use serde_json::Value;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Where the hierarchies of control groups (v1) are in which a kubelet creates its own.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A node; dropping it ends everything that runs on it.
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    ns: NetNs,
    ip: String,
    dir: PathBuf,
    kubeconfig: PathBuf,
    init: Option<Child>,
}

impl ClusterNode {
    /// Starts it in the namespace of a lab's node.
    ///
    /// # Errors
    /// If something is not built.
    pub fn start(node: &Node, kubeconfig: &Path, dir: &Path) -> anyhow::Result<Self> {
        let mut started = Self {
            name: node.name.clone(),
            ns: node.ns.borrowed(),
            ip: node.ip.to_string(),
            dir: dir.join(format!("{}-host", node.name)),
            kubeconfig: kubeconfig.into(),
            init: None,
        };
        fs::create_dir_all(&started.dir)?;
        started.power_on()?;
        Ok(started)
    }

    /// Starts everything.
    ///
    /// # Errors
    /// If something is not built.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        self.make_cgroups()?;
        let log = fs::File::create(self.dir.join("init.log"))?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/node-init.sh");
        let mut init = self.ns.command("setpriv");
        init.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        init.args(["--propagation", "slave", "bash", script, &self.name, &self.ip]);
        init.arg(&self.dir).arg(fs::canonicalize(assets()?)?).arg(&self.kubeconfig);
        init.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.init = Some(init.spawn().context("cannot start a node")?);
        Ok(())
    }

    /// Kills every process at once, as in a power cut. The kernel keeps running, so the caller also
    /// cuts the cable.
    pub fn power_off(&mut self) {
        if let Some(mut init) = self.init.take() {
            let _ = init.kill();
            let _ = init.wait();
        }
        // After a real power cut the kernel has no addresses. This kernel keeps them, and its guard
        // is gone with the node's BPF file system.
        for address in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
            for device in ["lo", "eth0"] {
                let _ = self.ns.ip(&format!("addr del {address} dev {device}"));
            }
        }
        // Left-over groups cost the next kubelet seconds each.
        let name = &self.name;
        let gone = format!(
            "for group in {CGROUPS}/*/xvip-lab/{name}; do find $group -depth -mindepth 1 -type d -exec rmdir {{}} + ; done"
        );
        eventually(Duration::from_secs(10), || sh(&gone).is_ok());
    }

    /// A new kubelet uses the old groups. A cpuset must be given the values of its parent.
    fn make_cgroups(&self) -> anyhow::Result<()> {
        let name = &self.name;
        sh(&format!(
            "for root in {CGROUPS}/*; do [ -w $root/cgroup.procs ] && mkdir -p $root/xvip-lab/{name}; done; \
             for group in xvip-lab xvip-lab/{name}; do for file in cpus mems; do \
             [ ! -e {CGROUPS}/cpuset/cpuset.$file ] || \
             cat {CGROUPS}/cpuset/cpuset.$file > {CGROUPS}/cpuset/$group/cpuset.$file; done; done"
        ))
        .map(drop)
    }

    /// A command that runs on the node.
    ///
    /// # Errors
    /// If the node is off.
    pub fn command(&self, program: &str) -> anyhow::Result<Command> {
        let init = self.init.as_ref().context("the node is off")?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.id()))?;
        let first = children.split_whitespace().next().context("the node has no process 1")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", first, "--all", program]);
        Ok(command)
    }

    /// Runs a command line on the node.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn run(&self, line: &str) -> anyhow::Result<String> {
        let output = self.command("bash")?.args(["-c", line]).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "`{line}` on {}: {text}{errors}", self.name);
        Ok(text)
    }

    /// `xvip status -o json` with the binary under test, beside the pod.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn status(&self) -> anyhow::Result<Value> {
        self.status_by(xvip()?)
    }

    fn status_by(&self, binary: PathBuf) -> anyhow::Result<Value> {
        let text = self.run(&format!("{} status -o json", fs::canonicalize(binary)?.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// `xvip cleanup` with the binary under test.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn cleanup(&self) -> anyhow::Result<String> {
        self.run(&format!("{} cleanup", fs::canonicalize(xvip()?)?.display()))
    }

    /// Whether its kernel may answer for all VIPs now, by the maps of either version.
    pub fn owns(&self) -> bool {
        [xvip(), next_xvip()].into_iter().flatten().any(|binary| {
            self.status_by(binary).is_ok_and(|status| {
                let vips = status["vips"].as_array().cloned().unwrap_or_default();
                !vips.is_empty() && vips.iter().all(|vip| vip["answering"] == true)
            })
        })
    }

    /// Ends the xvip process with SIGKILL, from the host.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_xvip(&self) -> anyhow::Result<()> {
        self.run("pkill -9 -x xvip").map(drop)
    }

    /// Ends the kubelet with SIGKILL; it is then restarted.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_kubelet(&self) -> anyhow::Result<()> {
        self.run("pkill -9 -x kubelet").map(drop)
    }

    /// Stops the kubelet until [`start_kubelet`](Self::start_kubelet).
    ///
    /// # Errors
    /// If there is none.
    pub fn stop_kubelet(&self) -> anyhow::Result<()> {
        fs::write(self.stopped_kubelet(), "")?;
        self.kill_kubelet()
    }

    /// Starts a stopped kubelet.
    ///
    /// # Errors
    /// If it was not stopped.
    pub fn start_kubelet(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.stopped_kubelet())?)
    }

    fn stopped_kubelet(&self) -> PathBuf {
        self.dir.join("kubelet.stopped")
    }

    /// Where the manifests of static pods are.
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// Its `/etc`.
    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// The ends of its logs.
    pub fn log(&self) -> String {
        let tail = |file: &str| {
            let line = format!("tail -n 12 {}", self.dir.join(file).display());
            format!("{file}:\n{}", sh(&line).unwrap_or_default())
        };
        format!("{}\n{}\n{}", tail("init.log"), tail("containerd.log"), tail("kubelet.log"))
    }

    /// The logs of its pods.
    pub fn pod_logs(&self) -> String {
        let line = format!("tail -n 30 {}/var/log/pods/*/*/*.log", self.dir.display());
        format!("{}:\n{}", self.name, sh(&line).unwrap_or_default())
    }
}

impl Drop for ClusterNode {
    fn drop(&mut self) {
        self.power_off();
        let name = &self.name;
        // The common parent is removed with the last of them.
        let gone = format!(
            "for group in {CGROUPS}/*/xvip-lab; do [ ! -e $group/{name} ] || rmdir $group/{name} || exit 1; \
             rmdir $group; done 2> /dev/null; ! ls -d {CGROUPS}/*/xvip-lab/{name} 2> /dev/null"
        );
        eventually(Duration::from_secs(5), || sh(&gone).is_ok());
    }
}
