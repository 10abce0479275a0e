use super::{super::verdict::Station, *};

fn round(ms: u64, macs: &[&str], served: Option<bool>) -> Round {
    let station =
        |mac: &&str| Station { mac: (*mac).into(), interface: "eth0".into(), node: None, own: false };
    let vip = "192.0.2.10".parse().unwrap();
    let verdicts = vec![Verdict::new(vip, macs.iter().map(station).collect())];
    Round { at: Duration::from_millis(ms), verdicts, served: vec![served] }
}

#[test]
fn spans_join_and_times_add_up() {
    let rounds = [
        round(0, &["a"], Some(true)),
        round(100, &["a"], Some(true)),
        round(200, &[], Some(false)),
        round(500, &["b"], Some(true)),
        round(600, &["a", "b"], Some(true)),
        round(700, &["b"], Some(true)),
    ];
    let timeline = Timeline::new(0, &rounds, Duration::from_secs(1)).unwrap();
    assert_eq!(timeline.spans.len(), 5);
    assert_eq!(timeline.longest_dark_ms, 300);
    assert_eq!(timeline.two_owners_ms, 100);
    assert!((timeline.one_owner_percent - 60.0).abs() < 1e-9);
    assert!((timeline.served_percent.unwrap() - 70.0).abs() < 1e-9);
    assert_eq!(timeline.bar(10), "AA...B!BBB");
}

#[test]
fn a_short_darkness_is_seen_in_a_coarse_bar() {
    let rounds = [round(0, &["a"], None), round(500, &[], None), round(501, &["a"], None)];
    let timeline = Timeline::new(0, &rounds, Duration::from_secs(100)).unwrap();
    assert_eq!(timeline.bar(4), ".AAA");
}
