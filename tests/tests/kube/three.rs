//! Three API servers and three members of etcd, one on each node, as kubeadm places them.

use crate::trial;
use libtest_mimic::Trial;
use std::{thread::sleep, time::Duration};
use vip_tests::{
    faults::watched,
    judge::two_owner_ms,
    lab::{Kube, Lab, Options, eventually},
};
use vip_user::clock;

const LIMIT: Duration = Duration::from_mins(1);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("three::the_owner_is_cut_off_from_the_majority", isolated),
        trial("three::the_node_that_owns_the_vip_and_leads_etcd_loses_its_power", power_cut),
        trial("three::etcd_is_restored_to_an_older_state", restored),
        trial("three::an_api_server_that_lags_behind_moves_nothing", lagging),
    ]
}

fn new_lab() -> Lab {
    let mut lab = Lab::new(&Options { kube: Kube::OnEachNode, ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LIMIT).unwrap();
    lab
}

/// Packets from the owner to the other nodes are lost. Its API server has no quorum, and it reaches
/// no other one. The LAN still sees it.
fn isolated() {
    let mut lab = new_lab();
    let owner = lab.wait_for_owner(LIMIT).unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != owner).collect();
    let (mut cut, mut end) = (0, 0);
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_millis(500));
        cut = clock::boot().0;
        for other in &others {
            let ip = lab.nodes[*other].ip;
            let nowhere = format!("neigh replace {ip} lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
            lab.nodes[owner].ns.ip(&nowhere)?;
        }
        let moved = || others.iter().any(|other| lab.nodes[*other].owns());
        anyhow::ensure!(eventually(LIMIT, moved), "nobody took over");
        sleep(Duration::from_secs(1));
        end = clock::boot().0;
        for other in &others {
            lab.nodes[owner].ns.ip(&format!("neigh del {} dev eth0", lab.nodes[*other].ip))?;
        }
        sleep(Duration::from_secs(3));
        Ok(())
    })
    .unwrap();
    println!("dark for {:.0} ms", recording.asked.dark_ms(cut, end));
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}

/// Process, API server, etcd and cable fail at once.
fn power_cut() {
    let mut lab = new_lab();
    let leader = lead_and_own(&mut lab);
    let (mut cut, mut end) = (0, 0);
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_millis(500));
        cut = clock::boot().0;
        lab.bridge.ip(&format!("link set n{} down", leader + 1))?;
        lab.nodes[leader].kill();
        let member = &mut lab.api.real_mut().unwrap().plane.members[leader];
        member.kill_api();
        member.kill_etcd();
        let moved = || (0..3).any(|node| node != leader && lab.nodes[node].owns());
        anyhow::ensure!(eventually(LIMIT, moved), "nobody took over");
        sleep(Duration::from_secs(1));
        end = clock::boot().0;
        Ok(())
    })
    .unwrap();
    println!("dark for {:.0} ms", recording.asked.dark_ms(cut, end));
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}

/// Stops owners as planned until the node whose etcd leads owns the VIP.
fn lead_and_own(lab: &mut Lab) -> usize {
    let members = &lab.api.real().unwrap().plane.members;
    let leader = members.iter().position(|member| member.leads().unwrap_or(false)).unwrap();
    for _ in 0..6 {
        let owner = lab.wait_for_owner(LIMIT).unwrap();
        if owner == leader {
            break;
        }
        lab.nodes[owner].signal(libc::SIGTERM);
        assert!(eventually(LIMIT, || lab.nodes[owner].has_ended()));
        lab.wait_for_owner(LIMIT).unwrap();
    }
    assert_eq!(lab.wait_for_owner(LIMIT).unwrap(), leader);
    for node in &mut lab.nodes {
        if !node.is_running() {
            node.start().unwrap();
        }
    }
    sleep(Duration::from_secs(2));
    leader
}

/// The data of one member are copied and later restored. So versions and the Lease go back in time,
/// and the VIP has moved in between.
fn restored() {
    let mut lab = Lab::new(&Options { kube: Kube::One, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let first = lab.wait_for_owner(LIMIT).unwrap();
    lab.api.real_mut().unwrap().plane.members[0].back_up().unwrap();
    sleep(Duration::from_secs(4));
    lab.wait_for_owner(LIMIT).unwrap();
    // Another node owns the VIP when the older content, which names the first node, is restored.
    if lab.nodes[first].owns() {
        lab.nodes[first].signal(libc::SIGTERM);
        assert!(eventually(LIMIT, || lab.nodes[first].has_ended()));
        lab.nodes[first].start().unwrap();
    }
    let second = lab.wait_for_owner(LIMIT).unwrap();
    assert_ne!(first, second);
    let (mut cut, mut end) = (0, 0);
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_millis(500));
        cut = clock::boot().0;
        let plane = &mut lab.api.real_mut().unwrap().plane;
        plane.members[0].restore()?;
        plane.wait_ready(0)?;
        lab.wait_for_owner(LIMIT)?;
        sleep(Duration::from_secs(4));
        end = clock::boot().0;
        Ok(())
    })
    .unwrap();
    println!("dark for {:.0} ms", recording.asked.dark_ms(cut, end));
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
}

/// The etcd of one node hangs. Its API server keeps showing its old state and cannot do quorum
/// reads, so the node asks another one. When etcd resumes, the server lags for a while.
fn lagging() {
    let mut lab = new_lab();
    let owner = lab.wait_for_owner(LIMIT).unwrap();
    let members = &lab.api.real().unwrap().plane.members;
    let leader = members.iter().position(|member| member.leads().unwrap_or(false)).unwrap();
    let behind = (0..3).find(|node| *node != owner && *node != leader).unwrap();
    let (mut from, mut to) = (0, 0);
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_millis(500));
        from = clock::boot().0;
        let member = &lab.api.real().unwrap().plane.members[behind];
        for _ in 0..2 {
            member.signal_etcd(libc::SIGSTOP);
            sleep(Duration::from_secs(8));
            member.signal_etcd(libc::SIGCONT);
            sleep(Duration::from_secs(4));
        }
        to = clock::boot().0;
        Ok(())
    })
    .unwrap();
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
    println!("dark for {:.0} ms", recording.asked.dark_ms(from, to));
    // The node follows again, and can take over.
    lab.nodes[owner].kill();
    assert!(eventually(LIMIT, || (0..3).any(|node| node != owner && lab.nodes[node].owns())));
}
