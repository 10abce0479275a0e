//! The configuration: one YAML file, one struct. Every value is checked before xvip changes the
//! host. Each refusal names the field, the value and what is allowed.

mod check;
mod health;
mod hooks;
pub mod show;
#[cfg(test)]
mod tests;
mod vips;

use crate::{
    model::{
        desired::Placement,
        hooks::Hooks,
        policy::{ConflictPolicy, ForeignConflict, OnStop},
        rule::{EXCLUDED, Rule},
        selection::Selection,
        timing::Timing,
    },
    server_url::{host_address, server},
};
pub use health::{Asked, HealthConfig};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};
pub use vips::VipConfig;

/// Default of `pin_root`.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/xvip";

/// The configuration file of `xvip run`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Node name, written as `holderIdentity`. Default: the environment variable `NODE_NAME`, else
    /// the host name.
    #[serde(default)]
    pub node: Option<String>,
    /// Names this xvip on the host: part of the pin path and of the lock. Letters, digits, `-`, `_`.
    #[serde(default = "default_instance")]
    pub instance: String,
    /// The virtual IPs, IPv4 or IPv6.
    pub vips: Vec<VipConfig>,
    /// Interfaces on which the VIPs are answered: names, globs, `/regular expressions/`, subnets,
    /// `auto` (the interface whose subnet contains the VIP), `default-route`.
    #[serde(default = "default_interfaces")]
    pub interfaces: Vec<String>,
    /// Interfaces on which claims are stopped although nothing is answered; same syntax as
    /// `interfaces`.
    #[serde(default = "default_guard")]
    pub guard: Vec<String>,
    /// Interfaces that xvip leaves alone unless they are named. Default: container networks,
    /// guests.
    #[serde(default = "default_exclude")]
    pub exclude: Vec<String>,
    /// The labels of the nodes that may hold the VIPs; empty: every node.
    #[serde(default)]
    pub nodes: BTreeMap<String, String>,
    /// How much the VIPs belong to each node, by name; 0 for a node that is not listed.
    #[serde(default)]
    pub weights: BTreeMap<String, u8>,
    /// The Lease.
    #[serde(default)]
    pub lease: LeaseConfig,
    /// How to reach the Kubernetes API.
    #[serde(default)]
    pub api: ApiConfig,
    /// The hooks at which questions may be answered, in the order in which they are tried.
    #[serde(default)]
    pub attach: Hooks,
    /// Where a held VIP is put, so that this host accepts its traffic.
    #[serde(default)]
    pub placement: Placement,
    /// Announcements (gratuitous ARP, unsolicited neighbour advertisements).
    #[serde(default)]
    pub announce: AnnounceConfig,
    /// What a stop (SIGTERM) does with a held VIP.
    #[serde(default)]
    pub on_stop: OnStop,
    /// What happens to IP traffic to a VIP whose fence has run out.
    #[serde(default)]
    pub on_loss: OnLoss,
    /// How long this node still serves a VIP that it gave up, in milliseconds, without answering
    /// for it or announcing it. Use 0 if the fabric learns addresses from data packets.
    #[serde(default = "default_linger_ms")]
    pub linger_ms: u64,
    /// What to do about another station that keeps claiming a VIP of this node.
    #[serde(default)]
    pub conflict: ConflictPolicy,
    /// Whether claims by stations outside the cluster are kept out of this host's neighbour cache,
    /// while this node's view of the Lease is fresh.
    #[serde(default)]
    pub guard_neighbours: bool,
    /// Where the programs, maps and links are pinned; a directory of a BPF file system.
    #[serde(default = "default_pin_root")]
    pub pin_root: PathBuf,
    /// The log.
    #[serde(default)]
    pub log: LogConfig,
    /// Whether changes of leadership and conflicts are reported as Kubernetes Events.
    #[serde(default = "yes")]
    pub events: bool,
    /// Probes that show whether the LAN works.
    #[serde(default)]
    pub lan_check: LanCheck,
    /// Checks of this node's API server and kubelet.
    #[serde(default)]
    pub health: HealthConfig,
    /// The port for metrics, health and state.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Log level of the programs in the kernel (debugging only): 0 off … 5 trace.
    #[serde(default)]
    pub kernel_log_level: u8,
}

/// The Lease that guards the VIPs.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// Its namespace.
    pub namespace: String,
    /// Its name; kube-vip's by default, so that the two never hold one VIP.
    pub name: String,
    /// D, in whole seconds.
    pub duration_s: u32,
    /// Time between renewals in milliseconds. Default: D/5, at least 500 ms, at most half of the fence.
    pub renew_ms: Option<u64>,
    /// Taken off every fence, in milliseconds. Default: 50 ms or 0.002·D, whichever is longer.
    pub margin_ms: Option<u64>,
    /// ρ: by how many percent a host's clock may run fast or slow.
    pub clock_error_percent: u32,
    /// How long a candidate waits for a foreign holder (kube-vip), in seconds. Default: 2·D + 10.
    pub foreign_grace_s: Option<u64>,
    /// What a candidate does if a station still answers for a VIP after that time.
    pub foreign_conflict: ForeignConflict,
    /// A station that answers for a VIP also counts as serving it if it accepts connections to this
    /// port. Default: that of this node's API server.
    pub foreign_port: Option<u16>,
}

/// How to reach the Kubernetes API.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// A kubeconfig for the credentials. Default: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// API servers, as URLs, tried in order. They replace the kubeconfig's server, because on
    /// kubeadm nodes that is the VIP itself.
    pub endpoints: Vec<String>,
    /// The name expected in the server's certificate. Default: that of the kubeconfig, else
    /// `kubernetes`.
    pub tls_server_name: Option<String>,
}

/// Settings of announcements.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AnnounceConfig {
    /// Seconds between refreshing announcements while a VIP is held; 0: none. kube-vip's
    /// `vip_arpRate` is 3 s.
    pub refresh_s: u64,
}

/// The log, on standard error.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Text lines, or one JSON object per line.
    pub format: LogFormat,
    /// The least severe level that is logged; `RUST_LOG` overrides it.
    pub level: LogLevel,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that a user must act on.
    Error,
    /// Problems that xvip keeps trying to solve.
    Warn,
    /// Changes of leadership.
    #[default]
    Info,
    /// Every step.
    Debug,
    /// More than that.
    Trace,
}

/// Probes of the gateway or of peers. A node that reaches the API but not the LAN is a worse owner
/// than one that reaches both. If no node is better, this changes nothing.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LanCheck {
    /// Probe the default gateways of the interfaces that answer.
    pub gateway: bool,
    /// Probe these addresses too; one answer is enough.
    pub peers: Vec<IpAddr>,
    /// Time between probes, in milliseconds.
    pub every_ms: u64,
}

/// The port for metrics, health and state.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Off unless set. The manifests use 21112, because 2112 is kube-vip's.
    pub port: Option<u16>,
    /// Where it listens. There is no password, so any address but loopback needs a firewall.
    pub address: IpAddr,
    /// A second port on every address, for probes that know no other way: `/healthz` only. Off unless
    /// set.
    pub health_port: Option<u16>,
}

/// What happens to IP traffic to a VIP that this node no longer holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// It is served for `linger_ms`, so that users who still send to the old owner lose nothing.
    #[default]
    Linger,
    /// The programs drop it, as RFC 9568 requires of a VRRP backup.
    Drop,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML of this shape.
    #[error("configuration {path}: {message}{hint}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's message; names the field and the line.
        message: String,
        /// `" (did you mean …?)"`, or empty.
        hint: String,
    },
    /// Values cannot work: all that were found.
    #[error("{}", all(.0))]
    Values(Vec<Refused>),
}

/// A value that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("configuration field `{field}`: {value} cannot be used: {allowed}")]
pub struct Refused {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

fn all(refused: &[Refused]) -> String {
    refused.iter().map(Refused::to_string).collect::<Vec<_>>().join("; ")
}

impl Default for Config {
    /// The defaults of every field, and no VIP.
    fn default() -> Self {
        Self {
            node: None,
            instance: default_instance(),
            vips: Vec::new(),
            interfaces: default_interfaces(),
            guard: default_guard(),
            exclude: default_exclude(),
            nodes: BTreeMap::new(),
            weights: BTreeMap::new(),
            lease: LeaseConfig::default(),
            api: ApiConfig::default(),
            attach: Hooks::default(),
            placement: Placement::default(),
            announce: AnnounceConfig::default(),
            on_stop: OnStop::default(),
            on_loss: OnLoss::default(),
            linger_ms: default_linger_ms(),
            conflict: ConflictPolicy::default(),
            guard_neighbours: false,
            pin_root: default_pin_root(),
            log: LogConfig::default(),
            events: yes(),
            lan_check: LanCheck::default(),
            health: HealthConfig::default(),
            admin: AdminConfig::default(),
            kernel_log_level: 0,
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            namespace: "kube-system".into(),
            name: "plndr-cp-lock".into(),
            duration_s: 5,
            renew_ms: None,
            margin_ms: None,
            clock_error_percent: 10,
            foreign_grace_s: None,
            foreign_conflict: ForeignConflict::default(),
            foreign_port: None,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            endpoints: vec!["https://127.0.0.1:6443".into()],
            tls_server_name: None,
        }
    }
}

impl Default for AnnounceConfig {
    fn default() -> Self {
        Self { refresh_s: 3 }
    }
}

impl Default for LanCheck {
    fn default() -> Self {
        Self { gateway: false, peers: Vec::new(), every_ms: 1_000 }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { port: None, address: Ipv4Addr::LOCALHOST.into(), health_port: None }
    }
}

fn default_interfaces() -> Vec<String> {
    vec!["auto".into()]
}

fn default_guard() -> Vec<String> {
    vec!["*".into()]
}

fn default_exclude() -> Vec<String> {
    EXCLUDED.iter().map(|word| (*word).to_owned()).collect()
}

fn yes() -> bool {
    true
}

fn default_instance() -> String {
    "default".into()
}

fn default_linger_ms() -> u64 {
    2_000
}

fn default_pin_root() -> PathBuf {
    DEFAULT_PIN_ROOT.into()
}

/// Field names, for the hint after an unknown one.
const FIELDS: &[&str] = &[
    "node",
    "instance",
    "vips",
    "interfaces",
    "guard",
    "exclude",
    "nodes",
    "weights",
    "lease",
    "api",
    "attach",
    "announce",
    "on_stop",
    "on_loss",
    "linger_ms",
    "conflict",
    "guard_neighbours",
    "pin_root",
    "kernel_log_level",
    "namespace",
    "name",
    "duration_s",
    "renew_ms",
    "margin_ms",
    "clock_error_percent",
    "foreign_grace_s",
    "foreign_conflict",
    "foreign_port",
    "kubeconfig",
    "endpoints",
    "tls_server_name",
    "refresh_s",
    "placement",
    "log",
    "format",
    "level",
    "events",
    "lan_check",
    "gateway",
    "peers",
    "every_ms",
    "health",
    "api_server",
    "kubelet",
    "timeout_ms",
    "refusals",
    "slow_s",
    "good_s",
    "ca",
    "admin",
    "port",
    "address",
    "health_port",
];

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_norway::from_str(text).map_err(|error| {
            let message = error.to_string();
            let hint = hint(&message);
            ConfigError::Parse { path: path.into(), message, hint }
        })?;
        let refused = config.check_all();
        if refused.is_empty() { Ok(config) } else { Err(ConfigError::Values(refused)) }
    }

    /// The lists of interfaces, parsed into rules.
    pub fn selection(&self) -> Selection {
        // `check` has refused words that do not parse.
        let rules =
            |words: &[String]| words.iter().filter_map(|word| word.parse().ok()).collect::<Vec<Rule>>();
        let vips = self
            .vips
            .iter()
            .map(|vip| (vip.address, rules(vip.interfaces.as_deref().unwrap_or(&self.interfaces))));
        Selection {
            exclude: rules(&self.exclude),
            exclude_is_set: self.exclude != default_exclude(),
            guard: rules(&self.guard),
            vips: vips.collect(),
        }
    }

    /// A port of the service behind the VIPs: that of the first loopback endpoint, else of the first.
    pub fn visit_port(&self) -> u16 {
        let urls: Vec<_> = self.api.endpoints.iter().filter_map(|url| server(url)).collect();
        let is_local = |url: &&http::Uri| host_address(url).is_some_and(|ip| ip.is_loopback());
        let chosen = urls.iter().find(is_local).or(urls.first());
        let port = chosen.map(|url| url.port_u16().unwrap_or(443));
        self.lease.foreign_port.or(port).unwrap_or(6443)
    }

    /// The timing of the Leases, with defaults filled in.
    pub fn timing(&self) -> Timing {
        let LeaseConfig {
            duration_s, renew_ms, margin_ms, clock_error_percent, foreign_grace_s, ..
        } = self.lease;
        let usual = Timing::of(duration_s);
        let timing = Timing {
            margin: margin_ms.map_or(usual.margin, Duration::from_millis),
            clock_error_percent,
            foreign_grace: foreign_grace_s.map(Duration::from_secs),
            linger: Duration::from_millis(self.linger_ms),
            ..usual
        };
        // Two attempts must fit into every fence, however short it is.
        let usual = timing.renew_every.min(timing.hold(duration_s) / 2);
        Timing { renew_every: renew_ms.map_or(usual, Duration::from_millis), ..timing }
    }
}

/// "Did you mean …" for an unknown field: the known one with the fewest differing letters.
fn hint(message: &str) -> String {
    let Some(unknown) = message.split("unknown field `").nth(1).and_then(|rest| rest.split('`').next())
    else {
        return String::new();
    };
    let best = FIELDS.iter().min_by_key(|field| distance(field, unknown));
    match best {
        Some(field) if distance(field, unknown) <= 3 => format!(" (did you mean `{field}`?)"),
        _ => String::new(),
    }
}

/// Levenshtein distance.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
