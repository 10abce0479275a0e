//! The configuration: one YAML file, one struct. Everything is checked before the host is touched,
//! and every refusal names the field, the value and what is allowed.

use crate::model::timing::{MAX_DURATION_S, Timing};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
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
        let duration_ms = u64::from(duration_s) * 1_000;
        Timing {
            duration_s,
            renew_every: Duration::from_millis(renew_ms.unwrap_or((duration_ms / 5).max(500))),
            margin: Duration::from_millis(margin_ms.unwrap_or(least_margin_ms(duration_ms))),
            clock_error_percent,
            foreign_grace: foreign_grace_s.map(Duration::from_secs),
            linger: Duration::from_millis(self.linger_ms),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !name_ok(&self.instance) {
            return refuse("instance", &self.instance, "1 to 32 letters, digits, - and _");
        }
        if self.node.as_deref().is_some_and(|node| node.is_empty() || node.len() > 253) {
            return refuse("node", "the name", "1 to 253 characters, the name of the Node object");
        }
        if self.vips.is_empty() {
            return refuse("vips", "an empty list", "at least one address");
        }
        let mut seen = BTreeSet::new();
        for vip in &self.vips {
            if !seen.insert(vip.to_canonical()) {
                return refuse("vips", vip, "each address may be listed once");
            }
            if let Some(why) = unusable(*vip) {
                return refuse("vips", vip, why);
            }
        }
        self.check_interfaces()?;
        if self.lease.name.is_empty() || self.lease.name.len() > 253 {
            return refuse("lease.name", &self.lease.name, "1 to 253 characters");
        }
        if self.lease.namespace.is_empty() || self.lease.namespace.len() > 63 {
            return refuse("lease.namespace", &self.lease.namespace, "1 to 63 characters");
        }
        if self.kernel_log_level > 5 {
            return refuse("kernel_log_level", self.kernel_log_level, "0 (off) to 5 (trace)");
        }
        self.check_timing()
    }

    fn check_interfaces(&self) -> Result<(), ConfigError> {
        if self.interfaces.is_empty() {
            return refuse("interfaces", "an empty list", "at least one interface");
        }
        let mut seen = BTreeSet::new();
        for (field, name) in (self.interfaces.iter().map(|name| ("interfaces", name)))
            .chain(self.guard.iter().map(|name| ("guard", name)))
        {
            if name.is_empty() || name.len() > 15 {
                return refuse(field, format!("{name:?}"), "interface names have 1 to 15 characters");
            }
            if name == "lo" {
                return refuse(field, name, "a device with a path to the VIPs' segment");
            }
            if !seen.insert(name) {
                return refuse(
                    field,
                    name,
                    "each interface may be named once, in one of the two lists",
                );
            }
        }
        if seen.len() > 64 {
            return refuse("interfaces", seen.len(), "at most 64 interfaces, guarded ones included");
        }
        Ok(())
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        let timing = self.timing();
        let LeaseConfig { duration_s, clock_error_percent, foreign_grace_s, .. } = self.lease;
        if !(1..=MAX_DURATION_S).contains(&duration_s) {
            return refuse("lease.duration_s", duration_s, "1 to 600 whole seconds");
        }
        if clock_error_percent > 40 {
            return refuse("lease.clock_error_percent", clock_error_percent, "0 to 40; 10 is safe");
        }
        let least = least_margin_ms(u64::from(duration_s) * 1_000);
        if timing.margin < Duration::from_millis(least) {
            return refuse(
                "lease.margin_ms",
                timing.margin.as_millis(),
                format!("at least {least} ms (50 ms, and 0.002 of lease.duration_s)"),
            );
        }
        let hold = timing.hold(duration_s);
        if timing.renew_every < Duration::from_millis(100) || timing.renew_every * 2 > hold {
            return refuse(
                "lease.renew_ms",
                timing.renew_every.as_millis(),
                format!(
                    "at least 100 ms, and two attempts must fit into the fence of {} ms \
                     (duration_s {duration_s} s less {clock_error_percent} % less margin {} ms)",
                    hold.as_millis(),
                    timing.margin.as_millis()
                ),
            );
        }
        if foreign_grace_s.is_some_and(|grace| grace < u64::from(duration_s)) {
            let grace = foreign_grace_s.unwrap_or_default();
            return refuse("lease.foreign_grace_s", grace, "at least lease.duration_s");
        }
        if self.linger_ms > 60_000 {
            return refuse("linger_ms", self.linger_ms, "0 to 60000");
        }
        if self.on_stop == OnStop::Keep && duration_s < 10 {
            return refuse(
                "on_stop",
                "keep",
                format!(
                    "a fence that outlives a restart: lease.duration_s of 10 or more, not {duration_s}"
                ),
            );
        }
        Ok(())
    }
}

fn least_margin_ms(duration_ms: u64) -> u64 {
    (duration_ms / 500).max(50)
}

fn refuse<T>(
    field: &'static str,
    value: impl ToString,
    allowed: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field, value: value.to_string(), allowed: allowed.into() })
}

/// Why an address can never be a VIP, whatever the host looks like.
fn unusable(vip: IpAddr) -> Option<&'static str> {
    let unicast = "a unicast address of the segment is needed";
    match vip {
        IpAddr::V4(v4) if v4.is_unspecified() || v4.octets()[0] == 0 => Some(unicast),
        IpAddr::V4(v4) if v4.is_loopback() => Some("loopback addresses never leave a host"),
        IpAddr::V4(v4) if v4.is_multicast() || v4.octets()[0] >= 240 => Some(unicast),
        IpAddr::V4(v4) if v4 == Ipv4Addr::BROADCAST => Some(unicast),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("write an IPv4 address as a.b.c.d"),
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() => Some(unicast),
        IpAddr::V6(v6) if v6.is_loopback() => Some("loopback addresses never leave a host"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("link-local addresses belong to one interface; a global or unique local one is needed")
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("x.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_smallest_configuration_has_working_defaults() {
        let config = parse("vips: [192.0.2.10, '2001:db8::10']\ninterfaces: [eth0]\n").unwrap();
        assert_eq!(config.lease.name, "plndr-cp-lock");
        assert_eq!(config.timing().renew_every, Duration::from_secs(1));
        assert_eq!(config.timing().hold(5), Duration::from_millis(4450));
        assert_eq!(config.timing().wait(5), Duration::from_millis(5500));
    }

    #[test]
    fn the_configuration_in_the_readme_works() {
        let readme = include_str!("../../README.md");
        let yaml = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        parse(yaml).unwrap();
    }

    #[test]
    fn every_field_is_documented() {
        let manual = include_str!("../../docs/configuration.md");
        for field in FIELDS.iter().filter(|field| **field != "lease" && **field != "api") {
            assert!(manual.contains(field), "docs/configuration.md lacks {field}");
        }
    }

    #[test]
    fn every_refusal_names_field_value_and_remedy() {
        let base = "vips: [192.0.2.10]\ninterfaces: [eth0]\n";
        for (text, expected) in [
            ("vips: []\ninterfaces: [eth0]", "`vips`: an empty list"),
            ("vips: [127.0.0.1]\ninterfaces: [eth0]", "`vips`: 127.0.0.1 cannot be used: loopback"),
            ("vips: [224.0.0.1]\ninterfaces: [eth0]", "`vips`: 224.0.0.1"),
            ("vips: [255.255.255.255]\ninterfaces: [eth0]", "`vips`: 255.255.255.255"),
            ("vips: ['ff02::1']\ninterfaces: [eth0]", "`vips`: ff02::1"),
            ("vips: ['fe80::1']\ninterfaces: [eth0]", "`vips`: fe80::1 cannot be used: link-local"),
            ("vips: ['::ffff:1.2.3.4']\ninterfaces: [eth0]", "write an IPv4 address as a.b.c.d"),
            ("vips: [192.0.2.1, 192.0.2.1]\ninterfaces: [eth0]", "may be listed once"),
            ("vips: [192.0.2.300]\ninterfaces: [eth0]", "vips"),
            ("vips: [192.0.2.1]\ninterfaces: []", "`interfaces`: an empty list"),
            ("vips: [192.0.2.1]\ninterfaces: [lo]", "`interfaces`: lo"),
            ("vips: [192.0.2.1]\ninterfaces: [a]\nguard: [a]", "`guard`: a cannot be used"),
            (&format!("{base}vip: 1"), "did you mean `vips`?"),
            (&format!("{base}lease: {{duration: 3}}"), "did you mean `duration_s`?"),
            (&format!("{base}lease: {{duration_s: 0}}"), "`lease.duration_s`: 0"),
            (&format!("{base}lease: {{duration_s: 3, renew_ms: 2000}}"), "the fence of 2650 ms"),
            (&format!("{base}lease: {{margin_ms: 10}}"), "`lease.margin_ms`: 10"),
            (&format!("{base}lease: {{clock_error_percent: 90}}"), "`lease.clock_error_percent`: 90"),
            (&format!("{base}on_stop: keep"), "lease.duration_s of 10 or more, not 5"),
            (&format!("{base}on_stop: stay"), "on_stop"),
            (&format!("{base}instance: a/b"), "`instance`: a/b"),
            (&format!("{base}linger_ms: 100000"), "`linger_ms`: 100000"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}, which lacks {expected:?}");
        }
    }
}
