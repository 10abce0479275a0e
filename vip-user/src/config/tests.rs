//! Defaults, refusals, and the agreement of the manual with the code.

use super::*;

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

#[test]
fn the_configuration_in_the_readme_works() {
    let readme = include_str!("../../../README.md");
    let yaml = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    parse(yaml).unwrap();
}

#[test]
fn every_field_is_documented() {
    let manual = include_str!("../../../docs/configuration.md");
    for field in FIELDS.iter().filter(|field| **field != "lease" && **field != "api") {
        assert!(manual.contains(field), "docs/configuration.md lacks {field}");
    }
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
        ("vips: ['::ffff:1.2.3.4']\ninterfaces: [eth0]", "write an IPv4 address as a.b.c.d"),
        ("vips: [192.0.2.1, 192.0.2.1]\ninterfaces: [eth0]", "may be listed once"),
        ("vips: [192.0.2.300]\ninterfaces: [eth0]", "vips"),
        (&format!("{base}placement: bridge"), "placement"),
        (&format!("{base}admin: {{port: 0}}"), "`admin.port`: 0"),
        (&format!("{base}admin: {{port: 70000}}"), "admin.port"),
        (&format!("{base}admin: {{address: everywhere}}"), "admin.address"),
        (&format!("{base}log: {{format: xml}}"), "log.format"),
        ("vips: [192.0.2.1]\ninterfaces: []", "`interfaces`: an empty list"),
        ("vips: [192.0.2.1]\ninterfaces: [lo]", "`interfaces`: lo"),
        ("vips: [192.0.2.1]\ninterfaces: [a]\nguard: [a]", "`guard`: a cannot be used"),
        (&format!("{base}vip: 1"), "did you mean `vips`?"),
        (&format!("{base}lease: {{duration: 3}}"), "did you mean `duration_s`?"),
        (&format!("{base}lease: {{duration_s: 0}}"), "`lease.duration_s`: 0"),
        (&format!("{base}lease: {{duration_s: 3, renew_ms: 2000}}"), "the fence of 2650 ms"),
        (&format!("{base}lease: {{margin_ms: 10}}"), "`lease.margin_ms`: 10"),
        (&format!("{base}lease: {{clock_error_percent: 90}}"), "`lease.clock_error_percent`: 90"),
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
    // No field is forgotten: whatever can be written is shown.
    let groups = ["lease", "api", "announce", "log", "admin"];
    for field in FIELDS.iter().filter(|field| !groups.contains(field)) {
        let shown = |name: &str| name == *field || name.ends_with(&format!(".{field}"));
        assert!(settings.iter().any(|setting| shown(&setting.field)), "{field} is not shown");
    }
}
