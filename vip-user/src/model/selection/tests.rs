use super::{super::rule::EXCLUDED, *};

fn device(name: &str, ifindex: u32) -> Device {
    Device { name: name.into(), ifindex, mac: Some(Mac([2; 6])), up: true, ..Device::default() }
}

fn selection(interfaces: &[&str]) -> Selection {
    let rules = |words: &[&str]| words.iter().filter_map(|word| word.parse().ok()).collect();
    Selection {
        exclude: rules(EXCLUDED),
        exclude_is_set: false,
        guard: rules(&["*"]),
        vips: ["192.0.2.10", "2001:db8::10"]
            .iter()
            .filter_map(|vip| Some((vip.parse().ok()?, rules(interfaces))))
            .collect(),
    }
}

fn answering(interfaces: &[&str], devices: &[Device]) -> Vec<u32> {
    let roles = selection(interfaces).roles(devices).roles;
    roles.iter().filter(|(_, role)| !role.answers.is_empty()).map(|(index, _)| *index).collect()
}

#[test]
fn interfaces_are_chosen_by_name_glob_regex_subnet_and_route() {
    let mut devices = vec![device("eth0", 2), device("eth1", 3), device("ens5", 4)];
    devices[1].subnets = vec![("192.0.2.4".parse().unwrap(), 24)];
    devices[2].default_route = (Some(0), None);
    let rows: [(&[&str], &[u32]); 9] = [
        (&["eth0"], &[2]),
        (&["eth*"], &[2, 3]),
        (&["/^e(th0|ns)/"], &[2, 4]),
        (&["auto"], &[3]),
        (&["192.0.2.0/24"], &[3]),
        (&["198.51.100.0/24"], &[]),
        (&["default-route"], &[4]),
        (&["eth0", "default-route"], &[2, 4]),
        (&["eth7"], &[]),
    ];
    for (rules, wanted) in rows {
        assert_eq!(answering(rules, &devices), wanted, "{rules:?}");
    }
}

/// On one segment, two interfaces would answer a question twice.
#[test]
fn subnets_and_routes_choose_one_interface_and_one_that_is_up() {
    let mut devices = vec![device("eth0", 2), device("eth1", 3), device("eth2", 4)];
    for (device, prefix) in devices.iter_mut().zip([16, 24, 24]) {
        device.subnets = vec![(IpAddr::from([192, 0, 2, device.ifindex as u8]), prefix)];
        device.default_route = (Some(100 - u32::from(prefix)), None);
    }
    for rule in ["auto", "default-route"] {
        assert_eq!(answering(&[rule], &devices), [3], "{rule}: the first of the most specific");
    }
    assert_eq!(answering(&["192.0.2.0/24"], &devices), [2]);
    devices[1].up = false;
    assert_eq!(answering(&["auto"], &devices), [4]);
    devices[2].up = false;
    assert_eq!(answering(&["auto"], &devices), [2]);
    devices[0].up = false;
    assert_eq!(answering(&["auto"], &devices), [3], "if none is up, the first one counts");
}

#[test]
fn the_route_of_one_family_says_nothing_about_the_other() {
    let mut devices = vec![device("eth0", 2)];
    devices[0].default_route = (Some(100), None);
    let roles = selection(&["default-route"]).roles(&devices);
    assert_eq!(roles.roles[&2].answers, BTreeSet::from([0]));
    assert!(roles.refused["2001:db8::10"].contains("no interface"));
}

#[test]
fn what_is_excluded_answers_only_where_it_is_named() {
    let devices = [device("veth1234", 2), device("docker0", 3), device("eth0", 4)];
    assert_eq!(answering(&["*"], &devices), [4]);
    assert_eq!(answering(&["docker0"], &devices), [3]);
    assert!(
        !selection(&["eth0"]).roles(&devices).roles.contains_key(&2),
        "it must not be guarded either"
    );
}

/// A CNI has put the uplink under a bridge of its own, and moved the node's addresses and routes to it.
#[test]
fn what_the_host_or_a_vip_needs_is_excluded_by_a_setting_only() {
    let mut devices = vec![device("br-ex", 2), device("br-1234", 3), device("eth0", 4)];
    devices[0].subnets = vec![("192.0.2.11".parse().unwrap(), 24)];
    for rule in ["auto", "192.0.2.0/24", "*"] {
        assert!(answering(&[rule], &devices).contains(&2), "{rule}");
    }
    devices[0].subnets.clear();
    devices[0].default_route = (Some(0), None);
    assert_eq!(answering(&["default-route"], &devices), [2]);
    assert!(!selection(&["default-route"]).roles(&devices).roles.contains_key(&3), "left alone");
    let set = Selection { exclude_is_set: true, ..selection(&["default-route"]) };
    let found = set.roles(&devices);
    assert!(!found.roles.contains_key(&2), "{found:?}");
    assert!(found.refused["br-ex"].contains("the default route, and `exclude` (br-*)"), "{found:?}");
    devices[0] = device("br-ex", 2);
    devices[0].subnets = vec![("192.0.2.11".parse().unwrap(), 24)];
    let found = Selection { exclude_is_set: true, ..selection(&["eth0"]) }.roles(&devices);
    assert!(found.refused["br-ex"].contains("the subnet of VIP 192.0.2.10"), "{found:?}");
    let named = Selection { exclude_is_set: true, ..selection(&["br-ex"]) }.roles(&devices);
    assert_eq!(named.refused.len(), 0, "{named:?}");
}

/// kube-proxy (IPVS) and CNIs carry service addresses like this.
#[test]
fn a_host_prefix_needs_no_interface() {
    let mut devices = [device("kube-ipvs0", 2), device("eth0", 3)];
    devices[0].subnets = vec![("192.0.2.10".parse().unwrap(), 32)];
    let found = selection(&["eth0"]).roles(&devices);
    assert!(!found.roles.contains_key(&2) && found.strays.is_empty(), "{found:?}");
}

#[test]
fn a_vip_without_an_interface_is_told_what_there_is() {
    let mut devices = [device("eth0", 2), device("eth1", 3), device("veth7", 4)];
    devices[0].subnets = [("198.51.100.4", 24), ("fe80::1", 64), ("ff02::1:ff00:10", 128)]
        .map(|(address, prefix)| (address.parse().unwrap(), prefix))
        .into();
    devices[0].default_route = (Some(0), None);
    let refused = selection(&["auto"]).roles(&devices).refused;
    let v4 = "`interfaces` (auto); this host has eth0 with 198.51.100.4/24, the default route; \
              eth1 with no IPv4 subnet";
    assert!(refused["192.0.2.10"].ends_with(v4), "{refused:?}");
    let v6 = "this host has eth0 with no IPv6 subnet; eth1 with no IPv6 subnet";
    assert!(refused["2001:db8::10"].ends_with(v6), "{refused:?}");
    let refused = selection(&["auto"]).roles(&devices[2..]).refused;
    assert!(refused["192.0.2.10"].ends_with("no interface that could answer"), "{refused:?}");
}

#[test]
fn a_vip_that_was_left_on_an_interface_is_silenced_and_the_remedy_told() {
    let mut devices = [device("eth0", 2), device("eth1", 3)];
    devices[1].subnets = vec![("192.0.2.10".parse().unwrap(), 24)];
    let mut chosen = selection(&["eth0"]);
    chosen.guard.clear();
    let found = chosen.roles(&devices);
    assert_eq!(found.strays, BTreeSet::from(["192.0.2.10".parse().unwrap()]));
    assert!(found.roles.contains_key(&3), "it must be guarded whatever the settings are: {found:?}");
    let why = &found.refused["192.0.2.10"];
    assert!(why.ends_with("ip addr del 192.0.2.10/24 dev eth1"), "{why}");
    assert!(!found.refused.contains_key("2001:db8::10"), "the other VIP must not be refused");
}

#[test]
fn a_vip_that_others_carry_is_told_and_served() {
    let mut devices = [device("eth0", 2), device("dummy0", 3)];
    devices[0].subnets = vec![("192.0.2.10".parse().unwrap(), 32)];
    devices[1].subnets = vec![("2001:db8::10".parse().unwrap(), 128)];
    let chosen = selection(&["eth0"]);
    let roles = chosen.roles(&devices);
    assert!(roles.strays.is_empty() && roles.refused.is_empty(), "{roles:?}");
    let told = chosen.carried_by_others(&devices, &roles, |_, _| false);
    assert_eq!(told.len(), 1, "an address on another device is there on purpose: {told:?}");
    let why = &told[&"192.0.2.10".parse::<IpAddr>().unwrap()];
    assert!(why.ends_with("ip addr del 192.0.2.10/32 dev eth0"), "{why}");
    assert!(
        chosen.carried_by_others(&devices, &roles, |_, _| true).is_empty(),
        "the address is our own"
    );
}

#[test]
fn everything_else_is_guarded() {
    let devices = [device("eth0", 2), device("eth1", 3), device("lo", 1)];
    let roles = selection(&["eth0"]).roles(&devices).roles;
    assert_eq!(roles.keys().copied().collect::<Vec<_>>(), [2, 3]);
    assert!(roles[&3].answers.is_empty());
}

#[test]
fn ports_members_and_bonds_that_rewrite_arp_are_refused_with_the_reason() {
    let mut devices = vec![device("br0", 2), device("eth0", 3), device("bond0", 4), device("eth1", 5)];
    devices[0].kind = Kind::Bridge;
    devices[1].master = Some(2);
    devices[2].kind = Kind::Bond(6);
    devices[3].master = Some(4);
    for (rules, name, why) in [
        (["eth0"], "eth0", "port of bridge br0"),
        (["eth1"], "eth1", "member of bond bond0"),
        (["bond0"], "bond0", "balance-alb"),
    ] {
        let roles = selection(&rules).roles(&devices);
        assert!(roles.refused[name].contains(why), "{roles:?}");
        assert!(roles.roles.values().all(|role| role.answers.is_empty()), "{roles:?}");
    }
    assert!(!selection(&["br0"]).roles(&devices).roles.contains_key(&3), "a port is left alone");
    devices[2].kind = Kind::Bond(1);
    assert_eq!(answering(&["bond0", "br0"], &devices), [2, 4]);
}
