//! The faults, each in a lab of its own: no instant with two owners, and no longer dark than
//! the bound.

use std::time::Duration;
use vip_tests::{
    faults::{Fault, Outcome, inject, watched},
    judge::two_owner_ms,
    lab::{Lab, Options},
};
use vip_user::config::Config;

#[track_caller]
fn keeps_the_promise(fault: Fault, extra: &str) -> Outcome {
    let mut lab = Lab::new(&Options { extra: extra.into(), ..Options::default() }).unwrap();
    lab.start().unwrap();
    let timing = Config::load(&lab.dir().join("node1.yaml")).unwrap().timing();
    let (outcome, _) = inject(&mut lab, &timing, fault).unwrap();
    assert!(outcome.kept(), "{outcome:?}");
    outcome
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

/// No stateless probe of a user is lost when the owner is stopped as planned.
#[test]
fn a_planned_stop_loses_no_echo() {
    let outcome = keeps_the_promise(Fault::PlannedStop, "");
    assert_eq!(outcome.echoes.0, 0, "{outcome:?}");
}

/// Nor when all nodes are restarted, one after the other.
#[test]
fn a_rolling_restart_loses_no_echo() {
    let outcome = keeps_the_promise(Fault::RollingRestart, "");
    assert_eq!(outcome.echoes.0, 0, "{outcome:?}");
}

/// An API that is gone for everybody lets every fence run out, and no process ends. When it is back
/// the VIPs are.
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
    lab.wait_for_owner(Duration::from_secs(20)).unwrap();
    let (namespace, name) = ("kube-system", "plndr-cp-lock");
    let recording = watched(&mut lab, |lab| {
        let pause = || std::thread::sleep(Duration::from_millis(1_500));
        lab.api.edit(namespace, name, |lease| lease["spec"]["holderIdentity"] = "".into());
        pause();
        lab.api.edit(namespace, name, |lease| {
            lease["metadata"]["annotations"]["xvip.io/tenure"] = "{garbage".into();
        });
        pause();
        lab.api.delete(namespace, name);
        pause();
        lab.api.edit(namespace, name, |lease| {
            lease["spec"]["leaseTransitions"] = (-5).into();
            lease["metadata"]["labels"]["x"] = "y".into();
        });
        pause();
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(!recording.claims.is_empty());
    // A foreign holder (the garbled note makes it one) is waited out: 2·D + 10 s.
    lab.wait_for_owner(Duration::from_secs(40)).unwrap();
}
