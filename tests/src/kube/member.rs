//! One member of a control plane: an etcd and a kube-apiserver in one namespace.

use super::{assets, pki::Pki};
use crate::netns::{NetNs, sh};
use anyhow::Context as _;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

/// The ports of a member's servers.
const ETCD_CLIENTS: u16 = 2379;
const ETCD_PEERS: u16 = 2380;

/// An audit policy that records each request, its user, and whether it was allowed.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\n\
    rules: [{level: Metadata}]\n";

/// One member.
pub struct Member {
    /// Its namespace.
    pub ns: NetNs,
    /// Its address.
    pub ip: IpAddr,
    /// Where the API server listens.
    pub api_port: u16,
    name: String,
    dir: PathBuf,
    flags: Vec<String>,
    peers: Vec<(String, IpAddr)>,
    etcd: Option<Child>,
    api: Option<Child>,
}

impl Member {
    /// A member that is not started yet. `peers` are all members by name, this one among them.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn new(
        pki: &Pki,
        ns: NetNs,
        name: &str,
        api_port: u16,
        peers: &[(String, IpAddr)],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let dir = dir.join(name);
        fs::create_dir_all(&dir)?;
        let (_, ip) = peers.iter().find(|(peer, _)| peer == name).context("not among its peers")?;
        let (certificate, key) = pki.serving(&format!("api-{name}"), &[*ip, [127, 0, 0, 1].into()])?;
        let policy = dir.join("audit.yaml");
        fs::write(&policy, AUDIT)?;
        let (sign, check) = pki.service_account_keys();
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let flags = vec![
            flag("tls-cert-file", &certificate.display()),
            flag("tls-private-key-file", &key.display()),
            flag("client-ca-file", &pki.ca().display()),
            flag("cert-dir", &dir.display()),
            flag("service-account-key-file", &check.display()),
            flag("service-account-signing-key-file", &sign.display()),
            flag("service-account-issuer", &"https://kubernetes.default.svc"),
            flag("authorization-mode", &"Node,RBAC"),
            flag("enable-admission-plugins", &"NodeRestriction"),
            flag("service-cluster-ip-range", &"10.96.0.0/16"),
            flag("allow-privileged", &true),
            flag("kubelet-preferred-address-types", &"InternalIP"),
            flag("audit-policy-file", &policy.display()),
            flag("audit-log-path", &dir.join("audit.log").display()),
        ];
        let (peers, ip) = (peers.to_vec(), *ip);
        Ok(Self { ns, ip, api_port, name: name.into(), dir, flags, peers, etcd: None, api: None })
    }

    /// The URL of the API server inside the namespace.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.ip, self.api_port)
    }

    /// Starts etcd with its stored data.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_etcd(&mut self) -> anyhow::Result<()> {
        let at = |port: u16| format!("http://{}:{port}", self.ip);
        let peer = |(name, ip): &(String, IpAddr)| format!("{name}=http://{ip}:{ETCD_PEERS}");
        let cluster: Vec<String> = self.peers.iter().map(peer).collect();
        let mut etcd = self.command("etcd")?;
        etcd.args(["--log-level", "error", "--unsafe-no-fsync", "--name", &self.name]);
        etcd.arg("--data-dir").arg(self.data());
        etcd.args([
            "--listen-client-urls",
            &at(ETCD_CLIENTS),
            "--advertise-client-urls",
            &at(ETCD_CLIENTS),
        ]);
        etcd.args([
            "--listen-peer-urls",
            &at(ETCD_PEERS),
            "--initial-advertise-peer-urls",
            &at(ETCD_PEERS),
        ]);
        etcd.args(["--initial-cluster", &cluster.join(",")]);
        // Slower than the defaults, because all members share two cores with the rest of the test.
        etcd.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        self.etcd = Some(etcd.spawn().context("cannot start etcd")?);
        Ok(())
    }

    /// Starts the API server.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_api(&mut self) -> anyhow::Result<()> {
        let mut api = self.command("kube-apiserver")?;
        api.arg(format!("--etcd-servers=http://{}:{ETCD_CLIENTS}", self.ip));
        api.arg(format!(
            "--bind-address={}",
            if self.peers.len() == 1 { self.ip } else { [0, 0, 0, 0].into() }
        ));
        api.arg(format!("--secure-port={}", self.api_port));
        if self.ip.is_loopback() {
            // The server requires an advertised address; nothing uses this one.
            api.args(["--advertise-address=192.0.2.100", "--endpoint-reconciler-type=none"]);
        } else {
            api.arg(format!("--advertise-address={}", self.ip));
        }
        api.args(&self.flags);
        self.api = Some(api.spawn().context("cannot start kube-apiserver")?);
        Ok(())
    }

    /// Whether the API server has ended on its own.
    pub fn has_ended(&mut self) -> bool {
        self.api.as_mut().is_some_and(|api| matches!(api.try_wait(), Ok(Some(_))))
    }

    /// Replaces the serving certificate by one of another authority. The API server reloads it.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn exchange_certificate(&self, pki: &Pki) -> anyhow::Result<()> {
        let (certificate, key) =
            pki.serving(&format!("api-{}", self.name), &[self.ip, [127, 0, 0, 1].into()])?;
        for (flag, new) in [("--tls-private-key-file=", key), ("--tls-cert-file=", certificate)] {
            let old = self.flags.iter().find_map(|given| given.strip_prefix(flag)).context(flag)?;
            fs::copy(new, old)?;
        }
        Ok(())
    }

    /// Sends a signal to etcd.
    pub fn signal_etcd(&self, signal: i32) {
        signal_child(self.etcd.as_ref(), signal);
    }

    /// Sends a signal to the API server.
    pub fn signal_api(&self, signal: i32) {
        signal_child(self.api.as_ref(), signal);
    }

    /// Ends the API server at once.
    pub fn kill_api(&mut self) {
        end(&mut self.api);
    }

    /// Ends etcd at once.
    pub fn kill_etcd(&mut self) {
        end(&mut self.etcd);
    }

    /// Where etcd keeps its data.
    fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    /// Copies the data of etcd, which is stopped meanwhile.
    ///
    /// # Errors
    /// If files cannot be copied.
    pub fn back_up(&mut self) -> anyhow::Result<()> {
        self.kill_etcd();
        let (from, to) = (self.data(), self.dir.join("backup"));
        sh(&format!("cp -a {} {}", from.display(), to.display()))?;
        self.start_etcd()
    }

    /// Restores the copy, as an administrator does after a loss, and restarts both servers.
    ///
    /// # Errors
    /// If there is no copy.
    pub fn restore(&mut self) -> anyhow::Result<()> {
        self.kill_api();
        self.kill_etcd();
        let (from, to) = (self.dir.join("backup"), self.data());
        sh(&format!("rm -rf {1} && mv {0} {1}", from.display(), to.display()))?;
        self.start_etcd()?;
        self.start_api()
    }

    /// Whether this etcd is the leader.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn leads(&self) -> anyhow::Result<bool> {
        let address = format!("{}:{ETCD_CLIENTS}", self.ip);
        let answer = self.ns.run(|| -> anyhow::Result<String> {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let head = "POST /v3/maintenance/status HTTP/1.1\r\nHost: etcd\r\nConnection: close";
            write!(stream, "{head}\r\nContent-Length: 2\r\n\r\n{{}}")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or_default())?;
        Ok(body["leader"] == body["header"]["member_id"] && body["leader"].is_string())
    }

    /// The audit log of the API server, a JSON object per line.
    pub fn audit(&self) -> String {
        fs::read_to_string(self.dir.join("audit.log")).unwrap_or_default()
    }

    /// The last lines of both logs.
    pub fn log(&self) -> String {
        let tail = |program: &str| {
            let text = fs::read(self.dir.join(format!("{program}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            format!("{program}:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        format!("{}\n{}", tail("etcd"), tail("kube-apiserver"))
    }

    /// The command of a server of this member. The server ends with the thread that starts it.
    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let log =
            File::options().create(true).append(true).open(self.dir.join(format!("{program}.log")))?;
        let mut command = self.ns.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(assets()?.join(program));
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill_api();
        self.kill_etcd();
    }
}

/// SIGKILL: kube-apiserver never ends on SIGTERM once etcd is gone.
fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn signal_child(child: Option<&Child>, signal: i32) {
    if let Some(child) = child {
        // SAFETY: the process is our child and has not been waited for, so the id is its own.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
    }
}
