//! The rules that choose interfaces: names, patterns, subnets, routes.

use ipnet::IpNet;
use std::{fmt, str::FromStr};

/// Interfaces that are left alone unless the configuration names them: those of container networks and
/// hypervisors. The guests behind them may own addresses, and few of them lead to the segment. Some
/// CNIs move the uplink's addresses to a bridge of such a name; that bridge then counts like any other
/// interface.
pub const EXCLUDED: &[&str] = &[
    "veth*",
    "cali*",
    "lxc*",
    "cni*",
    "cbr*",
    "docker*",
    "br-*",
    "podman*",
    "nerdctl*",
    "flannel*",
    "cilium_*",
    "kube-*",
    "nodelocaldns",
    "vxlan*",
    "geneve*",
    "virbr*",
    "vnet*",
    "tap*",
    "ifb*",
    "ovs-system",
];

/// One entry of a list of interfaces.
#[derive(Clone, Debug)]
pub enum Rule {
    /// The interface with exactly this name.
    Name(String),
    /// A name with `*`, `?` or `[…]`.
    Glob(glob::Pattern),
    /// `/…/`: a regular expression, found anywhere in the name unless it is anchored.
    Regex(regex::Regex),
    /// `auto`: the interface whose subnet contains the VIP.
    Auto,
    /// `default-route`: the interface of the default route of the VIP's family.
    DefaultRoute,
    /// A subnet: the interface that has an address in it.
    Subnet(IpNet),
}

/// The text cannot be read as a [`Rule`].
#[derive(Debug, thiserror::Error)]
#[error(
    "a name (at most 15 characters, without blanks, / and :), a glob (eth*), a regular expression (/^en[sp]/), a subnet \
     (192.0.2.0/24), `auto` or `default-route`{0}"
)]
pub struct RuleError(String);

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(word: &str) -> Result<Self, RuleError> {
        let because = |why: &dyn std::fmt::Display| RuleError(format!(" ({why})"));
        if word == "auto" {
            return Ok(Self::Auto);
        }
        if word == "default-route" {
            return Ok(Self::DefaultRoute);
        }
        if let Some(inner) = word.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            return regex::Regex::new(inner).map(Self::Regex).map_err(|error| because(&error));
        }
        if word.contains('/') {
            return word.parse().map(Self::Subnet).map_err(|error| because(&error));
        }
        if word.contains(['*', '?', '[']) {
            return glob::Pattern::new(word).map(Self::Glob).map_err(|error| because(&error));
        }
        // The kernel accepts only such names (dev_valid_name).
        let never = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if word.is_empty() || word.len() > 15 || word.contains(never) || matches!(word, "." | "..") {
            return Err(RuleError(String::new()));
        }
        Ok(Self::Name(word.into()))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(to),
            Self::Glob(glob) => glob.fmt(to),
            Self::Regex(regex) => write!(to, "/{regex}/"),
            Self::Auto => to.write_str("auto"),
            Self::DefaultRoute => to.write_str("default-route"),
            Self::Subnet(net) => net.fmt(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_rule_are_refused() {
        for word in ["", "/[/", "a-name-that-is-too-long", "192.0.2.0/99", "eth[", "eth 0"] {
            assert!(word.parse::<Rule>().is_err(), "{word:?}");
        }
    }
}
