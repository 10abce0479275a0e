//! What this host should look like, given where its elections stand.

use super::{
    election::{Election, State},
    time::BootNs,
    timing::Timing,
};
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
}

/// An interface that xvip is told to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Its bit in the VIP map: the position in the configuration.
    pub bit: u8,
    /// Whether VIPs are answered on it; otherwise claims are only guarded.
    pub answer: bool,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Up, with carrier.
    pub up: bool,
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
    /// Addresses whose entries are nobody's business yet: nothing has been read from the API.
    pub untouched: BTreeSet<Ip>,
    /// Addresses and groups.
    pub addrs: BTreeMap<HostAddr, AddrSpec>,
    /// Entries of the interface map.
    pub ifaces: BTreeMap<Port, Iface>,
}

/// The desired state of all VIPs whose election is in `elections` (by slot).
pub fn desired(
    now: BootNs,
    elections: &BTreeMap<u32, Election>,
    timings: &BTreeMap<u32, Timing>,
    vips: &[VipSpec],
    links: &[Link],
    placement: Placement,
) -> Desired {
    let mut want = Desired::default();
    let answer = mask(links.iter().filter(|link| link.answer));
    let guard = mask(links.iter());
    for link in links {
        let port = Port { ifindex: link.ifindex, outer_vid: 0, inner_vid: 0 };
        want.ifaces.insert(
            port,
            Iface { mac: link.mac, bit: link.bit, up: u8::from(link.up), known: 1, _reserved: [0; 7] },
        );
    }
    for vip in vips {
        let (Some(election), Some(timing)) = (elections.get(&vip.slot), timings.get(&vip.slot)) else {
            continue;
        };
        let ip = Ip::from(vip.ip);
        let (presence, carried) = presence(now, election, timing);
        let generation = match presence {
            Presence::Untouched => {
                want.untouched.insert(ip);
                want_groups(&mut want, vip.ip, links);
                continue;
            }
            Presence::Absent => None,
            Presence::Silent => Some(0),
            Presence::Serving => Some(election.generation()),
        };
        if let Some(generation) = generation {
            let entry = Vip::new(vip.slot, generation, answer, guard);
            want.vips.insert(ip, entry);
            want_groups(&mut want, vip.ip, links);
        }
        if carried && let Some(ifindex) = carrier(placement, links) {
            let valid_s = timing.duration_s + timing.linger.as_secs() as u32 + ADDRESS_SLACK_S;
            want.addrs.insert(HostAddr { ip, ifindex }, AddrSpec::Vip { valid_s });
        }
    }
    want
}

/// The interface that carries held VIPs: one that is up, if there is one.
fn carrier(placement: Placement, links: &[Link]) -> Option<u32> {
    let mut answering = links.iter().filter(|link| link.answer);
    match placement {
        Placement::Loopback => Some(LOOPBACK),
        Placement::Interface => {
            let first = answering.clone().next();
            answering.find(|link| link.up).or(first).map(|link| link.ifindex)
        }
        Placement::None => None,
    }
}

/// Every candidate is in the solicited-node group in advance: a report that is lost at a take-over
/// costs seconds. VIPs that share the low 24 bits share the group.
fn want_groups(want: &mut Desired, vip: IpAddr, links: &[Link]) {
    if let IpAddr::V6(v6) = vip {
        let ip = Ip::v6(solicited_node(&v6.octets()));
        for link in links.iter().filter(|link| link.answer) {
            want.addrs.insert(HostAddr { ip, ifindex: link.ifindex }, AddrSpec::Group);
        }
    }
}

/// The lifetime of an address is this much longer than D plus linger; half of it may pass before the
/// address is refreshed.
pub(super) const ADDRESS_SLACK_S: u32 = 20;

enum Presence {
    /// Entries stay as they are: after a crash they are silent by their fence.
    Untouched,
    /// Frames pass: another program may own the address here.
    Absent,
    /// Questions and claims are dropped.
    Silent,
    /// The fence decides.
    Serving,
}

fn presence(now: BootNs, election: &Election, timing: &Timing) -> (Presence, bool) {
    let lingering = now < election.linger_until();
    match election.state() {
        State::Unknown => (Presence::Untouched, false),
        State::Waiting(_) if election.held_by_other_program_here() => (Presence::Absent, false),
        State::Waiting(_) | State::Leaving(_) => (Presence::Silent, lingering),
        State::Holding(holding) => (Presence::Serving, now < holding.until.after(timing.linger)),
        // The entry outlives the address: without it the kernel would answer for what is carried.
        State::Left if lingering => (Presence::Silent, true),
        State::Left => (Presence::Absent, false),
    }
}

fn mask<'a>(links: impl Iterator<Item = &'a Link>) -> u64 {
    links.fold(0, |mask, link| mask | 1 << (link.bit & 63))
}
