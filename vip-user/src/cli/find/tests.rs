use super::*;
use crate::model::lease::naming::Guarded;
use std::{cell::Cell, collections::BTreeMap};

const PACE: Pace = Pace {
    retry: (Duration::from_millis(1), Duration::from_millis(4)),
    look: Duration::from_millis(2),
    second: Duration::from_millis(2),
};

fn name(text: &str) -> LeaseName {
    let (namespace, name) = text.split_once('/').unwrap();
    LeaseName { namespace: namespace.into(), name: name.into() }
}

fn search() -> Search {
    Search { chosen: name("a/x"), others: vec![name("kube-system/x")] }
}

fn held(holder: &str, renew_us: i64) -> Record {
    Record {
        holder: holder.into(),
        renew_us: Some(renew_us),
        duration_s: 5,
        ..Record::unheld("u".into(), 1, 5)
    }
}

const VIP: [u8; 4] = [192, 0, 2, 10];

/// Answers by Lease and by the number of the read.
async fn decision(answer: impl Fn(&str, u32) -> Result<Option<Record>, Unread>) -> Decision {
    let reads: std::cell::RefCell<BTreeMap<String, u32>> = std::cell::RefCell::default();
    let (reads, answer) = (&reads, &answer);
    let read = |lease: LeaseName| async move {
        let lease = lease.to_string();
        let count =
            { *reads.borrow_mut().entry(lease.clone()).and_modify(|count| *count += 1).or_insert(0) };
        answer(&lease, count)
    };
    look(&search(), &[VIP.into()], PACE, read).await
}

fn is_refused(decision: &Decision) -> bool {
    matches!(decision, Decision::Refuse(_))
}

#[tokio::test]
async fn a_holder_elsewhere_counts_only_if_it_renews() {
    let elsewhere = |renews: bool| {
        decision(move |lease, count| {
            let renewed = if renews && count > 1 { 2 } else { 1 };
            Ok((lease == "kube-system/x").then(|| held("node2", renewed)))
        })
    };
    assert!(is_refused(&elsewhere(true).await));
    let Decision::Use(told) = elsewhere(false).await else { panic!() };
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn the_chosen_lease_is_not_watched() {
    let asked = Cell::new(0);
    let found = decision(|lease, count| {
        asked.set(asked.get().max(count));
        Ok((lease == "a/x").then(|| held("node2", 1)))
    });
    assert_eq!(found.await, Decision::Use(vec![]));
    assert_eq!(asked.get(), 0, "one read of each");
}

#[tokio::test]
async fn an_unreachable_api_is_asked_again_and_a_forbidden_namespace_is_told() {
    let found = decision(|lease, count| match (lease, count) {
        ("a/x", 0) => Err(Unread::Failed("refused".into())),
        // The credentials of a first node get their rights later.
        ("a/x", 1..4) => Err(Unread::Forbidden("403".into())),
        ("a/x", _) => Ok(None),
        _ => Err(Unread::Forbidden("403".into())),
    });
    let Decision::Use(told) = found.await else { panic!() };
    assert!(told[0].contains("kube-system/x may not be read"), "{told:?}");
}

#[tokio::test]
async fn a_holder_that_leaves_while_it_is_watched_is_not_fresh() {
    let found = decision(|lease, count| {
        let record = if count == 0 { held("node2", 1) } else { held("", 2) };
        Ok((lease == "kube-system/x").then_some(record))
    });
    assert!(!is_refused(&found.await));
}

#[test]
fn only_a_current_annotation_says_what_is_guarded() {
    let guarded = |vip: [u8; 4], transitions| {
        let admitted = [IpAddr::from(vip)].into();
        Some(Guarded { transitions, acquire_us: 7, admitted, ..Guarded::default() })
    };
    let record = |guarded| Record { transitions: 3, acquire_us: Some(7), guarded, ..held("node2", 1) };
    let ours = [IpAddr::from(VIP)];
    assert!(guards_others(&record(guarded([192, 0, 2, 99], 3)), &ours));
    assert!(!guards_others(&record(guarded(VIP, 3)), &ours));
    assert!(!guards_others(&record(guarded([192, 0, 2, 99], 2)), &ours), "kube-vip took it since");
    assert!(!guards_others(&record(None), &ours));
    assert!(!guards_others(
        &record(Some(Guarded { transitions: 3, acquire_us: 7, ..Guarded::default() })),
        &ours
    ));
}
