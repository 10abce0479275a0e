//! What this host should look like, given where its elections stand.

use super::{ownership::Ownership, time::BootNs, timing::Timing};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use vip_common::{
    abi::{HostAddr, Iface, Ip, Port, Vip},
    wire::solicited_node,
};

/// Index of the loopback interface, the same in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Where a VIP that is held is put, so that this host takes its traffic in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On `lo`: no other program mistakes it for an address of the interface.
    #[default]
    Loopback,
    /// On the first answering interface, as kube-vip does: `ip addr show IF` shows it.
    Interface,
    /// Nowhere: kube-proxy or a CNI takes the traffic in by itself.
    None,
}

/// A VIP and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub ip: IpAddr,
    /// The slot of the Lease that guards it.
    pub slot: u32,
    /// Bits of the interfaces that answer for it.
    pub answer: u64,
    /// Silent by policy, though its Lease may be held: another station claims it, or another program
    /// has put it on this host.
    pub yielded: bool,
    /// It may be published under its Lease.
    pub admitted: bool,
}

/// The bit of every interface that is only guarded.
pub const GUARD_BIT: u8 = 63;

/// What an interface is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// VIPs are answered and announced on it, and groups joined.
    Answer,
    /// Claims are stopped on it.
    Guard,
    /// It stands for another interface, whose frames pass it.
    Alias,
}

/// An interface with programs, or another way in which its frames appear to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index and VLAN tags.
    pub port: Port,
    /// Its bit in the VIP map; several ports of one interface share it.
    pub bit: u8,
    /// What it is there for.
    pub role: LinkRole,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Up, with carrier, and guarded.
    pub up: bool,
    /// The guard is known to stand.
    pub guarded: bool,
}

impl Link {
    /// Whether VIPs are answered and announced on it.
    pub fn answers(&self) -> bool {
        self.role == LinkRole::Answer
    }
}

/// The interfaces of a host that matter, and what they are used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// All of them.
    pub links: Vec<Link>,
    /// For each VIP, the bits of the interfaces that answer for it.
    pub answer: BTreeMap<IpAddr, u64>,
    /// VIPs that another program has put on this host as an address of a subnet: the host never answers
    /// for them.
    pub strays: BTreeSet<IpAddr>,
    /// A native program has just been attached: some NICs lose their carrier by that.
    pub attached: bool,
}

impl Links {
    /// The interfaces that answer for a VIP.
    pub fn of(&self, vip: IpAddr) -> impl Iterator<Item = &Link> {
        let answer = self.answer.get(&vip).copied().unwrap_or(0);
        self.links.iter().filter(move |link| link.answers() && answer >> (link.bit & 63) & 1 == 1)
    }
}

/// How an address that xvip owns should be on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrSpec {
    /// A VIP, for this many seconds: a dead node forgets it by itself.
    Vip {
        /// `valid_lft`.
        valid_s: u32,
    },
    /// A solicited-node group, joined by the kernel, which reports it to snooping switches.
    Group,
}

/// What the host should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Entries of the VIP map.
    pub vips: BTreeMap<Ip, Vip>,
    /// Addresses whose entries are nobody's business yet, each with the slot that its entry names:
    /// nothing has been read from the API.
    pub untouched: BTreeMap<Ip, u32>,
    /// Addresses that another program of this host holds: its frames pass, wherever it has put them.
    pub passing: BTreeSet<Ip>,
    /// Addresses and groups.
    pub addrs: BTreeMap<HostAddr, AddrSpec>,
    /// Addresses that stay where they are, for late traffic, and come nowhere else: a VIP that was
    /// never admitted to its Lease is not on this host.
    pub lingering: BTreeMap<HostAddr, AddrSpec>,
    /// Entries of the interface map.
    pub ifaces: BTreeMap<Port, Iface>,
}

/// The desired state of all VIPs whose ownership is known, by slot.
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
        let iface = Iface { mac: link.mac, bit: link.bit, up, known: 1, alias, _reserved: [0; 6] };
        want.ifaces.insert(link.port, iface);
    }
    for vip in vips {
        let Some(&ownership) = owners.get(&vip.slot) else { continue };
        let ip = Ip::from(vip.ip);
        let chosen = |link: &&Link| link.answers() && vip.answer >> (link.bit & 63) & 1 == 1;
        let links: Vec<&Link> = links.iter().filter(chosen).collect();
        let links = links.as_slice();
        let carried = match ownership {
            // This host's own traffic must reach whoever else has an address that is not admitted.
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
                // The host's stack answers for an address that others have left, whatever the API will
                // say.
                if vip.yielded {
                    want.vips.insert(ip, Vip::new(vip.slot, 0, vip.answer, u64::MAX));
                }
                continue;
            }
            Ownership::ProgramHere => {
                want.passing.insert(ip);
                None
            }
            // Nothing of ours is here any more. Frames pass, but where an interface carries the
            // address, for the stack would answer there.
            Ownership::Gone { .. } => None,
            // The entry outlives the address: without it the kernel would answer for what is carried.
            Ownership::Elsewhere { .. } | Ownership::Ending { .. } => Some(0),
            Ownership::Ours { .. } if vip.yielded || !vip.admitted => Some(0),
            Ownership::Ours { generation, .. } => Some(generation),
        };
        if let Some(generation) = generation {
            // Whatever is guarded is guarded for every VIP: none may be claimed where it is not
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

/// The interface that carries a held VIP: one that is up, if there is one. Never one without its guard:
/// the stack would answer there by itself, past the fence.
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

/// Every candidate is in the solicited-node group in advance: a report that is lost at a take-over
/// costs seconds. VIPs that share the low 24 bits share the group.
fn want_groups(want: &mut Desired, vip: IpAddr, links: &[&Link]) {
    if let IpAddr::V6(v6) = vip {
        let ip = Ip::v6(solicited_node(&v6.octets()));
        for link in links {
            want.addrs.insert(HostAddr { ip, ifindex: link.port.ifindex }, AddrSpec::Group);
        }
    }
}

/// The lifetime of an address is this much longer than D plus linger; half of it may pass before the
/// address is refreshed.
pub(super) const ADDRESS_SLACK_S: u32 = 20;
