//! kube-vip on a node of a lab with a real API: the program of `tests/kube/kube-vip-like`. Its
//! election is client-go's, and its kernel answers for addresses on the interface.

use crate::lab::{API, API_PORT, Lab, node};
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What it is started with. The defaults are those of kube-vip in a Kubespray cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its `holderIdentity`; `None`: the name of the node.
    pub identity: Option<String>,
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// LeaseDuration, RenewDeadline and RetryPeriod of client-go, in seconds.
    pub timers_s: [u32; 3],
    /// It waits for its own LeaseDuration instead of the record's, as client-go did up to 0.26.
    pub old: bool,
    /// The addresses that it carries as leader.
    pub vips: Vec<IpAddr>,
    /// The interface that carries them.
    pub interface: String,
    /// The time between two gratuitous ARP messages or unsolicited advertisements.
    pub announce_every: Duration,
    /// From the end of client-go's release to the deletion of the addresses, at any end of its
    /// leadership. kube-vip removes a label meanwhile, which takes up to 10 s.
    pub address_after_release: Duration,
    /// After SIGTERM, the addresses stay this much longer.
    pub late_release: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            identity: None,
            namespace: "kube-system".into(),
            lease: "plndr-cp-lock".into(),
            timers_s: [5, 3, 1],
            old: false,
            vips: Lab::vips(),
            interface: "eth0".into(),
            announce_every: Duration::from_secs(3),
            address_after_release: Duration::from_millis(50),
            late_release: Duration::ZERO,
        }
    }
}

impl Settings {
    fn flags(&self) -> Vec<String> {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let [duration, deadline, retry] = self.timers_s;
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        vec![
            format!("--lease-namespace={}", self.namespace),
            format!("--lease-name={}", self.lease),
            format!("--lease-duration={duration}s"),
            format!("--renew-deadline={deadline}s"),
            format!("--retry-period={retry}s"),
            format!("--old={}", self.old),
            format!("--vip={}", vips.join(",")),
            format!("--interface={}", self.interface),
            format!("--arp-rate={}", self.announce_every.as_millis()),
            format!("--release-delay-address={}", ms(self.address_after_release)),
            format!("--late-release={}", ms(self.late_release)),
        ]
    }
}

/// The process. Dropping the value kills it, and leaves its addresses on the interface.
#[derive(Debug)]
pub struct Foreign {
    namespace: String,
    interface: String,
    log: PathBuf,
    process: Option<Child>,
}

impl Foreign {
    /// Starts it on a node, which it does not share with an xvip.
    ///
    /// # Errors
    /// If it is not built, or the API of the lab is not a real one.
    pub fn start(lab: &Lab, node: usize, settings: &Settings) -> anyhow::Result<Self> {
        let identity = settings.identity.as_ref().unwrap_or(&lab.nodes[node].name);
        let mut command = command(lab, node)?;
        command.args(["run", "--identity", identity]);
        Self::spawn(lab, node, settings, command)
    }

    /// Starts client-go's election alone, under any name, for example that of an xvip.
    ///
    /// # Errors
    /// If it is not built, or the API of the lab is not a real one.
    pub fn renew_as(lab: &Lab, node: usize, name: &str) -> anyhow::Result<Self> {
        let settings = Settings { vips: Vec::new(), ..Settings::default() };
        let mut command = command(lab, node)?;
        command.args(["renew-as", name]);
        Self::spawn(lab, node, &settings, command)
    }

    /// Empties the holder of a Lease from a node, whatever its name, by the requests of client-go's
    /// release.
    ///
    /// # Errors
    /// If there is no such Lease, or the API does not answer.
    pub fn blank(lab: &Lab, node: usize, settings: &Settings) -> anyhow::Result<()> {
        let mut command = command(lab, node)?;
        command.arg("blank").arg(kubeconfig(lab, node)?).args(settings.flags());
        let output = command.output().context("cannot start the stand-in for kube-vip")?;
        ensure!(output.status.success(), "blank: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn spawn(
        lab: &Lab,
        node: usize,
        settings: &Settings,
        mut command: Command,
    ) -> anyhow::Result<Self> {
        let at = &lab.nodes[node];
        let log = lab.dir().join(format!("kube-vip-{}.log", at.name));
        let output = File::options().create(true).append(true).open(&log)?;
        command.arg(kubeconfig(lab, node)?).args(settings.flags());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().context("cannot start the stand-in for kube-vip")?;
        let (namespace, interface) = (at.ns.name().to_owned(), settings.interface.clone());
        Ok(Self { namespace, interface, log, process: Some(process) })
    }

    /// SIGTERM: it releases the Lease, then deletes its addresses and ends.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// SIGKILL. Its addresses stay, and the kernel goes on answering for them.
    pub fn kill(&mut self) {
        node::kill(&mut self.process);
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        node::has_ended(&mut self.process)
    }

    /// Whether the interface has this address.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn carries(&self, vip: IpAddr) -> anyhow::Result<bool> {
        let shown = self.ip(&format!("-o addr show dev {}", self.interface))?;
        Ok(shown.contains(&format!(" {}", with_length(vip))))
    }

    /// Deletes the addresses that it has left, as an administrator does after a kill.
    ///
    /// # Errors
    /// If one is not there.
    pub fn remove_addresses(&self, vips: &[IpAddr]) -> anyhow::Result<()> {
        for vip in vips {
            self.ip(&format!("addr del {} dev {}", with_length(*vip), self.interface))?;
        }
        Ok(())
    }

    /// What it has logged, with what others of its kind have logged on this node.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ip(&self, args: &str) -> anyhow::Result<String> {
        crate::netns::sh(&format!("ip -n {} {args}", self.namespace))
    }

    fn signal(&self, signal: i32) {
        node::signal(self.process.as_ref(), signal);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program inside a node, with the capabilities that kube-vip's manifests grant. It ends with
/// the thread that starts it.
fn command(lab: &Lab, node: usize) -> anyhow::Result<Command> {
    let program = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kube/kube-vip-like"));
    ensure!(program.exists(), "kube-vip-like is not built; run `cargo xtask setup --kube`");
    let mut command = lab.nodes[node].ns.command("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command.args(["bounding-set", "inh-caps"].map(|set| format!("--{set}=-all,+net_admin,+net_raw")));
    command.arg(program);
    Ok(command)
}

/// Its own administrator's kubeconfig, for the API server of its node if there is one.
fn kubeconfig(lab: &Lab, node: usize) -> anyhow::Result<String> {
    let at = &lab.nodes[node];
    let path = lab.dir().join(format!("kube-vip-{}.kubeconfig", at.name));
    if !path.exists() {
        let plane = &lab.api.real().context("kube-vip needs a real API")?.plane;
        let server = match plane.members.len() {
            1 => format!("https://{API}"),
            _ => format!("https://{}:{API_PORT}", at.ip),
        };
        let user = format!("kube-vip-{}", at.name);
        fs::rename(plane.pki.kubeconfig(&server, &user, "system:masters")?, &path)?;
    }
    Ok(format!("--kubeconfig={}", path.display()))
}

/// A host address in the notation of `ip`.
fn with_length(vip: IpAddr) -> String {
    format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 })
}
