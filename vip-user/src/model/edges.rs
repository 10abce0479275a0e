//! Reserved addresses of a subnet, which no host may have. A VIP must not be one of them.

use super::selection::{Device, Selection};
use ipnet::IpNet;
use std::net::IpAddr;

/// A VIP that is a reserved address of its subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The VIP.
    pub vip: IpAddr,
    /// Which reserved address it is, and on which interface, in words.
    pub what: String,
}

/// The first VIP that is a network's, broadcast or routers' anycast address. Only subnets of interfaces
/// that answer for the VIP count.
pub fn first(selection: &Selection, devices: &[Device]) -> Option<Edge> {
    let roles = selection.roles(devices).roles;
    devices.iter().find_map(|device| {
        let answers = &roles.get(&device.ifindex)?.answers;
        let vips = answers.iter().filter_map(|index| Some(selection.vips.get(*index)?.0));
        vips.into_iter().find_map(|vip| {
            let nets = device.subnets.iter().filter_map(|(ip, prefix)| IpNet::new(*ip, *prefix).ok());
            let kind = nets.into_iter().find_map(|net| kind(vip, net));
            kind.map(|kind| Edge { vip, what: format!("{kind} on {}", device.name) })
        })
    })
}

fn kind(vip: IpAddr, net: IpNet) -> Option<String> {
    // RFC 3021 (/31) and RFC 6164 (/127): both addresses of such a subnet belong to hosts.
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return None;
    }
    let net = net.trunc();
    match vip {
        IpAddr::V4(_) if vip == net.network() => Some(format!("the network's address of {net}")),
        IpAddr::V4(_) if vip == net.broadcast() => Some(format!("the broadcast address of {net}")),
        // RFC 4291 section 2.6.1: every router of the subnet answers for this address.
        IpAddr::V6(_) if vip == net.network() => Some(format!("the routers' anycast address of {net}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selection::Kind;

    fn device(name: &str, ifindex: u32, subnets: &[(&str, u8)]) -> Device {
        Device {
            name: name.into(),
            ifindex,
            mac: Some(vip_common::mac::Mac([2, 0, 0, 0, 0, 1])),
            up: true,
            kind: Kind::Plain,
            subnets: subnets.iter().map(|(ip, prefix)| (ip.parse().unwrap(), *prefix)).collect(),
            ..Device::default()
        }
    }

    #[test]
    fn edges_of_the_subnets_that_answer_are_found() {
        let devices = [
            device("eth0", 2, &[("192.0.2.11", 24), ("2001:db8::11", 64), ("198.51.100.0", 31)]),
            device("eth1", 3, &[("203.0.113.130", 25), ("192.0.2.129", 26)]),
        ];
        for (vip, word, wanted) in [
            ("192.0.2.0", "auto", Some("the network's address of 192.0.2.0/24 on eth0")),
            ("192.0.2.255", "eth0", Some("the broadcast address of 192.0.2.0/24 on eth0")),
            ("2001:db8::", "eth0", Some("the routers' anycast address of 2001:db8::/64 on eth0")),
            ("2001:db8::ffff:ffff:ffff:ffff", "eth0", None),
            ("198.51.100.1", "eth0", None),
            ("192.0.2.10", "eth0", None),
            // At the edge of a subnet whose interface does not answer for the VIP.
            ("203.0.113.255", "eth0", None),
            ("192.0.2.191", "eth0", None),
            ("203.0.113.255", "eth1", Some("the broadcast address of 203.0.113.128/25 on eth1")),
        ] {
            let vips = vec![(vip.parse().unwrap(), vec![word.parse().unwrap()])];
            let found = first(&Selection { vips, ..Selection::default() }, &devices);
            assert_eq!(found.as_ref().map(|edge| edge.what.as_str()), wanted, "{vip} on {word}");
        }
    }
}
