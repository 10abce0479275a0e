//! One node: a namespace and an `xvip` process.

use super::{API, API_PORT, Kube, Options, VIP4, VIP6, mac};
use crate::{kernel_run::kernel_is, netns::NetNs};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub ns: NetNs,
    /// Its name and `holderIdentity`.
    pub name: String,
    /// Its address on the bridge.
    pub ip: IpAddr,
    /// Its MAC address on the bridge.
    pub mac: [u8; 6],
    /// The instance of its pins.
    pub instance: String,
    config: PathBuf,
    log: PathBuf,
    pin_root: PathBuf,
    process: Option<Child>,
    boot_id: String,
    binary: Option<PathBuf>,
    environment: Vec<(String, String)>,
    through: Vec<String>,
}

impl Node {
    pub(super) fn new(
        ns: NetNs,
        number: usize,
        dir: &Path,
        id: &str,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let name = format!("node{number}");
        let instance = format!("{id}-{name}");
        let pin_root = dir.join("bpf");
        let kubeconfig = dir.join("kubeconfig");
        if options.kube == Kube::StandIn {
            fs::write(&kubeconfig, kubeconfig_text())?;
        }
        let server_name = if options.kube == Kube::StandIn { "null" } else { "kubernetes" };
        // Its own server first, then the others in turn.
        let on_nodes =
            |offset| format!("https://{}:{API_PORT}", ip((number - 1 + offset) % options.nodes + 1));
        let endpoints: Vec<String> = match options.kube {
            Kube::StandIn => vec![format!("http://{API}")],
            Kube::One => vec![format!("https://{API}")],
            Kube::OnEachNode => (0..options.nodes).map(on_nodes).collect(),
        };
        let endpoints: Vec<String> = endpoints.iter().map(|url| format!("'{url}'")).collect();
        let config = dir.join(format!("{name}.yaml"));
        let vips = options.vips.clone().unwrap_or_else(|| vec![VIP4.into(), VIP6.into()]);
        let leases = options.spread_over;
        let entry = |(number, vip): (u32, &IpAddr)| match number % leases {
            0 => format!("'{vip}'"),
            lease => format!("{{address: '{vip}', lease: {}}}", Options::lease_name(lease)),
        };
        let vips: Vec<String> = (0..).zip(&vips).map(entry).collect();
        let interfaces =
            options.interfaces.as_ref().map(|list| format!("interfaces: {list}\n")).unwrap_or_default();
        fs::write(
            &config,
            format!(
                "node: {name}\ninstance: {instance}\nvips: [{}]\n{interfaces}\
                 lease: {{duration_s: {}{}}}\npin_root: {}\n\
                 api: {{kubeconfig: {}, endpoints: [{}], tls_server_name: {server_name}}}\n{}",
                vips.join(", "),
                options.duration_s,
                options.lease,
                pin_root.display(),
                kubeconfig.display(),
                endpoints.join(", "),
                options.extra
            ),
        )?;
        Ok(Self {
            ip: ip(number),
            mac: mac(10 + number as u8),
            log: dir.join(format!("{name}.log")),
            boot_id: format!("boot-of-{instance}"),
            ns,
            name,
            instance,
            config,
            pin_root,
            process: None,
            binary: None,
            environment: options.environment.clone(),
            through: Vec::new(),
        })
    }

    /// Another instance of xvip on the same host, with its own name, Lease and VIP.
    ///
    /// # Errors
    /// If its configuration cannot be written.
    pub fn second_instance(&self, vip: &str) -> anyhow::Result<Self> {
        let (v4, v6) = (IpAddr::from(VIP4), IpAddr::from(VIP6));
        let instance = format!("{}-b", self.instance);
        let text = self.config_text()?;
        let text = text.replace(&format!("['{v4}', '{v6}']"), &format!("['{vip}']"));
        let text = text.replace(&self.instance, &instance);
        let config = self.config.with_extension("b.yaml");
        fs::write(&config, text.replace("lease: {", "lease: {name: second, "))?;
        Ok(Self {
            ns: self.ns.borrowed(),
            name: self.name.clone(),
            ip: self.ip,
            mac: self.mac,
            instance,
            config,
            log: self.log.with_extension("b.log"),
            pin_root: self.pin_root.clone(),
            process: None,
            boot_id: self.boot_id.clone(),
            binary: None,
            environment: self.environment.clone(),
            through: self.through.clone(),
        })
    }

    /// Another process of the same instance, with its own log.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            ns: self.ns.borrowed(),
            name: self.name.clone(),
            instance: self.instance.clone(),
            config: self.config.clone(),
            log: self.log.with_extension("again.log"),
            pin_root: self.pin_root.clone(),
            process: None,
            boot_id: self.boot_id.clone(),
            binary: self.binary.clone(),
            environment: self.environment.clone(),
            through: self.through.clone(),
            ..*self
        }
    }

    /// Sets the binary of the next starts and subcommands.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = Some(binary);
    }

    /// Runs the next starts and subcommands through another program (`unshare …`), as root.
    pub fn run_through(&mut self, through: &[&str]) {
        self.through = through.iter().map(|word| (*word).into()).collect();
    }

    /// Sets `XVIP_PIN_ROOT` for the next starts, as in a pod.
    ///
    /// # Errors
    /// If its configuration cannot be written.
    pub fn pin_by_environment(&mut self, pin_root: &Path) -> anyhow::Result<()> {
        fs::write(&self.config, self.config_without_pin_root()?)?;
        self.pin_root = pin_root.into();
        self.environment.push(("XVIP_PIN_ROOT".into(), pin_root.display().to_string()));
        Ok(())
    }

    /// Its configuration without `pin_root`, so that the default is used.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn config_without_pin_root(&self) -> anyhow::Result<String> {
        let text = self.config_text()?;
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("pin_root: "));
        Ok(lines.collect())
    }

    /// Sets a variable of the next starts and subcommands.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.into()));
    }

    /// The command `xvip` inside the node, with only the rights of the manifests.
    ///
    /// # Errors
    /// If the binary is missing.
    pub fn command(&self) -> anyhow::Result<Command> {
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => xvip()?,
        };
        let mut words = self.through.iter().map(String::as_str).chain(["setpriv"]);
        let mut command = self.ns.command(words.next().unwrap_or("setpriv"));
        command.args(words).args(rights()).arg(binary);
        command.env("XVIP_BOOT_ID", &self.boot_id).env_remove("NO_COLOR");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts `xvip run`.
    ///
    /// # Errors
    /// If the binary is missing.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let config = self.config.display().to_string();
        self.start_as(&["run", "--config", &config])
    }

    /// Starts a subcommand that runs on.
    ///
    /// # Errors
    /// If the binary is missing.
    pub fn start_as(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.command()?;
        command.args(words).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("cannot start xvip")?);
        Ok(())
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        self::signal(self.process.as_ref(), signal);
    }

    /// Ends the process for good, whatever state it is in.
    pub fn kill(&mut self) {
        kill(&mut self.process);
    }

    /// Whether the process has ended on its own. If so, the node forgets it.
    pub fn has_ended(&mut self) -> bool {
        has_ended(&mut self.process)
    }

    /// Whether it is running.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where its log goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{}:\n{text}", self.name)
    }

    /// Runs an `xvip` subcommand on this node and returns its output.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn xvip(&self, subcommand: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command()?;
        command.arg(subcommand).args(["--instance", &self.instance, "--pin-root"]).arg(&self.pin_root);
        let output = command.args(args).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "xvip {subcommand}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// `xvip status -o json`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.xvip("status", &["-o", "json"])?)?)
    }

    /// Whether it reports no problem. Problems of a busy machine do not count.
    ///
    /// # Errors
    /// If the status cannot be read.
    pub fn has_no_problem(&self) -> anyhow::Result<bool> {
        const OF_THE_MACHINE: [&str; 3] = ["loop", "netlink", "look at the interfaces"];
        let status = self.status()?;
        let problems = status["daemon"]["problems"].as_object().context("no daemon answers")?;
        Ok(problems.keys().all(|subject| OF_THE_MACHINE.contains(&subject.as_str())))
    }

    /// Runs `xvip probe` in a namespace: its output and exit code.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn probe(ns: &NetNs, args: &[&str]) -> anyhow::Result<(String, i32)> {
        let output = Self::probe_command(ns)?.args(args).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout) + &text(&output.stderr), output.status.code().unwrap_or(-1)))
    }

    /// The command `xvip probe`, without arguments.
    ///
    /// # Errors
    /// If the binary is missing.
    pub fn probe_command(ns: &NetNs) -> anyhow::Result<Command> {
        let mut command = ns.command(&xvip()?.display().to_string());
        command.arg("probe");
        Ok(command)
    }

    /// Whether its kernel may answer for all VIPs now.
    pub fn owns(&self) -> bool {
        self.status().is_ok_and(|status| {
            let vips = status["vips"].as_array().cloned().unwrap_or_default();
            !vips.is_empty() && vips.iter().all(|vip| vip["answering"] == true)
        })
    }

    /// Runs the binary with a configuration text and returns its error output.
    ///
    /// # Errors
    /// If it does not fail within ten seconds.
    pub fn refusal(&self, config: &str) -> anyhow::Result<String> {
        self.refusal_under(&[], config)
    }

    /// The same, started through another program (`setpriv …`, `unshare …`).
    ///
    /// # Errors
    /// If it does not fail within ten seconds.
    pub fn refusal_under(&self, through: &[&str], config: &str) -> anyhow::Result<String> {
        let path = self.config.with_extension("bad.yaml");
        fs::write(&path, config)?;
        let mut command = Command::new("timeout");
        command.args(["10", "nsenter"]).arg(format!("--net=/run/netns/{}", self.ns.name()));
        let output =
            command.args(through).arg(xvip()?).args(["run", "--config"]).arg(&path).output()?;
        ensure!(output.status.code() == Some(1), "xvip did not refuse: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Its configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Where its maps are pinned.
    pub fn pin_root(&self) -> &Path {
        &self.pin_root
    }

    /// Changes the configuration; the next start reads it.
    ///
    /// # Errors
    /// If the file is gone, or does not contain what is to be replaced.
    pub fn reconfigure(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let text = self.config_text()?;
        ensure!(text.contains(from), "{from:?} is not in {text}");
        Ok(fs::write(&self.config, text.replacen(from, to, 1))?)
    }

    /// Whether its kernel may answer for this VIP now.
    pub fn answers_for(&self, vip: IpAddr) -> bool {
        self.status().is_ok_and(|status| {
            let vips = status["vips"].as_array().cloned().unwrap_or_default();
            vips.iter().any(|entry| entry["address"] == vip.to_string() && entry["answering"] == true)
        })
    }

    /// Its configuration text.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn config_text(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.config)?)
    }

    /// Another configuration for the next start.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(&self.config, text)?)
    }

    /// Simulates a reboot: the next start finds another boot id.
    pub fn reboot(&mut self) {
        self.boot_id.push('+');
    }
}

/// Arguments of `setpriv` that keep only the rights of the manifests, and those that kernels before
/// 6.1 also need (docs/deploy.md).
pub fn rights() -> [String; 2] {
    let more = if kernel_is(6, 1).unwrap_or(true) { "" } else { ",+perfmon" };
    ["bounding-set", "inh-caps"].map(|which| format!("--{which}=-all,+bpf,+net_admin,+net_raw{more}"))
}

/// The binary of another version: the same code with other map layouts.
///
/// # Errors
/// If it has not been built.
pub fn next_xvip() -> anyhow::Result<PathBuf> {
    let next = xvip()?.with_file_name("xvip-next");
    ensure!(next.is_file(), "xvip-next is not built; run `cargo xtask test`");
    Ok(next)
}

/// The binary under test: `XVIP_BIN`, else beside the test binary's target directory.
///
/// # Errors
/// If it has not been built.
#[expect(clippy::disallowed_methods, reason = "set by cargo xtask")]
pub fn xvip() -> anyhow::Result<PathBuf> {
    if let Ok(path) = std::env::var("XVIP_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe()?;
    let found = this.ancestors().map(|dir| dir.join("xvip")).find(|path| path.is_file());
    found.context("the xvip binary is not built; run `cargo xtask test` or `cargo build -p vip-user`")
}

/// Sends a signal to a process.
pub fn signal(process: Option<&Child>, signal: i32) {
    if let Some(process) = process {
        // SAFETY: the process is our child and has not been waited for, so the id is its own.
        unsafe { libc::kill(process.id().cast_signed(), signal) };
    }
}

/// Ends a process for good, whatever state it is in.
pub fn kill(process: &mut Option<Child>) {
    if let Some(mut process) = process.take() {
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Whether a process has ended. If so, it is forgotten.
pub fn has_ended(process: &mut Option<Child>) -> bool {
    let ended = process.as_mut().is_none_or(|process| matches!(process.try_wait(), Ok(Some(_))));
    if ended {
        *process = None;
    }
    ended
}

/// The address of a node by its number, from 1.
fn ip(number: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, 10 + number as u8])
}

fn kubeconfig_text() -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters: [{{name: lab, cluster: {{server: 'http://{API}'}}}}]\n\
         users: [{{name: lab, user: {{}}}}]\ncontexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n"
    )
}
