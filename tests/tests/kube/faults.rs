//! Hostile faults of the API and of the owner, with a real kube-apiserver behind a proxy that
//! misbehaves. The judge on the wire decides: no instant with two owners. All faults run in one
//! lab, one after the other.

use crate::trial;
use libtest_mimic::Trial;
use serde_json::json;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    faults::{Fault, Recording, inject, judged, watched},
    judge::{spans, two_owner_ms_between},
    kube::{objects, proxy::Way},
    lab::{Kube, Lab, Options, node::Node},
};
use vip_user::{clock, config::Config};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "plndr-cp-lock";
/// Time between two faults in which every node must follow again and one must own the VIPs.
pub const SETTLE: Duration = Duration::from_secs(30);
/// The longest dark time of a fault that must not be felt: the slack of every bound.
const UNFELT_MS: f64 = 500.0;

type Shared = Arc<Mutex<Option<Lab>>>;
pub type Attack = fn(&mut Lab, &mut Vec<u64>);

pub fn trials() -> Vec<Trial> {
    let attacks: [(&str, Attack); 16] = [
        ("a_planned_stop", |lab, _| keeps(lab, Fault::PlannedStop)),
        ("the_process_is_killed", |lab, _| keeps(lab, Fault::Kill)),
        ("the_api_server_is_stopped", |lab, _| keeps(lab, Fault::ApiHangs)),
        ("the_api_refuses", |lab, _| keeps(lab, Fault::ApiRefuses)),
        ("the_owners_link_is_down", |lab, _| keeps(lab, Fault::LinkDown)),
        ("a_black_hole_for_the_owner", |lab, moves| cut_off(lab, moves, Way::BlackHole)),
        ("resets_for_the_owner", |lab, moves| cut_off(lab, moves, Way::Reset)),
        ("answers_that_are_300_ms_late", |lab, _| slow(lab, 300)),
        ("answers_that_are_500_ms_late", |lab, _| slow(lab, 500)),
        ("answers_that_are_2_s_and_8_s_late", very_slow),
        ("a_storm_of_conflicts", |lab, _| conflicts(lab)),
        ("watches_that_are_cut_every_second", |lab, _| cut_watches(lab)),
        ("the_lease_is_emptied_garbled_and_deleted", by_hand),
        ("a_client_go_holder_that_renews_and_then_vanishes", foreign),
        ("frozen_at_random_for_random_times", frozen),
        ("the_owners_link_flaps_every_100_ms", flapping),
    ];
    let last = trial("faults::a_token_is_exchanged_and_the_old_one_revoked", exchanged_token);
    in_one_lab("faults", attacks.to_vec()).into_iter().chain([last]).collect()
}

/// Runs attacks one after the other in one lab, which is dropped after the last.
pub fn in_one_lab(group: &str, attacks: Vec<(&'static str, Attack)>) -> Vec<Trial> {
    let lab: Shared = Arc::default();
    let trials = attacks.into_iter().map(|(name, attack)| {
        let shared = Arc::clone(&lab);
        trial(format!("{group}::{name}"), move || {
            // A lab in which a test failed is not used again.
            let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let mut lab = kept.take().unwrap_or_else(new_lab);
            attack(&mut lab, &mut Vec::new());
            *kept = Some(lab);
        })
    });
    trials.collect()
}

fn new_lab() -> Lab {
    let lease = ", foreign_grace_s: 5".into();
    let mut lab = Lab::new(&Options { kube: Kube::One, lease, ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab
}

/// A fault of the demo, with its bound.
#[track_caller]
fn keeps(lab: &mut Lab, fault: Fault) {
    let timing = Config::load(&lab.dir().join("node1.yaml")).unwrap().timing();
    let (outcome, _) = judged(|| inject(lab, &timing, fault)).unwrap();
    assert!(outcome.kept(), "{outcome:?}");
}

/// Watches while `work` injects a fault. The VIPs have an owner before it, and at some time after
/// it.
#[track_caller]
pub fn suffers(
    lab: &mut Lab,
    moves: &mut Vec<u64>,
    work: impl FnOnce(&mut Lab, usize, &mut Vec<u64>),
) -> Recording {
    let owner = lab.wait_for_owner(SETTLE).unwrap();
    let recording = watched(lab, |lab| {
        sleep(Duration::from_millis(500));
        work(lab, owner, moves);
        Ok(())
    });
    let recording = recording.unwrap();
    assert!(!recording.claims.is_empty(), "the judge has heard the owner");
    let double = two_owner_ms_between(&recording.claims, moves);
    assert_eq!(double, 0.0, "two owners, moves at {moves:?}:\n{}", spans(&recording.claims));
    lab.wait_for_owner(SETTLE).unwrap();
    recording
}

/// The same for a fault that must not be felt: no VIP is dark, and the owner stays.
#[track_caller]
pub fn is_unfelt(lab: &mut Lab, work: impl FnOnce(&mut Lab)) {
    let (mut from, mut to) = (0, 0);
    let owner = lab.wait_for_owner(SETTLE).unwrap();
    let recording = suffers(lab, &mut Vec::new(), |lab, _, _| {
        from = clock::boot().0;
        work(lab);
        to = clock::boot().0;
    });
    let dark = recording.asked.dark_ms(from, to);
    let stalled = recording.stalls.within_ms(from, to);
    let log = lab.nodes[owner].log();
    assert!(
        dark < UNFELT_MS + stalled,
        "dark for {dark} ms, the machine stood for {stalled} ms:\n{log}"
    );
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 11 + node as u8).into()
}

fn cut_off(lab: &mut Lab, moves: &mut Vec<u64>, way: Way) {
    let recording = suffers(lab, moves, |lab, owner, _| {
        let proxy = &lab.api.real().unwrap().proxy;
        proxy.set_for(address(owner), Some(way));
        sleep(Duration::from_secs(6));
        proxy.set_for(address(owner), None);
    });
    let nodes: Vec<usize> = recording.claims.iter().map(|claim| claim.node).collect();
    assert_ne!(nodes.first(), nodes.last(), "another node took over");
}

/// Rule 8: an API that answers late must not keep a VIP dark while two attempts fit into the fence.
fn slow(lab: &mut Lab, ms: u64) {
    is_unfelt(lab, |lab| {
        let proxy = &lab.api.real().unwrap().proxy;
        proxy.set(Way::Delay(Duration::from_millis(ms)));
        sleep(Duration::from_secs(10));
        proxy.set(Way::Open);
        sleep(Duration::from_secs(2));
    });
}

fn very_slow(lab: &mut Lab, moves: &mut Vec<u64>) {
    suffers(lab, moves, |lab, _, moves| {
        let proxy = &lab.api.real().unwrap().proxy;
        for seconds in [2, 8] {
            moves.push(clock::boot().0);
            proxy.set(Way::Delay(Duration::from_secs(seconds)));
            sleep(Duration::from_secs(9));
        }
        moves.push(clock::boot().0);
        proxy.set(Way::Open);
        sleep(Duration::from_secs(9));
    });
}

/// Another program keeps writing an annotation into the Lease.
fn conflicts(lab: &mut Lab) {
    is_unfelt(lab, |lab| {
        let plane = &lab.api.real().unwrap().plane;
        let stormed = plane.call(0, async |client| {
            for number in 0..160 {
                objects::edit(&client, NAMESPACE, NAME, |lease| {
                    lease["metadata"]["annotations"]["example.org/number"] = json!(number.to_string());
                })
                .await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        });
        stormed.unwrap();
    });
}

fn cut_watches(lab: &mut Lab) {
    is_unfelt(lab, |lab| {
        let proxy = &lab.api.real().unwrap().proxy;
        for _ in 0..8 {
            proxy.set(Way::Reset);
            sleep(Duration::from_millis(100));
            proxy.set(Way::Open);
            sleep(Duration::from_millis(900));
        }
    });
}

fn by_hand(lab: &mut Lab, moves: &mut Vec<u64>) {
    suffers(lab, moves, |lab, _, _| {
        let pause = || sleep(Duration::from_millis(1_500));
        lab.api.edit(NAMESPACE, NAME, |lease| lease["spec"]["holderIdentity"] = "".into());
        pause();
        lab.api.delete(NAMESPACE, NAME);
        pause();
        lab.api.edit(NAMESPACE, NAME, |lease| lease["spec"]["leaseTransitions"] = 2_147_483_647.into());
        pause();
        lab.api.edit(NAMESPACE, NAME, |lease| {
            lease["metadata"]["annotations"]["xvip.io/tenure"] = "{garbage".into();
        });
        pause();
    });
}

/// A foreign holder writes only the spec, as client-go does, four times. No node answers until its
/// grace is over.
fn foreign(lab: &mut Lab, moves: &mut Vec<u64>) {
    let mut quiet = 0..0;
    let recording = suffers(lab, moves, |lab, _, _| {
        let renew = |lab: &Lab, taken: bool| {
            lab.api.edit(NAMESPACE, NAME, |lease| {
                let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0);
                lease["spec"]["holderIdentity"] = "kube-vip-host".into();
                lease["spec"]["leaseTransitions"] = (transitions + i64::from(taken)).into();
                let now = jiff::Timestamp::now();
                lease["spec"]["renewTime"] = json!(format!("{now:.6}"));
            });
        };
        renew(lab, true);
        let taken = clock::boot().0;
        for _ in 0..4 {
            sleep(Duration::from_secs(1));
            renew(lab, false);
        }
        let last = clock::boot().0;
        quiet = taken + 500_000_000..last + 5_000_000_000;
        sleep(Duration::from_secs(13));
    });
    let early = recording.claims.iter().filter(|claim| quiet.contains(&claim.at_ns)).count();
    assert_eq!(early, 0, "claims while somebody else holds the Lease");
    assert!(recording.claims.iter().any(|claim| claim.at_ns >= quiet.end), "it was waited out");
}

fn frozen(lab: &mut Lab, moves: &mut Vec<u64>) {
    // Any seed will do. The clock makes each run different, and the seed is printed.
    let mut seed = clock::boot().0;
    println!("seed {seed}");
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    suffers(lab, moves, |lab, _, moves| {
        for _ in 0..5 {
            // The present owner; if there is none, the first node.
            let owner = lab.nodes.iter().position(Node::owns).unwrap_or(0);
            sleep(Duration::from_millis(random(900)));
            lab.nodes[owner].signal(libc::SIGSTOP);
            sleep(Duration::from_millis(100 + random(6_000)));
            lab.nodes[owner].signal(libc::SIGCONT);
            // A VIP that returns to a node is not a second owner.
            moves.push(clock::boot().0);
        }
        sleep(Duration::from_secs(2));
    });
}

fn flapping(lab: &mut Lab, moves: &mut Vec<u64>) {
    suffers(lab, moves, |lab, owner, moves| {
        for _ in 0..20 {
            lab.bridge.ip(&format!("link set n{} down", owner + 1)).unwrap();
            sleep(Duration::from_millis(100));
            lab.bridge.ip(&format!("link set n{} up", owner + 1)).unwrap();
            sleep(Duration::from_millis(100));
        }
        moves.push(clock::boot().0);
        sleep(Duration::from_secs(5));
    });
}

/// The kubelet renames a pod's new token into place before the old one expires; the pod has the
/// directory mounted. Here the old token is revoked at once.
fn exchanged_token() {
    let mut lab = Lab::new(&Options { kube: Kube::One, nodes: 1, ..Options::default() }).unwrap();
    let (outside, inside) = (lab.dir().join("credentials"), lab.dir().join("mounted"));
    for dir in [&outside, &inside] {
        fs::create_dir(dir).unwrap();
    }
    let file = outside.join("token");
    let kubeconfig = lab.dir().join("kubeconfig");
    let text = fs::read_to_string(&kubeconfig).unwrap();
    let token = |dir: &Path| format!("tokenFile: {}", dir.join("token").display());
    assert!(text.contains(&token(lab.dir())));
    fs::write(&kubeconfig, text.replace(&token(lab.dir()), &token(&inside))).unwrap();
    let mount = format!("mount --bind {} {} && exec \"$@\"", outside.display(), inside.display());
    lab.nodes[0].run_through(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    let secret = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old", "namespace": "kube-system"}}"#;
    let plane = &lab.api.real().unwrap().plane;
    objects::apply(plane, secret, objects::Mode::Store).unwrap();
    objects::write_bound_token(plane, "xvip", "old", &file).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(SETTLE).unwrap();
    is_unfelt(&mut lab, |lab| {
        let plane = &lab.api.real().unwrap().plane;
        objects::write_token(plane, "xvip", &outside.join("new")).unwrap();
        fs::rename(outside.join("new"), &file).unwrap();
        objects::delete_secret(plane, "old").unwrap();
        // The API server caches a valid token for ten seconds.
        sleep(Duration::from_secs(20));
    });
    // The server looked for the deleted Secret of a token that was still used.
    let audit = lab.api.real().unwrap().plane.members[0].audit();
    assert!(audit.contains(r#"secrets \"old\" not found"#), "the old token was refused");
}
