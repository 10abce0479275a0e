//! Faults of hosts and roll-outs with a real kube-apiserver: out of memory, interfaces that change
//! under the owner, a second process, another version, replaced certificates.

use crate::faults::{Attack, SETTLE, in_one_lab, is_unfelt, suffers};
use libtest_mimic::Trial;
use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    path::Path,
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    cgroup::Cgroup,
    faults::loses_no_echo,
    kube::{pki::Pki, proxy::Way},
    lab::{
        Lab, eventually,
        node::{Node, next_xvip, xvip},
    },
};
use vip_user::clock;

pub fn trials() -> Vec<Trial> {
    let attacks: [(&str, Attack); 5] = [
        ("the_owner_runs_out_of_memory", out_of_memory),
        ("the_owners_interface_is_renamed_and_made_anew", changed_interface),
        ("a_second_process_waits_and_takes_over_from_the_first", second_process),
        ("every_node_is_upgraded_and_taken_back", upgraded),
        ("certificate_and_authority_of_the_api_are_exchanged", |lab, _| exchanged_authority(lab)),
    ];
    in_one_lab("hosts", attacks.to_vec())
}

/// The kernel kills the owner when it allocates memory to answer.
fn out_of_memory(lab: &mut Lab, moves: &mut Vec<u64>) {
    let owner = lab.wait_for_owner(SETTLE).unwrap();
    // Only memory allocated inside the group counts, so the process is put there as it starts.
    lab.nodes[owner].kill();
    lab.nodes[owner].start().unwrap();
    let group = Cgroup::of_memory(lab.nodes[owner].pid().unwrap()).unwrap();
    make_owner(lab, owner);
    let recording = suffers(lab, moves, |lab, owner, _| {
        let name = format!("xvip/{}", lab.nodes[owner].instance);
        // Each request for the state costs memory. One limit may leave room for all of them: the
        // process closes what it does not answer, and the kernel gives cached pages back first.
        let dies = || {
            let _ = group.limit_to_what_is_used();
            let mut questions = Vec::new();
            for _ in 0..200 {
                let address = SocketAddr::from_abstract_name(&name).unwrap();
                let asked = lab.nodes[owner].ns.run(move || UnixStream::connect_addr(&address));
                questions.extend(asked.unwrap());
            }
            lab.nodes[owner].has_ended()
        };
        assert!(eventually(Duration::from_mins(1), dies), "it has enough");
        sleep(Duration::from_secs(5));
    });
    let nodes: Vec<usize> = recording.claims.iter().map(|claim| claim.node).collect();
    assert_ne!(nodes.first(), nodes.last(), "another node took over");
    drop(group);
    lab.nodes[owner].start().unwrap();
}

/// Stops owners as planned until this node owns the VIPs.
#[track_caller]
fn make_owner(lab: &mut Lab, wanted: usize) {
    for _ in 0..6 {
        let owner = lab.wait_for_owner(SETTLE).unwrap();
        if owner == wanted {
            sleep(Duration::from_secs(1));
            return;
        }
        lab.nodes[owner].signal(libc::SIGTERM);
        assert!(eventually(SETTLE, || lab.nodes[owner].has_ended()));
        lab.wait_for_owner(SETTLE).unwrap();
        lab.nodes[owner].start().unwrap();
    }
    panic!("node {} never owns the VIPs", wanted + 1);
}

fn changed_interface(lab: &mut Lab, moves: &mut Vec<u64>) {
    suffers(lab, moves, |lab, owner, moves| {
        let ns = &lab.nodes[owner].ns;
        for (from, to) in [("eth0", "wan0"), ("wan0", "eth0")] {
            for command in [
                format!("link set {from} down"),
                format!("link set {from} name {to}"),
                format!("link set {to} up"),
                format!("addr add 2001:db8::{}/64 dev {to} nodad", 11 + owner),
            ] {
                // IPv6 addresses may disappear with the link. If they stayed, the last command
                // fails.
                let _ = ns.ip(&command);
            }
            moves.push(clock::boot().0);
            sleep(Duration::from_secs(5));
            moves.push(clock::boot().0);
        }
    });
    // The judge cannot listen on a port that disappears, so a client asks instead.
    let owner = lab.wait_for_owner(SETTLE).unwrap();
    lab.remake_interface(owner).unwrap();
    let one_owner = || {
        let asked = Node::probe(&lab.asker, &["192.0.2.10", "2001:db8::10", "--wait", "300"]).unwrap();
        assert_ne!(asked.1, 2, "two owners: {}", asked.0);
        asked.1 == 0
    };
    assert!(eventually(SETTLE, one_owner), "{}", lab.nodes[owner].log());
    for _ in 0..20 {
        one_owner();
    }
}

/// The second process of an instance waits for the lock. When the first dies, it adopts the tenure.
fn second_process(lab: &mut Lab, moves: &mut Vec<u64>) {
    let owner = lab.wait_for_owner(SETTLE).unwrap();
    let mut second = lab.nodes[owner].again();
    let recording = suffers(lab, moves, |lab, owner, _| {
        second.start().unwrap();
        let waits = || second.log().contains("another xvip runs here");
        assert!(eventually(SETTLE, waits), "{}", second.log());
        sleep(Duration::from_secs(4));
        lab.nodes[owner].kill();
        sleep(Duration::from_secs(5));
    });
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
    second.signal(libc::SIGTERM);
    assert!(eventually(SETTLE, || second.has_ended()), "{}", second.log());
    lab.nodes[owner].start().unwrap();
}

/// Upgrades one node after the other by planned stops; then downgrades all of them.
fn upgraded(lab: &mut Lab, moves: &mut Vec<u64>) {
    loses_no_echo(|| {
        let (mut from, mut to) = (0, 0);
        let recording = suffers(lab, moves, |lab, _, moves| {
            from = clock::boot().0;
            for binary in [next_xvip().unwrap(), xvip().unwrap()] {
                replace_all(lab, moves, &binary);
            }
            to = clock::boot().0;
        });
        (recording, from, to)
    });
}

fn replace_all(lab: &mut Lab, moves: &mut Vec<u64>, binary: &Path) {
    for node in &mut lab.nodes {
        node.signal(libc::SIGTERM);
        assert!(eventually(SETTLE, || node.has_ended()), "{}", node.log());
        node.use_binary(binary.into());
        node.start().unwrap();
        let follows = || node.status().is_ok_and(|status| status["daemon"].is_object());
        assert!(eventually(SETTLE, follows), "{}", node.log());
        sleep(Duration::from_secs(2));
        moves.push(clock::boot().0);
    }
}

/// As in kubeadm's manual: both authorities in the bundle, then a serving certificate of the new
/// one.
fn exchanged_authority(lab: &mut Lab) {
    let plane = &lab.api.real().unwrap().plane;
    let new = Pki::new(&lab.dir().join("new-authority")).unwrap();
    let text = |path| fs::read_to_string(path).unwrap();
    fs::write(plane.pki.ca(), text(plane.pki.ca()) + &text(new.ca())).unwrap();
    is_unfelt(lab, |lab| {
        let real = lab.api.real().unwrap();
        let member = &real.plane.members[0];
        member.exchange_certificate(&new).unwrap();
        let taken = || real.plane.shows_certificate_of(0, &new);
        assert!(eventually(Duration::from_secs(90), taken), "the API server takes the new one");
        // Open connections keep using the old one.
        real.proxy.set(Way::Reset);
        sleep(Duration::from_millis(100));
        real.proxy.set(Way::Open);
        sleep(Duration::from_secs(8));
    });
}
