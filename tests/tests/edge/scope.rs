//! What is told of each scope, whatever is followed: one object, or all of them.

use super::{HOLD, SOON, good, lease_api};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::Api;
use serde_json::json;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};
use vip_tests::standin::{Gone, Outage, StandIn};
use vip_user::{
    cluster::scope::{Begin, Followed, Pace, Scope, Sighted, Told},
    model::lease::election::Source,
};

/// What was told: how, of what, and the number in it.
type Item = (&'static str, String, Option<i64>);

fn pace(watch_s: u32, begin: Begin) -> Pace {
    let (first_pause, longest_pause) = (Duration::from_millis(20), Duration::from_millis(200));
    Pace { watch_s, first_pause, longest_pause, begin }
}

/// Follows Leases of the namespace, each with a number in its `leaseTransitions`.
fn leases(address: SocketAddr, scope: Scope, watch_s: u32) -> Followed<Lease> {
    let pace = pace(watch_s, Begin::Version);
    let api = lease_api(&[address], HOLD);
    Followed { api, of: |_, client| Api::namespaced(client, "ns"), scope, pace }
}

fn of_lease(lease: &Lease) -> i64 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default().into()
}

/// Follows a Node with a number in its label `n`. It is seldom written.
fn node(address: SocketAddr, watch_s: u32) -> Followed<Node> {
    let (api, pace) = (lease_api(&[address], HOLD), pace(watch_s, Begin::Existing));
    let scope = Scope::Named("node1".into());
    Followed { api, of: |_, client| Api::all(client), scope, pace }
}

fn of_node(node: &Node) -> i64 {
    let label = node.metadata.labels.as_ref().and_then(|labels| labels.get("n"));
    label.and_then(|label| label.parse().ok()).unwrap_or_default()
}

fn set_node(api: &StandIn, number: i64) {
    api.set_labels("node1", &[("n", &number.to_string())]);
}

fn item<K: 'static>(number: fn(&K) -> i64) -> impl FnMut(Told<K>) -> Option<Item> + Send + 'static {
    let mut last = Source::Watch;
    move |told| {
        Some(match told {
            Told::Seen(Sighted { key, source, object }) => {
                last = source;
                let how = if source == Source::Watch { "watch" } else { "read" };
                (how, key, object.as_ref().map(number))
            }
            Told::Listed(began) => {
                assert_eq!(last, Source::Quorum(began), "it began when its objects were read");
                ("listed", String::new(), None)
            }
            Told::Broken(why) => ("broken", why, None),
            Told::Unreadable(why) => ("unreadable", why, None),
        })
    }
}

async fn next(told: &mut mpsc::Receiver<Item>) -> Item {
    let Ok(Some(item)) = tokio::time::timeout(SOON, told.recv()).await else {
        panic!("nothing more is told")
    };
    item
}

async fn expect(told: &mut mpsc::Receiver<Item>, all: &[(&'static str, &str, Option<i64>)]) {
    for (how, of, number) in all {
        assert_eq!(next(told).await, (*how, (*of).to_owned(), *number), "of {all:?}");
    }
}

fn put(api: &StandIn, name: &str, number: i64) {
    let metadata = json!({"namespace": "ns", "name": name});
    api.put("ns", name, json!({"metadata": metadata, "spec": {"leaseTransitions": number}}));
}

fn edit(api: &StandIn, name: &str, number: i64) {
    api.edit("ns", name, |lease| lease["spec"]["leaseTransitions"] = number.into());
}

/// Until the first watch of a follower is open: the stand-in counts a request when it carries it out.
async fn opened(api: &StandIn) {
    while api.requests() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn all_objects_are_listed_once_and_each_change_is_told_in_order() {
    let (api, address) = good().await;
    put(&api, "a", 0);
    put(&api, "b", 0);
    let (sender, mut told) = mpsc::channel(64);
    tokio::spawn(leases(address, Scope::All, 1).follow(Arc::default(), sender, item(of_lease)));
    expect(&mut told, &[("read", "a", Some(0)), ("read", "b", Some(0)), ("listed", "", None)]).await;
    // Some of these changes fall between one watch and the next.
    let names = |change: i64| if change % 2 == 0 { "a" } else { "b" };
    let changes = api.clone();
    tokio::spawn(async move {
        put(&changes, "new", 7);
        for change in 1..=400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            edit(&changes, names(change), change);
        }
    });
    expect(&mut told, &[("watch", "new", Some(7))]).await;
    for change in 1..=400 {
        expect(&mut told, &[("watch", names(change), Some(change))]).await;
    }
    assert!(api.requests() >= 4, "the watch did not end: {} requests", api.requests());
}

/// What a watch that lags shows of an object from before it was read is old.
#[tokio::test]
async fn a_deletion_among_all_is_confirmed_by_a_read_and_nothing_older_is_told() {
    let (api, address) = good().await;
    put(&api, "a", 0);
    put(&api, "b", 0);
    let (sender, mut told) = mpsc::channel(64);
    tokio::spawn(leases(address, Scope::All, 60).follow(Arc::default(), sender, item(of_lease)));
    expect(&mut told, &[("read", "a", Some(0)), ("read", "b", Some(0)), ("listed", "", None)]).await;

    api.set_outage(Outage::Hangs);
    api.delete("ns", "a");
    put(&api, "a", 10);
    edit(&api, "a", 11);
    api.set_outage(Outage::None);
    expect(&mut told, &[("read", "a", Some(11))]).await;
    edit(&api, "a", 12);
    expect(&mut told, &[("watch", "a", Some(12))]).await;

    api.set_outage(Outage::Hangs);
    api.delete("ns", "a");
    put(&api, "a", 20);
    api.delete("ns", "a");
    api.set_outage(Outage::None);
    expect(&mut told, &[("read", "a", None)]).await;
    edit(&api, "b", 1);
    put(&api, "a", 30);
    expect(&mut told, &[("watch", "b", Some(1)), ("watch", "a", Some(30))]).await;
}

#[tokio::test]
async fn what_the_next_list_does_not_name_is_gone() {
    let (api, address) = good().await;
    put(&api, "a", 0);
    put(&api, "b", 0);
    api.cut_watches(true);
    let (sender, mut told) = mpsc::channel(64);
    tokio::spawn(leases(address, Scope::All, 60).follow(Arc::default(), sender, item(of_lease)));
    expect(&mut told, &[("read", "a", Some(0)), ("read", "b", Some(0)), ("listed", "", None)]).await;
    api.delete("ns", "b");
    // Lists may be on their way that began before.
    for _ in 0..20 {
        let mut named = Vec::new();
        loop {
            match next(&mut told).await {
                ("listed", _, _) => break,
                (_, name, _) => named.push(name),
            }
        }
        if named == ["a"] {
            return;
        }
    }
    panic!("it is still named");
}

/// The follower cannot go on before what it tells is taken in.
#[tokio::test]
async fn a_list_that_is_forgotten_before_it_is_watched_is_read_again() {
    for gone in [Gone::Event, Gone::Status] {
        let (api, address) = good().await;
        put(&api, "a", 0);
        put(&api, "b", 0);
        let (sender, mut told) = mpsc::channel(1);
        tokio::spawn(leases(address, Scope::All, 60).follow(Arc::default(), sender, item(of_lease)));
        expect(&mut told, &[("read", "a", Some(0))]).await;
        api.forget(gone);
        expect(&mut told, &[("read", "b", Some(0)), ("listed", "", None)]).await;
        expect(&mut told, &[("read", "a", Some(0)), ("read", "b", Some(0)), ("listed", "", None)])
            .await;
        edit(&api, "a", 1);
        expect(&mut told, &[("watch", "a", Some(1))]).await;
    }
}

#[tokio::test]
async fn a_doubt_ends_the_watch_and_all_is_read() {
    for scope in [Scope::All, Scope::Named("a".into())] {
        let (api, address) = good().await;
        put(&api, "a", 0);
        let read: &[_] = match scope {
            Scope::All => &[("read", "a", Some(0)), ("listed", "", None)],
            Scope::Named(_) => &[("read", "a", Some(0))],
        };
        let (sender, mut told) = mpsc::channel(64);
        let again = Arc::new(Notify::new());
        tokio::spawn(leases(address, scope, 60).follow(Arc::clone(&again), sender, item(of_lease)));
        expect(&mut told, read).await;
        again.notify_one();
        expect(&mut told, read).await;
        edit(&api, "a", 1);
        expect(&mut told, &[("watch", "a", Some(1))]).await;
    }
}

#[tokio::test]
async fn a_watch_that_breaks_is_told_and_a_read_follows() {
    let (api, address) = good().await;
    put(&api, "a", 0);
    api.fail_watches(Some(500));
    let (sender, mut told) = mpsc::channel(64);
    let scope = Scope::Named("a".into());
    tokio::spawn(leases(address, scope, 60).follow(Arc::default(), sender, item(of_lease)));
    let why = format!("http://{address}: watch: HTTP 500 (InternalError): broken by order");
    let broken = [("read", "a", Some(0)), ("broken", why.as_str(), None)];
    expect(&mut told, &broken).await;
    expect(&mut told, &broken).await;
    api.fail_watches(None);
    // Each change is read where no watch is open yet.
    let mut change = 1;
    edit(&api, "a", change);
    while next(&mut told).await.0 != "watch" {
        change += 1;
        edit(&api, "a", change);
    }
}

/// A server that has restarted remembers no version of a Node: one read and one watch all the same.
#[tokio::test]
async fn what_is_seldom_written_is_watched_without_a_second_read() {
    let (api, address) = good().await;
    set_node(&api, 0);
    api.forget(Gone::Event);
    let (sender, mut told) = mpsc::channel(64);
    tokio::spawn(node(address, 1).follow(Arc::default(), sender, item(of_node)));
    expect(&mut told, &[("read", "node1", Some(0))]).await;
    opened(&api).await;
    // Some of these changes fall between one watch and the next.
    let changes = api.clone();
    tokio::spawn(async move {
        for change in 1..=400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            set_node(&changes, change);
        }
    });
    for change in 1..=400 {
        expect(&mut told, &[("watch", "node1", Some(change))]).await;
    }
    assert!(api.requests() >= 4, "the watch did not end: {} requests", api.requests());
}

#[tokio::test]
async fn an_object_that_comes_and_goes_is_read_each_time() {
    let (api, address) = good().await;
    let (sender, mut told) = mpsc::channel(64);
    tokio::spawn(node(address, 60).follow(Arc::default(), sender, item(of_node)));
    expect(&mut told, &[("read", "node1", None)]).await;
    opened(&api).await;
    set_node(&api, 1);
    expect(&mut told, &[("read", "node1", Some(1))]).await;
    // It was just written, so the watch begins at its version.
    set_node(&api, 2);
    expect(&mut told, &[("watch", "node1", Some(2))]).await;
    api.delete_node("node1");
    expect(&mut told, &[("read", "node1", None)]).await;
}
