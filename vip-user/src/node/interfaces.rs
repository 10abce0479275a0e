//! The interfaces that programs are attached to, and the bits by which the maps name them.

use super::pins::LinkKind;
use crate::model::{
    desired::{GUARD_BIT, Link, LinkRole},
    selection::{Device, Kind, Roles},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};
use vip_common::abi::{Iface, Port};

/// What is on an interface.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// The guard.
    pub guard: LinkKind,
    /// What answers.
    pub answers: Option<LinkKind>,
}

impl Attached {
    /// Everything that is attached.
    pub fn kinds(self) -> impl Iterator<Item = LinkKind> {
        std::iter::once(self.guard).chain(self.answers)
    }
}

/// What a look at the interfaces left for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOver {
    /// An interface that is there could not be guarded.
    Unguarded,
    /// There was no time for all of them.
    Unfinished,
    /// Programs stay on an interface that has no role any more, until it carries no VIP of ours.
    Leaving,
}

/// Interfaces that are only guarded are looked at in turns of so many.
pub const TURN: usize = 64;

/// Whose turn it is to be looked at. Nothing tells when a link is detached.
#[derive(Debug, Default)]
pub struct Turns {
    /// The last one that was only guarded.
    last: u32,
}

impl Turns {
    /// All that answer, and then some of those that are only guarded, the next ones in order.
    pub fn next(&self, attached: &BTreeMap<u32, (String, Attached)>) -> Vec<u32> {
        let guarded = |(_, (_, attached)): &(&u32, &(String, Attached))| attached.answers.is_none();
        let after = attached.range((Excluded(self.last), Unbounded));
        let in_turn = after.chain(attached.range(..=self.last)).filter(guarded).take(TURN);
        let answering = attached.iter().filter(|entry| !guarded(entry));
        answering.chain(in_turn).map(|(ifindex, _)| *ifindex).collect()
    }

    /// This one has been looked at, and is only guarded.
    pub fn passed(&mut self, ifindex: u32) {
        self.last = ifindex;
    }
}

/// Leaves out what the map of interfaces has no room for: first the tagged frames of interfaces that
/// are only guarded, then those interfaces. Returns what was left out. An interface without an entry is
/// still guarded by its own program, which stops every claim there.
pub fn fit(mut links: Vec<Link>, room: usize) -> (Vec<Link>, Vec<Port>) {
    let matters = |link: &Link| (link.bit != GUARD_BIT, link.port.outer_vid == 0);
    links.sort_by_key(|link| Reverse(matters(link)));
    let left_out = links.split_off(room.min(links.len()));
    links.sort_by_key(|link| link.port);
    (links, left_out.into_iter().map(|link| link.port).collect())
}

/// The bits that interfaces have in the VIP map. One that answers keeps its bit for as long as any map
/// knows it: a bit that changes hands would let an interface answer for another's VIPs.
#[derive(Debug, Default)]
pub struct Bits {
    owners: BTreeMap<u32, u8>,
    used: BTreeSet<u8>,
}

impl Bits {
    /// Takes over the bits that the map has, and those that are on their way into it.
    pub fn adopt(&mut self, ifaces: &BTreeMap<Port, Iface>, links: &[Link]) {
        let answering = ifaces.iter().filter(|(_, iface)| iface.bit != GUARD_BIT);
        let planned = links.iter().filter(|link| link.bit != GUARD_BIT);
        let bits = answering.clone().map(|(_, iface)| iface.bit);
        self.used = bits.chain(planned.clone().map(|link| link.bit)).collect();
        let planned = planned.filter(|link| link.port.outer_vid == 0 && link.answers());
        let primary = answering.filter(|(port, iface)| port.outer_vid == 0 && iface.alias == 0);
        let primary = primary.map(|(port, iface)| (port.ifindex, iface.bit));
        self.owners = planned.map(|link| (link.port.ifindex, link.bit)).chain(primary).collect();
    }

    /// The bit of an interface that answers; `None` where all are in use.
    pub fn of(&mut self, ifindex: u32) -> Option<u8> {
        if let Some(bit) = self.owners.get(&ifindex) {
            return Some(*bit);
        }
        let free = (0..GUARD_BIT).find(|bit| !self.used.contains(bit))?;
        self.used.insert(free);
        self.owners.insert(ifindex, free);
        Some(free)
    }
}

/// The ports by which the frames of the interfaces with a role appear to the programs. `primary` holds
/// the interfaces themselves, in order of their index.
///
/// * A member of a bond speaks for the bond: XDP on a bond sees the member's index.
/// * The frames of a VLAN device pass the interface below with a tag.
/// * The frames of a macvlan pass the interface below as they are.
pub fn ports(devices: &[Device], roles: &Roles, primary: Vec<Link>) -> Vec<Link> {
    let mut links: BTreeMap<Port, Link> = BTreeMap::new();
    let by_index: BTreeMap<u32, &Device> =
        devices.iter().map(|device| (device.ifindex, device)).collect();
    for link in &primary {
        let Some(device) = by_index.get(&link.port.ifindex) else { continue };
        let mut alias = |port: Port, up: bool| {
            let alias = Link { port, role: LinkRole::Alias, up: link.up && up, ..link.clone() };
            links.insert(port, alias);
        };
        if matches!(device.kind, Kind::Bond(_)) {
            let members = devices.iter().filter(|member| member.master == Some(device.ifindex));
            members.for_each(|member| alias(untagged(member.ifindex), member.up));
        }
        if let Some(port) = tagged(device, &by_index) {
            alias(port, true);
        }
        let answers = |ifindex| roles.roles.get(&ifindex).is_some_and(|role| !role.answers.is_empty());
        if device.kind == Kind::Macvlan
            && let Some(lower) = device.lower
            && answers(device.ifindex)
            && !answers(lower)
        {
            alias(untagged(lower), true);
        }
    }
    // What an interface is by itself counts more than what it carries, unless it is only guarded.
    for link in primary {
        if link.bit == GUARD_BIT && links.contains_key(&link.port) {
            continue;
        }
        links.insert(link.port, link);
    }
    links.into_values().collect()
}

/// An interface without tags.
pub const fn untagged(ifindex: u32) -> Port {
    Port { ifindex, outer_vid: 0, inner_vid: 0 }
}

/// How the frames of a VLAN device appear at the bottom of its stack, at most two tags up.
fn tagged(device: &Device, by_index: &BTreeMap<u32, &Device>) -> Option<Port> {
    let Kind::Vlan(vid) = device.kind else { return None };
    let lower = by_index.get(&device.lower?)?;
    match lower.kind {
        Kind::Vlan(outer) => {
            let bottom = by_index.get(&lower.lower?)?;
            let deeper = matches!(bottom.kind, Kind::Vlan(_));
            (!deeper).then_some(Port { ifindex: bottom.ifindex, outer_vid: outer, inner_vid: vid })
        }
        _ => Some(Port { ifindex: lower.ifindex, outer_vid: vid, inner_vid: 0 }),
    }
}

#[cfg(test)]
mod tests;
