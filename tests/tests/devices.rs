//! Every kind of device in the table of `docs/interfaces.md`. Few build machines have a kernel with
//! all of them, so `cargo xtask vm` runs these in a guest.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "devices/clock.rs"]
mod clock;
#[path = "devices/confined.rs"]
mod confined;

use serde_json::Value;
use std::time::Duration;
use vip_tests::{
    judge::{Judge, two_owner_ms},
    kernel_run::has_multi_buffer_xdp,
    lab::{Lab, Options, eventually, lan_mac, mac_text, node::Node},
    netns::NetNs,
};

/// A guest without hardware support is slow.
const LONG: Duration = Duration::from_secs(60);
const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// One node that reaches the API over `eth0` and also has `lan0`. The `ip` `commands` create the
/// device that `chosen` names.
fn node_with(chosen: &str, extra: &str, commands: &[&str]) -> Lab {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        duration_s: 10,
        interfaces: Some(format!("[{chosen}]")),
        lan: Some("lan0".into()),
        extra: extra.into(),
        ..Options::default()
    })
    .unwrap();
    for command in commands {
        lab.nodes[0].ns.ip(command).unwrap();
    }
    lab.start().unwrap();
    lab
}

/// Asserts that this client gets answers for both VIPs from this MAC address only.
fn one_owner(lab: &Lab, client: &NetNs, interface: &str, mac: &str) {
    let mut heard = String::new();
    let asked = [VIPS[0], VIPS[1], "--interface", interface, "--wait", "1000"];
    let found = eventually(LONG, || {
        let (text, code) = Node::probe(client, &asked).unwrap();
        heard = text;
        code == 0 && heard.matches(&format!("one owner: {mac}")).count() == 2
    });
    let status = lab.nodes[0].status().unwrap_or_default();
    assert!(found, "{mac} on {interface}: {heard}\n{status}\n{}", lab.nodes[0].log());
}

fn nobody(client: &NetNs, interface: &str) {
    let asked = [VIPS[0], VIPS[1], "--interface", interface, "--wait", "1000"];
    let (text, code) = Node::probe(client, &asked).unwrap();
    assert_eq!((code, text.matches("nobody").count()), (1, 2), "on {interface}: {text}");
}

fn hook(lab: &Lab, interface: &str) -> Value {
    let status = lab.nodes[0].status().unwrap();
    let interfaces = status["interfaces"].as_array().unwrap().clone();
    let found = interfaces.into_iter().find(|shown| shown["name"] == interface);
    found.map_or(Value::Null, |shown| shown["answers_by"].clone())
}

fn problem(lab: &Lab, subject: &str) -> String {
    let status = lab.nodes[0].status().unwrap_or_default();
    status["daemon"]["problems"][subject].as_str().unwrap_or_default().to_owned()
}

fn lan0() -> String {
    mac_text(lan_mac(0, 0))
}

fn is_tc(hook: &Value) -> bool {
    hook == "tc" || hook == "clsact-tc"
}

#[test]
fn a_veth_answers_by_native_xdp() {
    let lab = node_with("lan0", "", &[]);
    one_owner(&lab, &lab.asker, "eth0", &lan0());
    if has_multi_buffer_xdp().unwrap() {
        assert_eq!(hook(&lab, "lan0"), "native");
        assert_eq!(problem(&lab, "attach lan0"), "");
    } else {
        assert!(is_tc(&hook(&lab, "lan0")), "{}", hook(&lab, "lan0"));
        assert!(
            problem(&lab, "attach lan0").contains("Linux 5.18"),
            "{}",
            problem(&lab, "attach lan0")
        );
    }
}

/// The reply keeps the tag; on another VLAN the same address belongs to another host.
#[test]
fn a_vlan_device_answers_in_its_vlan_alone() {
    let lab = node_with(
        "lan0.100",
        "",
        &["link add link lan0 name lan0.100 type vlan id 100", "link set lan0.100 up"],
    );
    for vlan in [100, 200] {
        let name = format!("eth0.{vlan}");
        lab.asker.ip(&format!("link add link eth0 name {name} type vlan id {vlan}")).unwrap();
        lab.asker.ip(&format!("link set {name} up")).unwrap();
    }
    one_owner(&lab, &lab.asker, "eth0.100", &lan0());
    nobody(&lab.asker, "eth0");
    nobody(&lab.asker, "eth0.200");
    // A container of the same host, on the same cable, with the same addresses on VLAN 200.
    let other = NetNs::new(&format!("{}-o", lab.nodes[0].ns.name())).unwrap();
    let node = &lab.nodes[0].ns;
    node.ip("link add link lan0 name lan0.200 type vlan id 200").unwrap();
    node.ip(&format!("link set lan0.200 netns {}", other.name())).unwrap();
    other.ip("link set lan0.200 address 02:00:00:00:07:07 up").unwrap();
    other.ip("addr add 192.0.2.10/24 dev lan0.200").unwrap();
    other.ip("addr add 2001:db8::10/64 dev lan0.200 nodad").unwrap();
    one_owner(&lab, &lab.asker, "eth0.200", "02:00:00:00:07:07");
    one_owner(&lab, &lab.asker, "eth0.100", &lan0());
}

#[test]
fn a_vlan_within_a_vlan_answers_with_both_tags() {
    let lab = node_with(
        "inner",
        "",
        &[
            "link add link lan0 name outer type vlan proto 802.1ad id 100",
            "link set outer up",
            "link add link outer name inner type vlan id 200",
            "link set inner up",
        ],
    );
    for command in [
        "link add link eth0 name outer type vlan proto 802.1ad id 100",
        "link set outer up",
        "link add link outer name inner type vlan id 200",
        "link set inner up",
        "link add link outer name other type vlan id 201",
        "link set other up",
    ] {
        lab.asker.ip(command).unwrap();
    }
    one_owner(&lab, &lab.asker, "inner", &lan0());
    nobody(&lab.asker, "outer");
    nobody(&lab.asker, "other");
}

/// If the NIC strips the tags, only TC can see them. A configuration without TC answers nothing.
#[test]
fn xdp_is_refused_where_the_nic_takes_the_tags_off() {
    let vlan = ["link add link lan0 name lan0.100 type vlan id 100", "link set lan0.100 up"];
    let lab = node_with("lan0", "", &vlan);
    one_owner(&lab, &lab.asker, "eth0", &lan0());
    assert!(is_tc(&hook(&lab, "lan0")), "{}", lab.nodes[0].status().unwrap());
    assert!(problem(&lab, "attach lan0").contains("rxvlan"), "{}", problem(&lab, "attach lan0"));
    let lab = node_with("lan0", "attach: native\n", &vlan);
    assert!(eventually(LONG, || problem(&lab, "interface lan0").contains("rxvlan")));
    nobody(&lab.asker, "eth0");
}

/// A second cable, `lan1`, to be bonded with `lan0`.
fn bonded(mode: &str, chosen: &str) -> Lab {
    let mut lab = Lab::new(&Options {
        nodes: 1,
        duration_s: 10,
        interfaces: Some(format!("[{chosen}]")),
        lan: Some("lan0".into()),
        ..Options::default()
    })
    .unwrap();
    lab.add_interface(0, "lan1", 1).unwrap();
    let ns = &lab.nodes[0].ns;
    ns.ip(&format!("link add bond0 type bond mode {mode} miimon 50")).unwrap();
    for member in ["lan0", "lan1"] {
        ns.ip(&format!("link set {member} down")).unwrap();
        ns.ip(&format!("link set {member} master bond0")).unwrap();
    }
    ns.ip("link set bond0 up").unwrap();
    lab
}

fn bond_mac(lab: &Lab) -> String {
    let shown = lab.nodes[0].ns.ip("-j link show bond0").unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn an_active_backup_bond_answers_over_the_member_that_is_active() {
    let mut lab = bonded("active-backup", "bond0");
    lab.start().unwrap();
    let mac = bond_mac(&lab);
    one_owner(&lab, &lab.asker, "eth0", &mac);
    lab.bridge.ip("link set n1lan0 down").unwrap();
    one_owner(&lab, &lab.asker, "eth0", &mac);
    lab.bridge.ip("link set n1lan0 up").unwrap();
    lab.bridge.ip("link set n1lan1 down").unwrap();
    one_owner(&lab, &lab.asker, "eth0", &mac);
    // Without an active member the bond cannot serve.
    lab.bridge.ip("link set n1lan0 down").unwrap();
    assert!(eventually(LONG, || problem(&lab, "link").contains("no answering interface")));
}

#[test]
fn an_802_3ad_bond_answers_over_either_member() {
    let mut lab = bonded("802.3ad", "bond0");
    // The switch's end of the aggregate.
    lab.bridge.ip("link add agg0 type bond mode 802.3ad miimon 50 lacp_rate fast").unwrap();
    for port in ["n1lan0", "n1lan1"] {
        lab.bridge.ip(&format!("link set {port} nomaster")).unwrap();
        lab.bridge.ip(&format!("link set {port} down")).unwrap();
        lab.bridge.ip(&format!("link set {port} master agg0")).unwrap();
    }
    lab.bridge.ip("link set agg0 up").unwrap();
    lab.bridge.ip("link set agg0 master br0").unwrap();
    lab.start().unwrap();
    let mac = bond_mac(&lab);
    one_owner(&lab, &lab.asker, "eth0", &mac);
    lab.bridge.ip("link set n1lan0 down").unwrap();
    one_owner(&lab, &lab.asker, "eth0", &mac);
}

/// These bonds answer ARP with the addresses of their members, so one VIP would have several.
#[test]
fn bonds_that_rewrite_arp_are_refused_with_the_reason() {
    for mode in ["balance-tlb", "balance-alb"] {
        let mut lab = bonded(mode, "bond0");
        lab.start().unwrap();
        let refused = eventually(LONG, || problem(&lab, "selection bond0").contains(mode));
        assert!(refused, "{}\n{}", problem(&lab, "selection bond0"), lab.nodes[0].log());
        assert_eq!(hook(&lab, "bond0"), Value::Null);
        nobody(&lab.asker, "eth0");
    }
}

#[test]
fn a_vlan_over_a_bond_answers() {
    let mut lab = bonded("active-backup", "bond0.100");
    let ns = &lab.nodes[0].ns;
    ns.ip("link add link bond0 name bond0.100 type vlan id 100").unwrap();
    ns.ip("link set bond0.100 up").unwrap();
    lab.start().unwrap();
    lab.asker.ip("link add link eth0 name eth0.100 type vlan id 100").unwrap();
    lab.asker.ip("link set eth0.100 up").unwrap();
    one_owner(&lab, &lab.asker, "eth0.100", &bond_mac(&lab));
    nobody(&lab.asker, "eth0");
}

#[test]
fn a_macvlan_answers_with_its_own_address() {
    let lab = node_with(
        "mac0",
        "",
        &[
            "link add link lan0 name mac0 address 02:00:00:00:08:08 type macvlan mode bridge",
            "link set mac0 up",
        ],
    );
    one_owner(&lab, &lab.asker, "eth0", "02:00:00:00:08:08");
}

/// A bridge with a guest behind it; the bridge itself answers.
#[test]
fn a_bridge_answers_for_itself_and_passes_its_guests() {
    let lab = node_with(
        "bri0",
        "",
        &[
            "link add bri0 address 02:00:00:00:06:06 type bridge forward_delay 0",
            "link set lan0 master bri0",
            "link set bri0 up",
        ],
    );
    let guest = NetNs::new(&format!("{}-g", lab.nodes[0].ns.name())).unwrap();
    lab.nodes[0]
        .ns
        .ip(&format!("link add tap0 type veth peer name eth0 netns {}", guest.name()))
        .unwrap();
    lab.nodes[0].ns.ip("link set tap0 master bri0 up").unwrap();
    guest.ip("link set eth0 up").unwrap();
    one_owner(&lab, &lab.asker, "eth0", "02:00:00:00:06:06");
    one_owner(&lab, &guest, "eth0", "02:00:00:00:06:06");
}

/// A device whose driver has no XDP: TC is the second choice, generic XDP the third.
#[test]
fn a_device_without_native_xdp_answers_by_the_next_hook() {
    let bridge = [
        "link add bri0 address 02:00:00:00:06:06 type bridge forward_delay 0",
        "link set lan0 master bri0",
        "link set bri0 up",
    ];
    for (attach, is_wanted) in [
        ("auto", is_tc as fn(&Value) -> bool),
        ("[native, generic]", |hook: &Value| hook == "generic"),
        ("[generic, tc]", |hook: &Value| hook == "generic"),
    ] {
        if attach != "auto" && !has_multi_buffer_xdp().unwrap() {
            continue;
        }
        let lab = node_with("bri0", &format!("attach: {attach}\n"), &bridge);
        one_owner(&lab, &lab.asker, "eth0", "02:00:00:00:06:06");
        assert!(is_wanted(&hook(&lab, "bri0")), "{attach}: {}", hook(&lab, "bri0"));
        // Before 5.18 the kernel is the reason, not the device.
        let reason = if has_multi_buffer_xdp().unwrap() { "native" } else { "Linux 5.18" };
        let told = problem(&lab, "attach bri0").contains(reason);
        assert_eq!(told, attach != "[generic, tc]", "{attach}: {}", problem(&lab, "attach bri0"));
    }
}

/// While the node holds nothing, no member of a bond sends a claim.
#[test]
fn a_bond_that_does_not_hold_the_vip_claims_nothing() {
    let mut lab = bonded("active-backup", "bond0");
    lab.start().unwrap();
    let mac = bond_mac(&lab);
    one_owner(&lab, &lab.asker, "eth0", &mac);
    lab.nodes[0].signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(12));
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    lab.nodes[0].ns.ip("addr replace 192.0.2.10/32 dev bond0").unwrap();
    nobody(&lab.asker, "eth0");
    let claims = judge.finish().unwrap();
    lab.nodes[0].signal(libc::SIGCONT);
    assert_eq!((claims.len(), two_owner_ms(&claims)), (0, 0.0), "{claims:?}");
}
