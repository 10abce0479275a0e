use super::*;
use crate::{
    config::{Asked, HealthConfig, LogLevel},
    model::desired::Placement,
};
use std::path::PathBuf;

#[test]
fn a_usual_manifest_becomes_this_configuration() {
    let adapted = with(&[("vip_nodename", "Node2"), ("port", "6444"), ("vip_leaseduration", "15")]);
    assert!(adapted.refused.is_empty(), "{:?}", adapted.refused);
    let config = adapted.config;
    assert_eq!(config.addresses(), ["192.0.2.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.interfaces, ["eth0"]);
    assert_eq!(config.placement, Placement::Interface);
    assert_eq!(config.node.as_deref(), Some("node2"));
    assert_eq!(config.api.endpoints, ["https://127.0.0.1:6444"]);
    assert_eq!(config.lease.duration_s, 15);
    assert!(!config.events, "the role of kube-vip does not allow it");
    assert_eq!(config.admin.port, Some(2112));
    assert_eq!(config.admin.address.to_string(), "0.0.0.0");
    assert_eq!(with(&[]).config.lease.duration_s, 5);
    assert_eq!(with(&[("vip_interface", "")]).config.interfaces, ["default-route"]);
}

#[test]
fn exactly_one_mode_must_be_on() {
    assert!(only(&with(&[("vip_arp", "false")])).contains("no mode is on"));
    assert_eq!(refused(&bare(&Host::default(), &BASE[1..])), ["vip_arp"]);
    let two = with(&[("bgp_enable", "true")]);
    assert_eq!(refused(&two), ["bgp_enable", "vip_arp"]);
    assert!(two.refused[1].why.contains("several modes are on: vip_arp, bgp_enable"));
    let bgp = with(&[("vip_arp", "false"), ("bgp_enable", "true")]);
    assert!(only(&bgp).contains("this build of xvip does not speak BGP"));
    assert!(only(&with(&[("vip_arp", "false"), ("vip_wireguard", "1")])).contains("WireGuard"));
    assert!(only(&with(&[("vip_arp", "false"), ("vip_routingtable", "T")])).contains("routes"));
}

#[test]
fn something_must_be_held() {
    assert!(only(&with(&[("cp_enable", "false")])).contains("nothing to hold"));
    assert!(
        only(&with(&[("cp_enable", "false"), ("svc_enable", "false")])).contains("nothing to hold")
    );
    let services = [("cp_enable", "false"), ("svc_enable", "true"), ("xvip_without", "svc_enable")];
    assert!(only(&with(&services)).contains("nothing else to hold"), "this loss cannot be accepted");
    let both = with(&[("svc_enable", "true")]);
    assert!(only(&both).ends_with("To run without it, add svc_enable to xvip_without"));
    let accepted = with(&[("svc_enable", "true"), ("xvip_without", "svcEnable")]);
    assert!(accepted.refused.is_empty());
    assert_eq!(accepted.without[0].name, "svc_enable");
}

#[test]
fn addresses_are_literal_and_agree() {
    let two = with(&[("address", "192.0.2.10, 2001:db8::10")]);
    assert_eq!(two.config.vips.len(), 2);
    assert_eq!(two.config.admin.address.to_string(), "::");
    assert!(with(&[("vip_address", "192.0.2.10")]).refused.is_empty(), "both are the same");
    let why = only(&with(&[("vip_address", "192.0.2.11")]));
    assert!(why.contains("differs from vip_address"), "{why}");
    let why = only(&with(&[("address", "vip.example")]));
    assert!(why.contains("vip.example resolves to 192.0.2.7 here: set address=192.0.2.7"), "{why}");
    let why = only(&with(&[("address", ""), ("vip_address", "other.example")]));
    assert!(why.starts_with("vip_address=\"other.example\" (environment)"), "{why}");
    assert!(only(&with(&[("address", "192.0.2.10/24")])).contains("set address=192.0.2.10"));
    assert!(only(&with(&[("address", "")])).contains("there is no VIP"));
    for bad in ["127.0.0.1", "224.0.0.1", "fe80::1", "192.0.2.1,192.0.2.1"] {
        assert_eq!(refused(&with(&[("address", bad)])), ["address"], "{bad}");
    }
}

#[test]
fn prefixes_of_a_single_host_are_silent_and_others_are_told() {
    for silent in ["32", "128", "32,128", "/32"] {
        assert!(told(&with(&[("vip_subnet", silent)]), "vip_subnet").is_empty(), "{silent}");
    }
    for noted in ["24", "auto", "24,64", "/24"] {
        let adapted = with(&[("vip_subnet", noted), ("vip_cidr", noted)]);
        assert!(adapted.refused.is_empty());
        assert!(told(&adapted, "vip_subnet")[0].contains("no route to its subnet"), "{noted}");
        assert_eq!(told(&adapted, "vip_cidr").len(), 1);
    }
}

#[test]
fn timers_leave_room_for_two_renewals() {
    for (duration, retry) in [("5", "1"), ("15", "2"), ("5", "2"), ("60", "10")] {
        let adapted = with(&[("vip_leaseduration", duration), ("vip_retryperiod", retry)]);
        assert!(adapted.refused.is_empty(), "{duration}/{retry}: {:?}", adapted.refused);
        assert_eq!(adapted.config.lease.renew_ms, retry.parse::<u64>().ok().map(|retry| retry * 1000));
    }
    let figures = [("5", "3", "4450 ms"), ("15", "10", "13450 ms"), ("3", "2", "2650 ms")];
    for (duration, retry, hold) in figures {
        let why = only(&with(&[("vip_leaseduration", duration), ("vip_retryperiod", retry)]));
        assert!(why.starts_with("vip_retryperiod=") && why.contains(hold), "{why}");
    }
    let why = only(&with(&[("vip_retryperiod", "3")]));
    for part in ["vip_leaseduration=5 (the default)", "4450 ms", "3000 ms", "set vip_retryperiod=2"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let why = only(&with(&[("vip_leaseduration", "15s")]));
    assert!(why.contains("set vip_leaseduration=15, without a unit"), "{why}");
    for bad in ["0", "601", "-5"] {
        assert_eq!(refused(&with(&[("vip_leaseduration", bad)])), ["vip_leaseduration"], "{bad}");
    }
    for bad in ["0", "-1"] {
        assert_eq!(refused(&with(&[("vip_retryperiod", bad)])), ["vip_retryperiod"], "{bad}");
    }
}

#[test]
fn the_lease_and_those_that_other_versions_mean() {
    let names = |adapted: &Adapted| {
        let others = adapted.search.others.iter().map(ToString::to_string).collect::<Vec<_>>();
        (adapted.search.chosen.to_string(), others.join(" "))
    };
    let kube_system = "kube-system/plndr-cp-lock";
    assert_eq!(names(&with(&[])), (kube_system.into(), String::new()));
    assert_eq!(names(&with(&[("cp_namespace", "a")])), ("a/plndr-cp-lock".into(), kube_system.into()));
    let pod = Host { namespace: Some("b"), ..Host::default() };
    let all = names(&on(&pod, &[("cp_namespace", "a"), ("vip_leasename", "x")]));
    assert_eq!(all.0, "a/x");
    assert_eq!(all.1, format!("a/plndr-cp-lock b/x b/plndr-cp-lock kube-system/x {kube_system}"));
    assert_eq!(names(&on(&pod, &[])).0, "b/plndr-cp-lock");
    let both = on(&pod, &[("cp_namespace", "a"), ("vip_leasename", "c/x")]);
    assert_eq!(names(&both).0, "c/x", "a namespace in the name wins");
    assert_eq!((both.config.lease.namespace.as_str(), both.config.lease.name.as_str()), ("c", "x"));
    assert!(both.search.is_decided && !on(&pod, &[("vip_leasename", "x")]).search.is_decided);
    let accepted = on(&pod, &[("vip_leasename", "x"), ("xvip_without", "vip_leasename")]);
    assert!(accepted.search.is_decided);
    assert!(told(&accepted, "vip_leasename").is_empty(), "whether it loses anything is not known");
    assert_eq!(refused(&with(&[("vip_leasename", "A_B")])), ["vip_leasename"]);
    assert_eq!(refused(&with(&[("cp_namespace", "a.b")])), ["cp_namespace"]);
}

#[test]
fn the_credentials_of_the_node_come_before_those_that_nobody_can_revoke() {
    let (admin, super_admin) = ("/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf");
    let home = [("HOME", "/root")];
    let file = |files: &[&'static str], more: &[(&str, &str)]| {
        let host = Host { files: files.to_vec(), namespace: None };
        on(&host, &[&home[..], more].concat()).config.api.kubeconfig
    };
    let custom = [("k8s_config_file", "/etc/x.conf")];
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(file(&[], &[]), None, "the service account");
    assert_eq!(file(&["/root/.kube/config"], &[]), path("/root/.kube/config"));
    assert_eq!(file(&[admin, "/root/.kube/config"], &[]), path(admin));
    assert_eq!(file(&[admin, super_admin], &[]), path(admin));
    assert_eq!(file(&[super_admin, "/root/.kube/config"], &[]), path(super_admin));
    assert_eq!(file(&[admin, super_admin], &[("k8s_config_file", super_admin)]), path(super_admin));
    assert_eq!(file(&["/etc/x.conf", admin], &custom), path("/etc/x.conf"));
    assert_eq!(file(&[admin], &custom), path(admin));
    assert_eq!(file(&[admin], &[("k8s_config_file", admin)]), path(admin));
    assert_eq!(told(&with(&custom), "k8s_config_file").len(), 1);
}

#[test]
fn the_api_is_reached_past_the_vip() {
    let endpoints = |more: &[(&str, &str)]| with(more).config.api.endpoints;
    let local = "https://127.0.0.1:6443";
    assert_eq!(endpoints(&[("kubernetes_addr", "192.0.2.1:6443")]), ["https://192.0.2.1:6443", local]);
    assert_eq!(endpoints(&[("kubernetes_addr", "https://a:1")]), ["https://a:1", local]);
    let vip = with(&[("kubernetes_addr", "https://192.0.2.10:6443/")]);
    assert_eq!(vip.config.api.endpoints, [local]);
    assert!(told(&vip, "kubernetes_addr")[0].starts_with("left out"));
    let service = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    let by_kubelet = [&service[..], &[("KUBERNETES_PORT", "tcp://10.96.0.1:443")]].concat();
    assert_eq!(
        endpoints(&by_kubelet),
        [local],
        "the address of the Service is no way to a local server"
    );
    let prism = [
        ("KUBERNETES_SERVICE_HOST", "localhost"),
        ("KUBERNETES_SERVICE_PORT", "7445"),
        ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
    ];
    assert_eq!(endpoints(&prism), ["https://localhost:7445", local]);
    let host = Host { files: vec!["/etc/kubernetes/admin.conf"], namespace: None };
    assert_eq!(
        on(&host, &prism).config.api.endpoints,
        [local],
        "a kubeconfig has credentials of its own"
    );
    for bad in ["0", "65536", "-1"] {
        assert_eq!(refused(&with(&[("port", bad)])), ["port"], "{bad}");
    }
    assert_eq!(refused(&with(&[("kubernetes_addr", "https://")])), ["kubernetes_addr"]);
}

#[test]
fn interfaces_and_announcements() {
    assert!(only(&with(&[("vip_interface", "lo")])).contains("loopback"));
    let notes = |address: &str, interface: &str| {
        told(&with(&[("address", address), ("vip_interface", interface)]), "vip_interface").len()
    };
    assert_eq!(notes("192.0.2.10,2001:db8::10", ""), 1);
    assert_eq!(notes("192.0.2.10,2001:db8::10", "eth0") + notes("192.0.2.10", ""), 0);
    let refresh = |rate: &str| with(&[("vip_arpRate", rate)]).config.announce.refresh_s;
    for (rate, seconds) in [("3000", 3), ("500", 1), ("499", 3), ("-1", 3), ("2500", 2), ("10000", 10)]
    {
        assert_eq!(refresh(rate), seconds, "{rate}");
    }
    assert_eq!(refused(&with(&[("vip_arpRate", "100000000")])), ["vip_arpRate"]);
    assert_eq!(with(&[("vip_preserve_on_leadership_loss", "true")]).config.linger_ms, 20_000);
}

#[test]
fn the_generator_of_kube_vip_may_write_a_number_for_a_truth_value() {
    let adapted = with(&[("vip_loseleadership", "30")]);
    assert!(adapted.refused.is_empty());
    assert!(told(&adapted, "vip_loseleadership")[0].starts_with("counts as true"));
    assert!(told(&with(&[("vip_loseleadership", "true")]), "vip_loseleadership").is_empty());
    assert_eq!(refused(&with(&[("vip_loseleadership", "often")])), ["vip_loseleadership"]);
    assert_eq!(refused(&with(&[("vip_arp", "yes")])), ["vip_arp"]);
    assert_eq!(refused(&with(&[("svc_enable", "yes")])), ["svc_enable"]);
}

#[test]
fn only_kubernetes_elects() {
    let read = |line: &str| {
        let input = Input {
            environment: owned(&BASE),
            flags: flags::parse(&words(line), &[]),
            ..Input::default()
        };
        adapt(&input, &Host::default())
    };
    assert!(read("--leaderElectionType=kubernetes").refused.is_empty());
    let why = only(&read("--leaderElectionType=etcd"));
    assert!(why.starts_with("--leaderElectionType=\"etcd\" (flag) is refused"), "{why}");
    let all =
        read("--leaderElectionType=etcd --etcdEndpoints a --etcdCACert b --bgp --leaseDuration 15s");
    assert_eq!(all.refused.len(), 6, "all at once: {:?}", all.refused);
}

#[test]
fn a_load_balancer_that_forwards_is_lost_and_one_that_does_not_is_not() {
    let on = ("lb_enable", "true");
    for method in ["", "local", "LOCAL", "nonsense"] {
        assert!(with(&[on, ("lb_fwdmethod", method)]).refused.is_empty(), "{method}");
    }
    for method in ["masquerade", "Tunnel", "directroute", "bypass"] {
        assert_eq!(refused(&with(&[on, ("lb_fwdmethod", method)])), ["lb_enable"], "{method}");
        let accepted = with(&[on, ("lb_fwdmethod", method), ("xvip_without", "lb_enable")]);
        assert_eq!((accepted.refused.len(), accepted.without.len()), (0, 1), "{method}");
        assert!(with(&[("lb_fwdmethod", method)]).refused.is_empty(), "it is off");
    }
    let other = with(&[on, ("lb_port", "8443")]);
    assert!(other.refused.is_empty());
    assert!(told(&other, "lb_port").iter().any(|told| told.contains("port 6443")), "{other:?}");
    assert!(with(&[on, ("lb_port", "8443"), ("port", "8443")]).refused.is_empty());
}

#[test]
fn ports_for_metrics_and_health() {
    let admin = |more: &[(&str, &str)]| with(more).config.admin;
    let text = |more: &[(&str, &str)]| format!("{} {:?}", admin(more).address, admin(more).port);
    assert_eq!(text(&[("prometheus_server", ":9100")]), "0.0.0.0 Some(9100)");
    assert_eq!(text(&[("prometheus_server", "127.0.0.1:9100")]), "127.0.0.1 Some(9100)");
    assert_eq!(text(&[("prometheus_server", "[::1]:9100")]), "::1 Some(9100)");
    assert_eq!(text(&[("prometheus_server", "localhost:9100")]), "127.0.0.1 Some(9100)");
    assert_eq!(
        text(&[("prometheus_server", "")]),
        "0.0.0.0 Some(2112)",
        "an empty variable is not set"
    );
    let flags = flags::parse(&["--prometheusHTTPServer=".into()], &[]);
    let off = adapt(&Input { environment: owned(&BASE), flags, file: None }, &Host::default());
    assert_eq!(off.config.admin.port, None, "an empty flag switches it off");
    for bad in ["2112", ":0", ":x", "name:1"] {
        let odd = with(&[("prometheus_server", bad)]);
        assert!(odd.refused.is_empty(), "{bad}");
        assert_eq!(odd.config.admin.port, None, "{bad}");
        assert!(told(&odd, "prometheus_server")[0].contains("no address with a port"), "{bad}");
    }
    assert_eq!(admin(&[("health_check_port", "1024")]).health_port, Some(1024));
    for bad in ["1023", "65536", "2112", "-1"] {
        assert_eq!(refused(&with(&[("health_check_port", bad)])), ["health_check_port"], "{bad}");
    }
}

#[test]
fn log_levels_are_those_of_kube_vip() {
    let level = |text: &str| with(&[("vip_loglevel", text)]).config.log.level;
    let table =
        [("-4", LogLevel::Debug), ("0", LogLevel::Info), ("4", LogLevel::Warn), ("8", LogLevel::Error)];
    for (text, wanted) in table {
        assert_eq!(level(text), wanted, "{text}");
        assert!(told(&with(&[("vip_loglevel", text)]), "vip_loglevel").is_empty());
    }
    assert_eq!(level("5"), LogLevel::Info);
    assert_eq!(told(&with(&[("vip_loglevel", "5")]), "vip_loglevel").len(), 1);
}

/// The first loopback address may be a proxy to other nodes. It says nothing of this node.
#[test]
fn the_api_server_of_this_node_is_asked_and_no_proxy() {
    let asked = |more: &[(&str, &str)]| with(more).config.health;
    let at = |port: u16| HealthConfig {
        api_server: Asked::At(format!("https://127.0.0.1:{port}/readyz")),
        ..HealthConfig::default()
    };
    assert_eq!(asked(&[]), at(6443));
    assert_eq!(asked(&[("port", "6444")]), at(6444));
    assert_eq!(asked(&[("kubernetes_addr", "127.0.0.1:7445")]), at(6443));
    let prism = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "7445")];
    assert_eq!(with(&prism).config.api.endpoints[0], "https://127.0.0.1:7445");
    assert_eq!(asked(&prism), at(6443));
}

#[test]
fn a_ca_that_is_not_there_and_a_server_that_is_none_are_refused_by_name() {
    let why = only(&with(&[("control_plane_health_check_ca_path", "/none")]));
    assert!(why.starts_with("control_plane_health_check_ca_path=\"/none\""), "{why}");
    let odd = [("KUBERNETES_SERVICE_HOST", "a b"), ("KUBERNETES_SERVICE_PORT", "443")];
    let why = only(&with(&odd));
    assert!(why.starts_with("KUBERNETES_SERVICE_HOST") && why.contains("a b"), "{why}");
}

#[test]
fn wishes_about_health() {
    let host = Host { files: vec!["/ca"], namespace: None };
    let all = on(
        &host,
        &[
            ("control_plane_health_check_address", "https://127.0.0.1:6443/readyz"),
            ("control_plane_health_check_period_seconds", "5"),
            ("control_plane_health_check_timeout_seconds", "3"),
            ("control_plane_health_check_failure_threshold", "4"),
            ("control_plane_health_check_ca_path", "/ca"),
        ],
    );
    let wanted = HealthConfig {
        api_server: Asked::At("https://127.0.0.1:6443/readyz".into()),
        every_ms: 5_000,
        timeout_ms: 3_000,
        refusals: 4,
        slow_s: 20,
        ca: Some("/ca".into()),
        ..HealthConfig::default()
    };
    assert_eq!(all.config.health, wanted);
    let vip = with(&[("control_plane_health_check_address", "https://192.0.2.10:6443/readyz")]);
    assert_eq!(
        refused(&vip),
        ["control_plane_health_check_address"],
        "a VIP says nothing of this node"
    );
    let bad = [
        ("control_plane_health_check_address", "127.0.0.1:6443"),
        ("control_plane_health_check_period_seconds", "0"),
    ];
    let names = [bad[0].0, bad[1].0];
    let mut found: Vec<String> = with(&bad).refused.into_iter().map(|refusal| refusal.name).collect();
    found.sort();
    assert_eq!(found, names);
}
