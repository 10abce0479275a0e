//! The controller with a fake dataplane and the stand-in API over loopback. The tests of `lab` show
//! that the real host behaves like the fake: fences and order of actions in `lab::restart` and
//! `lab::faults`, addresses in `lab::guard`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "controller/bounds.rs"]
mod bounds;
#[path = "controller/fake.rs"]
mod fake;
#[path = "controller/groups.rs"]
mod groups;
#[path = "controller/nodes.rs"]
mod nodes;

use fake::{Call, Did, Running, eventually, lease_api, other_vip, run, vip};
use std::{convert::identity, net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use vip_common::abi::{HostAddr, Ip, Vip};
use vip_tests::standin::StandIn;
use vip_user::{
    clock,
    cluster::watch::{Sighting, follow},
    controller::Event,
    model::{
        fitness::Fitness,
        lease::{
            election::{Source, Written},
            record::{LeaseWrite, TenureNote},
        },
        plan::Action,
    },
};

fn position(did: &[Did], wanted: impl Fn(&Did) -> bool) -> usize {
    did.iter().position(wanted).unwrap()
}

#[tokio::test]
async fn taking_goes_fence_address_entry_announcement() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    eventually("announcement", || running.host.lock().has_announced(vip())).await;
    let did = running.host.lock().did.clone();
    let probed = position(&did, |did| *did == Did::Probed);
    let raised = position(&did, |did| *did == Did::Raised(1));
    let addr = HostAddr { ip: Ip::from(vip()), ifindex: 1 };
    let added =
        position(&did, |did| matches!(did, Did::Applied(Action::AddAddr(at, _)) if *at == addr));
    let published = position(&did, |did| {
        matches!(did, Did::Applied(Action::Publish(_, Vip { generation: 1, .. })))
    });
    let announced = position(&did, |did| matches!(did, Did::Announced(_)));
    assert!(probed < raised && raised < added && added < published && published < announced, "{did:?}");
}

/// One bad VIP never harms another: its entry stays silent until the host accepts the address.
#[tokio::test]
async fn an_address_that_cannot_be_added_is_not_answered_for() {
    let (running, _) = run("a", None).await;
    running.host.lock().fails = Some((Call::Add(other_vip()), libc::EACCES));
    eventually("take-over", || running.host.answers()).await;
    let generation =
        |ip: IpAddr| running.host.lock().actual.vips.get(&Ip::from(ip)).map_or(0, |vip| vip.generation);
    eventually("the good VIP serves", || generation(vip()) == 1).await;
    assert_eq!(generation(other_vip()), 0);
    running.host.lock().fails = None;
    eventually("the other one follows", || generation(other_vip()) == 1).await;
}

#[tokio::test]
async fn stopping_goes_silence_release_linger_removal() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.events.send(Event::Stop).await.unwrap();
    eventually("the end", || running.ended.is_finished()).await;
    let host = running.host.lock();
    assert_eq!(host.holder_when_cleared.as_deref(), Some("a"), "released before the fence was cleared");
    assert!(host.actual.vips.is_empty() && host.actual.addrs.is_empty(), "{:?}", host.actual);
    drop(host);
    let lease = running.api.lease("ns", "lease").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    let annotations = &lease["metadata"]["annotations"];
    let text = annotations["xvip.io/released"].as_str().unwrap();
    let released: TenureNote = serde_json::from_str(text).unwrap();
    assert_eq!(released, serde_json::from_value(tenure_text(&running.api)).unwrap());
}

#[tokio::test]
async fn without_silence_nothing_is_released() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().stuck = true;
    running.events.send(Event::Stop).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(running.api.lease("ns", "lease").unwrap()["spec"]["holderIdentity"], "a");
    running.host.lock().stuck = false;
    running.ended.await.unwrap();
    assert_eq!(running.api.lease("ns", "lease").unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_standby_takes_over_at_once_when_the_owner_stops() {
    let (first, address) = run("a", None).await;
    eventually("first owner", || first.host.answers()).await;
    let (second, _) = run("b", Some((first.api.clone(), address))).await;
    eventually("standby follows", || !second.host.lock().actual.vips.is_empty()).await;
    // While nothing happens the candidate sends no requests: only renewals and its watch exist.
    let before = first.api.requests();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = first.api.requests() - before;
    assert!(requests <= 7, "{requests} requests in two seconds of renewals every 400 ms");
    first.events.send(Event::Stop).await.unwrap();
    eventually("second owner", || second.host.answers()).await;
    assert!(!first.host.answers());
}

#[tokio::test]
async fn a_slow_api_does_not_end_the_tenure() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.api.set_latency(Duration::from_millis(600));
    let mut dark = 0;
    for _ in 0..400 {
        dark += u32::from(!running.host.answers());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(dark, 0, "dark in {dark} of 400 looks");
    assert_eq!(running.host.lock().cleared(), 0);
}

#[tokio::test]
async fn labels_and_annotations_of_others_survive_our_writes() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.api.edit("ns", "lease", |lease| {
        lease["metadata"]["labels"] = serde_json::json!({"team": "net"});
        lease["metadata"]["annotations"]["note"] = "keep".into();
    });
    let version = |running: &Running| {
        running.api.lease("ns", "lease").unwrap()["metadata"]["resourceVersion"].clone()
    };
    let edited = version(&running);
    let renewed = |running: &Running| {
        let now = version(running).as_str().unwrap().parse::<u64>().unwrap();
        now >= edited.as_str().unwrap().parse::<u64>().unwrap() + 3
    };
    eventually("renewals", || renewed(&running)).await;
    let lease = running.api.lease("ns", "lease").unwrap();
    assert_eq!(lease["metadata"]["labels"]["team"], "net");
    assert_eq!(lease["metadata"]["annotations"]["note"], "keep");
    assert!(running.host.answers());
}

/// The annotation with a tenure, and the `renewTime` of the same write in microseconds.
fn tenure_text(api: &StandIn) -> serde_json::Value {
    let lease = api.lease("ns", "lease").unwrap();
    let text = lease["metadata"]["annotations"]["xvip.io/tenure"].as_str().unwrap().to_owned();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_client_go_program_under_our_own_name_renews_no_tenure_of_ours() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    let text = tenure_text(&running.api);
    let fields: Vec<&str> = text.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["acquireUs", "bootId", "holder", "process", "renewUs", "transitions"]);
    // An older xvip writes no `renewUs`, but its renewals count.
    running.api.edit("ns", "lease", |lease| {
        let mut text = text.clone();
        text.as_object_mut().unwrap().remove("renewUs");
        lease["metadata"]["annotations"]["xvip.io/tenure"] = text.to_string().into();
    });
    eventually("a renewal after it", || !tenure_text(&running.api)["renewUs"].is_null()).await;
    assert!(running.host.answers());
    assert_eq!(running.host.lock().cleared(), 0);
    // kube-vip of this node has the address on an interface of its own.
    let theirs = HostAddr { ip: Ip::from(vip()), ifindex: 2 };
    running.host.lock().actual.addrs.insert(theirs, u32::MAX);
    let passes = || !running.host.lock().actual.vips.contains_key(&Ip::from(vip()));
    // xvip looks at the host every five seconds, or two seconds after a loss. On a busy machine at
    // least one of three attempts must be faster.
    let mut at_once = false;
    for second in 1..4 {
        running.api.edit("ns", "lease", |lease| {
            lease["spec"]["holderIdentity"] = "a".into();
            lease["spec"]["renewTime"] = format!("2026-01-01T00:00:0{second}.000001Z").into();
        });
        eventually("its frames pass", passes).await;
        assert!(running.host.lock().actual.addrs.contains_key(&theirs));
        // Another node takes the Lease: this node is silent at once, even if an interface still
        // carries the address.
        running.api.edit("ns", "lease", |lease| lease["spec"]["holderIdentity"] = "b".into());
        let edited = clock::boot();
        eventually("the guard is back", || !passes()).await;
        at_once |= edited.until(clock::boot()) < Duration::from_secs(1);
    }
    assert!(at_once, "it waited for the next look at the host");
    assert!(running.host.lock().cleared() > 0 && !running.host.answers());
}

/// Without the uid the API server would create a Lease from the write
/// (`contract::…::a_put_without_a_uid_creates_a_lease_that_is_gone`).
#[tokio::test]
async fn a_late_write_creates_no_lease_that_is_gone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, api) = (listener.local_addr().unwrap(), StandIn::default());
    tokio::spawn(api.clone().serve_on(listener));
    let (knows, forgot) = (lease_api(address), lease_api(address));
    let made = knows.create(3).await.unwrap().unwrap();
    let note = TenureNote {
        holder: "a".into(),
        transitions: 1,
        acquire_us: 1,
        process: "p".into(),
        boot_id: "b".into(),
    };
    let base = Some(made.version);
    let (duration_s, macs) = (3, Vec::new());
    let (fitness, release, in_flight) = (Fitness::Able, false, 0);
    let write = LeaseWrite {
        id: 1,
        base,
        note,
        duration_s,
        renew_us: 2,
        release,
        fitness,
        preference: None,
        macs,
        vips: None,
        in_flight,
    };
    api.delete("ns", "lease");
    for lease in [knows, forgot] {
        let (outcome, error) = lease.write(write.clone()).await;
        assert_eq!((outcome, error.map(|error| error.to_string())), (Written::Conflict, None));
        assert_eq!(api.lease("ns", "lease"), None);
    }
}

/// A map that has no room for one VIP does not harm the others.
#[tokio::test]
async fn a_full_map_silences_one_vip_only() {
    let (running, _) = run("a", None).await;
    eventually("first look", || !running.host.lock().actual.ifaces.is_empty()).await;
    running.host.lock().fails = Some((Call::Publish(other_vip()), libc::ENOSPC));
    eventually("take-over", || running.host.answers()).await;
    let generation =
        |ip: IpAddr| running.host.lock().actual.vips.get(&Ip::from(ip)).map_or(0, |vip| vip.generation);
    eventually("the good VIP serves", || generation(vip()) == 1).await;
    assert_eq!(generation(other_vip()), 0);
    running.host.lock().fails = None;
    eventually("the other one follows", || generation(other_vip()) == 1).await;
}

/// More interfaces than the map has room for: one that is only guarded does not affect the VIPs.
#[tokio::test]
async fn a_guard_that_finds_no_entry_holds_up_no_vip() {
    let (running, _) = run("a", None).await;
    running.host.lock().fails = Some((Call::GuardEntry, libc::E2BIG));
    eventually("take-over", || running.host.answers()).await;
    let entered =
        |ifindex| running.host.lock().actual.ifaces.keys().any(|port| port.ifindex == ifindex);
    assert!(entered(2) && !entered(3));
}

/// Without entries there is no guard, so such a host leaves the Lease to other nodes.
#[tokio::test]
async fn a_host_without_room_for_its_entries_is_the_last_candidate() {
    for call in [Call::PublishAny, Call::Actual, Call::Links] {
        let (running, _) = run("a", None).await;
        running.host.lock().fails = Some((call, libc::ENOMEM));
        // A candidate takes the Lease after D·(1+ρ) = 2.2 s and address probes. A node that cannot
        // serve waits as long again.
        tokio::time::sleep(Duration::from_millis(5_400)).await;
        assert!(!is_held(&running), "{call:?}: it wrote");
        assert!(!running.host.answers(), "{call:?}");
        running.host.lock().fails = None;
        eventually("recovery", || running.host.answers()).await;
    }
}

fn is_held(running: &Running) -> bool {
    !running.holder().is_empty()
}

/// A fence that cannot be stored is not raised. Every renewal tries again.
#[tokio::test]
async fn a_fence_that_finds_no_room_is_raised_later() {
    let (running, _) = run("a", None).await;
    running.host.lock().fails = Some((Call::Raise(0), libc::ENOMEM));
    eventually("the Lease", || is_held(&running)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!running.host.answers());
    running.host.lock().fails = None;
    eventually("the fence", || running.host.answers()).await;
}

#[tokio::test]
async fn a_watch_goes_on_where_its_time_was_over_and_misses_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, api) = (listener.local_addr().unwrap(), StandIn::default());
    tokio::spawn(api.clone().serve_on(listener));
    let metadata = serde_json::json!({"namespace": "ns", "name": "lease"});
    api.put("ns", "lease", serde_json::json!({"metadata": metadata, "spec": {"leaseTransitions": 0}}));
    let (sender, mut sightings) = mpsc::channel(64);
    tokio::spawn(follow(lease_api(address), 1, Arc::default(), sender, identity));
    // Some of these changes fall between one watch and the next.
    let changes = api.clone();
    tokio::spawn(async move {
        for change in 1..=400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            changes.edit("ns", "lease", |lease| lease["spec"]["leaseTransitions"] = change.into());
        }
    });
    for expected in 0..=400 {
        let sighting = tokio::time::timeout(Duration::from_secs(20), sightings.recv()).await;
        let Ok(Some(Sighting::Seen(source, Some(seen)))) = sighting else {
            panic!("{sighting:?} instead of change {expected}")
        };
        assert_eq!((seen.transitions, source != Source::Watch), (expected, expected == 0));
    }
    assert!(api.requests() >= 4, "the watch did not end: {} requests", api.requests());
}
