//! Following the Lease and the Node.

use super::{HOLD, SOON, edit, good, hung, lease_api, put, soon};
use std::{convert::identity, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use vip_tests::standin::{Gone, StandIn};
use vip_user::{
    cluster::{
        node,
        watch::{Sighting, WATCH_S, follow},
    },
    model::{lease::election::Source, time::BootNs},
};

/// A read, whenever it began.
const READ: Source = Source::Quorum(BootNs(0));

/// The next sighting: its source and `leaseTransitions`, or that there is none.
async fn next(sightings: &mut mpsc::Receiver<Sighting>, what: &str) -> (Source, Option<i64>) {
    match soon(tokio::time::timeout(SOON, sightings.recv()).await, what) {
        Some(Sighting::Seen(source, record)) => {
            let source = if source == Source::Watch { source } else { READ };
            (source, record.map(|record| record.transitions))
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// The read is answered by another one, and so is the watch; later the first one begins to hang.
#[tokio::test]
async fn a_watch_does_not_wait_for_an_endpoint_that_hangs() {
    let ((_, hangs), (api, works)) = (hung().await, good().await);
    put(&api, 0);
    let leases = lease_api(&[hangs, works], HOLD);
    let (sender, mut sightings) = mpsc::channel(16);
    tokio::spawn(follow(leases, WATCH_S, Arc::default(), sender, identity));
    assert_eq!(next(&mut sightings, "the read").await, (READ, Some(0)));
    edit(&api, 1);
    assert_eq!(next(&mut sightings, "the watch").await, (Source::Watch, Some(1)));
}

#[tokio::test]
async fn the_node_is_read_and_watched_though_an_endpoint_hangs() {
    let ((_, hangs), (api, works)) = (hung().await, good().await);
    api.set_labels("node1", &[("role", "edge")]);
    let (sender, mut reports) = mpsc::channel(16);
    let leases = lease_api(&[hangs, works], HOLD);
    tokio::spawn(node::follow(leases, "node1".into(), sender, identity));
    let read = soon(tokio::time::timeout(SOON, reports.recv()).await, "the Node").unwrap().unwrap();
    assert_eq!(read.labels["role"], "edge");
    api.cordon("node1", true);
    let seen = soon(tokio::time::timeout(SOON, reports.recv()).await, "the change").unwrap().unwrap();
    assert!(seen.cordoned);
}

#[tokio::test]
async fn why_the_node_cannot_be_read_is_told_and_it_is_tried_again() {
    let (api, works) = good().await;
    api.set_labels("node1", &[("role", "edge")]);
    api.refuse_all(Some(403));
    let (sender, mut reports) = mpsc::channel(16);
    tokio::spawn(node::follow(lease_api(&[works], HOLD), "node1".into(), sender, identity));
    let why = reports.recv().await.unwrap().unwrap_err();
    assert_eq!(why, format!("http://{works}: get: HTTP 403: refused by order"));
    api.refuse_all(None);
    assert_eq!(reports.recv().await.unwrap().unwrap().labels["role"], "edge");
}

/// A quiet Lease is older than what the API server remembers: a restart is enough. The watch begins all
/// the same, and misses nothing.
#[tokio::test]
async fn a_lease_older_than_what_the_server_remembers_is_watched() {
    for gone in [Gone::Event, Gone::Status] {
        let (api, address) = good().await;
        put(&api, 0);
        api.forget(gone);
        let (sender, mut sightings) = mpsc::channel(16);
        let leases = lease_api(&[address], HOLD);
        tokio::spawn(follow(leases, WATCH_S, Arc::default(), sender, identity));
        assert_eq!(next(&mut sightings, "first").await, (READ, Some(0)), "{gone:?}");
        assert_eq!(next(&mut sightings, "again").await, (READ, Some(0)), "{gone:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        // A read and a watch that is refused; a read and a watch that lasts. Three more, should this
        // machine stall.
        assert!(api.requests() <= 7, "{gone:?}: {} requests", api.requests());
        for change in 1..=3 {
            edit(&api, change);
            assert_eq!(next(&mut sightings, "a change").await, (Source::Watch, Some(change)));
        }
    }
}

/// What is written before the watch has begun is not missed: it is read.
#[tokio::test]
async fn a_forgotten_lease_that_is_written_meanwhile_is_read_again() {
    let (api, address) = good().await;
    put(&api, 0);
    api.forget(Gone::Event);
    let (sender, mut sightings) = mpsc::channel(16);
    let leases = lease_api(&[address], HOLD);
    tokio::spawn(follow(leases, WATCH_S, Arc::default(), sender, identity));
    assert_eq!(next(&mut sightings, "first").await, (READ, Some(0)));
    edit(&api, 1);
    let (mut source, mut shown) = next(&mut sightings, "again").await;
    let mut change = 1;
    while source != Source::Watch {
        if shown == Some(change) {
            change += 1;
            edit(&api, change);
        }
        let last = shown;
        (source, shown) = next(&mut sightings, "a change").await;
        assert!(shown >= last, "{shown:?} after {last:?}");
    }
    assert_eq!(shown, Some(change), "nothing was left out");
}

/// Rule 12: whatever ends a read or a watch before its time, pauses grow.
#[tokio::test]
async fn pauses_grow_whatever_goes_wrong() {
    type Fault = fn(&StandIn);
    let cases: [(&str, Fault); 5] = [
        ("watches end at once", |api| api.cut_watches(true)),
        ("watches fail at once", |api| api.fail_watches(Some(500))),
        ("every request is refused with 429", |api| api.refuse_all(Some(429))),
        ("every request is refused with 500", |api| api.refuse_all(Some(500))),
        ("nothing is wrong", |_| ()),
    ];
    for (what, begin) in cases {
        let (api, address) = good().await;
        put(&api, 0);
        begin(&api);
        let (sender, mut sightings) = mpsc::channel(16);
        let leases = lease_api(&[address], Duration::from_secs(4));
        tokio::spawn(follow(leases, WATCH_S, Arc::default(), sender, identity));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let _ = tokio::time::timeout(Duration::from_millis(100), sightings.recv()).await;
        }
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 s, at least half of each: nine rounds of two requests at
        // most.
        assert!(api.requests() <= 18, "{what}: {} requests in five seconds", api.requests());
        assert!(api.requests() >= 2, "{what}: it is tried again");
    }
}
