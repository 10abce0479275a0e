//! Checks of a configuration that need no look at the host.

use super::{Asked, Config, HealthConfig, LeaseConfig, Refused, VipConfig};
use crate::{
    model::{
        hooks::{Hook, Hooks},
        lease::naming::{MAX_NAMED, text_len},
        policy::OnStop,
        rule::Rule,
        timing::{MAX_DURATION_S, Timing},
    },
    server_url::{host_address, server},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use vip_common::abi::MAX_SLOTS;

type Checked = Result<(), Refused>;

impl Config {
    /// What cannot work, so that an operator mends it in one go: every address, and of each other group
    /// of settings the first.
    pub fn check_all(&self) -> Vec<Refused> {
        let checks: [fn(&Self) -> Checked; 12] = [
            Self::check_names,
            Self::check_interfaces,
            |config| check_hooks(&config.attach),
            Self::check_leases,
            Self::check_announcements,
            Self::check_diagnostics,
            Self::check_lan,
            Self::check_health,
            Self::check_endpoints,
            Self::check_timing,
            Self::check_lingering,
            Self::check_stop,
        ];
        let refused = checks.into_iter().filter_map(|check| check(self).err());
        self.check_vips().into_iter().chain(refused).collect()
    }

    fn check_names(&self) -> Checked {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !name_ok(&self.instance) {
            return refuse("instance", &self.instance, "1 to 32 letters, digits, - and _");
        }
        if let Some(node) = self.node.as_ref().filter(|node| node.is_empty() || node.len() > 253) {
            return refuse("node", node, "1 to 253 characters, the name of the Node object");
        }
        if !is_object_name(&self.lease.name) {
            return refuse("lease.name", &self.lease.name, OBJECT_NAME);
        }
        if !is_namespace_name(&self.lease.namespace) {
            return refuse("lease.namespace", &self.lease.namespace, NAMESPACE_NAME);
        }
        Ok(())
    }

    fn check_vips(&self) -> Vec<Refused> {
        let mut seen = BTreeSet::new();
        let mut check = |vip: &VipConfig| {
            if !seen.insert(vip.address.to_canonical()) {
                return refuse("vips", vip.address, "each address may be listed once");
            }
            unusable(vip.address).map_or(Ok(()), |why| refuse("vips", vip.address, why))
        };
        let empty =
            self.vips.is_empty().then(|| refuse("vips", "an empty list", "at least one address"));
        let refused = self.vips.iter().map(&mut check).chain(empty);
        refused.filter_map(Result::err).collect()
    }

    fn check_announcements(&self) -> Checked {
        if self.announce.refresh_s > ONE_DAY_S {
            let allowed = format!("0 (none) to {ONE_DAY_S}");
            return refuse("announce.refresh_s", self.announce.refresh_s, allowed);
        }
        Ok(())
    }

    fn check_diagnostics(&self) -> Checked {
        if self.kernel_log_level > 5 {
            return refuse("kernel_log_level", self.kernel_log_level, "0 (off) to 5 (trace)");
        }
        if self.admin.port == Some(0) {
            return refuse("admin.port", 0, "1 to 65535; leave it out for no port at all");
        }
        match self.admin.health_port {
            Some(0) => {
                return refuse("admin.health_port", 0, "1 to 65535; leave it out for no port at all");
            }
            Some(port) if self.admin.port == Some(port) => {
                return refuse("admin.health_port", port, "another port than admin.port");
            }
            _ => {}
        }
        Ok(())
    }

    fn check_lan(&self) -> Checked {
        if !(100..=60_000).contains(&self.lan_check.every_ms) {
            return refuse("lan_check.every_ms", self.lan_check.every_ms, "100 to 60000");
        }
        if let Some(vip) = self.vips.iter().find(|vip| self.lan_check.peers.contains(&vip.address)) {
            return refuse("lan_check.peers", vip.address, "addresses of other hosts, not VIPs");
        }
        Ok(())
    }

    fn check_health(&self) -> Checked {
        let HealthConfig { every_ms, timeout_ms, refusals, slow_s, good_s, .. } = self.health;
        let ranges = [
            ("health.every_ms", every_ms, 100..=60_000),
            ("health.timeout_ms", timeout_ms, 100..=60_000),
            ("health.refusals", u64::from(refusals), 1..=1_000),
            ("health.slow_s", slow_s, 1..=3_600),
            ("health.good_s", good_s, 0..=3_600),
        ];
        for (field, value, range) in ranges {
            if !range.contains(&value) {
                return refuse(field, value, format!("{} to {}", range.start(), range.end()));
            }
        }
        if self.health.api_server != Asked::Off && timeout_ms >= slow_s * 1_000 {
            let allowed =
                format!("less than health.slow_s ({slow_s} s): one lost answer is no illness");
            return refuse("health.timeout_ms", timeout_ms, allowed);
        }
        let asked =
            [("health.api_server", &self.health.api_server), ("health.kubelet", &self.health.kubelet)];
        for (field, asked) in asked {
            let Asked::At(url) = asked else { continue };
            match server(url) {
                None => return refuse(field, format!("{url:?}"), "auto, off, or a URL"),
                Some(uri) if host_address(&uri).is_some_and(|ip| self.addresses().contains(&ip)) => {
                    return refuse(field, url, "the service of this node, not a VIP");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The API must be reachable without a VIP, because a VIP is down until its holder has reached
    /// the API.
    fn check_endpoints(&self) -> Checked {
        const FIELD: &str = "api.endpoints";
        for endpoint in &self.api.endpoints {
            if server(endpoint).is_none() {
                return refuse(FIELD, format!("{endpoint:?}"), "a URL like https://10.0.0.1:6443");
            }
        }
        let is_vip = |endpoint: &String| {
            let host = server(endpoint).and_then(|uri| host_address(&uri));
            host.is_some_and(|host| self.vips.iter().any(|vip| vip.address == host))
        };
        match self.api.endpoints.first() {
            None => refuse(FIELD, "an empty list", "at least one URL like https://10.0.0.1:6443"),
            Some(first) if self.api.endpoints.iter().all(is_vip) => {
                refuse(FIELD, first, "all of them are VIPs that xvip itself would have to bring up")
            }
            Some(_) => Ok(()),
        }
    }

    fn check_interfaces(&self) -> Checked {
        let lists = [
            ("interfaces", Some(&self.interfaces)),
            ("guard", Some(&self.guard)),
            ("exclude", Some(&self.exclude)),
        ];
        let own = self.vips.iter().map(|vip| ("vips.interfaces", vip.interfaces.as_ref()));
        for (field, words) in lists.into_iter().chain(own) {
            let Some(words) = words else { continue };
            if words.is_empty() && field.ends_with("interfaces") {
                return refuse(field, "an empty list", "at least one interface, or `auto`");
            }
            let mut seen = BTreeSet::new();
            for word in words {
                if let Err(error) = word.parse::<Rule>() {
                    return refuse(field, format!("{word:?}"), error.to_string());
                }
                if word == "lo" && field != "exclude" {
                    return refuse(field, word, "a device with a path to the VIPs' segment");
                }
                if !seen.insert(word) {
                    return refuse(field, word, "each word may stand in a list once");
                }
            }
        }
        for word in &self.guard {
            // `*` means every interface that does not answer.
            if word != "*" && self.interfaces.contains(word) {
                return refuse("guard", word, "an interface that answers is guarded anyway");
            }
        }
        Ok(())
    }

    /// VIPs with other nodes or other interfaces need another Lease: a failed link of one VIP must
    /// not move the others.
    fn check_leases(&self) -> Checked {
        for vip in &self.vips {
            match &vip.lease {
                None if vip.has_own_nodes() || vip.interfaces.is_some() => {
                    return refuse(
                        "vips.lease",
                        format!("none for {}", vip.address),
                        "a name: with interfaces, nodes or weights of its own it needs its own Lease",
                    );
                }
                Some(name) if !is_object_name(name) => return refuse("vips.lease", name, OBJECT_NAME),
                _ => {}
            }
            let lease = |vip: &VipConfig| vip.lease.clone().unwrap_or_else(|| self.lease.name.clone());
            let same_nodes = |other: &VipConfig| {
                self.nodes_of(other) == self.nodes_of(vip)
                    && self.weights_of(other) == self.weights_of(vip)
            };
            let partner =
                self.vips.iter().find(|other| lease(other) == lease(vip) && !same_nodes(other));
            if let Some(partner) = partner {
                return refuse(
                    "vips.nodes",
                    format!("that of {}", vip.address),
                    format!(
                        "{} shares its Lease, and so must share its nodes and weights",
                        partner.address
                    ),
                );
            }
        }
        for group in self.groups() {
            if text_len(&group.vips) > MAX_NAMED {
                return refuse(
                    "vips",
                    format!("{} addresses under the Lease {}", group.vips.len(), group.lease),
                    format!(
                        "as many as can be written down in {MAX_NAMED} characters; give some another `lease`"
                    ),
                );
            }
        }
        let leases = self.groups().len();
        if leases > MAX_SLOTS as usize {
            return refuse("vips.lease", format!("{leases} Leases"), format!("at most {MAX_SLOTS}"));
        }
        Ok(())
    }

    fn check_timing(&self) -> Checked {
        let timing = self.timing();
        let LeaseConfig { duration_s, clock_error_percent, foreign_grace_s, .. } = self.lease;
        if !(1..=MAX_DURATION_S).contains(&duration_s) {
            return refuse("lease.duration_s", duration_s, "1 to 600 whole seconds");
        }
        if clock_error_percent > 40 {
            return refuse("lease.clock_error_percent", clock_error_percent, "0 to 40; 10 is safe");
        }
        let least = Timing::least_margin(duration_s);
        if timing.margin < least {
            return refuse(
                "lease.margin_ms",
                timing.margin.as_millis(),
                format!("at least {} ms (50 ms, and 0.002 of lease.duration_s)", least.as_millis()),
            );
        }
        let hold = timing.hold(duration_s);
        if hold < SHORTEST_FENCE {
            let most = (hold + timing.margin).saturating_sub(SHORTEST_FENCE);
            return refuse(
                "lease.margin_ms",
                timing.margin.as_millis(),
                format!(
                    "at most {} ms, so that two renewals fit into the fence of {duration_s} s less \
                     {clock_error_percent} %",
                    most.as_millis()
                ),
            );
        }
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
        let graces = u64::from(duration_s)..=ONE_DAY_S;
        if let Some(grace) = foreign_grace_s.filter(|grace| !graces.contains(grace)) {
            let allowed = format!("lease.duration_s ({duration_s}) to {ONE_DAY_S}");
            return refuse("lease.foreign_grace_s", grace, allowed);
        }
        if self.lease.foreign_port == Some(0) {
            return refuse("lease.foreign_port", 0, "1 to 65535");
        }
        Ok(())
    }

    fn check_lingering(&self) -> Checked {
        if self.linger_ms > 60_000 {
            return refuse("linger_ms", self.linger_ms, "0 to 60000");
        }
        Ok(())
    }

    fn check_stop(&self) -> Checked {
        let duration_s = self.lease.duration_s;
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

const ONE_DAY_S: u64 = 86_400;
/// Two renewals, each of at least 100 ms.
const SHORTEST_FENCE: Duration = Duration::from_millis(200);

const OBJECT_NAME: &str = "1 to 253 lower-case letters, digits, - and .";

/// Whether Kubernetes accepts this as the name of an object (RFC 1123 subdomain).
fn is_object_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= 253 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

const NAMESPACE_NAME: &str = "1 to 63 lower-case letters, digits and -";

/// Whether Kubernetes accepts this as the name of a namespace (RFC 1123 label).
fn is_namespace_name(name: &str) -> bool {
    is_object_name(name) && name.len() <= 63 && !name.contains('.')
}

/// Refuses an empty list of hooks, and one that names a hook twice.
fn check_hooks(hooks: &Hooks) -> Checked {
    let distinct: BTreeSet<Hook> = hooks.0.iter().copied().collect();
    if hooks.0.is_empty() || distinct.len() < hooks.0.len() {
        let written = serde_json::to_string(hooks).unwrap_or_default();
        return refuse("attach", written, "native, tc and generic, each at most once, or `auto`");
    }
    Ok(())
}

fn refuse<T>(
    field: &'static str,
    value: impl ToString,
    allowed: impl Into<String>,
) -> Result<T, Refused> {
    Err(Refused { field, value: value.to_string(), allowed: allowed.into() })
}

/// Why an address can never be a VIP, whatever the host looks like.
fn unusable(vip: IpAddr) -> Option<&'static str> {
    let unicast = "a unicast address of the segment is needed";
    match vip {
        IpAddr::V4(v4) if v4.is_unspecified() || v4.octets()[0] == 0 => Some(unicast),
        IpAddr::V4(v4) if v4.is_loopback() => Some("loopback addresses never leave a host"),
        IpAddr::V4(v4) if v4.is_link_local() => {
            Some("link-local addresses (169.254.0.0/16) belong to one link; a routable one is needed")
        }
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
