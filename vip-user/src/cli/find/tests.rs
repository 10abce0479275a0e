use super::*;
use crate::model::lease::{naming::Guarded, record::TenureNote};
use std::{cell::Cell, collections::BTreeMap};

const PACE: Pace = Pace {
    retry: (Duration::from_millis(1), Duration::from_millis(4)),
    look: Duration::from_millis(2),
    second: Duration::from_millis(2),
    denied: Duration::from_millis(100),
};

fn name(text: &str) -> LeaseName {
    let (namespace, name) = text.split_once('/').unwrap();
    LeaseName { namespace: namespace.into(), name: name.into() }
}

fn search() -> Search {
    Search { chosen: name("a/x"), others: vec![name("kube-system/x")], is_decided: false }
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

fn wanted<'a>(search: &'a Search, pinned: &'a [LeaseName], vips: &'a [IpAddr]) -> Wanted<'a> {
    Wanted { search, pinned, vips, duration_s: 5 }
}

/// Counts the reads of each Lease.
#[derive(Default)]
struct Reads(std::cell::RefCell<BTreeMap<String, u32>>);

impl Reads {
    fn next(&self, lease: &LeaseName) -> u32 {
        let mut reads = self.0.borrow_mut();
        *reads.entry(lease.to_string()).and_modify(|count| *count += 1).or_insert(0)
    }
}

/// Answers by Lease and by the number of the read.
async fn decision_with(pinned: &[LeaseName], answer: impl Fn(&str, u32) -> Read) -> Decision {
    let (reads, answer) = (&Reads::default(), &answer);
    let read = |lease: LeaseName| async move { answer(&lease.to_string(), reads.next(&lease)) };
    look(wanted(&search(), pinned, &[VIP.into()]), PACE, read).await
}

async fn decision(answer: impl Fn(&str, u32) -> Read) -> Decision {
    decision_with(&[], answer).await
}

fn is_refused(decision: &Decision) -> bool {
    matches!(decision, Decision::Refuse(_))
}

fn problems(decision: Decision) -> Vec<String> {
    match decision {
        Decision::Use { problems, .. } => problems,
        Decision::Refuse(why) => panic!("{why}"),
    }
}

fn failed() -> Read {
    Err(Unread::Failed("refused".into()))
}

fn forbidden() -> Read {
    Err(Unread::Forbidden("403".into()))
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
    let problems = problems(elsewhere(false).await);
    assert!(problems[0].contains("kube-system/x names node2"), "{problems:?}");
}

/// The holder has just given it up, and another node takes it while it is watched.
#[tokio::test]
async fn a_lease_that_was_released_is_watched_too() {
    let found = decision(|lease, count| {
        let released = Record { transitions: 4, acquire_us: Some(9), ..held("", 1) };
        let taken = held("node2", count.into());
        let shown = if count < 2 { released } else { taken };
        Ok((lease == "kube-system/x").then_some(shown))
    });
    assert!(is_refused(&found.await));
}

/// Refused for rights, then away for long, then refused for rights: that is not for long.
#[tokio::test]
async fn a_server_that_is_away_denies_nothing() {
    let found = decision(|lease, count| match (lease, count) {
        ("kube-system/x", 0 | 40) => forbidden(),
        ("kube-system/x", 1..40) => failed(),
        ("kube-system/x", _) => Ok(Some(held("node2", count.into()))),
        _ => Ok(None),
    });
    assert!(is_refused(&found.await), "it is read, and renewed");
}

#[tokio::test]
async fn a_lease_that_only_the_maps_name_is_watched_too() {
    let renewed = |lease: &str, count: u32| Ok((lease == "old/x").then(|| held("node2", count.into())));
    assert!(is_refused(&decision_with(&[name("old/x")], renewed).await));
    assert!(is_refused(&decision_with(&[name("a/x"), name("old/x")], renewed).await));
    assert!(problems(decision(renewed).await).is_empty());
}

/// An API that is gone for a while: its holder cannot renew either, and does so when the API is back.
#[tokio::test]
async fn time_without_reads_does_not_count_as_time_without_renewals() {
    let found = decision(|lease, count| match (lease, count) {
        ("kube-system/x", 0 | 60..62) => Ok(Some(held("node2", 1))),
        // Much longer than the watch: it takes 14 ms and two looks.
        ("kube-system/x", 1..60) => failed(),
        ("kube-system/x", _) => Ok(Some(held("node2", 2))),
        _ => Ok(None),
    });
    assert!(is_refused(&found.await));
}

#[tokio::test]
async fn all_are_read_again_before_one_is_used() {
    // While the stale Lease of node2 is watched, another kube-vip begins with a Lease that was free.
    let search = Search { others: vec![name("b/x"), name("c/x")], ..search() };
    let reads = Reads::default();
    let (reads, vips) = (&reads, [VIP.into()]);
    let read = |lease: LeaseName| async move {
        let count = reads.next(&lease);
        Ok(match lease.namespace.as_str() {
            "b" => Some(held("node2", 1)),
            "c" if count > 0 => Some(held("node3", count.into())),
            _ => None,
        })
    };
    let Decision::Refuse(why) = look(wanted(&search, &[], &vips), PACE, read).await else { panic!() };
    assert!(why.contains("c/x is renewed by node3"), "{why}");
    // A second reading that fails counts as a change.
    let found = decision(
        |lease, count| if count == 1 { failed() } else { Ok((lease == "-").then(|| held("", 1))) },
    );
    assert!(problems(found.await).is_empty());
}

#[tokio::test]
async fn the_chosen_lease_is_not_watched() {
    let asked = Cell::new(0);
    let found = decision(|lease, count| {
        asked.set(asked.get().max(count));
        Ok((lease == "a/x").then(|| held("node2", i64::from(count))))
    });
    assert!(problems(found.await).is_empty());
    assert_eq!(asked.get(), 1, "two reads of each");
}

#[tokio::test]
async fn an_unreachable_api_is_asked_again_and_a_forbidden_namespace_stays_a_problem() {
    let found = decision(|lease, count| match (lease, count) {
        ("a/x", 0) => failed(),
        // The credentials of a first node get their rights later.
        ("a/x", 1..4) => forbidden(),
        ("a/x", _) => Ok(None),
        _ => forbidden(),
    });
    let problems = problems(found.await);
    assert!(problems[0].contains("kube-system/x may not be read"), "{problems:?}");
}

#[tokio::test]
async fn rights_may_come_late_for_the_other_lease_too() {
    let found = decision(|lease, count| match (lease, count) {
        ("a/x", _) => Ok(None),
        (_, 0..3) => forbidden(),
        (_, count) => Ok(Some(held("node2", count.into()))),
    });
    assert!(is_refused(&found.await));
}

#[tokio::test]
async fn a_chosen_lease_that_is_denied_for_long_is_refused_if_another_one_is_readable() {
    let begun = Instant::now();
    let found = decision(|lease, _| if lease == "a/x" { forbidden() } else { Ok(None) }).await;
    let Decision::Refuse(why) = found else { panic!() };
    assert!(why.contains("a/x may not be read, and kube-system/x may"), "{why}");
    assert!(begun.elapsed() >= PACE.denied);
    let none = timeout(PACE.denied * 4, decision(|_, _| forbidden())).await;
    assert!(none.is_err(), "rights may still come");
}

#[tokio::test]
async fn a_holder_that_leaves_while_it_is_watched_is_not_fresh() {
    let found = decision(|lease, count| {
        let record = if count == 0 { held("node2", 1) } else { held("", 2) };
        Ok((lease == "kube-system/x").then_some(record))
    });
    assert!(problems(found.await).is_empty());
}

#[tokio::test]
async fn a_check_ends_in_time_and_says_whether_it_has_looked() {
    let (search, vips) = (search(), [VIP.into()]);
    let wanted = wanted(&search, &[], &vips);
    let (reads, begun) = (&Reads::default(), Instant::now());
    let silent = look_within(wanted, PACE, |_| async { failed() }).await.unwrap();
    assert!(silent[0].starts_with("the Lease was not looked at: refused"), "{silent:?}");
    let hangs = look_within(wanted, PACE, |_| std::future::pending()).await.unwrap();
    assert!(hangs[0].contains("the API does not answer"), "{hangs:?}");
    let late =
        |lease: LeaseName| async move { if reads.next(&lease) == 0 { Ok(None) } else { failed() } };
    let late = look_within(wanted, PACE, late).await.unwrap();
    assert!(late[0].contains("longer than the check may wait"), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let free = look_within(wanted, PACE, |_| async { Ok(None) }).await.unwrap();
    assert!(free[0].contains("the Lease a/x may be used"), "{free:?}");
    let renewed = |lease: LeaseName| async move {
        let count = reads.next(&lease);
        Ok((lease.namespace != "a").then(|| held("node2", count.into())))
    };
    assert!(look_within(wanted, PACE, renewed).await.unwrap_err().contains("two owners"));
}

#[test]
fn what_is_known_without_the_api_names_the_lease_that_was_used() {
    let all = |names: &[&str]| names.iter().map(|lease| name(lease)).collect::<Vec<_>>();
    let says = |names: &[&str]| known(&search(), &all(names));
    assert!(says(&[]).ends_with("the settings mean the Lease a/x; the Lease was not looked at"));
    assert!(says(&["a/x"]).contains("a/x is used"));
    assert!(says(&["b/x"]).contains("this host has used b/x"));
    assert!(!is_certain(&search(), &all(&["b/x"])));
    assert!(is_certain(&search(), &all(&["a/x"])));
}

#[test]
fn only_a_current_annotation_says_what_is_guarded() {
    let guarded = |vip: [u8; 4], transitions| {
        let admitted = [IpAddr::from(vip)].into();
        Some(Guarded { transitions, acquire_us: 7, admitted, ..Guarded::default() })
    };
    let note = TenureNote {
        holder: "node2".into(),
        transitions: 3,
        acquire_us: 7,
        process: "p".into(),
        boot_id: "b".into(),
    };
    let record = |guarded| Record {
        transitions: 3,
        acquire_us: Some(7),
        note: Some(note.clone()),
        noted_renew_us: Some(1),
        guarded,
        ..held("node2", 1)
    };
    let ours = [IpAddr::from(VIP)];
    assert!(guards_others(&record(guarded([192, 0, 2, 99], 3)), &ours));
    assert!(!guards_others(&record(guarded(VIP, 3)), &ours));
    assert!(!guards_others(&record(guarded([192, 0, 2, 99], 2)), &ours), "kube-vip took it since");
    assert!(!guards_others(&record(None), &ours));
    let by_client_go = Record { renew_us: Some(2), ..record(guarded([192, 0, 2, 99], 3)) };
    assert!(!guards_others(&by_client_go, &ours), "another program renews it under this name");
    assert!(!guards_others(
        &record(Some(Guarded { transitions: 3, acquire_us: 7, ..Guarded::default() })),
        &ours
    ));
}
