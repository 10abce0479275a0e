//! No failure of the host keeps the loop from renewing, from stopping, or from serving the other
//! VIPs.

use super::fake::{Call, Did, Host, SLOT, api, eventually, lease, other_vip, run, run_with, vip};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use vip_common::abi::Ip;
use vip_user::{
    controller::Event,
    model::{fitness::Fitness, plan::Action},
};

/// Each step of the loop on the host hangs in turn; the Lease is still renewed.
#[tokio::test]
async fn a_step_that_hangs_keeps_no_renewal_waiting() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    for (call, subject) in [
        (Call::Links, "interfaces"),
        (Call::Actual, "host"),
        (Call::Guard, "guard"),
        (Call::AnnounceAny, "announcement ns/lease"),
    ] {
        running.host.lock().hangs = Some(call);
        running.events.send(Event::HostChanged).await.unwrap();
        if call == Call::AnnounceAny {
            // When a link comes back, the VIPs are announced on it.
            running.host.lock().link_up = false;
            running.events.send(Event::HostChanged).await.unwrap();
            eventually("down", || running.state.borrow().not_ready.len() == 1).await;
            running.host.lock().link_up = true;
            running.events.send(Event::HostChanged).await.unwrap();
        }
        eventually(subject, || running.problem(subject).contains("cut off")).await;
        let before = running.host.lock().raised();
        eventually("renewals", || running.host.lock().raised() >= before + 5).await;
        assert_eq!(running.host.lock().cleared(), 0, "{call:?}");
        running.host.lock().hangs = None;
        eventually("recovery", || running.problem(subject).is_empty()).await;
    }
}

#[tokio::test]
async fn a_stop_is_seen_while_the_host_hangs() {
    for call in [Call::Links, Call::Actual, Call::Guard] {
        let (running, _) = run("a", None).await;
        eventually("take-over", || running.host.answers()).await;
        running.host.lock().hangs = Some(call);
        running.events.send(Event::HostChanged).await.unwrap();
        running.events.send(Event::Stop).await.unwrap();
        eventually("the release", || running.holder().is_empty()).await;
        eventually("the end", || running.ended.is_finished()).await;
    }
}

/// A failed clear has silenced nothing, so nothing is released before a clear succeeds.
#[tokio::test]
async fn a_clear_that_fails_releases_nothing_until_one_succeeds() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().fails = Some((Call::Clear, libc::ENOMEM));
    running.events.send(Event::Stop).await.unwrap();
    eventually("it tries again", || running.host.lock().cleared() >= 3).await;
    assert_eq!(running.holder(), "a");
    running.host.lock().fails = None;
    eventually("the release", || running.holder().is_empty()).await;
    assert_eq!(running.host.lock().holder_when_cleared.as_deref(), Some("a"));
    eventually("the end", || running.ended.is_finished()).await;
}

/// The fence is 0, but earlier frames may still wait in a queue. So a clear that is cut off does
/// not count as silence.
#[tokio::test]
async fn a_clear_that_is_cut_off_releases_nothing() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().hangs = Some(Call::Clear);
    running.events.send(Event::Stop).await.unwrap();
    eventually("it tries again", || running.host.lock().cleared() >= 3).await;
    assert_eq!(running.holder(), "a");
    assert!(!running.host.answers());
    running.host.lock().hangs = None;
    eventually("the end", || running.ended.is_finished()).await;
}

/// The announcements of one VIP fail. The other VIP is announced. Failed announcements are
/// repeated, even after the burst.
#[tokio::test]
async fn an_announcement_that_fails_is_sent_again_and_harms_no_other_vip() {
    let (api, address) = api().await;
    let leases = vec![lease(address, "lease", SLOT, vec![vip(), other_vip()])];
    let fails = Some((Call::Announce(vip()), libc::ENOBUFS));
    let running = run_with("a", api, leases, Host { fails, ..Host::default() });
    eventually("the other VIP", || running.host.lock().has_announced(other_vip())).await;
    let burst = 6;
    eventually("again", || running.host.lock().announcements > burst + 1).await;
    assert!(!running.host.lock().has_announced(vip()));
    // The failure makes the node impaired for the Lease, and the reason names the VIP.
    let fitness = || running.state.borrow().leases[0].fitness;
    eventually("impaired", || fitness() == Fitness::Impaired).await;
    assert!(running.problem("fitness ns/lease").contains("192.0.2.10"));
    assert!(running.problem("announcement ns/lease").contains("192.0.2.10"));
    running.host.lock().fails = None;
    eventually("the VIP", || running.host.lock().has_announced(vip())).await;
    eventually("able", || fitness() == Fitness::Able).await;
}

#[tokio::test]
async fn a_change_that_hangs_keeps_no_other_vip_waiting() {
    let (api, address) = api().await;
    // The change that hangs is the first of the plan.
    let first = IpAddr::from([192, 0, 2, 1]);
    let leases = vec![lease(address, "lease", SLOT, vec![first, vip(), other_vip()])];
    let hangs = Some(Call::Add(first));
    let running = run_with("a", api, leases, Host { hangs, ..Host::default() });
    for vip in [vip(), other_vip()] {
        eventually("the other VIPs serve", || running.host.lock().generation(vip) == 1).await;
    }
    assert_eq!(running.host.lock().generation(first), 0, "it is not carried");
    running.host.lock().hangs = None;
    eventually("it follows", || running.host.lock().generation(first) == 1).await;
}

/// The Lease is renewed between the first and the last change of a long plan.
#[tokio::test]
async fn a_long_plan_keeps_no_renewal_waiting() {
    let (api, address) = api().await;
    let vips: Vec<IpAddr> = (1..=250).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let leases = vec![lease(address, "lease", SLOT, vips.clone())];
    let change_takes = Duration::from_millis(5);
    let running = run_with("a", api, leases, Host { change_takes, ..Host::default() });
    let serves = |host: &Host, vip: &IpAddr| host.generation(*vip) == 1;
    eventually("all serve", || {
        let host = running.host.lock();
        vips.iter().all(|vip| serves(&host, vip))
    })
    .await;
    let did = running.host.lock().did.clone();
    let is_change = |did: &Did| matches!(did, Did::Applied(Action::AddAddr(..)));
    let (first, last) =
        (did.iter().position(is_change).unwrap(), did.iter().rposition(is_change).unwrap());
    let renewals = did[first..last].iter().filter(|did| matches!(did, Did::Raised(_))).count();
    assert!(renewals >= 2, "{renewals} renewals while 250 addresses were added");
    assert_eq!(running.host.lock().cleared(), 0);
}

/// The entry guards an address on the host: while the address stays, the entry stays.
#[tokio::test]
async fn an_address_that_cannot_be_removed_keeps_its_entry() {
    for hangs in [false, true] {
        let (running, _) = run("a", None).await;
        eventually("take-over", || running.host.lock().generation(other_vip()) == 1).await;
        if hangs {
            running.host.lock().hangs = Some(Call::Remove);
        } else {
            running.host.lock().fails = Some((Call::Remove, libc::EBUSY));
        }
        running.events.send(Event::Stop).await.unwrap();
        eventually("the end", || running.ended.is_finished()).await;
        assert!(running.holder().is_empty(), "released");
        let host = running.host.lock();
        for vip in [vip(), other_vip()] {
            assert!(host.carries(vip));
            let entry = host.actual.vips.get(&Ip::from(vip));
            assert_eq!(entry.map(|entry| entry.generation), Some(0), "guarded and silent");
        }
    }
}

/// The kernel's stack would answer for an address without an entry, even after the fence.
#[tokio::test]
async fn an_address_whose_entry_finds_no_room_is_not_added() {
    let (api, address) = api().await;
    let leases = vec![lease(address, "lease", SLOT, vec![vip(), other_vip()])];
    let fails = Some((Call::Publish(other_vip()), libc::ENOSPC));
    let running = run_with("a", api, leases, Host { fails, ..Host::default() });
    eventually("the good VIP serves", || running.host.lock().generation(vip()) == 1).await;
    assert!(running.host.lock().carries(vip()) && !running.host.lock().carries(other_vip()));
    running.host.lock().fails = None;
    eventually("the other one follows", || running.host.lock().generation(other_vip()) == 1).await;
    assert!(running.host.lock().carries(other_vip()));
}

/// A node that could not carry one VIP reports it before it holds the Lease, and gives way to a
/// node that can.
#[tokio::test]
async fn a_node_that_could_not_carry_a_vip_gives_way_to_one_that_can() {
    let (api, address) = api().await;
    let refused = BTreeMap::from([(other_vip(), "IPv6 is off".to_owned())]);
    let vips = vec![vip(), other_vip()];
    let host = Host { refused, ..Host::default() };
    let weak = run_with("a", api.clone(), vec![lease(address, "lease", SLOT, vips)], host);
    let fitness = || weak.state.borrow().leases.first().map(|lease| lease.fitness);
    eventually("impaired", || fitness() == Some(Fitness::Impaired)).await;
    assert_eq!(weak.problem("fitness ns/lease"), "impaired: 192.0.2.20: IPv6 is off");
    eventually("with nobody better it serves", || weak.host.answers()).await;
    let (able, _) = run("b", Some((api, address))).await;
    eventually("the better one serves", || able.host.answers()).await;
    assert!(!weak.host.answers());
}

/// "Cannot look" is not "gone": the last known state counts, and a problem is reported.
#[tokio::test]
async fn a_guard_that_cannot_be_looked_at_is_not_taken_for_gone() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().fails = Some((Call::Guard, libc::EMFILE));
    let looked = |running: &super::fake::Running| {
        running.host.lock().did.iter().filter(|did| **did == Did::Looked).count()
    };
    eventually("told", || !running.problem("guard").is_empty()).await;
    let (before, looks) = (looked(&running), running.host.lock().guard_looks);
    eventually("more looks", || running.host.lock().guard_looks >= looks + 4).await;
    assert_eq!(looked(&running), before, "nothing was attached again");
    assert_eq!(running.state.borrow().leases[0].fitness, Fitness::Able);
    running.host.lock().fails = None;
    eventually("over", || running.problem("guard").is_empty()).await;
}

/// A success with one Lease says nothing about another.
#[tokio::test]
async fn a_problem_of_one_lease_is_not_ended_by_another() {
    let (api, address) = api().await;
    let one = lease(address, "lease", 0, vec![vip()]);
    let two = lease(address, "two", 1, vec![other_vip()]);
    let fails = Some((Call::Raise(1), libc::ENOMEM));
    let running = run_with("a", api, vec![one, two], Host { fails, ..Host::default() });
    eventually("told", || !running.problem("fence ns/two").is_empty()).await;
    let before = running.host.lock().raised();
    eventually("renewals of the other", || running.host.lock().raised() >= before + 3).await;
    assert!(!running.problem("fence ns/two").is_empty());
    assert!(running.problem("fence ns/lease").is_empty());
    running.host.lock().fails = None;
    eventually("over", || running.problem("fence ns/two").is_empty()).await;
}

/// A system call cannot be cut off. While it lasts, another thread reports the step of the loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_that_blocks_is_named_while_it_does() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().blocks = Some(Call::Links);
    running.events.send(Event::HostChanged).await.unwrap();
    eventually("named", || running.problem("loop").contains("has been in step \"interfaces\"")).await;
    running.host.lock().blocks = None;
    eventually("it was long", || running.problem("loop").contains("was in step")).await;
    eventually("over", || running.problem("loop").is_empty()).await;
}

/// The time for answers is counted from the planned time of a question. If the loop sends questions
/// much too late, it asks them again, and takes the VIP only after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn questions_that_are_late_are_asked_anew() {
    let (running, _) = run("a", None).await;
    let asked = || running.host.lock().did.iter().filter(|did| **did == Did::Probed).count();
    eventually("the first question", || asked() == 1).await;
    running.host.lock().blocks = Some(Call::Links);
    running.events.send(Event::HostChanged).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    running.host.lock().blocks = None;
    eventually("take-over", || running.host.answers()).await;
    assert_eq!(asked(), 1 + 3, "{:?}", running.host.lock().did);
}
