use super::*;
use crate::adapter::{
    report::{MASK, Source},
    table::{Class, Kind, Name},
};

/// A value under which the name behaves as its class says.
fn sample(name: &Name) -> &'static str {
    match (name.id, name.kind) {
        ("leaderElectionType", _) => "etcd",
        ("address" | "vip_address", _) => "192.0.2.10",
        ("vip_subnet" | "vip_cidr", _) => "32",
        ("vip_leasename", _) => "plndr-cp-lock",
        ("prometheus_server", _) => ":2112",
        ("health_check_port", _) => "9090",
        ("port" | "lb_port", _) => "6443",
        ("vip_loglevel", _) => "4",
        ("vip_leaseduration", _) => "15",
        ("vip_retryperiod", _) => "2",
        ("vip_interface", _) => "eth0",
        ("control_plane_health_check_address", _) => "https://127.0.0.1:6443/readyz",
        (_, Kind::Bool) => "true",
        (_, Kind::Int) => "5",
        (_, Kind::Text | Kind::Secret) => "x",
    }
}

/// The usual manifest with this name set, by a variable if it has one, and with more variables.
fn set(name: &Name, more: &[(&str, &str)]) -> Adapted {
    let mut variables: Vec<(&str, &str)> =
        BASE.into_iter().filter(|(other, _)| *other != name.id).collect();
    if name.id == "vip_address" {
        variables.retain(|(other, _)| *other != "address");
    }
    // Egress belongs to Services.
    if name.id.starts_with("egress_") && name.class == Class::Refused {
        variables.push(("svc_enable", "true"));
    }
    variables.extend(more);
    let mut input = Input { environment: owned(&variables), ..Input::default() };
    if name.in_environment {
        input.environment.push((name.id.into(), sample(name).into()));
    } else {
        input.flags = flags::parse(&[format!("--{}={}", name.id, sample(name))], &[]);
    }
    adapt(&input, &Host { files: vec!["x"], namespace: None })
}

#[test]
fn every_name_behaves_as_its_class_says() {
    for name in table::all() {
        let adapted = set(name, &[]);
        let accepted = set(name, &[("xvip_without", name.id)]);
        let is_refused = |adapted: &Adapted| refused(adapted).contains(&name.id);
        match name.class {
            Class::Supported => {
                assert!(!is_refused(&adapted), "{}: {:?}", name.id, adapted.refused);
                assert!(adapted.refused.is_empty(), "{}: {:?}", name.id, adapted.refused);
            }
            Class::NoEffect => {
                assert!(adapted.refused.is_empty(), "{}: {:?}", name.id, adapted.refused);
                assert!(told(&adapted, name.id).contains(&name.why), "{} is not noted", name.id);
            }
            Class::Refused => {
                assert!(is_refused(&adapted), "{} is not refused", name.id);
                assert!(!is_refused(&accepted), "{} cannot be accepted", name.id);
                let lost = accepted.without.iter().find(|lost| lost.name == name.id);
                assert!(lost.is_some(), "the loss of {} is not kept", name.id);
            }
            Class::Never => {
                assert!(is_refused(&adapted), "{} is not refused", name.id);
                assert!(is_refused(&accepted), "{} is accepted", name.id);
                assert!(accepted.without.is_empty(), "{}", name.id);
            }
        }
    }
}

#[test]
fn every_flag_and_every_key_sets_its_name() {
    for name in table::all().filter(|name| name.id != "config-file") {
        for flag in name.flags.split(' ').filter(|flag| !flag.is_empty()) {
            let flags = flags::parse(&[format!("--{flag}=1")], &[]);
            assert!(flags.refused.is_empty(), "--{flag}");
            assert_eq!(flags.given.first().map(|(name, _)| name.id), Some(name.id), "--{flag}");
        }
        if !name.key.is_empty() {
            let (before, after) = name.key.rsplit_once('.').map_or(("", name.key), |pair| pair);
            let text = before
                .split('.')
                .filter(|part| !part.is_empty())
                .rev()
                .fold(format!("{{\"{after}\": \"1\"}}"), |inner, part| {
                    format!("{{\"{part}\": {inner}}}")
                });
            let adapted = adapt(
                &Input { file: Some(("f".into(), Ok(text))), ..Input::default() },
                &Host::default(),
            );
            let row = adapted.rows.iter().find(|row| row.name == name.id);
            assert_eq!(row.map(|row| row.source), Some(Source::File), "{}", name.key);
        }
    }
}

#[test]
fn what_is_off_loses_nothing() {
    for name in table::all().filter(|name| name.kind == Kind::Bool) {
        let off = [(name.id, "false")];
        if name.in_environment && !matches!(name.id, "vip_arp" | "cp_enable") {
            let adapted = with(&off);
            assert!(adapted.refused.is_empty(), "{}: {:?}", name.id, adapted.refused);
        }
    }
    for name in ["egress_withnftables", "egress_podcidr"] {
        assert!(with(&[(name, "true")]).refused.is_empty(), "{name} belongs to Services");
    }
}

#[test]
fn secrets_are_never_shown() {
    let peers = [("bgp_peerpass", "hunter2"), ("bgp_peers", "192.0.2.1:65000:hunter2:false")];
    let unknown = [
        ("bgp_password2", "hunter2"),
        ("bgppeers2", "a:1:hunter2"),
        ("bgp_peer_1", "a:1:hunter2"),
        ("PACKET_AUTH_TOKEN", "hunter2"),
    ];
    let adapted = with(&[&peers[..], &unknown[..], &[("bgp_enable", "true")]].concat());
    let shown = format!(
        "{}{}{}",
        adapted.notes.iter().map(ToString::to_string).collect::<String>(),
        adapted.refused.iter().map(ToString::to_string).collect::<String>(),
        serde_json::to_string(&adapted.rows).unwrap()
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains(MASK));
    assert_eq!(told(&adapted, "PACKET_AUTH_TOKEN").len(), 1);
    let flags = flags::parse(&["--peerPassword=hunter2".into(), "x=hunter2".into()], &[]);
    let adapted = adapt(&Input { flags, ..Input::default() }, &Host::default());
    let shown: String = adapted.refused.iter().map(ToString::to_string).collect();
    assert!(shown.contains("--peerPassword ") && !shown.contains("hunter2"), "{shown}");
}
