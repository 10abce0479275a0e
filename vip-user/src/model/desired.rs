//! The desired state of this host, given the state of its elections.

use super::{ownership::Ownership, time::BootNs, timing::Timing};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use vip_common::{
    abi::{HostAddr, Iface, Ip, Port, Vip},
    mac::Mac,
    wire::solicited_node,
};

/// Index of the loopback interface, which is the same in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Where a held VIP is put as an address, so that this host accepts its traffic.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On `lo`, where no other program mistakes it for an address of the interface.
    #[default]
    Loopback,
    /// On an answering interface, as kube-vip does: `ip addr show IF` shows it.
    Interface,
    /// Nowhere: kube-proxy or a CNI accepts the traffic.
    None,
}

/// A VIP, its slot, and the interfaces that answer for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub ip: IpAddr,
    /// The slot of the Lease that guards it.
    pub slot: u32,
    /// Bits of the interfaces that answer for it.
    pub answer: u64,
    /// Silent by policy, even if this node holds its Lease. Another station claims it, or another
    /// program has put it on this host.
    pub yielded: bool,
    /// Whether it may be published under its Lease.
    pub admitted: bool,
}

/// The bit that all interfaces share that are only guarded.
pub const GUARD_BIT: u8 = 63;

/// The purpose of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// VIPs are answered and announced on it, and solicited-node groups are joined.
    Answer,
    /// Claims of VIPs are stopped on it.
    Guard,
    /// It stands in for another interface, because that one's frames pass through it.
    Alias,
}

/// An interface with programs, or another port at which its frames appear to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index and VLAN tags.
    pub port: Port,
    /// Its bit in the VIP map. Several ports of one interface share it.
    pub bit: u8,
    /// Its purpose.
    pub role: LinkRole,
    /// Its MAC address.
    pub mac: Mac,
    /// Whether it is up, has carrier, and is guarded.
    pub up: bool,
    /// Whether the guard is known to be in place.
    pub guarded: bool,
}

impl Link {
    /// Whether VIPs are answered and announced on it.
    pub fn answers(&self) -> bool {
        self.role == LinkRole::Answer
    }
}

/// The interfaces of a host that matter to xvip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// All of them, with their purposes.
    pub links: Vec<Link>,
    /// For each VIP, the bits of the interfaces that answer for it.
    pub answer: BTreeMap<IpAddr, u64>,
    /// VIPs that another program has put on this host with the prefix of a subnet. The host never
    /// answers for them.
    pub strays: BTreeSet<IpAddr>,
    /// Whether a native program has just been attached: some NICs lose their carrier then.
    pub attached: bool,
}

impl Links {
    /// The interfaces that answer for a VIP.
    pub fn of(&self, vip: IpAddr) -> impl Iterator<Item = &Link> {
        let answer = self.answer.get(&vip).copied().unwrap_or(0);
        self.links.iter().filter(move |link| link.answers() && answer >> (link.bit & 63) & 1 == 1)
    }
}

/// How an address that xvip owns must be configured on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddrSpec {
    /// A VIP. Its lifetime is limited, so that the host drops it if xvip dies.
    Vip {
        /// `valid_lft` in seconds.
        valid_s: u32,
    },
    /// A solicited-node group. The kernel joins it, and reports it to snooping switches.
    Group,
}

/// The desired state of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Entries of the VIP map.
    pub vips: BTreeMap<Ip, Vip>,
    /// Addresses whose entries must stay as they are, because their Lease has not been read yet. Each
    /// comes with the slot that its entry must name.
    pub untouched: BTreeMap<Ip, u32>,
    /// Addresses that another program of this host holds. Its frames pass, on whichever interface it
    /// has put them.
    pub passing: BTreeSet<Ip>,
    /// Addresses and groups that must be there.
    pub addrs: BTreeMap<HostAddr, AddrSpec>,
    /// Addresses that stay for late traffic if they are there, but are not added. A VIP that was never
    /// admitted to its Lease is not on this host.
    pub lingering: BTreeMap<HostAddr, AddrSpec>,
    /// Entries of the interface map.
    pub ifaces: BTreeMap<Port, Iface>,
}

/// The desired state for all VIPs whose slot is in `owners`.
pub fn desired(
    now: BootNs,
    owners: &BTreeMap<u32, Ownership>,
    timing: &Timing,
    vips: &[VipSpec],
    links: &[Link],
    placement: Placement,
) -> Desired {
    let mut want = Desired::default();
    for link in links {
        let (up, alias) = (u8::from(link.up), u8::from(link.role == LinkRole::Alias));
        let iface = Iface { mac: link.mac.0, bit: link.bit, up, known: 1, alias, _reserved: [0; 6] };
        want.ifaces.insert(link.port, iface);
    }
    for vip in vips {
        let Some(&ownership) = owners.get(&vip.slot) else { continue };
        let ip = Ip::from(vip.ip);
        let chosen = |link: &&Link| link.answers() && vip.answer >> (link.bit & 63) & 1 == 1;
        let links: Vec<&Link> = links.iter().filter(chosen).collect();
        let links = links.as_slice();
        let carried = match ownership {
            // Another station may use an address that is not admitted. This host's own traffic must
            // reach that station.
            Ownership::Ours { until, .. } => vip.admitted && now < until.after(timing.linger),
            Ownership::Elsewhere { serve_until } | Ownership::Ending { serve_until } => {
                now < serve_until
            }
            Ownership::Unknown | Ownership::ProgramHere | Ownership::Gone { .. } => false,
        };
        let generation = match ownership {
            Ownership::Unknown => {
                want.untouched.insert(ip, vip.slot);
                want_groups(&mut want, vip.ip, links);
                // Another program may have put this address on the host, whose stack would answer for
                // it. The silent entry prevents that, whatever the API will say.
                if vip.yielded {
                    want.vips.insert(ip, Vip::new(vip.slot, 0, vip.answer, u64::MAX));
                }
                continue;
            }
            Ownership::ProgramHere => {
                want.passing.insert(ip);
                None
            }
            // This process guards the VIP no more, so its frames pass. The plan still keeps a silent
            // entry while an interface carries the address, because the stack would answer there.
            Ownership::Gone { .. } => None,
            // The entry stays longer than the address. Without it, the kernel's stack would answer for
            // the address.
            Ownership::Elsewhere { .. } | Ownership::Ending { .. } => Some(0),
            Ownership::Ours { .. } if vip.yielded || !vip.admitted => Some(0),
            Ownership::Ours { generation, .. } => Some(generation),
        };
        if let Some(generation) = generation {
            // The guarded interfaces are guarded for every VIP. No VIP may be claimed where it is not
            // answered.
            let entry = Vip::new(vip.slot, generation, vip.answer, u64::MAX);
            want.vips.insert(ip, entry);
            want_groups(&mut want, vip.ip, links);
        }
        if carried && let Some(ifindex) = carrier(placement, links) {
            let valid_s = timing.duration_s + timing.linger.as_secs() as u32 + ADDRESS_SLACK_S;
            let addrs = if ownership.is_ours() { &mut want.addrs } else { &mut want.lingering };
            addrs.insert(HostAddr { ip, ifindex }, AddrSpec::Vip { valid_s });
        }
    }
    want
}

/// The interface that carries a held VIP: one that is up, if possible. It must have its guard, because
/// otherwise the stack would answer there even after the fence.
fn carrier(placement: Placement, links: &[&Link]) -> Option<u32> {
    match placement {
        Placement::Loopback => Some(LOOPBACK),
        Placement::Interface => {
            let mut guarded = links.iter().filter(|link| link.guarded);
            let first = guarded.clone().next();
            guarded.find(|link| link.up).or(first).map(|link| link.port.ifindex)
        }
        Placement::None => None,
    }
}

/// Every candidate joins the solicited-node group in advance. If the report were lost at a take-over,
/// that would cost seconds. VIPs that share the low 24 bits share the group.
fn want_groups(want: &mut Desired, vip: IpAddr, links: &[&Link]) {
    if let IpAddr::V6(v6) = vip {
        let ip = Ip::v6(solicited_node(&v6.octets()));
        for link in links {
            want.addrs.insert(HostAddr { ip, ifindex: link.port.ifindex }, AddrSpec::Group);
        }
    }
}

/// The lifetime of an address is this much longer than D plus linger. The address is refreshed when
/// half of this has passed.
pub(super) const ADDRESS_SLACK_S: u32 = 20;
