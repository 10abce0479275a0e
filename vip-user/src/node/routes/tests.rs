use super::*;
use rtnetlink::packet_route::route::RouteNextHop;

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn via(last: u8) -> RouteAttribute {
    RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, last].into()))
}

fn route(table: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = table;
    route.attributes = attributes;
    route
}

fn hop(ifindex: u32, part: RouteAttribute) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = ifindex;
    hop.attributes = vec![part];
    hop
}

fn leads(route: &RouteMessage) -> Vec<(u32, Option<IpAddr>)> {
    let found = ways(route, &NextHops::default());
    found.iter().map(|way| (way.ifindex, way.gateway)).collect()
}

#[test]
fn one_way_several_ways_and_a_gateway_of_the_other_family_are_read() {
    let one = route(254, vec![via(1), RouteAttribute::Oif(2)]);
    assert_eq!(leads(&one), [(2, Some(v4(1)))]);
    let v6 = "fe80::1".parse().unwrap();
    let by_v6 = RouteAttribute::Via(RouteVia::Inet6(v6));
    let hops = vec![hop(2, via(1)), hop(2, via(2)), hop(3, by_v6.clone())];
    let several = route(254, vec![RouteAttribute::MultiPath(hops)]);
    let wanted = [(2, Some(v4(1))), (2, Some(v4(2))), (3, Some(v6.into()))];
    assert_eq!(leads(&several), wanted);
    assert_eq!(leads(&route(254, vec![by_v6, RouteAttribute::Oif(2)])), [(2, Some(v6.into()))]);
    assert_eq!(leads(&route(254, vec![RouteAttribute::Oif(4)])), [(4, None)]);
}

#[test]
fn a_table_beyond_255_is_known_by_its_attribute() {
    let parts = vec![RouteAttribute::Table(1000), RouteAttribute::Oif(2)];
    assert_eq!(ways(&route(252, parts), &NextHops::default())[0].table, 1000);
}

#[test]
fn a_route_that_shows_only_a_number_needs_the_object() {
    assert!(is_bare(&route(254, vec![RouteAttribute::NhId(1)])));
    assert!(!is_bare(&route(254, vec![RouteAttribute::NhId(1), RouteAttribute::Oif(2)])));
    assert!(!is_bare(&route(254, vec![RouteAttribute::Oif(2)])));
}

fn rule(table: u8, attributes: Vec<RuleAttribute>) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.action = RuleAction::ToTable;
    rule.header.table = table;
    rule.attributes = attributes;
    rule
}

#[test]
fn tables_for_some_packets_are_not_the_hosts() {
    let mut from_one = rule(100, vec![RuleAttribute::Source(v4(7))]);
    from_one.header.src_len = 32;
    let mut not = rule(101, vec![]);
    not.header.flags = RuleFlags::Invert;
    let rules = [
        rule(255, vec![RuleAttribute::SuppressPrefixLen(NO_LIMIT)]),
        from_one,
        not,
        rule(102, vec![RuleAttribute::L3MDev(true)]),
        rule(254, vec![RuleAttribute::SuppressPrefixLen(0)]),
        rule(252, vec![RuleAttribute::Table(1000), RuleAttribute::Priority(9)]),
    ];
    assert_eq!(tables(&rules), [255, 1000, 254]);
}

#[test]
fn the_first_table_comes_first_whatever_the_metrics() {
    let way =
        |table, metric, ifindex| Way { table, metric, ifindex, gateway: None, v4: true, default: true };
    let ways = vec![way(254, 0, 2), way(254, 100, 3), way(1000, 500, 4), way(7, 0, 5)];
    let found = ranked(ways, &[255, 1000, 254]);
    let ranks: Vec<_> = found.iter().map(|route| (route.ifindex, route.rank)).collect();
    assert_eq!(ranks, [(2, 1), (3, 2), (4, 0)]);
}
