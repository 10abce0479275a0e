//! Defaults, refusals, and the agreement of the manual with the code.

use super::*;
use crate::model::{hooks::Hook, timing::MAX_DURATION_S};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("x.yaml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_smallest_configuration_has_working_defaults() {
    let config = parse("vips: [192.0.2.10, '2001:db8::10']\ninterfaces: [eth0]\n").unwrap();
    assert_eq!(config.lease.name, "plndr-cp-lock");
    assert_eq!(config.timing().renew_every, Duration::from_secs(1));
    assert_eq!(config.timing().hold(5), Duration::from_millis(4450));
    assert_eq!(config.timing().wait(5), Duration::from_millis(5500));
}

/// Defaults are derived from the other settings, so that a default never makes a value invalid.
#[test]
fn every_allowed_lease_fits_its_defaults() {
    let mut config = parse("vips: [192.0.2.10]\n").unwrap();
    for duration_s in 1..=MAX_DURATION_S {
        for percent in 0..=40 {
            config.lease.duration_s = duration_s;
            config.lease.clock_error_percent = percent;
            let lease = format!("duration_s: {duration_s}, clock_error_percent: {percent}");
            let refused = config.check_all();
            assert!(refused.is_empty(), "{lease}: {refused:?}");
            let timing = config.timing();
            assert!(timing.renew_every * 2 <= timing.hold(duration_s), "{lease}");
            let usual = Duration::from_millis(500).max(Duration::from_secs(duration_s.into()) / 5);
            assert!(timing.renew_every <= usual && timing.renew_every >= Duration::from_millis(100));
            assert!(duration_s == 1 || timing.renew_every == usual, "{lease}");
        }
    }
}

#[test]
fn the_configuration_in_the_readme_works() {
    let readme = include_str!("../../../README.md");
    let yaml = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    parse(yaml).unwrap();
}

#[test]
fn every_field_is_documented() {
    let manual = include_str!("../../../docs/configuration.md");
    let text = "vips: [192.0.2.10]\n";
    for setting in parse(text).unwrap().settings(text, "node1") {
        let field = format!("`{}`", setting.field);
        assert!(manual.contains(&field), "docs/configuration.md lacks {field}");
    }
}

/// A file is mended in one go.
#[test]
fn all_refusals_are_told_at_once() {
    let text = "vips: [169.254.1.1, 224.0.0.1]\ninterfaces: [lo]\nadmin: {port: 0}\n\
                lease: {duration_s: 0, name: Not_a_name}\nlinger_ms: 70000\non_stop: keep\n";
    let Err(ConfigError::Values(refused)) = Config::parse(Path::new("x.yaml"), text) else {
        panic!("it is not refused")
    };
    let fields: Vec<&str> = refused.iter().map(|refused| refused.field).collect();
    let wanted = ["vips", "vips", "lease.name", "interfaces", "admin.port", "lease.duration_s"];
    assert_eq!(fields, [&wanted[..], &["linger_ms", "on_stop"]].concat());
}

#[test]
fn every_refusal_names_field_value_and_remedy() {
    let base = "vips: [192.0.2.10]\ninterfaces: [eth0]\n";
    for (text, expected) in [
        ("vips: []\ninterfaces: [eth0]", "`vips`: an empty list"),
        ("vips: [127.0.0.1]\ninterfaces: [eth0]", "`vips`: 127.0.0.1 cannot be used: loopback"),
        ("vips: [224.0.0.1]\ninterfaces: [eth0]", "`vips`: 224.0.0.1"),
        ("vips: [255.255.255.255]\ninterfaces: [eth0]", "`vips`: 255.255.255.255"),
        ("vips: ['ff02::1']\ninterfaces: [eth0]", "`vips`: ff02::1"),
        ("vips: ['fe80::1']\ninterfaces: [eth0]", "`vips`: fe80::1 cannot be used: link-local"),
        ("vips: [169.254.1.1]", "`vips`: 169.254.1.1 cannot be used: link-local"),
        ("vips: ['::ffff:1.2.3.4']\ninterfaces: [eth0]", "write an IPv4 address as a.b.c.d"),
        ("vips: [192.0.2.1, 192.0.2.1]\ninterfaces: [eth0]", "may be listed once"),
        ("vips: [192.0.2.300]\ninterfaces: [eth0]", "`vips`: \"192.0.2.300\" is no IP address"),
        ("vips: [10.0.0.10/24]", "without the length of a prefix: 10.0.0.10"),
        ("vips: ['2001:db8::10/64']", "without the length of a prefix: 2001:db8::10"),
        ("vips: ['10.0.0.10:6443']", "without the port: 10.0.0.10"),
        ("vips: ['[2001:db8::10]:6443']", "without the port: 2001:db8::10"),
        ("vips: ['[2001:db8::10]']", "without brackets: 2001:db8::10"),
        ("vips: ['fd00::1%eth0']", "without an interface: fd00::1"),
        ("vips: [' 10.0.0.10']", "without blanks: 10.0.0.10"),
        ("vips: [api.example.org]", "a name cannot be a VIP"),
        ("vips: [{address: 10.0.0.10/24, lease: l}]", "without the length of a prefix: 10.0.0.10"),
        (&format!("{base}api: {{endpoints: []}}"), "`api.endpoints`: an empty list"),
        (&format!("{base}api: {{endpoints: ['10.0.0.1:6443']}}"), "`api.endpoints`: \"10.0.0.1:6443\""),
        (
            &format!("{base}api: {{endpoints: ['ftp://10.0.0.1']}}"),
            "`api.endpoints`: \"ftp://10.0.0.1\"",
        ),
        (&format!("{base}api: {{endpoints: ['https://']}}"), "`api.endpoints`: \"https://\""),
        (&format!("{base}api: {{endpoints: ['https://192.0.2.10:6443']}}"), "all of them are VIPs"),
        ("vips: [192.0.2.1]\ninterfaces: ['eth 0']", "`interfaces`: \"eth 0\""),
        ("vips: [192.0.2.1]\ninterfaces: ['eth0:1']", "`interfaces`: \"eth0:1\""),
        ("vips: [192.0.2.1]\ninterfaces: ['..']", "`interfaces`: \"..\""),
        ("vips: [192.0.2.1]\ninterfaces: [a/b]", "`interfaces`: \"a/b\""),
        (&format!("{base}lease: {{duration_s: 1, margin_ms: 800}}"), "at most 700 ms"),
        (&format!("{base}placement: bridge"), "placement"),
        (&format!("{base}admin: {{port: 0}}"), "`admin.port`: 0"),
        (&format!("{base}admin: {{port: 70000}}"), "admin.port"),
        (&format!("{base}admin: {{address: everywhere}}"), "admin.address"),
        (&format!("{base}log: {{format: xml}}"), "log.format"),
        ("vips: [192.0.2.1]\ninterfaces: []", "`interfaces`: an empty list"),
        ("vips: [192.0.2.1]\ninterfaces: [lo]", "`interfaces`: lo"),
        ("vips: [192.0.2.1]\ninterfaces: [a]\nguard: [a]", "`guard`: a cannot be used"),
        (&format!("{base}exclude: ['/[/']"), "`exclude`: \"/[/\" cannot be used: a name"),
        ("vips: [192.0.2.1]\ninterfaces: [an-interface-name]", "`interfaces`: \"an-interface-name\""),
        ("vips: [{address: 192.0.2.1, interfaces: [a]}]", "`vips.lease`: none for 192.0.2.1"),
        ("vips: [{address: 192.0.2.1, lease: UPPER}]", "`vips.lease`: UPPER"),
        ("vips: [{address: 192.0.2.1, interface: a}]", "did you mean `interfaces`?"),
        (
            "vips: [{address: 192.0.2.1, lease: l, nodes: {a: b}}, {address: 192.0.2.2, lease: l}]",
            "192.0.2.2 shares its Lease",
        ),
        (&format!("{base}lan_check: {{every_ms: 1}}"), "`lan_check.every_ms`: 1"),
        (&format!("{base}lan_check: {{peers: [192.0.2.10]}}"), "`lan_check.peers`: 192.0.2.10"),
        (&format!("{base}conflict: fight"), "conflict"),
        (&format!("{base}attach: []"), "`attach`: []"),
        (&format!("{base}attach: [tc, tc]"), "`attach`: [\"tc\",\"tc\"]"),
        (&format!("{base}attach: hardware"), "none of auto, native, tc, generic"),
        (&format!("{base}attach: [native, hardware]"), "unknown variant `hardware`"),
        (&format!("{base}lease: {{name: Not_a_name}}"), "`lease.name`: Not_a_name"),
        (&format!("{base}vip: 1"), "did you mean `vips`?"),
        (&format!("{base}lease: {{duration: 3}}"), "did you mean `duration_s`?"),
        (&format!("{base}lease: {{duration_s: 0}}"), "`lease.duration_s`: 0"),
        (&format!("{base}lease: {{duration_s: 3, renew_ms: 2000}}"), "the fence of 2650 ms"),
        (&format!("{base}lease: {{margin_ms: 10}}"), "`lease.margin_ms`: 10"),
        (&format!("{base}lease: {{clock_error_percent: 90}}"), "`lease.clock_error_percent`: 90"),
        (&format!("{base}lease: {{foreign_port: 0}}"), "`lease.foreign_port`: 0"),
        (&format!("{base}lease: {{foreign_conflict: fight}}"), "foreign_conflict"),
        (&format!("{base}lease: {{foreign_grace_s: 4}}"), "`lease.foreign_grace_s`: 4"),
        (&format!("{base}lease: {{foreign_grace_s: 18446744074}}"), "lease.duration_s (5) to 86400"),
        (&format!("{base}lease: {{namespace: a/b}}"), "`lease.namespace`: a/b"),
        (&format!("{base}lease: {{namespace: a.b}}"), "`lease.namespace`: a.b"),
        (&format!("{base}announce: {{refresh_s: 86401}}"), "`announce.refresh_s`: 86401"),
        (&format!("{base}node: ''"), "`node`: "),
        (&format!("{base}on_stop: keep"), "lease.duration_s of 10 or more, not 5"),
        (&format!("{base}on_stop: stay"), "on_stop"),
        (&format!("{base}instance: a/b"), "`instance`: a/b"),
        (&format!("{base}linger_ms: 100000"), "`linger_ms`: 100000"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text:?} gave {error:?}, which lacks {expected:?}");
    }
}

#[test]
fn vips_with_settings_of_their_own_have_a_lease_of_their_own() {
    let text = "vips:\n- 192.0.2.10\n- '2001:db8::10'\n\
                - {address: 192.0.2.11, interfaces: [eth1], lease: other}\n\
                - {address: 192.0.2.12, nodes: {zone: a}, lease: third}\n";
    let config = parse(text).unwrap();
    let groups = config.groups();
    let leases: Vec<_> = groups.iter().map(|group| (group.lease.as_str(), group.vips.len())).collect();
    assert_eq!(leases, [("plndr-cp-lock", 2), ("other", 1), ("third", 1)]);
    assert_eq!(groups[2].nodes["zone"], "a");
    assert_eq!(config.interfaces, ["auto"]);
    // Every interface answers; the default of `guard` covers every other interface.
    parse("vips: [192.0.2.10]\ninterfaces: ['*']\n").unwrap();
}

/// The Lease names its VIPs. An API server refuses longer annotations, so the Lease could not be
/// renewed.
#[test]
fn more_vips_than_a_lease_can_name_are_refused() {
    let list = |count: u32| {
        let address = |n: u32| format!("- 'fd00:1111:2222:3333:4444:5555:6666:{:x}'\n", 0x1000 + n);
        format!("vips:\n{}", (0..count).map(address).collect::<String>())
    };
    assert!(parse(&list(5_700)).is_ok());
    let error = parse(&list(6_101)).unwrap_err();
    assert!(error.contains("`vips`: 6101 addresses under the Lease plndr-cp-lock"), "{error}");
}

#[test]
fn hooks_are_written_as_one_word_or_in_order() {
    let hooks = |text: &str| parse(&format!("vips: [192.0.2.10]\n{text}")).unwrap().attach.0;
    let all = vec![Hook::Native, Hook::Tc, Hook::Generic];
    assert_eq!((hooks(""), hooks("attach: auto")), (all.clone(), all));
    assert_eq!(hooks("attach: tc"), [Hook::Tc]);
    assert_eq!(hooks("attach: [generic, native]"), [Hook::Generic, Hook::Native]);
}

#[test]
fn every_setting_is_shown_with_its_source() {
    let text = "vips: [192.0.2.10]\ninterfaces: [eth0]\nlease: {duration_s: 10}\n";
    let settings = parse(text).unwrap().settings(text, "node7");
    let source = |field: &str| {
        let found = settings.iter().find(|setting| setting.field == field);
        found.map(|setting| (setting.value.to_string(), setting.source.clone())).unwrap()
    };
    assert_eq!(source("lease.duration_s"), ("10".into(), "file".into()));
    assert_eq!(source("linger_ms"), ("2000".into(), "default".into()));
    assert_eq!(source("lease.renew_ms").0, "2000");
    assert!(source("lease.renew_ms").1.starts_with("computed: "));
    assert_eq!(source("node").0, "\"node7\"");
    // Every field that a file may contain is shown.
    let groups = ["lease", "api", "announce", "log", "lan_check", "health", "admin"];
    // Fields of a VIP are part of the list.
    for field in FIELDS.iter().filter(|field| !groups.contains(field)) {
        let shown = |name: &str| name == *field || name.ends_with(&format!(".{field}"));
        assert!(settings.iter().any(|setting| shown(&setting.field)), "{field} is not shown");
    }
}
