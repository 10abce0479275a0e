//! Which nodes may hold a Lease, and what happens while a Node object is unknown.

use super::{
    fake::{self, Did, Host, Running, SLOT, eventually, other_vip, run, vip},
    is_held,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use vip_tests::standin::StandIn;
use vip_user::{
    clock,
    cluster::lease::record,
    controller::{Event, Setup},
    model::{
        facts::NodeFacts,
        fitness::Fitness,
        lease::election::{AdoptedFence, Identity},
    },
};

/// A controller whose setup is changed before it starts.
async fn started(
    node: &str,
    known: Option<(StandIn, SocketAddr)>,
    change: impl FnOnce(&mut Setup),
) -> (Running, SocketAddr) {
    let (api, address) = match known {
        Some(known) => known,
        None => fake::api().await,
    };
    let leases = vec![fake::lease(address, "lease", SLOT, vec![vip(), other_vip()])];
    (fake::run_changed(node, api, leases, Host::default(), change), address)
}

fn only_edge(setup: &mut Setup) {
    setup.groups[0].nodes = BTreeMap::from([("role".into(), "edge".into())]);
}

fn edge() -> NodeFacts {
    NodeFacts { labels: BTreeMap::from([("role".into(), "edge".into())]), cordoned: false }
}

/// Unknown is not bad: an API that shows the Lease but not the Node.
#[tokio::test]
async fn a_node_that_could_not_be_read_bars_nobody() {
    let (running, _) = started("a", None, only_edge).await;
    running.events.send(Event::Node(Err("it cannot be read".into()))).await.unwrap();
    eventually("take-over", || running.host.answers()).await;
}

#[tokio::test]
async fn a_node_that_lacks_the_label_takes_nothing_until_it_has_it() {
    let (running, _) = started("a", None, only_edge).await;
    running.events.send(Event::Node(Ok(NodeFacts::default()))).await.unwrap();
    // An able node takes a Lease that was never held after four seconds, a doubtful one a little later.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!is_held(&running) && !running.host.answers());
    // The last read Node still counts when the Node can no longer be read.
    running.events.send(Event::Node(Err("it cannot be read".into()))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_held(&running));
    running.events.send(Event::Node(Ok(edge()))).await.unwrap();
    eventually("take-over", || running.host.answers()).await;
}

/// After a restart the Node is read later than the Lease. The holder must not give way because of
/// that.
#[tokio::test]
async fn a_holder_goes_on_across_a_restart_before_its_node_is_read() {
    let (first, address) = started("a", None, only_edge).await;
    first.events.send(Event::Node(Ok(edge()))).await.unwrap();
    eventually("take-over", || first.host.answers()).await;
    let api = (first.api.clone(), address);
    let (other, _) = started("b", Some(api.clone()), only_edge).await;
    other.events.send(Event::Node(Ok(edge()))).await.unwrap();
    eventually("the standby follows", || !other.host.lock().actual.vips.is_empty()).await;

    first.ended.abort();
    let lease = first.api.lease("ns", "lease").unwrap();
    let record = record(&serde_json::from_value(lease).unwrap());
    let slot = AdoptedFence {
        tenure: record.tenure().unwrap(),
        until: clock::boot().after(Duration::from_secs(1)),
        duration_s: 2,
        served: BTreeSet::from([vip(), other_vip()]),
    };
    let (again, _) = started("a", Some(api), |setup| {
        only_edge(setup);
        setup.policy.me.process = "p-a-again".into();
        setup.slots[0].1.adopted = Some(slot);
        setup.slots[0].1.generation = 1;
    })
    .await;
    let renewed = || first.api.lease("ns", "lease").unwrap()["spec"]["renewTime"].clone();
    let mut renewals = 0;
    let mut last = renewed();
    eventually("renewals", || {
        let lease = first.api.lease("ns", "lease").unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "a", "it gave way");
        let annotations = &lease["metadata"]["annotations"];
        assert_eq!(annotations["xvip.io/fitness"], "able", "unknown is not bad");
        renewals += u32::from(renewed() != last);
        last = renewed();
        renewals >= 4
    })
    .await;
    assert!(!other.host.answers() && again.host.lock().did.contains(&Did::Raised(1)));
}

/// Two hosts with one node name: the one that waits reports it.
#[tokio::test]
async fn another_host_of_the_same_name_is_a_problem() {
    let (first, address) = run("a", None).await;
    eventually("take-over", || first.host.answers()).await;
    let (second, _) = started("a", Some((first.api.clone(), address)), |setup| {
        setup.policy.me = Identity { node: "a".into(), process: "p-other".into(), boot_id: "c".into() };
    })
    .await;
    let problem = || second.state.borrow().problems.get("node name").cloned();
    eventually("the problem", || problem().is_some()).await;
    let why = problem().unwrap();
    assert!(why.contains("another host (boot id \"b\")") && why.contains("\"a\""), "{why}");
    assert!(!first.state.borrow().problems.contains_key("node name"));
    first.ended.abort();
    eventually("the other one takes over", || second.host.answers()).await;
    eventually("it is over", || problem().is_none()).await;
}

/// A node without the right to list Leases could not publish VIPs that another version leaves. So
/// it is not ready, and the last choice, until it has the right.
#[tokio::test]
async fn a_node_that_may_not_list_leases_is_not_ready() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    let told = |forbidden: Option<&str>| Event::MayList(forbidden.map(str::to_owned));
    let fitness = || running.state.borrow().leases[0].fitness;
    let lacks = || running.state.borrow().not_ready.join("; ");
    eventually("able", || fitness() == Fitness::Able && lacks().is_empty()).await;
    // The controller's own list succeeds, perhaps later.
    let refused = || drop(running.events.try_send(told(Some("HTTP 403 (Forbidden)"))));
    eventually("doubtful", || {
        refused();
        fitness() == Fitness::Doubtful
    })
    .await;
    assert!(running.problem("rights").contains("403") && lacks().contains("may not list"));
    running.events.send(told(None)).await.unwrap();
    eventually("able", || fitness() == Fitness::Able && lacks().is_empty()).await;
}
