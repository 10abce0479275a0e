//! Groups that come and go while the loop runs.

use super::fake::{Did, Host, SLOT, api, eventually, lease, other_vip, run_with, vip};
use std::{net::IpAddr, time::Duration};
use vip_user::{
    clock,
    cluster::watch::Sighting,
    controller::{Event, GroupId},
    model::{
        group::GroupSpec,
        lease::election::{Source, Written},
    },
};

fn spec(name: &str, vip: IpAddr) -> GroupSpec {
    GroupSpec { lease: name.into(), vips: vec![vip], ..GroupSpec::default() }
}

#[tokio::test]
async fn a_group_comes_and_goes_while_another_is_served() {
    let (api, address) = api().await;
    let leases = vec![lease(address, "lease", SLOT, vec![vip()])];
    let running = run_with("a", api, leases, Host::default());
    let generation = |vip| running.host.lock().generation(vip);
    eventually("the first group is served", || generation(vip()) == 1).await;
    let both = vec![spec("lease", vip()), spec("two", other_vip())];
    running.events.send(Event::Wanted(both)).await.unwrap();
    eventually("the second, too", || generation(other_vip()) == 1).await;
    assert_eq!(running.host.lock().raised_for.get(&8).map(String::as_str), Some("two"));

    running.events.send(Event::Wanted(vec![spec("lease", vip())])).await.unwrap();
    let holder = || running.api.lease("ns", "two").unwrap()["spec"]["holderIdentity"].clone();
    eventually("it is given up", || holder() == "").await;
    eventually("nothing is left", || !running.host.lock().carries(other_vip())).await;
    let leases = || running.state.borrow().leases.len();
    eventually("it is forgotten", || leases() == 1).await;
    assert_eq!(generation(vip()), 1, "the first group was not touched");

    // The slot is given to another Lease. What comes late for the one before is not taken for it.
    running.host.lock().did.clear();
    let other = vec![spec("lease", vip()), spec("three", other_vip())];
    running.events.send(Event::Wanted(other)).await.unwrap();
    eventually("the third group waits", || leases() == 2).await;
    let late = GroupId { slot: 8, serial: 2 };
    let gone = Sighting::Seen(Source::Quorum(clock::boot()), None);
    running.events.send(Event::Sighting(late, gone)).await.unwrap();
    let unreadable = Sighting::Unreadable("late".into());
    running.events.send(Event::Sighting(late, unreadable)).await.unwrap();
    let written =
        Event::Written { group: late, id: 1, outcome: Written::Failed, problem: Some("late".into()) };
    running.events.send(written).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.problem("API ns/three"), "");
    assert_eq!(running.problem("write ns/three"), "");
    eventually("the third group is served", || generation(other_vip()) == 2).await;
}

#[tokio::test]
async fn groups_that_stop_are_silenced_at_once() {
    let (api, address) = api().await;
    let leases =
        vec![lease(address, "lease", SLOT, vec![vip()]), lease(address, "two", 1, vec![other_vip()])];
    let running = run_with("a", api, leases, Host::default());
    eventually("both are served", || {
        let host = running.host.lock();
        host.generation(vip()) == 1 && host.generation(other_vip()) == 1
    })
    .await;
    running.host.lock().did.clear();
    running.events.send(Event::Stop).await.unwrap();
    eventually("the end", || running.ended.is_finished()).await;
    let host = running.host.lock();
    let cleared = host.did.iter().filter_map(|did| match did {
        Did::Cleared(slots) => Some(slots.clone()),
        _ => None,
    });
    assert_eq!(cleared.collect::<Vec<_>>(), [vec![0, 1]], "one grace period and one drain");
    assert!(host.actual.vips.is_empty() && host.actual.addrs.is_empty(), "{:?}", host.actual);
}
