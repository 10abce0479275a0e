//! What xvip relies on about Leases. The same checks run against the stand-in and the real API
//! server.

use crate::{
    shared::{Shared, with_stand_in},
    trial,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{pin::Pin, sync::Arc, time::Duration};
use vip_user::cluster::lease::{TENURE, record};

type Check = fn(Api<Lease>, String) -> Pin<Box<dyn Future<Output = ()>>>;

/// A check that needs only the Leases of one namespace, and its own name.
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|leases, name| Box::pin($name(leases, name))) as Check)),*]
    };
}

pub fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let checks = checks![
        a_lease_is_created_once,
        a_put_needs_the_version_that_is_current,
        a_put_without_a_version_is_refused,
        a_put_that_changes_nothing_stores_nothing,
        versions_only_grow,
        a_deleted_lease_is_gone_and_its_successor_is_another,
        a_put_without_a_uid_creates_a_lease_that_is_gone,
        a_watch_shows_what_happened_since_its_version_in_order,
        a_watch_of_one_name_shows_that_name_alone,
        a_watch_from_nothing_begins_with_what_exists,
        a_watch_ends_by_itself_and_says_how_far_it_came,
        a_watch_from_a_version_that_is_too_old_is_gone,
        a_watch_from_nothing_goes_on_with_every_later_change,
        a_list_says_from_where_a_watch_goes_on,
        a_list_of_one_name_says_how_far_it_goes_where_there_is_none,
        microseconds_and_foreign_annotations_are_kept,
        a_renewal_by_another_program_is_told_from_ours,
        contents_that_cannot_be_are_refused,
        an_empty_holder_and_missing_fields_are_stored,
    ];
    let on_stand_in = checks.into_iter().map(|(name, check)| {
        trial(format!("contract::stand_in::{name}"), move || {
            with_stand_in(async |client, _| check(api(client), "lease".into()).await);
        })
    });
    let on_real = checks.into_iter().map(|(name, check)| {
        let shared = Arc::clone(shared);
        trial(format!("contract::kube_apiserver::{name}"), move || {
            let lease = shared.name();
            let done = shared.plane().call(0, async move |client| {
                check(api(client), lease).await;
                Ok(())
            });
            done.unwrap();
        })
    });
    on_stand_in.chain(on_real).collect()
}

fn api(client: Client) -> Api<Lease> {
    Api::namespaced(client, "default")
}

fn lease(name: &str, spec: Value) -> Lease {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn held(name: &str) -> Lease {
    lease(name, json!({"holderIdentity": "a", "leaseDurationSeconds": 3, "leaseTransitions": 0}))
}

async fn create(leases: &Api<Lease>, lease: &Lease) -> Lease {
    leases.create(&PostParams::default(), lease).await.unwrap()
}

async fn put(leases: &Api<Lease>, lease: &Lease) -> Result<Lease, kube::Error> {
    let name = lease.metadata.name.clone().unwrap();
    leases.replace(&name, &PostParams::default(), lease).await
}

/// A renewal: the same Lease with another time.
fn renewed(lease: &Lease, seconds: i64) -> Lease {
    let mut value = serde_json::to_value(lease).unwrap();
    value["spec"]["renewTime"] = json!(format!("2026-01-01T00:00:{seconds:02}.000001Z"));
    serde_json::from_value(value).unwrap()
}

fn version(lease: &Lease) -> String {
    lease.metadata.resource_version.clone().unwrap()
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// The events of a watch, each within ten seconds.
async fn watch(
    leases: &Api<Lease>,
    name: &str,
    from: &str,
    seconds: u32,
) -> Pin<Box<dyn Stream<Item = WatchEvent<Lease>>>> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(seconds);
    let stream = leases.watch(&params, from).await.unwrap();
    Box::pin(stream.map(Result::unwrap))
}

async fn next(stream: &mut Pin<Box<dyn Stream<Item = WatchEvent<Lease>>>>) -> (&'static str, Lease) {
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap();
        match event {
            WatchEvent::Added(lease) => return ("added", lease),
            WatchEvent::Modified(lease) => return ("modified", lease),
            WatchEvent::Deleted(lease) => return ("deleted", lease),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => panic!("{status:?}"),
        }
    }
}

async fn a_lease_is_created_once(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    assert!(made.metadata.uid.is_some_and(|uid| !uid.is_empty()));
    let again = leases.create(&PostParams::default(), &held(&name)).await.unwrap_err();
    assert_eq!(code(&again), 409, "{again}");
}

async fn a_put_needs_the_version_that_is_current(leases: Api<Lease>, name: String) {
    let first = create(&leases, &held(&name)).await;
    let second = put(&leases, &renewed(&first, 1)).await.unwrap();
    assert_ne!(version(&first), version(&second));
    let late = put(&leases, &renewed(&first, 2)).await.unwrap_err();
    assert_eq!(code(&late), 409, "{late}");
    assert_eq!(leases.get(&name).await.unwrap(), second, "it is as the winner left it");
}

async fn a_put_without_a_version_is_refused(leases: Api<Lease>, name: String) {
    create(&leases, &held(&name)).await;
    let refused = put(&leases, &held(&name)).await.unwrap_err();
    assert_eq!(code(&refused), 422, "{refused}");
}

async fn a_put_that_changes_nothing_stores_nothing(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let same = put(&leases, &made).await.unwrap();
    assert_eq!(version(&made), version(&same), "200, and nothing was written");
}

async fn versions_only_grow(leases: Api<Lease>, name: String) {
    let mut lease = create(&leases, &held(&name)).await;
    for second in 1..6 {
        let next = put(&leases, &renewed(&lease, second)).await.unwrap();
        let number = |lease: &Lease| version(lease).parse::<u64>().unwrap();
        assert!(number(&next) > number(&lease));
        lease = next;
    }
}

async fn a_deleted_lease_is_gone_and_its_successor_is_another(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let mut events = watch(&leases, &name, &version(&made), 20).await;
    leases.delete(&name, &DeleteParams::default()).await.unwrap();
    let (kind, gone) = next(&mut events).await;
    assert_eq!(kind, "deleted");
    assert_ne!(version(&gone), version(&made), "a deletion has a version of its own");
    assert!(leases.get_opt(&name).await.unwrap().is_none());
    let late = put(&leases, &renewed(&made, 1)).await.unwrap_err();
    assert_eq!(code(&late), 409, "{late}");
    let successor = create(&leases, &held(&name)).await;
    assert_ne!(successor.metadata.uid, made.metadata.uid);
}

/// A PUT creates a deleted Lease, whatever version it names. Only the uid prevents that.
async fn a_put_without_a_uid_creates_a_lease_that_is_gone(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let mut late = renewed(&made, 1);
    late.metadata.uid = None;
    put(&leases, &late).await.unwrap();
    leases.delete(&name, &DeleteParams::default()).await.unwrap();
    let again = put(&leases, &late).await.unwrap();
    assert_ne!(again.metadata.uid, made.metadata.uid);
    let other = Lease { metadata: ObjectMeta { uid: made.metadata.uid, ..again.metadata }, ..again };
    assert_eq!(code(&put(&leases, &renewed(&other, 2)).await.unwrap_err()), 409);
}

async fn a_watch_shows_what_happened_since_its_version_in_order(leases: Api<Lease>, name: String) {
    let first = create(&leases, &held(&name)).await;
    let second = put(&leases, &renewed(&first, 1)).await.unwrap();
    let third = put(&leases, &renewed(&second, 2)).await.unwrap();
    let mut events = watch(&leases, &name, &version(&first), 20).await;
    assert_eq!(next(&mut events).await, ("modified", second));
    assert_eq!(next(&mut events).await, ("modified", third.clone()));
    let fourth = put(&leases, &renewed(&third, 3)).await.unwrap();
    assert_eq!(next(&mut events).await, ("modified", fourth));
}

async fn a_watch_of_one_name_shows_that_name_alone(leases: Api<Lease>, name: String) {
    let other = format!("{name}-other");
    let made = create(&leases, &held(&name)).await;
    let mut events = watch(&leases, &name, &version(&made), 20).await;
    create(&leases, &held(&other)).await;
    let own = put(&leases, &renewed(&made, 1)).await.unwrap();
    assert_eq!(next(&mut events).await, ("modified", own));
}

async fn a_watch_from_nothing_begins_with_what_exists(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let mut events = watch(&leases, &name, "0", 20).await;
    assert_eq!(next(&mut events).await, ("added", made));
}

async fn a_watch_ends_by_itself_and_says_how_far_it_came(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let events = watch(&leases, &name, &version(&made), 6).await;
    // The server sends a bookmark only if another object has changed.
    create(&leases, &held(&format!("{name}-other"))).await;
    let all = tokio::time::timeout(Duration::from_secs(20), events.collect::<Vec<_>>()).await.unwrap();
    let bookmarks = all.iter().filter(|event| matches!(event, WatchEvent::Bookmark(_))).count();
    assert_eq!(bookmarks, all.len(), "nothing but bookmarks: {all:?}");
    assert!(bookmarks > 0);
}

/// 410, either at once or as the first event.
async fn a_watch_from_a_version_that_is_too_old_is_gone(leases: Api<Lease>, name: String) {
    create(&leases, &held(&name)).await;
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(5);
    let stream = match leases.watch(&params, "1").await {
        Ok(stream) => stream,
        Err(error) => return assert_eq!(code(&error), 410, "{error}"),
    };
    let first = Box::pin(stream).try_next().await.unwrap().unwrap();
    assert!(matches!(&first, WatchEvent::Error(status) if status.code == 410), "{first:?}");
}

/// A watch from version 0 is never too old: it starts with the present object and gets every later
/// change.
async fn a_watch_from_nothing_goes_on_with_every_later_change(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let mut events = watch(&leases, &name, "0", 20).await;
    assert_eq!(next(&mut events).await, ("added", made.clone()));
    let mut lease = made;
    for second in 1..4 {
        lease = put(&leases, &renewed(&lease, second)).await.unwrap();
        assert_eq!(next(&mut events).await, ("modified", lease.clone()));
    }
}

/// What was written before the list is in it, and what is written after it is shown.
async fn a_list_says_from_where_a_watch_goes_on(leases: Api<Lease>, name: String) {
    let first = create(&leases, &held(&name)).await;
    let other = create(&leases, &held(&format!("{name}-other"))).await;
    let list = leases.list(&ListParams::default()).await.unwrap();
    for made in [&first, &other] {
        let listed = list.items.iter().find(|lease| lease.metadata.name == made.metadata.name);
        assert_eq!(listed.map(version), Some(version(made)));
    }
    let from = list.metadata.resource_version.unwrap();
    let changed = put(&leases, &renewed(&first, 1)).await.unwrap();
    let new = create(&leases, &held(&format!("{name}-new"))).await;
    let stream = leases.watch(&WatchParams::default().timeout(20), &from).await.unwrap();
    let mut events: Pin<Box<dyn Stream<Item = WatchEvent<Lease>>>> =
        Box::pin(stream.map(Result::unwrap));
    let ours = [&first, &other, &new].map(|lease| lease.metadata.name.clone());
    for expected in [("modified", changed), ("added", new)] {
        let shown = loop {
            let shown = next(&mut events).await;
            // Others write into this namespace, too.
            if ours.contains(&shown.1.metadata.name) {
                break shown;
            }
        };
        assert_eq!(shown, expected);
    }
}

/// Only so is it known which events of a name are older than the read that did not find it.
async fn a_list_of_one_name_says_how_far_it_goes_where_there_is_none(leases: Api<Lease>, name: String) {
    let made = create(&leases, &held(&name)).await;
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let there = leases.list(&named).await.unwrap();
    assert_eq!(there.items.iter().map(version).collect::<Vec<_>>(), [version(&made)]);
    leases.delete(&name, &DeleteParams::default()).await.unwrap();
    let gone = leases.list(&named).await.unwrap();
    assert_eq!(gone.items, []);
    let successor = create(&leases, &held(&name)).await;
    let mut events = watch(&leases, &name, &gone.metadata.resource_version.unwrap(), 20).await;
    assert_eq!(next(&mut events).await, ("added", successor), "the deletion is older");
}

async fn microseconds_and_foreign_annotations_are_kept(leases: Api<Lease>, name: String) {
    let mut wanted = held(&name);
    wanted.metadata.annotations = Some([("example.org/x".to_owned(), "y".to_owned())].into());
    let made = renewed(&create(&leases, &wanted).await, 7);
    let stored = put(&leases, &made).await.unwrap();
    let value = serde_json::to_value(&stored).unwrap();
    assert_eq!(value["spec"]["renewTime"], "2026-01-01T00:00:07.000001Z");
    assert_eq!(value["metadata"]["annotations"]["example.org/x"], "y");
}

/// client-go writes only the spec, and treats a Lease under its own name as its own: only
/// `renewTime` changes.
async fn a_renewal_by_another_program_is_told_from_ours(leases: Api<Lease>, name: String) {
    // 2026-01-01T00:00:05.000001Z.
    let renew_us = 1_767_225_605_000_001_i64;
    for repeats in [true, false] {
        let mut tenure = json!({
            "holder": "a", "transitions": 0, "acquireUs": 1_767_225_600_000_001_i64,
            "process": "p", "bootId": "b",
        });
        if repeats {
            tenure["renewUs"] = json!(renew_us);
        }
        let name = format!("{name}-{repeats}");
        let mut wanted = held(&name);
        wanted.metadata.annotations = Some([(TENURE.to_owned(), tenure.to_string())].into());
        let mut value = serde_json::to_value(renewed(&wanted, 5)).unwrap();
        value["spec"]["acquireTime"] = json!("2026-01-01T00:00:00.000001Z");
        let ours = create(&leases, &serde_json::from_value(value).unwrap()).await;
        assert!(record(&ours).tenure().is_some(), "{ours:?}");
        let theirs = put(&leases, &renewed(&ours, 7)).await.unwrap();
        assert_eq!(theirs.metadata.annotations, ours.metadata.annotations, "they are as they were");
        // An older xvip does not repeat `renewTime`, and its renewals count as before.
        assert_eq!(record(&theirs).tenure().is_some(), !repeats, "{theirs:?}");
    }
}

async fn contents_that_cannot_be_are_refused(leases: Api<Lease>, name: String) {
    for spec in [
        json!({"holderIdentity": "a", "leaseDurationSeconds": 0}),
        json!({"holderIdentity": "a", "leaseDurationSeconds": -3}),
        json!({"holderIdentity": "a", "leaseDurationSeconds": 3, "leaseTransitions": -1}),
    ] {
        let refused = leases.create(&PostParams::default(), &lease(&name, spec)).await.unwrap_err();
        assert_eq!(code(&refused), 422, "{refused}");
    }
}

async fn an_empty_holder_and_missing_fields_are_stored(leases: Api<Lease>, name: String) {
    let made = create(&leases, &lease(&name, json!({}))).await;
    let mut value = serde_json::to_value(&made).unwrap();
    value["spec"] = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
    let emptied: Lease = serde_json::from_value(value).unwrap();
    let stored = put(&leases, &emptied).await.unwrap();
    assert_eq!(stored.spec.unwrap().holder_identity.as_deref(), Some(""));
}
