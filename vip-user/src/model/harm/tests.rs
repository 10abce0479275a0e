use super::*;

const fn at(s: u64) -> BootNs {
    BootNs(s * 1_000_000_000)
}

fn vips() -> [IpAddr; 2] {
    [IpAddr::from([192, 0, 2, 10]), IpAddr::from([192, 0, 2, 20])]
}

#[test]
fn what_still_fails_a_second_later_counts_and_a_success_ends_it() {
    let [vip, other] = vips();
    let mut harms = Harms::default();
    harms.failed(vip, Harm::Address, "no".into(), at(0));
    harms.failed(vip, Harm::Address, "no".into(), at(0).after(Duration::from_millis(999)));
    assert_eq!(harms.weigh(&vips()), (Fitness::Able, None));
    harms.failed(vip, Harm::Address, "not now".into(), at(1));
    assert_eq!(harms.weigh(&vips()), (Fitness::Impaired, Some("192.0.2.10: not now".into())));
    assert_eq!(harms.weigh(&[other]), (Fitness::Able, None), "another Lease must not be affected");
    assert_eq!(harms.weigh(&[vip]).0, Fitness::Unable, "this Lease has no VIP that is answered");
    harms.worked(vip, Harm::Address);
    assert_eq!(harms.weigh(&vips()), (Fitness::Able, None));
}

#[test]
fn a_vip_without_announcements_is_still_answered_for() {
    let [vip, _] = vips();
    let mut harms = Harms::default();
    for second in 0..2 {
        harms.failed(vip, Harm::Announcement, "no buffer".into(), at(second));
    }
    assert_eq!(harms.weigh(&[vip]).0, Fitness::Impaired);
    harms.forget(at(60));
    assert_eq!(harms.weigh(&[vip]).0, Fitness::Impaired);
    harms.forget(at(61));
    assert_eq!(harms.weigh(&[vip]).0, Fitness::Able);
}

#[test]
fn what_is_known_in_advance_counts_before_anything_has_failed() {
    let [vip, _] = vips();
    let mut harms = Harms::default();
    harms.foretell(BTreeMap::from([(vip, "IPv6 is off".into())]));
    assert_eq!(harms.weigh(&vips()), (Fitness::Impaired, Some("192.0.2.10: IPv6 is off".into())));
    harms.foretell(BTreeMap::new());
    assert_eq!(harms.weigh(&vips()).0, Fitness::Able);
}

/// A problem of ten thousand VIPs is one line.
#[test]
fn a_problem_names_a_few_vips() {
    let vips: Vec<IpAddr> = (0..20).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let words = in_words(vips.iter().map(|vip| (*vip, "no"))).unwrap();
    assert!(words.starts_with("192.0.2.0: no; 192.0.2.1: no;"), "{words}");
    assert!(words.ends_with("192.0.2.7: no; and 12 more VIPs"), "{words}");
}
