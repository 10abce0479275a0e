//! Which interfaces answer for which VIP, which are only guarded, and which are left alone.

use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    str::FromStr,
};

/// Left alone unless they are named: what container networks and hypervisors put on a host. The guests
/// behind them may own addresses, and none of them leads to the segment by itself.
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

/// One word of a list of interfaces.
#[derive(Clone, Debug)]
pub enum Rule {
    /// This very name.
    Name(String),
    /// A name with `*`, `?` or `[…]`.
    Glob(glob::Pattern),
    /// `/…/`: a regular expression, found anywhere in the name unless it is anchored.
    Regex(regex::Regex),
    /// `auto`: the interface whose subnet contains the VIP.
    Auto,
    /// `default-route`: the interface of the default route of the VIP's family.
    DefaultRoute,
    /// A subnet: the interface with an address in it.
    Subnet(IpNet),
}

/// A word that is no rule.
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
        // What the kernel takes as a name (dev_valid_name).
        let never = |c: char| c == ':' || c.is_whitespace() || c.is_control();
        if word.is_empty() || word.len() > 15 || word.contains(never) || matches!(word, "." | "..") {
            return Err(RuleError(String::new()));
        }
        Ok(Self::Name(word.into()))
    }
}

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A NIC, a veth, or anything else that carries frames by itself.
    #[default]
    Plain,
    /// A VLAN device with its id.
    Vlan(u16),
    /// A macvlan: a second MAC address on the interface below.
    Macvlan,
    /// A bond with its mode.
    Bond(u8),
    /// A bridge.
    Bridge,
}

/// An interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Up, with carrier.
    pub up: bool,
    /// What it is.
    pub kind: Kind,
    /// The interface below a VLAN device or a macvlan.
    pub lower: Option<u32>,
    /// The bridge or bond that it is a port or member of.
    pub master: Option<u32>,
    /// Its addresses with the lengths of their prefixes.
    pub subnets: Vec<(IpAddr, u8)>,
    /// The metrics of its default routes: IPv4, IPv6.
    pub default_route: (Option<u32>, Option<u32>),
}

impl Device {
    fn is_in(&self, net: &IpNet) -> bool {
        self.subnets.iter().any(|(address, _)| net.contains(address))
    }

    /// The longest prefix of a subnet of the interface that contains an address. Host routes and the
    /// subnet of everything say nothing about the segment.
    fn reaches(&self, vip: IpAddr) -> Option<u8> {
        let around = self.subnets.iter().filter(|(address, prefix)| {
            let full = if address.is_ipv4() { 32 } else { 128 };
            *prefix > 0
                && *prefix < full
                && IpNet::new(*address, *prefix).is_ok_and(|net| net.contains(&vip))
        });
        around.map(|(_, prefix)| *prefix).max()
    }

    /// The metric of its default route for the family of an address.
    fn routes(&self, vip: IpAddr) -> Option<u32> {
        if vip.is_ipv4() { self.default_route.0 } else { self.default_route.1 }
    }
}

/// The lists of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What is left alone unless it is named.
    pub exclude: Vec<Rule>,
    /// What is guarded where it does not answer.
    pub guard: Vec<Rule>,
    /// The VIPs with the rules of the interfaces that answer for them.
    pub vips: Vec<(IpAddr, Vec<Rule>)>,
}

/// What is to be done with one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The VIPs that it answers for, by their place in [`Selection::vips`]; with none it is guarded.
    pub answers: BTreeSet<usize>,
}

/// What is to be done with the interfaces of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// By interface index.
    pub roles: BTreeMap<u32, Role>,
    /// Interfaces that were chosen and cannot be used, and VIPs without an interface, with the reason.
    pub refused: BTreeMap<String, String>,
}

impl Selection {
    /// Whether the choice depends on routes.
    pub fn needs_routes(&self) -> bool {
        let lists = self.vips.iter().map(|(_, rules)| rules).chain([&self.exclude, &self.guard]);
        lists.flatten().any(|rule| matches!(rule, Rule::DefaultRoute))
    }

    /// Gives every interface its role.
    pub fn roles(&self, devices: &[Device]) -> Roles {
        let mut found = Roles::default();
        let find = |ifindex: Option<u32>| devices.iter().find(|other| Some(other.ifindex) == ifindex);
        let excluded = |device: &Device| self.exclude.iter().any(|rule| names(rule, device));
        let usable = devices.iter().filter(|device| {
            device.name != "lo" && !excluded(device) && unusable(device, find(device.master)).is_none()
        });
        let usable: Vec<&Device> = usable.collect();
        let best: Vec<BTreeSet<u32>> =
            self.vips.iter().map(|(vip, rules)| best(rules, *vip, &usable)).collect();
        for device in devices.iter().filter(|device| device.name != "lo") {
            let excluded = excluded(device);
            let chosen = (0..).zip(&self.vips).zip(&best).filter(|((_, (_, rules)), best)| {
                let named = |rule: &Rule| match rule {
                    Rule::Name(name) => *name == device.name,
                    Rule::Auto | Rule::DefaultRoute | Rule::Subnet(_) => false,
                    _ => !excluded && names(rule, device),
                };
                best.contains(&device.ifindex) || rules.iter().any(named)
            });
            let chosen = chosen.map(|(chosen, _)| chosen);
            let answers: BTreeSet<usize> = chosen.map(|(index, _)| index).collect();
            let master = find(device.master);
            let guarded = !excluded && self.guard.iter().any(|rule| names(rule, device));
            let named = |rule: &Rule| matches!(rule, Rule::Name(name) if *name == device.name);
            let asked_for = self.vips.iter().flat_map(|(_, rules)| rules).any(named);
            match unusable(device, master) {
                // Guests behind a bridge may own addresses: its ports are nobody's business here.
                Some(why) => {
                    if asked_for {
                        found.refused.insert(device.name.clone(), why);
                    }
                    let port = master.is_some_and(|master| master.kind == Kind::Bridge);
                    if guarded && device.mac.is_some() && !port {
                        found.roles.insert(device.ifindex, Role::default());
                    }
                }
                None if !answers.is_empty() || guarded => {
                    found.roles.insert(device.ifindex, Role { answers });
                }
                None => {}
            }
        }
        self.tell_missing(devices, &mut found);
        found
    }

    fn tell_missing(&self, devices: &[Device], found: &mut Roles) {
        let there: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        for (index, (vip, rules)) in self.vips.iter().enumerate() {
            for rule in rules {
                if let Rule::Name(name) = rule
                    && !there.contains(&name.as_str())
                {
                    let why = format!("it does not exist; this host has {}", there.join(", "));
                    found.refused.insert(name.clone(), why);
                }
            }
            if !found.roles.values().any(|role| role.answers.contains(&index)) {
                let why = "no interface of this host is chosen for it by `interfaces`";
                found.refused.insert(vip.to_string(), why.into());
            }
        }
    }
}

/// Why nothing can be answered on an interface, in words.
fn unusable(device: &Device, master: Option<&Device>) -> Option<String> {
    match (device.kind, master) {
        _ if device.mac.is_none() => Some("it has no MAC address of six bytes".into()),
        (_, Some(master)) if master.kind == Kind::Bridge => {
            Some(format!("it is a port of bridge {}: name that instead", master.name))
        }
        (_, Some(master)) if matches!(master.kind, Kind::Bond(_)) => {
            Some(format!("it is a member of bond {}: name that instead", master.name))
        }
        // The driver rewrites the sender of ARP replies, another member's MAC for every peer.
        (Kind::Bond(mode @ (5 | 6)), _) => {
            let name = if mode == 5 { "balance-tlb" } else { "balance-alb" };
            Some(format!(
                "bond mode {mode} ({name}) gives every peer another MAC address; \
                 use active-backup or 802.3ad"
            ))
        }
        _ => None,
    }
}

/// Whether a rule means an interface by its name or addresses alone.
fn names(rule: &Rule, device: &Device) -> bool {
    match rule {
        Rule::Name(name) => *name == device.name,
        Rule::Glob(glob) => glob.matches(&device.name),
        Rule::Regex(regex) => regex.is_match(&device.name),
        Rule::Subnet(net) => device.is_in(net),
        Rule::DefaultRoute => device.default_route.0.or(device.default_route.1).is_some(),
        Rule::Auto => false,
    }
}

/// The interfaces that `auto`, `default-route` and a subnet mean: one each, as the kernel would route. On two that
/// lead to one segment, a question would get two answers. One that is up comes before one that is not.
fn best(rules: &[Rule], vip: IpAddr, devices: &[&Device]) -> BTreeSet<u32> {
    let chosen = rules.iter().filter_map(|rule| {
        let ranked = devices.iter().filter_map(|device| {
            let rank = match rule {
                Rule::Auto => u32::from(u8::MAX - device.reaches(vip)?),
                Rule::DefaultRoute => device.routes(vip)?,
                Rule::Subnet(net) if device.is_in(net) => 0,
                _ => return None,
            };
            Some((!device.up, rank, device.ifindex))
        });
        ranked.min().map(|(.., ifindex)| ifindex)
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, ifindex: u32) -> Device {
        Device { name: name.into(), ifindex, mac: Some([2; 6]), up: true, ..Device::default() }
    }

    fn selection(interfaces: &[&str]) -> Selection {
        let rules = |words: &[&str]| words.iter().filter_map(|word| word.parse().ok()).collect();
        Selection {
            exclude: rules(EXCLUDED),
            guard: rules(&["*"]),
            vips: ["192.0.2.10", "2001:db8::10"]
                .iter()
                .filter_map(|vip| Some((vip.parse().ok()?, rules(interfaces))))
                .collect(),
        }
    }

    fn answering(interfaces: &[&str], devices: &[Device]) -> Vec<u32> {
        let roles = selection(interfaces).roles(devices).roles;
        roles.iter().filter(|(_, role)| !role.answers.is_empty()).map(|(index, _)| *index).collect()
    }

    #[test]
    fn interfaces_are_chosen_by_name_glob_regex_subnet_and_route() {
        let mut devices = vec![device("eth0", 2), device("eth1", 3), device("ens5", 4)];
        devices[1].subnets = vec![("192.0.2.4".parse().unwrap(), 24)];
        devices[2].default_route = (Some(0), None);
        let rows: [(&[&str], &[u32]); 9] = [
            (&["eth0"], &[2]),
            (&["eth*"], &[2, 3]),
            (&["/^e(th0|ns)/"], &[2, 4]),
            (&["auto"], &[3]),
            (&["192.0.2.0/24"], &[3]),
            (&["198.51.100.0/24"], &[]),
            (&["default-route"], &[4]),
            (&["eth0", "default-route"], &[2, 4]),
            (&["eth7"], &[]),
        ];
        for (rules, wanted) in rows {
            assert_eq!(answering(rules, &devices), wanted, "{rules:?}");
        }
    }

    /// Two interfaces on one segment would give two answers to one question.
    #[test]
    fn subnets_and_routes_choose_one_interface_and_one_that_is_up() {
        let mut devices = vec![device("eth0", 2), device("eth1", 3), device("eth2", 4)];
        for (device, prefix) in devices.iter_mut().zip([16, 24, 24]) {
            device.subnets = vec![(IpAddr::from([192, 0, 2, device.ifindex as u8]), prefix)];
            device.default_route = (Some(100 - u32::from(prefix)), None);
        }
        for rule in ["auto", "default-route"] {
            assert_eq!(answering(&[rule], &devices), [3], "{rule}: the first of the most specific");
        }
        assert_eq!(answering(&["192.0.2.0/24"], &devices), [2]);
        devices[1].up = false;
        assert_eq!(answering(&["auto"], &devices), [4]);
        devices[2].up = false;
        assert_eq!(answering(&["auto"], &devices), [2]);
        devices[0].up = false;
        assert_eq!(answering(&["auto"], &devices), [3], "with none up it is the first again");
    }

    #[test]
    fn the_route_of_one_family_says_nothing_about_the_other() {
        let mut devices = vec![device("eth0", 2)];
        devices[0].default_route = (Some(100), None);
        let roles = selection(&["default-route"]).roles(&devices);
        assert_eq!(roles.roles[&2].answers, BTreeSet::from([0]));
        assert!(roles.refused["2001:db8::10"].contains("no interface"));
    }

    #[test]
    fn what_is_excluded_answers_only_where_it_is_named() {
        let devices = [device("veth1234", 2), device("docker0", 3), device("eth0", 4)];
        assert_eq!(answering(&["*"], &devices), [4]);
        assert_eq!(answering(&["docker0"], &devices), [3]);
        assert!(!selection(&["eth0"]).roles(&devices).roles.contains_key(&2), "nor is it guarded");
    }

    #[test]
    fn everything_else_is_guarded() {
        let devices = [device("eth0", 2), device("eth1", 3), device("lo", 1)];
        let roles = selection(&["eth0"]).roles(&devices).roles;
        assert_eq!(roles.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert!(roles[&3].answers.is_empty());
    }

    #[test]
    fn ports_members_and_bonds_that_rewrite_arp_are_refused_with_the_reason() {
        let mut devices =
            vec![device("br0", 2), device("eth0", 3), device("bond0", 4), device("eth1", 5)];
        devices[0].kind = Kind::Bridge;
        devices[1].master = Some(2);
        devices[2].kind = Kind::Bond(6);
        devices[3].master = Some(4);
        for (rules, name, why) in [
            (["eth0"], "eth0", "port of bridge br0"),
            (["eth1"], "eth1", "member of bond bond0"),
            (["bond0"], "bond0", "balance-alb"),
        ] {
            let roles = selection(&rules).roles(&devices);
            assert!(roles.refused[name].contains(why), "{roles:?}");
            assert!(roles.roles.values().all(|role| role.answers.is_empty()), "{roles:?}");
        }
        assert!(!selection(&["br0"]).roles(&devices).roles.contains_key(&3), "a port is left alone");
        devices[2].kind = Kind::Bond(1);
        assert_eq!(answering(&["bond0", "br0"], &devices), [2, 4]);
    }

    #[test]
    fn words_that_are_no_rule_are_refused() {
        for word in ["", "/[/", "a-name-that-is-too-long", "192.0.2.0/99", "eth[", "eth 0"] {
            assert!(word.parse::<Rule>().is_err(), "{word:?}");
        }
    }
}
