//! Starting: bad input is refused before anything changes on the host. Failures that may pass are
//! retried and shown.

use serde_json::json;
use std::{path::Path, time::Duration};
use vip_tests::{
    lab::{Lab, Options, eventually, node::Node},
    netns::sh,
};

fn one_node() -> Lab {
    Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap()
}

#[test]
fn bad_input_is_refused_before_anything_has_changed() {
    let lab = one_node();
    let node = &lab.nodes[0];
    node.ns.ip("route add default via 192.0.2.1 dev eth0").unwrap();
    let good = node.config_text().unwrap();
    let pins = lab.dir().join("bpf").display().to_string();
    // Some kernels put their own files into every BPF file system.
    let pinned = || sh(&format!("find {pins}")).unwrap();
    let before = (node.ns.ip("addr").unwrap(), pinned());
    for (change, to, expected) in [
        ("[eth0]", "[/eth(/]", "`interfaces`: "),
        (
            "192.0.2.10",
            "192.0.2.11",
            "`vips`: 192.0.2.11 cannot be used: it is this host's own address on eth0",
        ),
        (
            "192.0.2.10",
            "192.0.2.1",
            "`vips`: 192.0.2.1 cannot be used: it is the default gateway on eth0",
        ),
        (
            "192.0.2.10",
            "192.0.2.255",
            "`vips`: 192.0.2.255 cannot be used: it is the broadcast address of 192.0.2.0/24 on eth0",
        ),
        (
            "192.0.2.10",
            "192.0.2.0",
            "`vips`: 192.0.2.0 cannot be used: it is the network's address of 192.0.2.0/24 on eth0",
        ),
        (
            pins.as_str(),
            "/tmp/xvip-no-bpffs",
            "`pin_root`: /tmp/xvip-no-bpffs is not on a BPF file system",
        ),
        (
            "duration_s: 3",
            "duration_s: 3, renew_ms: 2000",
            "two attempts must fit into the fence of 2650 ms",
        ),
        ("kubeconfig: ", "kubeconfig: /nowhere", "`api.kubeconfig`: /nowhere"),
        (
            "http://192.0.2.100:6443",
            "https://192.0.2.10:6443",
            "`api.endpoints`: https://192.0.2.10:6443 cannot be used: all of them are VIPs",
        ),
        ("interfaces", "interface", "did you mean `interfaces`?"),
    ] {
        assert!(good.contains(change), "{change}");
        let said = node.refusal(&good.replacen(change, to, 1)).unwrap();
        assert!(said.contains(expected), "{change} -> {to}: {said}");
    }
    assert_eq!((node.ns.ip("addr").unwrap(), pinned()), before);
    assert!(!Path::new("/tmp/xvip-no-bpffs").exists());
    // A script gets the same fields if nothing is pinned.
    assert_eq!(node.status().unwrap()["leases"], json!([]));
}

/// A start without rights, or with another clock than the kernel's, also leaves nothing behind.
#[test]
fn a_process_that_cannot_enforce_is_refused() {
    let lab = one_node();
    let node = &lab.nodes[0];
    let pins = lab.dir().join("bpf").display().to_string();
    let pinned = || sh(&format!("find {pins}")).unwrap();
    let before = pinned();
    let config = node.config_text().unwrap();
    let powerless = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"];
    let said = node.refusal_under(&powerless, &config).unwrap();
    assert!(said.contains("needs CAP_BPF"), "{said}");
    let too_few = ["setpriv", "--bounding-set=-all,+bpf,+net_raw", "--inh-caps=-all"];
    let said = node.refusal_under(&too_few, &config).unwrap();
    assert!(said.contains("needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, on Linux 5.x"), "{said}");
    let shifted = ["unshare", "--time", "--boottime", "100000"];
    let said = node.refusal_under(&shifted, &config).unwrap();
    assert!(said.contains("must not run in a time namespace"), "{said}");
    // The default seccomp profiles of CRI-O and podman, with all three capabilities.
    let [bounding, inherited] = vip_tests::lab::node::rights();
    let filtered = ["setpriv", &bounding, &inherited, env!("CARGO_BIN_EXE_xvip-without-bpf")];
    let said = node.refusal_under(&filtered, &config).unwrap();
    assert!(said.contains("bpf(2) is refused although the process has CAP_BPF"), "{said}");
    assert!(said.contains("a seccomp filter is in force"), "{said}");
    assert_eq!(pinned(), before);
}

#[test]
fn a_pin_directory_of_another_node_is_refused() {
    let mut lab = Lab::new(&Options { nodes: 2, ..Options::default() }).unwrap();
    lab.nodes[0].start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let other = lab.nodes[1].config_text().unwrap();
    let taken = other.replace(&lab.nodes[1].instance, &lab.nodes[0].instance);
    let said = lab.nodes[1].refusal(&taken).unwrap();
    assert!(said.contains("belongs to node node1"), "{said}");
    assert!(lab.nodes[0].owns());
}

#[test]
fn an_unreachable_api_is_shown_and_retried() {
    let mut lab = one_node();
    let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
    lab.nodes[0].ns.ip(nowhere).unwrap();
    lab.start().unwrap();
    let shown = eventually(Duration::from_secs(10), || {
        lab.nodes[0].status().is_ok_and(|status| {
            status["daemon"]["problems"]["API kube-system/plndr-cp-lock"].is_string()
        })
    });
    assert!(shown, "{}", lab.nodes[0].log());
    lab.nodes[0].ns.ip("neigh del 192.0.2.100 dev eth0").unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    assert!(
        lab.nodes[0].status().unwrap()["daemon"]["problems"]["API kube-system/plndr-cp-lock"].is_null()
    );
    let log = lab.nodes[0].log();
    assert!(log.contains("xvip is running") && !log.contains('\x1b'), "colours in a file: {log}");
}

/// An address is not taken while another host answers for it, but is taken after that.
#[test]
fn an_address_in_use_delays_the_first_creation() {
    let mut lab = one_node();
    lab.user.ip("addr add 192.0.2.10/24 dev eth0").unwrap();
    lab.start().unwrap();
    let shown = eventually(Duration::from_secs(10), || {
        lab.nodes[0]
            .status()
            .is_ok_and(|status| status["daemon"]["problems"]["VIP 192.0.2.10"].is_string())
    });
    assert!(shown, "{}", lab.nodes[0].log());
    assert!(!lab.nodes[0].owns());
    lab.user.ip("addr del 192.0.2.10/24 dev eth0").unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
}

/// kube-vip on this node holds the Lease and has the VIP on its interface: its frames pass. If it
/// is killed, its address stays; then the guard is back before a node takes the Lease.
#[test]
fn what_a_foreign_holder_under_our_own_name_sends_passes() {
    let mut lab = one_node();
    let lease = |holder: &str, transitions: u32| {
        json!({
            "metadata": {"name": "plndr-cp-lock", "namespace": "kube-system"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 5,
                     "leaseTransitions": transitions,
                     "acquireTime": "2026-01-01T00:00:00.000000Z",
                     "renewTime": "2026-01-01T00:00:00.000000Z"},
        })
    };
    lab.api.put("kube-system", "plndr-cp-lock", lease("elsewhere", 2));
    lab.start().unwrap();
    let vips = |lab: &Lab| {
        lab.nodes[0].status().ok().and_then(|status| status["vips"].as_array().map(Vec::len))
    };
    assert!(eventually(Duration::from_secs(10), || vips(&lab) > Some(0)), "{}", lab.nodes[0].log());
    let answers = |lab: &Lab| Node::probe(&lab.asker, &["192.0.2.10", "--wait", "300"]).unwrap().1 == 0;
    lab.nodes[0].ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    assert!(!answers(&lab), "another node holds the Lease");
    lab.api.put("kube-system", "plndr-cp-lock", lease("node1", 3));
    let seen = eventually(Duration::from_secs(10), || {
        lab.nodes[0].log().contains("another program on this node holds the Lease")
    });
    assert!(seen, "{}", lab.nodes[0].log());
    assert!(eventually(Duration::from_secs(5), || answers(&lab)), "{}", lab.nodes[0].log());
    assert_eq!(vips(&lab), Some(0));
    // It no longer renews; candidates wait 2·5 + 10 s. The guard is back after 9/11 of that.
    let silent = eventually(Duration::from_secs(25), || vips(&lab) > Some(0) && !lab.nodes[0].owns());
    assert!(silent, "{}", lab.nodes[0].log());
    lab.wait_for_owner(Duration::from_secs(25)).unwrap();
}

/// This holds for any form of the route to a router, and for any table.
#[test]
fn a_vip_that_is_a_gateway_of_any_route_is_refused() {
    let lab = one_node();
    let node = &lab.nodes[0];
    for command in [
        "route add default nexthop via 192.0.2.1 dev eth0 nexthop via 192.0.2.2 dev eth0",
        "-6 route add default nexthop via 2001:db8::1 dev eth0 nexthop via 2001:db8::2 dev eth0",
        "-4 route add default via inet6 2001:db8::3 dev eth0 metric 9",
        "route add default via 192.0.2.4 dev eth0 table 1000",
        "route add 198.51.100.0/24 via 192.0.2.5 dev eth0",
        "nexthop add id 6 via 192.0.2.6 dev eth0",
        "nexthop add id 7 via 192.0.2.7 dev eth0",
        "nexthop add id 8 group 6/7",
        "route add 203.0.113.0/24 nhid 8",
    ] {
        node.ns.ip(command).unwrap();
    }
    let good = node.config_text().unwrap();
    for objects in ["1", "0"] {
        // Without the compatible form, a route shows only the number of its next-hop object.
        let mut sysctl = node.ns.command("sysctl");
        let form = format!("net.ipv4.nexthop_compat_mode={objects}");
        assert!(sysctl.args(["-qw", &form]).status().unwrap().success());
        for (vip, expected) in [
            ("192.0.2.1", "the default gateway on eth0"),
            ("192.0.2.2", "the default gateway on eth0"),
            ("2001:db8::2", "the default gateway on eth0"),
            ("2001:db8::3", "the default gateway on eth0"),
            ("192.0.2.4", "the default gateway on eth0 (routing table 1000)"),
            ("192.0.2.5", "a gateway on eth0"),
            ("192.0.2.7", "a gateway on eth0"),
        ] {
            let said = node.refusal(&good.replacen("192.0.2.10", vip, 1)).unwrap();
            let expected = format!("{vip} cannot be used: it is {expected}");
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
}

fn problem(lab: &Lab, node: usize, subject: &str) -> String {
    let status = lab.nodes[node].status().unwrap_or_default();
    status["daemon"]["problems"][subject].as_str().unwrap_or_default().to_owned()
}

fn is_answered(lab: &Lab, vip: &str) -> bool {
    let mut arping = lab.asker.command("arping");
    arping.args(["-c", "2", "-w", "2", "-I", "eth0", vip]).output().unwrap().status.success()
}

/// keepalived was killed and has left its address. The VIP is silenced before the Lease is read,
/// and served once the address is removed.
#[test]
fn a_vip_that_was_left_on_a_nic_is_silenced_and_told() {
    let mut lab = one_node();
    let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
    lab.nodes[0].ns.ip(nowhere).unwrap();
    lab.nodes[0].ns.ip("addr add 192.0.2.10/24 dev eth0").unwrap();
    assert!(is_answered(&lab, "192.0.2.10"), "the kernel answers for what is left");
    lab.start().unwrap();
    let remedy = "ip addr del 192.0.2.10/24 dev eth0";
    let told = |lab: &Lab| problem(lab, 0, "selection 192.0.2.10").ends_with(remedy);
    assert!(eventually(Duration::from_secs(10), || told(&lab)), "{}", lab.nodes[0].log());
    let unread = &lab.nodes[0].status().unwrap()["daemon"]["leases"][0]["state"];
    assert_eq!(unread, "unknown", "{}", lab.nodes[0].log());
    assert!(!is_answered(&lab, "192.0.2.10"), "{}", lab.nodes[0].log());
    lab.nodes[0].ns.ip("neigh del 192.0.2.100 dev eth0").unwrap();
    let other = || {
        lab.nodes[0].status().is_ok_and(|status| {
            let vips = status["vips"].as_array().cloned().unwrap_or_default();
            vips.iter().any(|vip| vip["address"] == "2001:db8::10" && vip["answering"] == true)
        })
    };
    assert!(eventually(Duration::from_mins(1), other), "its own harm: {}", lab.nodes[0].log());
    assert!(told(&lab) && !is_answered(&lab, "192.0.2.10"), "{}", lab.nodes[0].log());
    assert!(problem(&lab, 0, "fitness kube-system/plndr-cp-lock").starts_with("impaired"));
    lab.nodes[0].ns.ip("addr del 192.0.2.10/24 dev eth0").unwrap();
    assert!(eventually(Duration::from_secs(10), || lab.nodes[0].owns()), "{}", lab.nodes[0].log());
    assert!(!told(&lab) && is_answered(&lab, "192.0.2.10"));
    // The address is added again while the node serves.
    lab.nodes[0].ns.ip("addr add 192.0.2.10/24 dev eth0").unwrap();
    assert!(eventually(Duration::from_secs(10), || told(&lab)), "{}", lab.nodes[0].log());
    assert!(!is_answered(&lab, "192.0.2.10"), "{}", lab.nodes[0].log());
}

/// kube-vip carries its VIPs in this form, and leaves them when it is killed. xvip serves the VIP
/// and reports it.
#[test]
fn a_vip_that_others_carry_is_told_and_served() {
    let mut lab = one_node();
    lab.nodes[0].ns.ip("addr add 192.0.2.10/32 dev eth0").unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let why = problem(&lab, 0, "address 192.0.2.10");
    assert!(why.ends_with("ip addr del 192.0.2.10/32 dev eth0"), "{why}");
    lab.nodes[0].ns.ip("addr del 192.0.2.10/32 dev eth0").unwrap();
    let over = || problem(&lab, 0, "address 192.0.2.10").is_empty();
    assert!(eventually(Duration::from_secs(5), over), "{}", lab.nodes[0].log());
    assert!(lab.nodes[0].owns(), "{}", lab.nodes[0].log());
}
