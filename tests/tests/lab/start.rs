//! Starting: bad input is refused before anything has changed on the host; what appears later is
//! retried and shown.

use serde_json::json;
use std::{path::Path, time::Duration};
use vip_tests::{
    lab::{Lab, Options, eventually},
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
    // Some kernels put files of their own into every BPF file system.
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
        ("http://192.0.2.100:6443", "https://192.0.2.10:6443", "`api.endpoints`: all of them are VIPs"),
        ("interfaces", "interface", "did you mean `interfaces`?"),
    ] {
        assert!(good.contains(change), "{change}");
        let said = node.refusal(&good.replacen(change, to, 1)).unwrap();
        assert!(said.contains(expected), "{change} -> {to}: {said}");
    }
    assert_eq!((node.ns.ip("addr").unwrap(), pinned()), before);
    assert!(!Path::new("/tmp/xvip-no-bpffs").exists());
}

/// Without rights, or with another clock than the kernel's, nothing is left behind either.
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
        lab.nodes[0].status().is_ok_and(|status| status["daemon"]["problems"]["API"].is_string())
    });
    assert!(shown, "{}", lab.nodes[0].log());
    lab.nodes[0].ns.ip("neigh del 192.0.2.100 dev eth0").unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    assert!(lab.nodes[0].status().unwrap()["daemon"]["problems"]["API"].is_null());
    let log = lab.nodes[0].log();
    assert!(log.contains("xvip is running") && !log.contains('\x1b'), "colours in a file: {log}");
}

/// An address that somebody answers for is not taken; it is when that ends.
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

/// kube-vip on this node holds the Lease: its frames must pass until it is gone.
#[test]
fn a_foreign_holder_under_our_own_name_keeps_the_guard_detached() {
    let mut lab = one_node();
    let lease = json!({
        "metadata": {"name": "plndr-cp-lock", "namespace": "kube-system"},
        "spec": {"holderIdentity": "node1", "leaseDurationSeconds": 5, "leaseTransitions": 3,
                 "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    lab.api.put("kube-system", "plndr-cp-lock", lease);
    lab.start().unwrap();
    let detached = eventually(Duration::from_secs(10), || {
        lab.nodes[0].log().contains("another program on this node is the leader")
    });
    assert!(detached, "{}", lab.nodes[0].log());
    assert_eq!(lab.nodes[0].status().unwrap()["vips"], json!([]));
    // It is waited out: 2·5 + 10 s.
    assert!(!eventually(Duration::from_secs(5), || lab.nodes[0].owns()));
    lab.wait_for_owner(Duration::from_secs(25)).unwrap();
}
