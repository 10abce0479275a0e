//! The interfaces that programs are attached to, and the bits by which the maps name them.

use super::pins::LinkKind;
use crate::model::{
    desired::{GUARD_BIT, Link, LinkRole},
    selection::{Device, Kind, Roles},
};
use std::collections::{BTreeMap, BTreeSet};
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

/// The bits that interfaces have in the VIP map. One that answers keeps its bit for as long as any map
/// knows it: a bit that changes hands would let an interface answer for another's VIPs.
#[derive(Debug, Default)]
pub struct Bits {
    owners: BTreeMap<u32, u8>,
    used: BTreeSet<u8>,
}

impl Bits {
    /// Takes over the bits that the map has.
    pub fn adopt(&mut self, ifaces: &BTreeMap<Port, Iface>) {
        let answering = ifaces.iter().filter(|(_, iface)| iface.bit != GUARD_BIT);
        self.used = answering.clone().map(|(_, iface)| iface.bit).collect();
        let primary = answering.filter(|(port, iface)| port.outer_vid == 0 && iface.alias == 0);
        self.owners = primary.map(|(port, iface)| (port.ifindex, iface.bit)).collect();
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
    let find = |ifindex: u32| devices.iter().find(|device| device.ifindex == ifindex);
    for link in &primary {
        let Some(device) = find(link.port.ifindex) else { continue };
        let mut alias = |port: Port, up: bool| {
            let alias = Link { port, role: LinkRole::Alias, up: link.up && up, ..link.clone() };
            links.insert(port, alias);
        };
        if matches!(device.kind, Kind::Bond(_)) {
            let members = devices.iter().filter(|member| member.master == Some(device.ifindex));
            members.for_each(|member| alias(untagged(member.ifindex), member.up));
        }
        if let Some(port) = tagged(device, devices) {
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
fn tagged(device: &Device, devices: &[Device]) -> Option<Port> {
    let find = |ifindex: u32| devices.iter().find(|device| device.ifindex == ifindex);
    let Kind::Vlan(vid) = device.kind else { return None };
    let lower = find(device.lower?)?;
    match lower.kind {
        Kind::Vlan(outer) => {
            let bottom = find(lower.lower?)?;
            let deeper = matches!(bottom.kind, Kind::Vlan(_));
            (!deeper).then_some(Port { ifindex: bottom.ifindex, outer_vid: outer, inner_vid: vid })
        }
        _ => Some(Port { ifindex: lower.ifindex, outer_vid: vid, inner_vid: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selection::Role;
    use LinkRole::{Alias, Answer, Guard};

    fn device(ifindex: u32, kind: Kind, lower: Option<u32>) -> Device {
        Device { ifindex, kind, lower, mac: Some([ifindex as u8; 6]), up: true, ..Device::default() }
    }

    fn link(ifindex: u32, bit: u8) -> Link {
        let mac = [ifindex as u8; 6];
        let role = if bit == GUARD_BIT { LinkRole::Guard } else { LinkRole::Answer };
        Link { port: untagged(ifindex), bit, role, mac, up: true, guarded: true }
    }

    fn roles(answering: &[u32]) -> Roles {
        let role = |index: &u32| (*index, Role { answers: BTreeSet::from([0]) });
        Roles { roles: answering.iter().map(role).collect(), ..Roles::default() }
    }

    fn found(links: &[Link], port: Port) -> (u8, [u8; 6], LinkRole) {
        let link = links.iter().find(|link| link.port == port).unwrap();
        (link.bit, link.mac, link.role)
    }

    #[test]
    fn members_of_a_bond_speak_for_it() {
        let mut devices = [device(2, Kind::Bond(1), None), device(3, Kind::Plain, None)];
        devices[1].master = Some(2);
        let links = ports(&devices, &roles(&[2]), vec![link(2, 0), link(3, GUARD_BIT)]);
        assert_eq!(found(&links, untagged(2)), (0, [2; 6], Answer));
        assert_eq!(found(&links, untagged(3)), (0, [2; 6], Alias));
    }

    #[test]
    fn a_vlan_appears_below_under_its_tags() {
        let devices = [
            device(2, Kind::Plain, None),
            device(3, Kind::Vlan(100), Some(2)),
            device(4, Kind::Vlan(200), Some(3)),
        ];
        let primary = vec![link(2, GUARD_BIT), link(3, 0), link(4, 1)];
        let links = ports(&devices, &roles(&[3, 4]), primary);
        assert_eq!(found(&links, untagged(2)), (GUARD_BIT, [2; 6], Guard));
        let one = Port { ifindex: 2, outer_vid: 100, inner_vid: 0 };
        assert_eq!(found(&links, one), (0, [3; 6], Alias));
        let two = Port { ifindex: 2, outer_vid: 100, inner_vid: 200 };
        assert_eq!(found(&links, two), (1, [4; 6], Alias));
    }

    #[test]
    fn a_macvlan_answers_through_the_interface_below() {
        let devices = [device(2, Kind::Plain, None), device(3, Kind::Macvlan, Some(2))];
        let links = ports(&devices, &roles(&[3]), vec![link(2, GUARD_BIT), link(3, 0)]);
        assert_eq!(found(&links, untagged(2)), (0, [3; 6], Alias));
        // Where both answer, each does so by itself.
        let links = ports(&devices, &roles(&[2, 3]), vec![link(2, 1), link(3, 0)]);
        assert_eq!(found(&links, untagged(2)), (1, [2; 6], Answer));
    }

    #[test]
    fn bits_do_not_change_hands() {
        let iface = Iface { mac: [2; 6], bit: 0, up: 1, known: 1, alias: 0, _reserved: [0; 6] };
        let mut bits = Bits::default();
        bits.adopt(&BTreeMap::from([(untagged(7), iface)]));
        assert_eq!((bits.of(3), bits.of(7), bits.of(3)), (Some(1), Some(0), Some(1)));
        let all: Vec<_> = (100..170).map(|index| bits.of(index)).collect();
        assert_eq!(all.iter().flatten().count(), 61);
        assert!(all.last().unwrap().is_none());
    }
}
