//! A live cluster moves from kube-vip to xvip and back, with client-go's own election beside it.
//! kube-vip runs on the first node, xvip on the others. A listener on the bridge judges who claims
//! the VIPs.

use crate::{faults::SETTLE, trial};
use libtest_mimic::Trial;
use std::{net::TcpListener, thread::sleep, time::Duration};
use vip_tests::{
    faults::{Recording, watched},
    judge::{spans, two_owner_ms},
    kube::foreign::{Foreign, Settings},
    lab::{Kube, Lab, Options, eventually, node::Node},
};
use vip_user::clock;

/// The node of kube-vip.
const THEIRS: usize = 0;
/// The grace of a foreign holder with a D of 5 s, and time to take over.
const GRACE: Duration = Duration::from_secs(25);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("moving::from_kube_vip_and_back", there_and_back),
        trial("moving::a_kube_vip_that_answers_after_its_release", late),
        trial("moving::a_kube_vip_that_was_killed_and_left_its_address", killed),
        trial("moving::a_kube_vip_that_is_blanked_or_paused_goes_on", blanked_and_paused),
    ]
}

/// kube-vip leads on the first node; xvip waits on the two others.
fn mixed(settings: &Settings) -> (Lab, Foreign) {
    let options = Options { kube: Kube::One, duration_s: 5, ..Options::default() };
    let mut lab = Lab::new(&options).unwrap();
    let foreign = Foreign::start(&lab, THEIRS, settings).unwrap();
    assert!(eventually(SETTLE, || carries(&foreign)), "{}", foreign.log());
    for node in &mut lab.nodes[1..] {
        node.start().unwrap();
    }
    for node in 1..3 {
        assert!(eventually(SETTLE, || follows(&lab, node)), "{}", lab.nodes[node].log());
    }
    // xvip waits D·(1+ρ) from the first sight of kube-vip. This takes that wait out of what is
    // measured.
    sleep(Duration::from_secs(6));
    (lab, foreign)
}

fn carries(foreign: &Foreign) -> bool {
    Lab::vips().into_iter().all(|vip| foreign.carries(vip).unwrap())
}

/// Whether a node knows that another program holds the Lease.
fn follows(lab: &Lab, node: usize) -> bool {
    lab.nodes[node].log().contains("not xvip")
}

/// Whether xvip answers for the VIPs.
fn xvip_owns(lab: &Lab) -> bool {
    lab.nodes.iter().any(Node::owns)
}

fn watch(lab: &mut Lab, work: impl FnOnce(&mut Lab)) -> Recording {
    let recording = watched(lab, |lab| {
        sleep(Duration::from_millis(500));
        work(lab);
        sleep(Duration::from_secs(1));
        Ok(())
    });
    let recording = recording.unwrap();
    let double = two_owner_ms(&recording.claims);
    assert_eq!(double, 0.0, "two owners:\n{}", spans(&recording.claims));
    recording
}

/// Prints for how long nobody answered between two instants.
fn tell_dark(what: &str, recording: &Recording, from: u64, to: u64) {
    let dark = recording.asked.dark_ms(from, to);
    let stood = recording.stalls.within_ms(from, to);
    println!("{what}: dark for {dark:.0} ms, the machine stood for {stood:.0} ms");
}

/// Stops kube-vip and waits until xvip answers. Returns the recording, and when this began and ended.
fn stopped(lab: &mut Lab, foreign: &Foreign, what: &str) -> (Recording, u64, u64) {
    let (mut from, mut to) = (0, 0);
    let recording = watch(lab, |lab| {
        from = clock::boot().0;
        foreign.terminate();
        assert!(eventually(GRACE, || xvip_owns(lab)), "{}", lab.nodes[1].log());
        sleep(Duration::from_millis(500));
        to = clock::boot().0;
    });
    tell_dark(what, &recording, from, to);
    (recording, from, to)
}

fn there_and_back() {
    let (mut lab, mut foreign) = mixed(&Settings::default());
    let (recording, mut from, mut to) = stopped(&mut lab, &foreign, "kube-vip is stopped");
    // Had the LAN not been asked at once, the wait would be 11 s.
    let stood = recording.stalls.within_ms(from, to);
    assert!(recording.asked.dark_ms(from, to) < 8_000.0 + stood, "{}", lab.nodes[1].log());
    assert!(foreign.has_ended());
    let last = recording.claims.last().unwrap().node;
    assert_ne!(last, THEIRS, "{}", spans(&recording.claims));
    // The way back: kube-vip takes a Lease that xvip has released.
    let mut again = Foreign::start(&lab, THEIRS, &Settings::default()).unwrap();
    let recording = watch(&mut lab, |lab| {
        for node in [3 - last, last] {
            from = clock::boot().0;
            lab.nodes[node].signal(libc::SIGTERM);
            assert!(eventually(SETTLE, || lab.nodes[node].has_ended()));
        }
        assert!(eventually(SETTLE, || carries(&again)), "{}", again.log());
        sleep(Duration::from_secs(4));
        to = clock::boot().0;
    });
    tell_dark("xvip is stopped", &recording, from, to);
    assert_eq!(recording.claims.last().unwrap().node, THEIRS, "{}", spans(&recording.claims));
    again.kill();
}

/// kube-vip removes a label after its release, and only then its address.
fn late() {
    let late_release = Duration::from_secs(6);
    let (mut lab, foreign) = mixed(&Settings { late_release, ..Settings::default() });
    let what = "kube-vip answers for 6 s after its release";
    let (recording, ..) = stopped(&mut lab, &foreign, what);
    assert_ne!(recording.claims.last().unwrap().node, THEIRS);
}

/// The kernel of its host answers, and the API server there accepts connections.
fn killed() {
    let (mut lab, mut foreign) = mixed(&Settings::default());
    let ns = &lab.nodes[THEIRS].ns;
    let _server = ns.run(|| TcpListener::bind("[::]:6443")).unwrap().unwrap();
    let recording = watch(&mut lab, |lab| {
        foreign.kill();
        // Longer than a station holds the Lease back that answers, but does not serve.
        sleep(GRACE + Duration::from_secs(35));
        let told = |node: usize| lab.nodes[node].log().contains("still answers for");
        assert!(told(1) || told(2), "{}", lab.nodes[1].log());
        let refused = |node: usize| lab.nodes[node].log().contains("accepts no connection");
        assert!(!refused(1) && !refused(2), "{}", lab.nodes[1].log());
    });
    let claimants = recording.claims.iter().filter(|claim| claim.node != THEIRS).count();
    assert_eq!(claimants, 0, "{}", spans(&recording.claims));
    // The operator does what the problem says.
    let recording = watch(&mut lab, |lab| {
        foreign.remove_addresses(&Lab::vips()).unwrap();
        assert!(eventually(GRACE, || xvip_owns(lab)), "{}", lab.nodes[1].log());
    });
    assert_ne!(recording.claims.last().unwrap().node, THEIRS);
}

/// An administrator empties the Lease of a healthy kube-vip; later it is paused for longer than the
/// grace. Its kernel answers all the time.
fn blanked_and_paused() {
    let (mut lab, foreign) = mixed(&Settings::default());
    let ns = &lab.nodes[THEIRS].ns;
    let _server = ns.run(|| TcpListener::bind("[::]:6443")).unwrap().unwrap();
    let recording = watch(&mut lab, |lab| {
        for _ in 0..3 {
            Foreign::blank(lab, THEIRS, &Settings::default()).unwrap();
            sleep(Duration::from_secs(4));
        }
        foreign.pause();
        sleep(GRACE);
        foreign.resume();
        sleep(Duration::from_secs(5));
    });
    let claimants = recording.claims.iter().filter(|claim| claim.node != THEIRS).count();
    assert_eq!(claimants, 0, "{}", spans(&recording.claims));
    assert!(carries(&foreign), "it still leads");
}
