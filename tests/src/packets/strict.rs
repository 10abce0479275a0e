//! IP traffic to VIPs, under `on_loss: drop`.

use super::{Case, Kind, MAC, PEER, PEER4, PEER6};
use crate::frames::{ethernet, icmp6, tagged};
use vip_common::counter::Counter;

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, of) in [("IPv4", ipv4 as fn(Kind) -> Vec<u8>), ("IPv6", ipv6)] {
        for kind in [Kind::Expired, Kind::NotHeld, Kind::Stale, Kind::Ruled] {
            let name = format!("{name} traffic to a VIP that is {kind:?}");
            cases.push(Case::dropped(name, of(kind), Counter::TrafficDropped));
        }
        // A holder accepts traffic on any interface. A VIP that is not guarded here belongs to
        // another tenant.
        for kind in [Kind::Held, Kind::GuardedOnly, Kind::Elsewhere, Kind::Unknown] {
            let name = format!("{name} traffic to an address that is {kind:?}");
            cases.push(Case::passes(name, of(kind)));
        }
        let elsewhere = tagged(&of(Kind::NotHeld), &[(0x8100, 555)]);
        cases.push(Case::passes(format!("{name} traffic on another VLAN"), elsewhere));
        for len in [14, 20, 33, 53] {
            let mut cut = of(Kind::NotHeld);
            cut.truncate(len);
            cases.push(Case::passes(format!("{name} traffic cut to {len}"), cut));
        }
    }
    // At 34 bytes an IPv4 header is complete, so the destination can be read.
    cases.retain(|case| !(case.name.starts_with("IPv4") && case.name.ends_with("cut to 53")));
    cases
}

fn ipv4(kind: Kind) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0].to_vec();
    header.extend(PEER4);
    header.extend(kind.v4());
    header.resize(40, 0);
    ethernet(MAC, PEER, 0x0800, &header)
}

fn ipv6(kind: Kind) -> Vec<u8> {
    let mut packet = icmp6(PEER6, kind.v6(), 64, &[0; 20]);
    packet[6] = 6;
    ethernet(MAC, PEER, 0x86dd, &packet)
}
