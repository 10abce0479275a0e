use super::*;
use std::collections::BTreeSet;

#[test]
fn no_two_names_share_a_spelling() {
    for kind in [
        all().filter(|name| name.in_environment).map(|name| plain(name.id)).collect::<Vec<_>>(),
        all().flat_map(|name| name.flags.split(' ')).filter(|f| !f.is_empty()).map(plain).collect(),
        all().filter(|name| !name.key.is_empty()).map(|name| plain(name.key)).collect(),
        all().map(|name| name.id.to_owned()).collect(),
    ] {
        let distinct: BTreeSet<&String> = kind.iter().collect();
        let twice: Vec<&String> = distinct
            .iter()
            .copied()
            .filter(|one| kind.iter().filter(|x| x == one).count() > 1)
            .collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}

#[test]
fn names_are_found_in_every_spelling() {
    for spelled in ["enable_upnp", "enableUPNP", "ENABLE_UPNP"] {
        assert_eq!(of_variable(spelled).map(|name| name.id), Some("enable_upnp"), "{spelled}");
    }
    assert_eq!(of_variable("bgp_source_if").map(|name| name.id), Some("bgp_sourceif"));
    assert_eq!(of_flag("lbEnable").map(|name| name.id), Some("lb_enable"));
    assert_eq!(of_flag("n").map(|name| name.id), Some("cp_namespace"));
    assert_eq!(of_key("BGPCONFIG.AS").map(|name| name.id), Some("bgp_as"));
    assert!(of_variable("etcdKey").is_none(), "kube-vip has no such variable");
    assert!(of_key("").is_none());
}

#[test]
fn unknown_variables_of_kube_vip_are_told_from_those_of_others() {
    for ours in ["bgppeers", "annotations", "vip_foo", "SVC_X", "egress_cidr"] {
        assert!(looks_like_ours(ours), "{ours}");
    }
    for other in
        ["PATH", "HOSTNAME", "LB_SERVICE_HOST", "LB_SERVICE_PORT", "VIP_PORT_80_TCP", "KUBERNETES_PORT"]
    {
        assert!(!looks_like_ours(other), "{other}");
    }
}

/// Every name, flag and class stands in the table of the documentation.
#[test]
fn the_documentation_lists_every_name() {
    let text = include_str!("../../../../docs/from-kube-vip.md");
    for name in all() {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", name.id)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", name.id));
        let cells: Vec<&str> = row.split(" | ").collect();
        assert_eq!(cells[1], name.class.letter(), "{row}");
        for flag in name.flags.split(' ').filter(|flag| !flag.is_empty()) {
            assert!(cells[2].contains(&format!("`{flag}`")), "--{flag} is missing: {row}");
        }
    }
}
