//! Cases of outgoing frames.

use super::{Case, Kind, MAC, PEER, PEER4, PEER6, v6};
use crate::frames::{
    BROADCAST, advertisement, arp, arp_request, ethernet, group_mac, group_of, icmp6, link_option,
    neighbour, tagged,
};
use vip_common::counter::Counter;

const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::MANAGED {
        for (name, frame) in claims_of(kind) {
            let name = format!("{name} of {kind:?}");
            let frame = tagged(&frame, kind.tags());
            cases.push(match (kind, kind.claim_silence()) {
                (_, Some(why)) => Case::dropped(name, frame, why),
                (Kind::Elsewhere, None) => Case::passes(name, frame),
                (_, None) => Case::claim_sent(name, frame),
            });
        }
    }
    for (name, frame) in claims_of(Kind::Unknown) {
        cases.push(Case::passes(format!("{name} of no VIP"), frame));
    }
    for (name, frame) in claims_of(Kind::NotHeld) {
        let on_vlan = tagged(&frame, &[(0x8100, 101)]);
        cases.push(Case::passes(format!("{name} on another tenant's VLAN"), on_vlan));
        let priority = tagged(&frame, &[(0x8100, 0), (0x8100, 0)]);
        let name = format!("{name} under two priority tags");
        cases.push(Case::dropped(name, priority, Counter::ClaimNotHeld));
    }
    for (name, frame) in claims_of(Kind::Tagged) {
        for tags in [&[(0x8100, 100), (0x8100, 0)], &[(0x8100, 0), (0x8100, 100)]] {
            let name = format!("{name} in a VLAN, with a priority tag");
            cases.push(Case::claim_sent(name, tagged(&frame, tags)));
        }
    }
    cases.extend(cut_short());
    cases.extend(no_claims());
    cases.extend(hidden());
    cases.extend(three_tags());
    cases
}

/// A NIC pads a truncated frame to 60 bytes, so a frame that ends after the sender's address is
/// still a claim. If the frame ends before, the address cannot be read.
fn cut_short() -> Vec<Case> {
    let cut = |kind: Kind, len: usize| arp_request(MAC, kind.v4(), PEER4)[..len].to_vec();
    let mut cases = vec![
        Case::passes("ARP of no VIP, cut behind the sender", cut(Kind::Unknown, 36)),
        Case::claim_sent("ARP of Held, cut behind the sender", cut(Kind::Held, 32)),
    ];
    for len in [32, 33, 41] {
        let name = format!("ARP of NotHeld, cut after {len} bytes");
        cases.push(Case::dropped(name, cut(Kind::NotHeld, len), Counter::ClaimNotHeld));
    }
    for len in [15, 20, 30, 31] {
        let name = format!("ARP, cut after {len} bytes");
        cases.push(Case::dropped(name, cut(Kind::Unknown, len), Counter::ClaimHidden));
    }
    cases
}

/// Every way to claim an address.
fn claims_of(kind: Kind) -> Vec<(&'static str, Vec<u8>)> {
    let (v4, vip) = (kind.v4(), kind.v6());
    let source = link_option(1, MAC);
    let from = |message: &[u8], src| {
        ethernet(ALL_NODES_MAC, MAC, 0x86dd, &icmp6(src, ALL_NODES, 255, message))
    };
    vec![
        ("ARP reply", ethernet(PEER, MAC, 0x0806, &arp(2, MAC, v4, PEER, PEER4))),
        ("gratuitous ARP request", arp_request(MAC, v4, v4)),
        ("gratuitous ARP reply", ethernet(BROADCAST, MAC, 0x0806, &arp(2, MAC, v4, MAC, v4))),
        ("ARP request from the VIP (arping, IPVS)", arp_request(MAC, v4, PEER4)),
        ("NA", advertisement((PEER, PEER6), MAC, vip, 0x60)),
        ("unsolicited NA", advertisement((ALL_NODES_MAC, ALL_NODES), MAC, vip, 0x20)),
        ("NS from the VIP", from(&neighbour(135, 0, v6(0x50), &source), vip)),
        (
            "NS from the VIP, option of length 0",
            from(&neighbour(135, 0, v6(0x50), &[1, 0, 0, 0, 0, 0, 0, 0]), vip),
        ),
        (
            "NS from the VIP, option behind a nonce",
            from(
                &neighbour(135, 0, v6(0x50), &[&[14, 1, 0, 0, 0, 0, 0, 0][..], &source].concat()),
                vip,
            ),
        ),
        ("duplicate address detection", {
            ethernet(
                group_mac(vip),
                MAC,
                0x86dd,
                &icmp6([0; 16], group_of(vip), 255, &neighbour(135, 0, vip, &[])),
            )
        }),
        ("RS from the VIP", from(&[&[133, 0, 0, 0, 0, 0, 0, 0][..], &source].concat(), vip)),
        (
            "RA from the VIP",
            from(&[&[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &source].concat(), vip),
        ),
        (
            "redirect from the VIP",
            from(
                &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &v6(1), &v6(2), &link_option(2, MAC)].concat(),
                vip,
            ),
        ),
        (
            "redirect to the VIP",
            from(
                &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &vip, &vip, &link_option(2, PEER)].concat(),
                v6(0x50),
            ),
        ),
    ]
}

fn no_claims() -> Vec<Case> {
    let (v4, vip) = (Kind::NotHeld.v4(), Kind::NotHeld.v6());
    let packet = |message: &[u8], src| ethernet(PEER, MAC, 0x86dd, &icmp6(src, PEER6, 255, message));
    vec![
        Case::passes("a question for the VIP", arp_request(MAC, [192, 0, 2, 1], v4)),
        Case::passes("an ARP probe for the VIP", arp_request(MAC, [0; 4], v4)),
        Case::passes("an NS for the VIP from our own address", {
            ethernet(
                group_mac(vip),
                MAC,
                0x86dd,
                &icmp6(v6(1), group_of(vip), 255, &neighbour(135, 0, vip, &link_option(1, MAC))),
            )
        }),
        Case::passes(
            "NS from the VIP without link-layer option",
            packet(&neighbour(135, 0, v6(0x50), &[]), vip),
        ),
        Case::passes(
            "RS from the VIP without link-layer option",
            packet(&[133, 0, 0, 0, 0, 0, 0, 0], vip),
        ),
        Case::passes(
            "redirect to the VIP without link-layer option",
            packet(&[&[137, 0, 0, 0, 0, 0, 0, 0][..], &vip, &vip].concat(), v6(1)),
        ),
        Case::passes("echo reply from the VIP (lingering)", packet(&[129, 0, 0, 0, 1, 2, 3, 4], vip)),
        Case::passes("IPv4 from the VIP", ethernet(PEER, MAC, 0x0800, &[0x45; 40])),
    ]
}

/// A receiver strips priority tags in any position. Three nested VLANs belong to another tenant.
fn three_tags() -> Vec<Case> {
    let claim = arp_request(MAC, Kind::NotHeld.v4(), PEER4);
    let under = |vids: [u16; 3]| tagged(&claim, &vids.map(|vid| (0x8100, vid)));
    let hidden = [[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100], [100, 0, 200], [100, 200, 0]];
    let hidden = hidden.map(|vids| {
        Case::dropped(format!("a claim under the tags {vids:?}"), under(vids), Counter::ClaimHidden)
    });
    let own = Case::passes("a claim under three VLANs", under([100, 200, 3]));
    hidden.into_iter().chain([own]).collect()
}

/// Claims behind extension headers, as a raw socket can send them.
fn hidden() -> Vec<Case> {
    let vip = Kind::NotHeld.v6();
    let na = neighbour(136, 0x20, vip, &link_option(2, MAC));
    let behind = |headers: &[u8]| {
        let mut packet = icmp6(v6(1), ALL_NODES, 255, &na);
        let count = headers.len();
        for (index, kind) in headers.iter().enumerate() {
            let next = headers.get(index + 1).copied().unwrap_or(58);
            let extension = [next, 0, 1, 4, 0, 0, 0, 0];
            packet.splice(40 + 8 * index..40 + 8 * index, extension);
            if index == 0 {
                packet[6] = *kind;
            }
        }
        packet[5] += 8 * count as u8;
        ethernet(ALL_NODES_MAC, MAC, 0x86dd, &packet)
    };
    let mut held = icmp6(v6(1), ALL_NODES, 255, &na);
    held[6] = 44;
    vec![
        Case::dropped("NA behind a hop-by-hop header", behind(&[0]), Counter::ClaimNotHeld),
        Case::dropped(
            "NA behind four extension headers",
            behind(&[0, 43, 60, 60]),
            Counter::ClaimNotHeld,
        ),
        Case::dropped(
            "NA behind five extension headers",
            behind(&[0, 43, 60, 60, 60]),
            Counter::ClaimHidden,
        ),
        Case::passes(
            "NA in a fragment, which receivers ignore (RFC 6980)",
            ethernet(ALL_NODES_MAC, MAC, 0x86dd, &held),
        ),
    ]
}
