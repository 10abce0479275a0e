//! Cases of incoming frames.

use super::{Case, FRIEND, Kind, MAC, PEER, PEER4, PEER6, v6};
use crate::frames::{
    advertisement, arp, arp_reply, arp_request, ethernet, group_mac, group_of, icmp6, link_option,
    neighbour, solicitation, tagged,
};
use vip_common::counter::Counter;

const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const SOLICITED_OVERRIDE: u8 = 0x60;
const OVERRIDE: u8 = 0x20;

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        both_families(),
        arp_details(),
        nd_details(),
        nd_invalid(),
        tags(),
        others_claims(),
        ruled_claims(),
        truncations(),
    ]
    .concat()
}

/// Claims of a VIP for which the Lease names the allowed stations (`guard_neighbours`).
fn ruled_claims() -> Vec<Case> {
    let claims = |kind: Kind, mac| {
        let ip6 = kind.v6();
        let everyone = ([0x33, 0x33, 0, 0, 0, 1], group_of(ip6));
        [
            ("ARP", arp_request(mac, kind.v4(), kind.v4())),
            ("NA", advertisement(everyone, mac, ip6, SOLICITED_OVERRIDE)),
        ]
    };
    let stranger = claims(Kind::Ruled, PEER).map(|(name, frame)| {
        let name = format!("{name} claim by a station that no Lease names");
        let counted = vec![Counter::ForeignClaim, Counter::ForeignClaimDropped];
        Case { counted, ..Case::dropped(name, frame, Counter::ForeignClaimDropped) }
    });
    let friend = claims(Kind::Ruled, FRIEND).map(|(name, frame)| {
        Case::foreign_claim(format!("{name} claim by a node of the cluster"), frame)
    });
    // The view of the holder in its slot is stale.
    let late = claims(Kind::Expired, PEER).map(|(name, frame)| {
        Case::foreign_claim(format!("{name} claim while the Lease has not been seen for long"), frame)
    });
    [stranger, friend, late].concat()
}

fn asked(kind: Kind) -> [(&'static str, Vec<u8>, Vec<u8>, Counter); 2] {
    [
        (
            "ARP",
            arp_request(PEER, PEER4, kind.v4()),
            ethernet(PEER, MAC, 0x0806, &arp(2, MAC, kind.v4(), PEER, PEER4)),
            Counter::ArpAnswered,
        ),
        (
            "NS",
            solicitation(PEER, PEER6, kind.v6()),
            advertisement((PEER, PEER6), MAC, kind.v6(), SOLICITED_OVERRIDE),
            Counter::NdAnswered,
        ),
    ]
}

/// Cases that are the same for ARP and NS.
fn both_families() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Held, Kind::Tagged] {
        for (what, question, answer, counter) in asked(kind) {
            let (question, answer) = (tagged(&question, kind.tags()), tagged(&answer, kind.tags()));
            cases.push(Case::answered(format!("{what} for {kind:?}"), question, answer, counter));
        }
    }
    for kind in [Kind::Expired, Kind::NotHeld, Kind::Stale, Kind::GuardedOnly, Kind::Down] {
        for (what, question, ..) in asked(kind) {
            let question = tagged(&question, kind.tags());
            if let Some(why) = kind.question_silence() {
                cases.push(Case::dropped(format!("{what} for {kind:?}"), question, why));
            }
        }
    }
    for kind in [Kind::Elsewhere, Kind::Unknown] {
        for (what, question, ..) in asked(kind) {
            cases.push(Case::passes(format!("{what} for {kind:?}"), question));
        }
    }
    for (what, mut question, ..) in asked(Kind::Held) {
        question[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0xee]);
        cases.push(Case::passes(format!("{what} flooded, to another station's MAC"), question));
    }
    for (what, mut question, mut answer, counter) in asked(Kind::Held) {
        question[..6].copy_from_slice(&MAC);
        if what == "NS" {
            answer = advertisement((PEER, PEER6), MAC, Kind::Held.v6(), SOLICITED_OVERRIDE);
        }
        cases.push(Case::answered(format!("{what} in unicast"), question, answer, counter));
    }
    cases.push(Case::passes("TCP over IPv4", ethernet(MAC, PEER, 0x0800, &[0x45; 40])));
    let mut tcp6 = icmp6(PEER6, Kind::Held.v6(), 64, &[0; 20]);
    tcp6[6] = 6;
    cases.push(Case::passes("TCP over IPv6 to a VIP", ethernet(MAC, PEER, 0x86dd, &tcp6)));
    let echo = icmp6(PEER6, Kind::Held.v6(), 64, &[128, 0, 0, 0, 1, 2, 3, 4]);
    cases.push(Case::passes("echo request to a VIP", ethernet(MAC, PEER, 0x86dd, &echo)));
    cases
}

fn arp_details() -> Vec<Case> {
    let vip = Kind::Held.v4();
    let request = arp_request(PEER, PEER4, vip);
    let changed = |offset: usize, bytes: &[u8]| {
        let mut frame = request.clone();
        frame[offset..offset + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut cases = vec![
        Case::answered(
            "RFC 5227 probe from 0.0.0.0: the defence of the address",
            arp_request(PEER, [0; 4], vip),
            ethernet(PEER, MAC, 0x0806, &arp(2, MAC, vip, PEER, [0; 4])),
            Counter::ArpAnswered,
        ),
        Case::answered(
            "the answer goes to the ARP sender, not to the Ethernet source (HSRP)",
            changed(6, &[0, 0, 0x0c, 7, 0xac, 1]),
            ethernet(PEER, MAC, 0x0806, &arp(2, MAC, vip, PEER, PEER4)),
            Counter::ArpAnswered,
        ),
        Case::passes("operation 3 (RARP)", changed(20, &[0, 3])),
    ];
    let mut long = request.clone();
    long.extend([7; 40]);
    let mut long_answer = ethernet(PEER, MAC, 0x0806, &arp(2, MAC, vip, PEER, PEER4));
    long_answer.extend([7; 40]);
    cases.push(Case::answered("padding is kept", long, long_answer, Counter::ArpAnswered));
    for (what, offset, bytes) in [
        ("hardware type 6", 14, &[0, 6][..]),
        ("protocol IPv6", 16, &[0x86, 0xdd]),
        ("hardware length 8", 18, &[8]),
        ("protocol length 16", 19, &[16]),
    ] {
        let name = format!("ARP request with {what}");
        cases.push(Case::dropped(name, changed(offset, bytes), Counter::QuestionMalformed));
    }
    for (what, offset, bytes) in [
        ("a multicast sender MAC", 22, &[1, 0, 0x5e, 0, 0, 1][..]),
        ("a broadcast sender MAC", 22, &[0xff; 6]),
        ("a zero sender MAC", 22, &[0; 6]),
        ("a multicast sender IP", 28, &[224, 0, 0, 1]),
    ] {
        let name = format!("ARP request with {what}");
        cases.push(Case::dropped(name, changed(offset, bytes), Counter::QuestionBadSender));
    }
    cases
}

fn nd_details() -> Vec<Case> {
    let vip = Kind::Held.v6();
    let ns = |options: &[u8]| neighbour(135, 0, vip, options);
    let frame = |dst_mac, src, dst, message: &[u8]| {
        ethernet(dst_mac, PEER, 0x86dd, &icmp6(src, dst, 255, message))
    };
    let answer = advertisement((PEER, PEER6), MAC, vip, SOLICITED_OVERRIDE);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let elsewhere = [2, 0, 0, 0, 0, 0x55];
    vec![
        Case::answered(
            "unicast reachability probe without link-layer option (78 bytes): the frame grows",
            frame(MAC, PEER6, vip, &ns(&[])),
            answer.clone(),
            Counter::NdAnswered,
        ),
        Case::answered(
            "link-layer option and nonce: the frame shrinks",
            frame(
                group_mac(vip),
                PEER6,
                group_of(vip),
                &ns(&[link_option(1, PEER), nonce.to_vec()].concat()),
            ),
            answer.clone(),
            Counter::NdAnswered,
        ),
        Case::answered(
            "as many options as are looked at, the link-layer option last",
            frame(
                group_mac(vip),
                PEER6,
                group_of(vip),
                &ns(&[nonce.repeat(7), link_option(1, PEER)].concat()),
            ),
            answer,
            Counter::NdAnswered,
        ),
        Case::answered(
            "the answer goes to the link-layer option, not to the Ethernet source",
            frame(group_mac(vip), PEER6, group_of(vip), &ns(&link_option(1, elsewhere))),
            advertisement((elsewhere, PEER6), MAC, vip, SOLICITED_OVERRIDE),
            Counter::NdAnswered,
        ),
        Case::answered(
            "duplicate address detection: to all nodes, solicited flag clear",
            frame(group_mac(vip), [0; 16], group_of(vip), &ns(&[])),
            advertisement((ALL_NODES_MAC, ALL_NODES), MAC, vip, OVERRIDE),
            Counter::NdAnswered,
        ),
        Case::answered(
            "duplicate address detection with nonce (RFC 7527), as Linux sends it",
            frame(group_mac(vip), [0; 16], group_of(vip), &ns(&nonce)),
            advertisement((ALL_NODES_MAC, ALL_NODES), MAC, vip, OVERRIDE),
            Counter::NdAnswered,
        ),
        Case::passes(
            "a group that another address shares",
            frame(group_mac(v6(0x50)), PEER6, group_of(v6(0x50)), &neighbour(135, 0, v6(0x50), &[])),
        ),
    ]
}

fn nd_invalid() -> Vec<Case> {
    let vip = Kind::Held.v6();
    let malformed = |name: &str, packet: Vec<u8>| {
        let frame = ethernet(group_mac(vip), PEER, 0x86dd, &packet);
        Case::dropped(format!("NS with {name}"), frame, Counter::QuestionMalformed)
    };
    let group = group_of(vip);
    let good = neighbour(135, 0, vip, &link_option(1, PEER));
    let good_packet = icmp6(PEER6, group, 255, &good);
    let mut bad_checksum = good_packet.clone();
    bad_checksum[42] ^= 1;
    let mut version = good_packet.clone();
    version[0] = 0x50;
    let mut code = good.clone();
    code[1] = 1;
    let mut short_payload = good_packet.clone();
    short_payload[5] = 20;
    let mut past_the_end = good_packet.clone();
    past_the_end[5] = 120;
    let mut cases = vec![
        malformed("hop limit 254", icmp6(PEER6, group, 254, &good)),
        malformed("a wrong checksum", bad_checksum),
        malformed("IP version 5", version),
        malformed("code 1", icmp6(PEER6, group, 255, &code)),
        malformed("a payload of 20 bytes", short_payload),
        malformed("a payload longer than the frame", past_the_end),
        malformed(
            "an option of length 0",
            icmp6(PEER6, group, 255, &neighbour(135, 0, vip, &[1, 0, 1, 2, 3, 4, 5, 6])),
        ),
        malformed(
            "an option that overruns",
            icmp6(PEER6, group, 255, &neighbour(135, 0, vip, &[14, 9, 1, 2, 3, 4, 5, 6])),
        ),
        malformed("source :: and a link-layer option", icmp6([0; 16], group, 255, &good)),
        malformed(
            "source :: to a unicast address",
            icmp6([0; 16], vip, 255, &neighbour(135, 0, vip, &[])),
        ),
        malformed(
            "more options than are looked at",
            icmp6(PEER6, group, 255, &neighbour(135, 0, vip, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(9))),
        ),
    ];
    let group_mac_option = neighbour(135, 0, vip, &link_option(1, [0x33, 0x33, 0, 0, 0, 1]));
    for (name, packet) in [
        ("a multicast link-layer option", icmp6(PEER6, group, 255, &group_mac_option)),
        ("a multicast source", icmp6(ALL_NODES, group, 255, &good)),
    ] {
        let frame = ethernet(group_mac(vip), PEER, 0x86dd, &packet);
        cases.push(Case::dropped(format!("NS with {name}"), frame, Counter::QuestionBadSender));
    }
    // The stack ignores these. If it answered, the guard would check the answer.
    let mut fragment = good_packet.clone();
    fragment[6] = 44;
    cases.push(Case::passes(
        "NS in a fragment (RFC 6980)",
        ethernet(group_mac(vip), PEER, 0x86dd, &fragment),
    ));
    cases
}

fn tags() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, question, answer, counter) in asked(Kind::Tagged) {
        let both = &[(0x88a8, 100), (0x8100, 200)];
        let (asked, answered) = (tagged(&question, both), tagged(&answer, both));
        cases.push(Case::answered(
            format!("{what} under two tags keeps both"),
            asked,
            answered,
            counter,
        ));
        let name = format!("{what} for a VIP of another VLAN");
        cases.push(Case::passes(name, tagged(&question, &[(0x8100, 101)])));
        cases.push(Case::passes(format!("{what} untagged for a tagged VIP"), question.clone()));
        let three = &[(0x88a8, 100), (0x8100, 200), (0x8100, 3)];
        cases.push(Case::passes(format!("{what} under three tags"), tagged(&question, three)));
    }
    for (what, question, answer, counter) in asked(Kind::Held) {
        let priority = &[(0x8100, 0x6000)];
        let (asked, answered) = (tagged(&question, priority), tagged(&answer, priority));
        cases.push(Case::answered(format!("{what} under a priority tag"), asked, answered, counter));
    }
    cases
}

fn others_claims() -> Vec<Case> {
    let (vip4, vip6) = (Kind::NotHeld.v4(), Kind::NotHeld.v6());
    let from = |message: &[u8], src| {
        ethernet(ALL_NODES_MAC, PEER, 0x86dd, &icmp6(src, ALL_NODES, 255, message))
    };
    vec![
        Case::foreign_claim("gratuitous ARP request of another", arp_request(PEER, vip4, vip4)),
        Case::foreign_claim("ARP reply of another", arp_reply(MAC, PEER, vip4, PEER4)),
        Case::foreign_claim(
            "ARP request of another whose sender is a VIP",
            arp_request(PEER, vip4, PEER4),
        ),
        Case::foreign_claim(
            "NA of another",
            advertisement((ALL_NODES_MAC, ALL_NODES), PEER, vip6, OVERRIDE),
        ),
        Case::foreign_claim(
            "NS of another whose source is a VIP",
            from(&neighbour(135, 0, v6(0x50), &link_option(1, PEER)), vip6),
        ),
        Case::foreign_claim(
            "RS of another whose source is a VIP",
            from(&[&[133, 0, 0, 0, 0, 0, 0, 0][..], &link_option(1, PEER)].concat(), vip6),
        ),
        Case::passes("our own announcement, looped back", arp_request(MAC, vip4, vip4)),
        Case::passes(
            "NA for an address that is no VIP",
            advertisement((MAC, PEER6), PEER, v6(0x50), OVERRIDE),
        ),
    ]
}

/// Frames cut at any byte. One that no longer names a VIP passes; no byte past the end is read.
fn truncations() -> Vec<Case> {
    let mut cases = Vec::new();
    let request = arp_request(PEER, PEER4, Kind::Held.v4());
    for len in 14..42 {
        cases.push(Case::passes(format!("ARP request cut at {len}"), request[..len].to_vec()));
    }
    let ns = solicitation(PEER, PEER6, Kind::Held.v6());
    for len in 14..78 {
        cases.push(Case::passes(format!("NS cut at {len}"), ns[..len].to_vec()));
    }
    for len in 78..86 {
        let name = format!("NS cut at {len}");
        cases.push(Case::dropped(name, ns[..len].to_vec(), Counter::QuestionMalformed));
    }
    cases
}
