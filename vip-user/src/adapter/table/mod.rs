//! Every name of kube-vip up to v1.2.3, and what xvip does with it. Names are compared without case
//! and underscores.

mod network;
mod services;
mod tenure;

#[cfg(test)]
mod tests;

use serde::Serialize;
pub(super) use services::{FORWARDS, LB};
use std::fmt;

/// What xvip does with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It means here what it means to kube-vip.
    Supported,
    /// It has no effect here, and nothing is lost.
    NoEffect,
    /// Something would be lost, so it is refused. `xvip_without` accepts the loss.
    Refused,
    /// It is refused, and nothing can accept that.
    Never,
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As Go's `strconv.ParseBool` reads it.
    Bool,
    /// A whole number.
    Int,
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
}

/// One name of kube-vip.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// The environment variable; where there is none, the flag.
    pub id: &'static str,
    /// Whether an environment variable sets it.
    pub in_environment: bool,
    /// The form of its value.
    pub kind: Kind,
    /// What xvip does with it.
    pub class: Class,
    /// Its flags, those of older versions too, separated by blanks.
    pub flags: &'static str,
    /// Its key in the file of `--config-file`, with dots; empty if there is none.
    pub key: &'static str,
    /// The value that is in force if it is not set; empty if there is none.
    pub default: &'static str,
    /// What it becomes here, or why it has no effect or is refused.
    pub why: &'static str,
}

impl Class {
    /// The letter in tables: `S`, `N`, `R`, `R!`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Supported => "S",
            Self::NoEffect => "N",
            Self::Refused => "R",
            Self::Never => "R!",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.letter())
    }
}

impl Serialize for Class {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.letter())
    }
}

/// A variable of the environment.
const fn variable(id: &'static str, kind: Kind, class: Class, why: &'static str) -> Name {
    Name { id, in_environment: true, kind, class, flags: "", key: "", default: "", why }
}

/// A flag without a variable.
const fn only_flag(id: &'static str, kind: Kind, class: Class, why: &'static str) -> Name {
    Name { in_environment: false, flags: id, ..variable(id, kind, class, why) }
}

impl Name {
    const fn flags(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }

    const fn key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

const NOTHING: &str = "kube-vip does nothing with it either";
/// Why it does not matter whether an interface may be down at the start.
pub(super) const ALWAYS_STARTS: &str = "xvip always starts, and waits for the interface";
/// The prefix of every VIP.
const PREFIX: &str = "a VIP has the prefix 32 or 128";

/// Names that xvip reads itself. They begin with `xvip_` and are no part of kube-vip.
pub const WITHOUT: &str = "xvip_without";

/// All names, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Name> {
    [tenure::NAMES, network::NAMES, services::NAMES].into_iter().flatten()
}

/// A name in the form in which names are compared.
pub fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// The name of an environment variable.
pub fn of_variable(variable: &str) -> Option<&'static Name> {
    let wanted = plain(variable);
    all().find(|name| name.in_environment && plain(name.id) == wanted)
}

/// The name of a flag, without its dashes.
pub fn of_flag(flag: &str) -> Option<&'static Name> {
    let wanted = plain(flag);
    all().find(|name| name.flags.split(' ').any(|own| !own.is_empty() && plain(own) == wanted))
}

/// The name of a key of the file, with dots.
pub fn of_key(key: &str) -> Option<&'static Name> {
    let wanted = plain(key);
    all().find(|name| !name.key.is_empty() && plain(name.key) == wanted)
}

/// The name with this id.
pub fn of_id(id: &str) -> Option<&'static Name> {
    all().find(|name| name.id == id)
}

/// The beginnings of kube-vip's variables.
const PREFIXES: [&str; 14] = [
    "vip_",
    "bgp",
    "svc_",
    "lb_",
    "cp_",
    "egress_",
    "mpbgp_",
    "zebra_",
    "dhcp_",
    "dns_",
    "enable",
    "control_plane_",
    "annotation",
    "kubernetes_addr",
];

/// Whether a variable that no version of kube-vip reads was probably meant for it.
pub fn looks_like_ours(variable: &str) -> bool {
    let lower = variable.to_lowercase();
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) && !is_service_link(&lower)
}

/// Whether the kubelet has set this variable for a Service that is called like a setting.
fn is_service_link(lower: &str) -> bool {
    ["_service_host", "_service_port", "_port_"].iter().any(|part| lower.contains(part))
}

/// The known spelling that differs least from an unknown one.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(unknown);
    let ranked = known.map(|name| (crate::config::distance(&plain(name), &wanted), name));
    ranked.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 3).map(|(_, n)| n)
}
