use super::*;
use crate::adapter::report::Source;

fn interface(environment: &[(&str, &str)], line: &str, file: Option<&str>) -> (String, Source) {
    let flags = flags::parse(&words(line), &[]);
    let file = file.map(|text| ("kv.yaml".to_owned(), Ok(text.to_owned())));
    let input = Input { environment: owned(environment), flags, file };
    let adapted = adapt(&input, &Host::default());
    let row = adapted.rows.iter().find(|row| row.name == "vip_interface").unwrap();
    assert_eq!(adapted.config.interfaces.join(","), row.value);
    (row.value.clone(), row.source)
}

#[test]
fn variables_win_over_flags_and_flags_over_the_file() {
    let variable = [("vip_interface", "eth1")];
    let empty = [("vip_interface", "")];
    let (flag, file) = ("--interface eth2", Some("interface: eth3"));
    let table = [
        (&variable[..], flag, file, "eth1", Source::Environment),
        (&variable[..], "", None, "eth1", Source::Environment),
        (&empty[..], flag, file, "eth2", Source::Flag),
        (&[], flag, file, "eth2", Source::Flag),
        (&[], "--interface eth8 --interface eth9", None, "eth9", Source::Flag),
        (&[], "", file, "eth3", Source::File),
        (&empty[..], "", Some("interface: ''"), "default-route", Source::Default),
    ];
    for (variables, line, file, value, source) in table {
        assert_eq!(interface(variables, line, file), (value.to_owned(), source), "{line}");
    }
}

#[test]
fn an_exact_spelling_wins_over_a_loose_one() {
    for order in [
        [("VIP_INTERFACE", "eth1"), ("vip_interface", "eth2")],
        [("vip_interface", "eth2"), ("VIP_INTERFACE", "eth1")],
    ] {
        assert_eq!(interface(&order, "", None).0, "eth2");
    }
    assert_eq!(interface(&[("VIP_INTERFACE", "eth1")], "", None).0, "eth1");
    let adapted = with(&[("vip_arprate", "5000")]);
    assert_eq!(
        told(&adapted, "vip_arpRate"),
        ["kube-vip reads only vip_arpRate; here this spelling counts too"]
    );
    assert!(
        told(&with(&[("INSTANCE_NAME", "a")]), "instance_name").len() == 1,
        "kube-vip reads this one"
    );
}

#[test]
fn variables_of_the_kubelet_are_no_settings() {
    // Services that are called `lb`, `address` and `vip`.
    let links = [
        ("LB_PORT", "tcp://198.51.100.1:80"),
        ("LB_SERVICE_HOST", "198.51.100.1"),
        ("ADDRESS_PORT", "udp://198.51.100.2:53"),
        ("VIP_PORT_80_TCP_ADDR", "198.51.100.3"),
    ];
    let adapted = with(&links);
    assert!(adapted.refused.is_empty(), "{:?}", adapted.refused);
    assert!(links.iter().all(|(name, _)| told(&adapted, name).is_empty()), "{:?}", adapted.notes);
    assert!(told(&adapted, "lb_port").is_empty());
}

#[test]
fn unknown_names_are_told_with_a_hint() {
    let adapted =
        with(&[("bgppeers1", "a"), ("annotations", "x"), ("vip_intreface", "eth0"), ("PATH", "/bin")]);
    assert!(adapted.refused.is_empty());
    let hint = |name: &str| told(&adapted, name)[0].to_owned();
    assert!(hint("annotations").ends_with("did you mean annotation?"), "{}", hint("annotations"));
    assert!(hint("vip_intreface").ends_with("did you mean vip_interface?"));
    assert!(hint("bgppeers1").contains("no version of kube-vip reads"));
    assert!(told(&adapted, "PATH").is_empty());
}

#[test]
fn a_file_counts_also_where_kube_vip_ignores_it() {
    let text = "enableARP: true\nENABLECONTROLPLANE: true\naddress: 192.0.2.9\nport: 6444\n\
                leaseDuration: 15\nlbPort: 1\n";
    let file = Some(("kv.yaml".to_owned(), Ok(text.to_owned())));
    let adapted = adapt(&Input { file, ..Input::default() }, &Host::default());
    assert!(adapted.refused.is_empty(), "{:?}", adapted.refused);
    assert_eq!(adapted.config.api.endpoints, ["https://127.0.0.1:6444"]);
    assert_eq!(adapted.config.lease.duration_s, 15);
    assert!(told(&adapted, "port")[0].contains("ignores this key"));
    assert!(told(&adapted, "lbPort")[0].contains("does not take this key"));
    assert!(told(&adapted, "address").is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    for text in [Err("no such file".to_owned()), Ok("a: [".to_owned())] {
        let input = Input {
            environment: owned(&BASE),
            file: Some(("kv.yaml".into(), text)),
            ..Input::default()
        };
        let why = only(&adapt(&input, &Host::default()));
        assert!(why.starts_with("--config-file=\"kv.yaml\" (flag) is refused"), "{why}");
    }
}

#[test]
fn an_accepted_name_that_loses_nothing_is_told() {
    let adapted = with(&[("xvip_without", "svc_enable, nonsense,vip_arp")]);
    assert!(told(&adapted, "svc_enable")[0].contains("nothing is lost"));
    assert!(told(&adapted, "nonsense")[0].contains("no such setting"));
    let modes = with(&[("xvip_without", "vip_arp"), ("vip_arp", "false")]);
    assert_eq!(refused(&modes), ["vip_arp"]);
    assert!(told(&modes, "vip_arp").iter().any(|told| told.contains("cannot be accepted")));
}

/// Whatever stands in a variable, a flag or a file: nothing panics, and each refusal says something.
#[test]
fn no_value_is_too_odd() {
    const ODD: [&str; 18] = [
        " ",
        ",",
        "-1",
        "0",
        "1e9",
        "2147483647",
        "99999999999999999999",
        "::",
        "0.0.0.0",
        "[",
        ":",
        "a/b/c",
        "https://",
        "tcp://x",
        "\u{1b}[2J\n",
        "\u{202e}",
        "true",
        "\u{e4}=\u{e4}",
    ];
    let nowhere = Host::default();
    for name in table::all() {
        for odd in ODD {
            let mut inputs = Vec::new();
            if name.in_environment {
                inputs.push(Input { environment: owned(&[(name.id, odd)]), ..Input::default() });
            }
            let flag = name.flags.split(' ').next().unwrap_or_default();
            let flags = flags::parse(&[format!("--{flag}"), odd.to_owned()], &[]);
            inputs.push(Input { environment: owned(&BASE), flags, file: None });
            for input in inputs {
                let adapted = adapt(&input, &nowhere);
                for refusal in &adapted.refused {
                    assert!(!refusal.name.is_empty() && !refusal.why.is_empty(), "{refusal:?}");
                }
                assert!(adapted.notes.iter().all(|note| !note.told.is_empty()), "{} {odd}", name.id);
            }
        }
    }
    for text in
        ["{", "[]", "1", "\u{0}", "a: {b: {c: [1, {d: e}]}}", "? [a]\n: b", "&a [*a]", "a: !!binary x"]
    {
        let file = Some(("f".to_owned(), Ok(text.to_owned())));
        let _ = adapt(&Input { file, ..Input::default() }, &nowhere);
    }
}
