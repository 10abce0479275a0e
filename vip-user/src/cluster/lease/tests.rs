use super::*;
use crate::model::lease::{
    naming::{Guarded, MAX_NAMED, Mark, Marks, text_len},
    offers::{Heir, Preference},
};
use kube::core::Status;
use std::net::IpAddr;
use vip_common::abi::MAX_VIPS;

#[test]
fn a_namespace_that_is_not_there_is_a_failure() {
    let api = |code| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
    for (code, replaces, conflict) in [
        (409, true, true),
        (409, false, true),
        (404, true, true),
        (404, false, false),
        (403, false, false),
    ] {
        assert_eq!(is_conflict(&api(code), replaces), conflict, "{code}, replaces: {replaces}");
    }
}

/// A Lease with the most VIPs can be written, whatever marks they have.
#[test]
fn no_mark_makes_a_lease_too_long() {
    const LIMIT: usize = 256 * 1024 - 1_024;
    let address = |n: u32| IpAddr::from([10, 100 + (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    let vips: Vec<IpAddr> = (0..).map(address).take(MAX_VIPS as usize - 1).collect();
    let count = (1..=vips.len()).rev().find(|count| text_len(&vips[..*count]) <= MAX_NAMED).unwrap();
    for (first, rest) in [
        (Mark::Inherited, Mark::Inherited),
        (Mark::Claimed, Mark::Inherited),
        (Mark::Admitted, Mark::Inherited),
        (Mark::Inherited, Mark::Admitted),
    ] {
        let mark = |(at, ip): (usize, &IpAddr)| (*ip, if at == 0 { first } else { rest });
        let marks: Marks = vips[..count].iter().enumerate().map(mark).collect();
        let guarded = Guarded::of(i64::MAX, i64::MAX, &marks);
        let text = serde_json::to_string(&guarded).unwrap();
        assert!(text.len() < LIMIT, "{first:?} and {rest:?}: {} characters", text.len());
        let of_rest = if first == Mark::Claimed { Mark::Claimed } else { rest };
        assert_eq!((guarded.mark(vips[0]), guarded.mark(vips[1])), (Some(first), Some(of_rest)));
        let read: Guarded = serde_json::from_str(&text).unwrap();
        assert_eq!(read, guarded);
    }
}

/// Older versions of xvip know neither `impaired` nor the annotation that says so.
#[test]
fn an_impaired_holder_is_doubtful_for_older_versions() {
    let api = LeaseApi::new(Endpoints::fixed(Vec::new()), "ns", "lease", Duration::from_secs(1));
    let note = TenureNote {
        holder: "n".into(),
        transitions: 4,
        acquire_us: 5,
        process: "p".into(),
        boot_id: "b".into(),
    };
    let preference = Preference {
        transitions: 4,
        acquire_us: 5,
        weight: 7,
        heir: Some(Heir::Node("other".into())),
        impaired: true,
    };
    let write = LeaseWrite {
        id: 1,
        base: Some(Version("9".into())),
        note,
        duration_s: 3,
        renew_us: 6,
        release: false,
        fitness: Fitness::Impaired,
        preference: Some(preference.clone()),
        macs: Vec::new(),
        vips: None,
        in_flight: 0,
    };
    let mut object = api.object(&write, Lease::default());
    let annotations = object.metadata.annotations.clone().unwrap();
    assert_eq!(annotations[FITNESS], "doubtful");
    let read = record(&object);
    assert_eq!((read.fitness, read.preference.clone()), (Fitness::Impaired, Some(preference)));
    assert_eq!(read.heir(), Some(&Heir::Node("other".into())));
    // An older version writes its own fitness, and leaves the other annotation as it was.
    object.spec.as_mut().unwrap().lease_transitions = Some(5);
    assert_eq!(record(&object).fitness, Fitness::Doubtful);
    let garbage = r#"{"transitions":4,"acquireUs":5,"weight":300}"#.to_owned();
    object.metadata.annotations.as_mut().unwrap().insert(PREFERENCE.into(), garbage);
    assert_eq!(record(&object).preference, None);
}
