use super::*;
use crate::model::selection::Role;
use LinkRole::{Alias, Answer, Guard};
use vip_common::mac::Mac;

fn device(ifindex: u32, kind: Kind, lower: Option<u32>) -> Device {
    Device { ifindex, kind, lower, mac: Some(Mac([ifindex as u8; 6])), up: true, ..Device::default() }
}

fn link(ifindex: u32, bit: u8) -> Link {
    let mac = Mac([ifindex as u8; 6]);
    let role = if bit == GUARD_BIT { LinkRole::Guard } else { LinkRole::Answer };
    Link { port: untagged(ifindex), bit, role, mac, up: true, guarded: true }
}

fn roles(answering: &[u32]) -> Roles {
    let role = |index: &u32| (*index, Role { answers: BTreeSet::from([0]) });
    Roles { roles: answering.iter().map(role).collect(), ..Roles::default() }
}

fn found(links: &[Link], port: Port) -> (u8, Mac, LinkRole) {
    let link = links.iter().find(|link| link.port == port).unwrap();
    (link.bit, link.mac, link.role)
}

#[test]
fn members_of_a_bond_speak_for_it() {
    let mut devices = [device(2, Kind::Bond(1), None), device(3, Kind::Plain, None)];
    devices[1].master = Some(2);
    let links = ports(&devices, &roles(&[2]), vec![link(2, 0), link(3, GUARD_BIT)]);
    assert_eq!(found(&links, untagged(2)), (0, Mac([2; 6]), Answer));
    assert_eq!(found(&links, untagged(3)), (0, Mac([2; 6]), Alias));
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
    assert_eq!(found(&links, untagged(2)), (GUARD_BIT, Mac([2; 6]), Guard));
    let one = Port { ifindex: 2, outer_vid: 100, inner_vid: 0 };
    assert_eq!(found(&links, one), (0, Mac([3; 6]), Alias));
    let two = Port { ifindex: 2, outer_vid: 100, inner_vid: 200 };
    assert_eq!(found(&links, two), (1, Mac([4; 6]), Alias));
}

#[test]
fn a_macvlan_answers_through_the_interface_below() {
    let devices = [device(2, Kind::Plain, None), device(3, Kind::Macvlan, Some(2))];
    let links = ports(&devices, &roles(&[3]), vec![link(2, GUARD_BIT), link(3, 0)]);
    assert_eq!(found(&links, untagged(2)), (0, Mac([3; 6]), Alias));
    // If both answer, each has its own entry.
    let links = ports(&devices, &roles(&[2, 3]), vec![link(2, 1), link(3, 0)]);
    assert_eq!(found(&links, untagged(2)), (1, Mac([2; 6]), Answer));
}

#[test]
fn a_full_map_of_interfaces_leaves_out_what_is_only_guarded() {
    // Each VLAN device has its own entry, and one under its tag.
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
    assert_eq!(found(&kept, untagged(602)), (0, Mac([602_u32 as u8; 6]), Answer));
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
        attached.insert(index, (format!("eth{index}"), Attached { guard: LinkKind::Guard, answers }));
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
    bits.adopt(&BTreeMap::from([(untagged(7), iface)]), &[]);
    assert_eq!((bits.of(3), bits.of(7), bits.of(3)), (Some(1), Some(0), Some(1)));
    let all: Vec<_> = (100..170).map(|index| bits.of(index)).collect();
    assert_eq!(all.iter().flatten().count(), 61);
    assert!(all.last().unwrap().is_none());
}

/// A look may begin before the loop has written the result of the last one.
#[test]
fn a_bit_that_is_on_its_way_into_the_map_is_taken() {
    let (port, role) = (untagged(7), LinkRole::Answer);
    let link = Link { port, bit: 0, role, mac: Mac([7; 6]), up: true, guarded: true };
    let mut bits = Bits::default();
    bits.adopt(&BTreeMap::new(), &[link]);
    assert_eq!(bits.of(8), Some(1));
    assert_eq!(bits.of(7), Some(0));
}
