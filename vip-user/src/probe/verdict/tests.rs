use super::*;

/// MAC address, interface and node.
type Heard = (&'static str, &'static str, Option<&'static str>);

fn verdict(stations: &[Heard]) -> Verdict {
    let station = |(mac, interface, node): &Heard| Station {
        mac: (*mac).into(),
        interface: (*interface).into(),
        node: node.map(Into::into),
        own: false,
    };
    Verdict::new("192.0.2.10".parse().unwrap(), stations.iter().map(station).collect())
}

#[test]
fn owners_are_counted_by_node_and_by_segment() {
    let rows: [(&[Heard], Owners); 6] = [
        (&[], Owners::Nobody),
        (&[("a", "eth0", None)], Owners::One),
        (&[("a", "eth0", None), ("b", "eth0", None)], Owners::Two),
        (&[("a", "eth0", Some("n1")), ("b", "eth1", Some("n1"))], Owners::One),
        (&[("a", "eth0", Some("n1")), ("b", "eth0", Some("n1"))], Owners::Two),
        (&[("a", "eth0", Some("n1")), ("b", "eth1", Some("n2"))], Owners::Two),
    ];
    for (stations, wanted) in rows {
        assert_eq!(verdict(stations).owners, wanted, "{stations:?}");
    }
}

#[test]
fn it_is_said_plainly() {
    assert_eq!(verdict(&[]).words(), "nobody");
    let one = verdict(&[("a", "eth0", Some("n1"))]).words();
    assert_eq!(one, "one owner: a (node n1) on eth0");
    let two = verdict(&[("a", "eth0", None), ("b", "eth0", None)]).words();
    assert_eq!(two, "two owners: a on eth0, b on eth0");
}
