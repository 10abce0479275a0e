//! The interfaces that programs are attached to, and the bits that represent them in the maps.

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

/// The programs on an interface.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// The kind of its guard.
    pub guard: LinkKind,
    /// The kind of its answering program, if it has one.
    pub answers: Option<LinkKind>,
}

impl Attached {
    /// The kinds of all its programs.
    pub fn kinds(self) -> impl Iterator<Item = LinkKind> {
        std::iter::once(self.guard).chain(self.answers)
    }
}

/// What a look at the interfaces has left to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOver {
    /// An existing interface could not be guarded.
    Unguarded,
    /// There was not enough time for all interfaces.
    Unfinished,
    /// An interface has no role any more, but keeps its programs until it carries no VIP of ours.
    Leaving,
}

/// How many interfaces that are only guarded are checked in one turn.
pub const TURN: usize = 64;

/// Chooses the interfaces to check next. The kernel sends no event when a link is detached.
#[derive(Debug, Default)]
pub struct Turns {
    /// The last interface that was checked and is only guarded.
    last: u32,
}

impl Turns {
    /// All interfaces that answer, and the next [`TURN`] of those that are only guarded, in order.
    pub fn next(&self, attached: &BTreeMap<u32, (String, Attached)>) -> Vec<u32> {
        let guarded = |(_, (_, attached)): &(&u32, &(String, Attached))| attached.answers.is_none();
        let after = attached.range((Excluded(self.last), Unbounded));
        let in_turn = after.chain(attached.range(..=self.last)).filter(guarded).take(TURN);
        let answering = attached.iter().filter(|entry| !guarded(entry));
        answering.chain(in_turn).map(|(ifindex, _)| *ifindex).collect()
    }

    /// Notes that this interface, which is only guarded, has been checked.
    pub fn passed(&mut self, ifindex: u32) {
        self.last = ifindex;
    }
}

/// Leaves out what does not fit into the map of interfaces: first the tagged frames of interfaces that
/// are only guarded, then those interfaces themselves. Returns what was left out. An interface without
/// an entry still has its guard, which stops every claim there.
pub fn fit(mut links: Vec<Link>, room: usize) -> (Vec<Link>, Vec<Port>) {
    let matters = |link: &Link| (link.bit != GUARD_BIT, link.port.outer_vid == 0);
    links.sort_by_key(|link| Reverse(matters(link)));
    let left_out = links.split_off(room.min(links.len()));
    links.sort_by_key(|link| link.port);
    (links, left_out.into_iter().map(|link| link.port).collect())
}

/// The bits of the interfaces in the VIP map. An answering interface keeps its bit as long as any map
/// has it. If another interface got the bit, it would answer for VIPs that are not its own.
#[derive(Debug, Default)]
pub struct Bits {
    owners: BTreeMap<u32, u8>,
    used: BTreeSet<u8>,
}

impl Bits {
    /// Takes over the bits in the map, and those that the loop is about to write.
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

    /// The bit of an interface that answers; `None` if all bits are in use.
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

/// The ports at which the programs see the frames of the interfaces with a role. `primary` holds the
/// interfaces themselves, in order of their index.
///
/// * A member of a bond represents the bond: XDP on a bond sees the member's index.
/// * The frames of a VLAN device pass the interface below with a tag.
/// * The frames of a macvlan pass the interface below unchanged.
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
    // An interface's own entry replaces an alias at the same port, unless the interface is only
    // guarded.
    for link in primary {
        if link.bit == GUARD_BIT && links.contains_key(&link.port) {
            continue;
        }
        links.insert(link.port, link);
    }
    links.into_values().collect()
}

/// The port of an interface's untagged frames.
pub const fn untagged(ifindex: u32) -> Port {
    Port { ifindex, outer_vid: 0, inner_vid: 0 }
}

/// The port at which the frames of a VLAN device pass the lowest interface, if they have at most two
/// tags.
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
