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

/// Leaves out what the map of interfaces has no room for: first the tagged frames of interfaces that are only guarded,
/// then those interfaces. Returns what was left out. An interface without an entry is still guarded by its own program,
/// which stops every claim there.
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
    fn a_full_map_of_interfaces_leaves_out_what_is_only_guarded() {
        // Each VLAN device has an entry of its own and one under its tag.
        let mut devices = vec![device(2, Kind::Plain, None)];
        devices.extend((3..603).map(|index| device(index, Kind::Vlan(index as u16), Some(2))));
        let primary = devices.iter().map(|device| match device.ifindex {
            602 => link(602, 0),
            index => link(index, GUARD_BIT),
        });
        let all = ports(&devices, &roles(&[602]), primary.collect());
        assert_eq!(all.len(), 1 + 2 * 600);
        let (kept, left_out) = fit(all, 1_024);
        assert_eq!((kept.len(), left_out.len()), (1_024, 1_201 - 1_024));
        assert!(left_out.iter().all(|port| port.outer_vid != 0 && port.outer_vid != 602));
        assert_eq!(found(&kept, untagged(602)), (0, [602_u32 as u8; 6], Answer));
        let (kept, left_out) = fit(kept, 100);
        assert!(kept.iter().filter(|link| link.bit == 0).count() == 2 && left_out.len() == 924);
        assert!(kept.is_sorted_by_key(|link| link.port));
    }

    /// The work of one look does not grow with the number of interfaces, and none is forgotten.
    #[test]
    fn what_is_only_guarded_is_looked_at_in_turns() {
        let mut attached = BTreeMap::new();
        for index in 1..=500 {
            let answers = (index % 100 == 0).then_some(LinkKind::Native);
            attached
                .insert(index, (format!("eth{index}"), Attached { guard: LinkKind::Guard, answers }));
        }
        let (mut turns, mut seen) = (Turns::default(), BTreeMap::<u32, u32>::new());
        for _ in 0..8 {
            let due = turns.next(&attached);
            assert_eq!(due.len(), 5 + TURN);
            assert!([100, 200, 300, 400, 500].iter().all(|index| due[..5].contains(index)));
            for index in &due[5..] {
                *seen.entry(*index).or_default() += 1;
                turns.passed(*index);
            }
        }
        assert_eq!(seen.len(), 495);
        assert!(seen.values().all(|times| (1..=2).contains(times)), "{seen:?}");
        attached.retain(|index, _| *index <= 3);
        assert_eq!(turns.next(&attached), [1, 2, 3]);
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
