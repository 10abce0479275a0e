use super::*;

fn address(text: &str, ifindex: u32, secondary: bool) -> Address {
    let net: IpNet = text.parse().unwrap();
    Address { ip: net.addr(), prefix: net.prefix_len(), ifindex, secondary }
}

#[test]
fn an_address_beside_the_hosts_own_was_left_there() {
    let is_vip = |ip: IpAddr| ["192.0.2.10", "2001:db8::10"].contains(&ip.to_string().as_str());
    for (vip, others, own) in [
        (address("192.0.2.10/24", 2, false), vec![], true),
        (address("192.0.2.10/24", 2, true), vec![address("192.0.2.11/24", 2, false)], false),
        // The first address of its subnet is the host's own, whatever came later.
        (address("192.0.2.10/24", 2, false), vec![address("192.0.2.11/24", 2, true)], true),
        (address("192.0.2.10/24", 2, true), vec![address("192.0.2.11/24", 3, false)], true),
        (address("192.0.2.10/24", 2, true), vec![address("192.0.2.11/32", 2, false)], true),
        (address("192.0.2.10/32", 2, false), vec![], false),
        (address("2001:db8::10/64", 2, false), vec![address("fe80::1/64", 2, false)], true),
        (address("2001:db8::10/64", 2, false), vec![address("2001:db8::11/64", 2, false)], false),
        (address("2001:db8::10/128", 2, false), vec![], false),
    ] {
        let all: Vec<Address> = others.into_iter().chain([vip]).collect();
        assert_eq!(is_own(&vip, &all, is_vip), own, "{all:?}");
    }
}
