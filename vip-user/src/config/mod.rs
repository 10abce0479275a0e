//! The configuration: one YAML file, one struct. Everything is checked before the host is touched,
//! and every refusal names the field, the value and what is allowed.

mod check;
pub mod show;
#[cfg(test)]
mod tests;

use crate::model::{desired::Placement, timing::Timing};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

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
    /// The virtual IPs, IPv4 or IPv6, all guarded by the one Lease below.
    pub vips: Vec<IpAddr>,
    /// Interfaces on which the VIPs are answered.
    pub interfaces: Vec<String>,
    /// Further interfaces with a path to the same segment: claims are stopped on them, nothing is
    /// answered.
    #[serde(default)]
    pub guard: Vec<String>,
    /// The Lease.
    #[serde(default)]
    pub lease: LeaseConfig,
    /// How to reach the Kubernetes API.
    #[serde(default)]
    pub api: ApiConfig,
    /// How programs are attached.
    #[serde(default)]
    pub attach: Attach,
    /// Where a VIP that is held is put, so that this host takes its traffic in.
    #[serde(default)]
    pub placement: Placement,
    /// Announcements (gratuitous ARP, unsolicited neighbour advertisements).
    #[serde(default)]
    pub announce: AnnounceConfig,
    /// What a stop (SIGTERM) does with a VIP that is held.
    #[serde(default)]
    pub on_stop: OnStop,
    /// For how long a VIP that was given up is still served locally, in milliseconds; never
    /// answered for or announced. 0 where the fabric learns addresses from data packets.
    #[serde(default = "default_linger_ms")]
    pub linger_ms: u64,
    /// Where the programs, maps and links are pinned; on a bpffs.
    #[serde(default = "default_pin_root")]
    pub pin_root: PathBuf,
    /// The log.
    #[serde(default)]
    pub log: LogConfig,
    /// Whether changes of leadership and conflicts are reported as Kubernetes Events.
    #[serde(default = "yes")]
    pub events: bool,
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
    /// Time between renewals in milliseconds. Default: D/5, at least 500 ms.
    pub renew_ms: Option<u64>,
    /// Taken off every fence, in milliseconds. Default: 50 ms or 0.002·D, whichever is longer.
    pub margin_ms: Option<u64>,
    /// ρ: by how many percent a host's clock may run fast or slow.
    pub clock_error_percent: u32,
    /// How long a foreign holder (kube-vip) is waited for, in seconds. Default: 2·D + 10.
    pub foreign_grace_s: Option<u64>,
}

/// How to reach the Kubernetes API.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// A kubeconfig for the credentials. Default: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// API servers, as URLs, tried in order. They replace the kubeconfig's server, because that is
    /// the VIP itself on kubeadm nodes.
    pub endpoints: Vec<String>,
    /// The name that the server's certificate is checked for.
    pub tls_server_name: Option<String>,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Native XDP, else TC ingress.
    #[default]
    Auto,
    /// Native XDP or nothing.
    Native,
    /// TC ingress.
    Tc,
    /// Generic XDP.
    Generic,
}

/// Announcements.
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
    /// Lines for people, or one JSON object each.
    pub format: LogFormat,
    /// The least level that is logged; `RUST_LOG` overrides it.
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
    /// Failures that need somebody.
    Error,
    /// What stands in the way.
    Warn,
    /// Changes of leadership.
    #[default]
    Info,
    /// Every step.
    Debug,
    /// More than that.
    Trace,
}

/// The port for metrics, health and state.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Off unless set. kube-vip serves its metrics on 2112.
    pub port: Option<u16>,
    /// Where it listens. It asks nobody for a password, so only loopback is safe by itself.
    pub address: IpAddr,
}

/// What a stop does with a VIP that is held.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Give it up: another node takes over at once.
    #[default]
    Handover,
    /// Leave the fence as it is, for a restart that is shorter than it.
    Keep,
}

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML of this shape.
    #[error("configuration {path}: {message}{hint}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says; names the field and the line.
        message: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value cannot work.
    #[error("configuration field `{field}`: {value} cannot be used: {allowed}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
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
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            endpoints: vec!["https://127.0.0.1:6443".into()],
            tls_server_name: Some("kubernetes".into()),
        }
    }
}

impl Default for AnnounceConfig {
    fn default() -> Self {
        Self { refresh_s: 3 }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { port: None, address: Ipv4Addr::LOCALHOST.into() }
    }
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
    "/sys/fs/bpf/xvip".into()
}

/// Field names, for the hint after an unknown one.
const FIELDS: &[&str] = &[
    "node",
    "instance",
    "vips",
    "interfaces",
    "guard",
    "lease",
    "api",
    "attach",
    "announce",
    "on_stop",
    "linger_ms",
    "pin_root",
    "kernel_log_level",
    "namespace",
    "name",
    "duration_s",
    "renew_ms",
    "margin_ms",
    "clock_error_percent",
    "foreign_grace_s",
    "kubeconfig",
    "endpoints",
    "tls_server_name",
    "refresh_s",
    "placement",
    "log",
    "format",
    "level",
    "events",
    "admin",
    "port",
    "address",
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
        config.check()?;
        Ok(config)
    }

    /// The timings of the Lease.
    pub fn timing(&self) -> Timing {
        let LeaseConfig {
            duration_s, renew_ms, margin_ms, clock_error_percent, foreign_grace_s, ..
        } = self.lease;
        let usual = Timing::of(duration_s);
        Timing {
            renew_every: renew_ms.map_or(usual.renew_every, Duration::from_millis),
            margin: margin_ms.map_or(usual.margin, Duration::from_millis),
            clock_error_percent,
            foreign_grace: foreign_grace_s.map(Duration::from_secs),
            linger: Duration::from_millis(self.linger_ms),
            ..usual
        }
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
fn distance(a: &str, b: &str) -> usize {
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
