//! Which interfaces answer for which VIP, which are only guarded, and which are left alone.

use super::rule::Rule;
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use vip_common::mac::Mac;

/// The kind of an interface, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A NIC, a veth, or any other interface that is none of the kinds below.
    #[default]
    Plain,
    /// A VLAN device with its id.
    Vlan(u16),
    /// A macvlan: a second MAC address on its lower interface.
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
    pub mac: Option<Mac>,
    /// Whether it is up and has carrier.
    pub up: bool,
    /// Its kind.
    pub kind: Kind,
    /// The index of the interface below a VLAN device or a macvlan.
    pub lower: Option<u32>,
    /// The index of the bridge or bond to which it belongs.
    pub master: Option<u32>,
    /// Its addresses, each with the length of its prefix.
    pub subnets: Vec<(IpAddr, u8)>,
    /// The ranks of its default routes: IPv4, IPv6. The lowest wins.
    pub default_route: (Option<u32>, Option<u32>),
}

impl Device {
    /// The lengths of the prefixes with which the interface has an address, without host prefixes. With
    /// a host prefix, kube-vip, kube-proxy (IPVS) and xvip carry a VIP.
    fn prefixes(&self, vip: IpAddr) -> impl Iterator<Item = u8> {
        let own = self.subnets.iter().filter(move |(address, prefix)| {
            *address == vip && *prefix < if vip.is_ipv4() { 32 } else { 128 }
        });
        own.map(|(_, prefix)| *prefix)
    }

    fn is_in(&self, net: &IpNet) -> bool {
        self.subnets.iter().any(|(address, _)| net.contains(address))
    }

    /// The longest prefix of a subnet of the interface that contains an address. Host prefixes and
    /// prefixes of length 0 say nothing about the segment.
    fn reaches(&self, vip: IpAddr) -> Option<u8> {
        let around = self.subnets.iter().filter(|(address, prefix)| {
            let full = if address.is_ipv4() { 32 } else { 128 };
            *prefix > 0
                && *prefix < full
                && IpNet::new(*address, *prefix).is_ok_and(|net| net.contains(&vip))
        });
        around.map(|(_, prefix)| *prefix).max()
    }

    /// The rank of its default route for the family of an address.
    fn routes(&self, vip: IpAddr) -> Option<u32> {
        if vip.is_ipv4() { self.default_route.0 } else { self.default_route.1 }
    }
}

/// The lists of interface rules in a configuration.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Interfaces that are left alone unless another list names them.
    pub exclude: Vec<Rule>,
    /// Whether the operator has set `exclude`. The default list yields to the host's addresses and
    /// routes.
    pub exclude_is_set: bool,
    /// Interfaces that are guarded although they do not answer.
    pub guard: Vec<Rule>,
    /// The VIPs, each with the rules of the interfaces that answer for it.
    pub vips: Vec<(IpAddr, Vec<Rule>)>,
}

/// The use of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The VIPs for which it answers, by their index in [`Selection::vips`]. If there are none, it is
    /// only guarded.
    pub answers: BTreeSet<usize>,
}

/// The use of the interfaces of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// By interface index.
    pub roles: BTreeMap<u32, Role>,
    /// Chosen interfaces that cannot be used, and VIPs without an interface, each with the reason.
    pub refused: BTreeMap<String, String>,
    /// VIPs that another program has put on this host with the prefix of a subnet, or left there. The
    /// host never answers for them.
    pub strays: BTreeSet<IpAddr>,
}

impl Selection {
    /// Whether a rule depends on routes.
    pub fn needs_routes(&self) -> bool {
        let lists = self.vips.iter().map(|(_, rules)| rules).chain([&self.exclude, &self.guard]);
        lists.flatten().any(|rule| matches!(rule, Rule::DefaultRoute))
    }

    /// Gives each interface its role. An interface without a role is left alone.
    pub fn roles(&self, devices: &[Device]) -> Roles {
        let mut found = Roles::default();
        let by_index: BTreeMap<u32, &Device> =
            devices.iter().map(|device| (device.ifindex, device)).collect();
        let find = |ifindex: Option<u32>| by_index.get(&ifindex?).copied();
        let usable = devices.iter().filter(|device| {
            device.name != "lo"
                && self.excluded_by(device).is_none()
                && unusable(device, find(device.master)).is_none()
        });
        let usable: Vec<&Device> = usable.collect();
        let best: Vec<BTreeSet<u32>> =
            self.vips.iter().map(|(vip, rules)| best(rules, *vip, &usable)).collect();
        for device in devices.iter().filter(|device| device.name != "lo") {
            let excluded = self.excluded_by(device);
            let answers = self.answers(device, excluded.is_some(), &best);
            let master = find(device.master);
            let stray = self.vips.iter().any(|(vip, _)| device.prefixes(*vip).next().is_some());
            let guarded =
                excluded.is_none() && (stray || self.guard.iter().any(|rule| names(rule, device)));
            let named = |rule: &Rule| matches!(rule, Rule::Name(name) if *name == device.name);
            let asked_for = self.vips.iter().flat_map(|(_, rules)| rules).any(named);
            match unusable(device, master) {
                // Guests behind a bridge may own addresses, so its ports are left alone.
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
                None => self.tell_excluded(device, excluded, &mut found),
            }
        }
        self.tell_missing(devices, &mut found);
        self.tell_strays(devices, &mut found);
        found
    }

    /// The VIPs for which an interface answers, given the best interfaces of each VIP.
    fn answers(&self, device: &Device, excluded: bool, best: &[BTreeSet<u32>]) -> BTreeSet<usize> {
        let chosen = (0..).zip(&self.vips).zip(best).filter(|((_, (_, rules)), best)| {
            let named = |rule: &Rule| match rule {
                Rule::Name(name) => *name == device.name,
                Rule::Auto | Rule::DefaultRoute | Rule::Subnet(_) => false,
                _ => !excluded && names(rule, device),
            };
            best.contains(&device.ifindex) || rules.iter().any(named)
        });
        chosen.map(|((index, _), _)| index).collect()
    }

    /// The rule of `exclude` that leaves an interface alone. The default list spares an interface that
    /// the host or a VIP needs: a CNI may have moved the uplink's addresses to its bridge.
    fn excluded_by(&self, device: &Device) -> Option<&Rule> {
        let rule = self.exclude.iter().find(|rule| names(rule, device))?;
        let needed = device.default_route != (None, None) || self.vip_in_subnet(device).is_some();
        (self.exclude_is_set || !needed).then_some(rule)
    }

    fn vip_in_subnet(&self, device: &Device) -> Option<IpAddr> {
        self.vips.iter().map(|(vip, _)| *vip).find(|vip| device.reaches(*vip).is_some())
    }

    /// Reports an interface that a VIP would need, but that `exclude` leaves alone.
    fn tell_excluded(&self, device: &Device, excluded: Option<&Rule>, found: &mut Roles) {
        let Some(rule) = excluded.filter(|_| self.exclude_is_set) else { return };
        let routes = |(vip, rules): &(IpAddr, Vec<Rule>)| {
            device.routes(*vip).is_some() && rules.iter().any(|rule| matches!(rule, Rule::DefaultRoute))
        };
        let has = match self.vip_in_subnet(device) {
            Some(vip) => format!("the subnet of VIP {vip}"),
            None if self.vips.iter().any(routes) => "the default route".into(),
            None => return,
        };
        let why = format!(
            "it has {has}, and `exclude` ({rule}) leaves it alone: nothing is answered or guarded there"
        );
        found.refused.insert(device.name.clone(), why);
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
                let words: Vec<String> = rules.iter().map(ToString::to_string).collect();
                let why = format!(
                    "no interface of this host is chosen for it by `interfaces` ({}); {}",
                    words.join(", "),
                    self.choice(*vip, devices)
                );
                found.refused.insert(vip.to_string(), why);
            }
        }
    }

    /// The interfaces that could answer for a VIP, with their subnets and default routes, in words.
    fn choice(&self, vip: IpAddr, devices: &[Device]) -> String {
        let find = |ifindex: Option<u32>| devices.iter().find(|other| Some(other.ifindex) == ifindex);
        let usable = devices.iter().filter(|device| {
            device.name != "lo"
                && self.excluded_by(device).is_none()
                && unusable(device, find(device.master)).is_none()
        });
        let described = usable.map(|device| {
            let same = device.subnets.iter().filter(|(address, _)| address.is_ipv4() == vip.is_ipv4());
            let mut has: Vec<String> = same
                .filter(|(address, _)| !address.is_multicast() && !is_link_local(*address))
                .map(|(address, prefix)| format!("{address}/{prefix}"))
                .collect();
            has.extend(device.routes(vip).map(|_| "the default route".into()));
            if has.is_empty() {
                has.push(if vip.is_ipv4() { "no IPv4 subnet" } else { "no IPv6 subnet" }.into());
            }
            format!("{} with {}", device.name, has.join(", "))
        });
        let described: Vec<String> = described.collect();
        match described.as_slice() {
            [] => "this host has no interface that could answer".into(),
            all => format!("this host has {}", all.join("; ")),
        }
    }

    fn tell_strays(&self, devices: &[Device], found: &mut Roles) {
        for (vip, _) in &self.vips {
            for device in devices {
                for prefix in device.prefixes(*vip) {
                    let why = format!(
                        "{}; this node stays silent for it until somebody removes it: {}",
                        left_by_others(*vip, prefix, device),
                        removal(*vip, prefix, device)
                    );
                    found.refused.insert(vip.to_string(), why);
                    found.strays.insert(*vip);
                }
            }
        }
    }

    /// VIPs that other programs have put with a host prefix on an interface that answers for them. xvip
    /// still serves them, because kube-vip carries its VIPs like that. `owned` says which addresses
    /// xvip has put there.
    pub fn carried_by_others(
        &self,
        devices: &[Device],
        roles: &Roles,
        owned: impl Fn(IpAddr, u32) -> bool,
    ) -> BTreeMap<IpAddr, String> {
        let mut found = BTreeMap::new();
        for (index, (vip, _)) in self.vips.iter().enumerate() {
            let full = if vip.is_ipv4() { 32 } else { 128 };
            let carrier = devices.iter().find(|device| {
                roles.roles.get(&device.ifindex).is_some_and(|role| role.answers.contains(&index))
                    && device.subnets.contains(&(*vip, full))
                    && !owned(*vip, device.ifindex)
            });
            if let Some(device) = carrier.filter(|_| !roles.strays.contains(vip)) {
                let why = format!(
                    "{}; unless that program is meant to carry it: {}",
                    left_by_others(*vip, full, device),
                    removal(*vip, full, device)
                );
                found.insert(*vip, why);
            }
        }
        found
    }
}

fn left_by_others(vip: IpAddr, prefix: u8, device: &Device) -> String {
    format!("another program has put {vip}/{prefix} on {}, or left it there when it died", device.name)
}

/// The shell command that removes an address.
pub fn removal(ip: IpAddr, prefix: u8, device: &Device) -> String {
    format!("ip addr del {ip}/{prefix} dev {}", device.name)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Why an interface can answer for no VIP, in words.
fn unusable(device: &Device, master: Option<&Device>) -> Option<String> {
    match (device.kind, master) {
        _ if device.mac.is_none() => Some("it has no MAC address of six bytes".into()),
        (_, Some(master)) if master.kind == Kind::Bridge => {
            Some(format!("it is a port of bridge {}: name that instead", master.name))
        }
        (_, Some(master)) if matches!(master.kind, Kind::Bond(_)) => {
            Some(format!("it is a member of bond {}: name that instead", master.name))
        }
        // The driver rewrites the sender of ARP replies: each peer gets the MAC address of another
        // member.
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

/// Whether a rule selects an interface by its name, its addresses or its default route.
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

/// The interfaces that `auto`, `default-route` and a subnet select: one for each rule, as the kernel
/// would route. Two interfaces on one segment would answer a question twice. An interface that is up
/// comes before one that is not.
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
mod tests;
