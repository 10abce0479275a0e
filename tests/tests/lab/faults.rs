//! The faults, each in its own lab: no instant with two owners, and no dark time above the bound.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use vip_tests::{
    faults::{Fault, Outcome, inject, judged, watched},
    judge::two_owner_ms,
    lab::{Lab, Options},
};
use vip_user::{clock, config::Config};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "plndr-cp-lock";

/// Measurements run one at a time, however many threads the runner has.
static MEASURED: Mutex<()> = Mutex::new(());

#[track_caller]
fn keeps_the_promise(fault: Fault, extra: &str) -> Outcome {
    let _alone = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = judged(|| {
        let mut lab = Lab::new(&Options { extra: extra.into(), ..Options::default() })?;
        lab.start()?;
        let timing = Config::load(&lab.dir().join("node1.yaml"))?.timing();
        inject(&mut lab, &timing, fault)
    });
    let (outcome, _) = outcome.unwrap();
    assert!(outcome.kept(), "{outcome:?}");
    outcome
}

/// A stalled machine also loses echoes; then the fault is injected once more.
#[track_caller]
fn loses_no_echo(fault: Fault) {
    let mut outcome = keeps_the_promise(fault, "");
    if outcome.echoes.0 > 0 && outcome.stalled_ms > 0.0 {
        println!("echoes were lost while the machine stood still, so it is repeated: {outcome:?}");
        outcome = keeps_the_promise(fault, "");
    }
    assert_eq!(outcome.echoes.0, 0, "{outcome:?}");
}

#[test]
fn killed_and_not_restarted() {
    keeps_the_promise(Fault::Kill, "");
}

#[test]
fn frozen_for_twice_the_lease() {
    keeps_the_promise(Fault::Freeze, "");
}

#[test]
fn link_down() {
    keeps_the_promise(Fault::LinkDown, "");
}

#[test]
fn api_cut_off_from_the_owner() {
    keeps_the_promise(Fault::ApiCut, "");
}

#[test]
fn frozen_while_answering_at_tc_ingress() {
    keeps_the_promise(Fault::Freeze, "attach: tc\n");
}

#[test]
fn frozen_while_answering_by_generic_xdp() {
    keeps_the_promise(Fault::Freeze, "attach: generic\n");
}

/// A planned stop of the owner loses no ping.
#[test]
fn a_planned_stop_loses_no_echo() {
    loses_no_echo(Fault::PlannedStop);
}

/// A restart of all nodes, one after the other, loses no ping.
#[test]
fn a_rolling_restart_loses_no_echo() {
    loses_no_echo(Fault::RollingRestart);
}

/// While the API hangs for all nodes every fence runs out, but no process ends. When the API is
/// back, so are the VIPs.
#[test]
fn the_api_hangs_for_everybody() {
    keeps_the_promise(Fault::ApiHangs, "");
}

#[test]
fn the_api_refuses_everybody() {
    keeps_the_promise(Fault::ApiRefuses, "");
}

#[test]
fn the_owner_reboots() {
    keeps_the_promise(Fault::Reboot, "");
}

#[test]
fn the_owners_cgroup_is_frozen() {
    keeps_the_promise(Fault::CgroupFrozen, "");
}

#[test]
fn the_owners_cgroup_is_throttled() {
    keeps_the_promise(Fault::Throttled, "");
}

#[test]
fn frozen_with_the_vip_on_the_interface() {
    keeps_the_promise(Fault::Freeze, "placement: interface\n");
}

#[test]
fn the_lease_is_edited_emptied_and_deleted_by_hand() {
    let mut lab = Lab::new(&Options::default()).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let recording = watched(&mut lab, |lab| {
        let pause = || std::thread::sleep(Duration::from_millis(1_500));
        lab.api.edit(NAMESPACE, NAME, |lease| lease["spec"]["holderIdentity"] = "".into());
        pause();
        lab.api.edit(NAMESPACE, NAME, |lease| {
            lease["metadata"]["annotations"]["xvip.io/tenure"] = "{garbage".into();
        });
        pause();
        lab.api.delete(NAMESPACE, NAME);
        pause();
        lab.api.edit(NAMESPACE, NAME, |lease| {
            lease["spec"]["leaseTransitions"] = (-5).into();
            lease["metadata"]["labels"]["x"] = "y".into();
        });
        pause();
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(!recording.claims.is_empty());
    // The garbled annotation makes the holder a foreign one; candidates wait 2·D + 10 s for it.
    lab.wait_for_owner(Duration::from_secs(40)).unwrap();
}

/// A foreign holder writes only the spec and leaves xvip's annotation, under another name or the
/// owner's own. The owner is silent as soon as it sees that. No other node takes the Lease before
/// the grace is over; then one does. If a Lease is restored to an older content, its holder writes
/// it again.
#[test]
fn the_lease_is_taken_by_client_go_and_restored_to_an_older_content() {
    let lease = ", foreign_grace_s: 5".into();
    let mut lab = Lab::new(&Options { lease, ..Options::default() }).unwrap();
    lab.start().unwrap();
    for own_name in [false, true] {
        let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
        let holder = if own_name { lab.nodes[owner].name.clone() } else { "kube-vip-host".to_owned() };
        let mut taken = 0;
        let recording = watched(&mut lab, |lab| {
            std::thread::sleep(Duration::from_millis(500));
            lab.api.edit(NAMESPACE, NAME, |lease| {
                let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0);
                lease["spec"]["holderIdentity"] = holder.into();
                lease["spec"]["leaseTransitions"] = (transitions + 1).into();
            });
            taken = clock::boot().0;
            std::thread::sleep(Duration::from_secs(14));
            Ok(())
        })
        .unwrap();
        assert_eq!(two_owner_ms(&recording.claims), 0.0);
        // The watch event needs a moment. After it no node answers until the grace is over.
        let quiet = (taken + 500_000_000)..(taken + 5_000_000_000);
        let early = recording.claims.iter().filter(|claim| quiet.contains(&claim.at_ns)).count();
        assert_eq!(early, 0, "claims during the grace of a foreign holder (own name: {own_name})");
        assert!(recording.claims.iter().any(|claim| claim.at_ns >= quiet.end), "it was waited out");
    }
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let old = lab.api.lease(NAMESPACE, NAME).unwrap();
    let recording = watched(&mut lab, |lab| {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1_300));
            let old = old.clone();
            lab.api.edit(NAMESPACE, NAME, |lease| {
                lease["spec"] = old["spec"].clone();
                lease["metadata"]["annotations"] = old["metadata"]["annotations"].clone();
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
    assert!(lab.nodes[owner].owns(), "{}", lab.nodes[owner].log());
}
