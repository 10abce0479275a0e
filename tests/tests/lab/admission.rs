//! A VIP is admitted to a Lease before it is published: never under two Leases, never while another
//! host has it.

use std::{net::IpAddr, time::Duration};
use vip_tests::{
    faults::watched,
    judge::two_owner_ms,
    lab::{Lab, Options, VIP4, VIP6, eventually, node::Node},
};

const NAMESPACE: &str = "kube-system";

fn problem(lab: &Lab, node: usize, vip: IpAddr) -> String {
    let status = lab.nodes[node].status().unwrap_or_default();
    status["daemon"]["problems"][format!("VIP {vip}")].as_str().unwrap_or_default().to_owned()
}

/// Two nodes are configured with another Lease for a VIP, one after the other.
#[test]
fn a_vip_that_changes_its_lease_on_one_node_after_the_other_has_one_owner() {
    let mut lab = Lab::new(&Options { nodes: 2, ..Options::default() }).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let vip = IpAddr::from(VIP4);
    let served = |lab: &Lab| lab.nodes.iter().any(|node| node.answers_for(vip));
    let recording = watched(&mut lab, |lab| {
        for node in [1 - owner, owner] {
            let own = lab.nodes[node].name.clone();
            lab.nodes[node]
                .reconfigure("'192.0.2.10'", "{address: '192.0.2.10', lease: moved}")
                .unwrap();
            lab.nodes[node].signal(libc::SIGTERM);
            let ended = eventually(Duration::from_secs(20), || lab.nodes[node].has_ended());
            assert!(ended, "{own} does not stop");
            lab.nodes[node].start().unwrap();
            if node != owner {
                // It holds the new Lease, sees that the old one guards the VIP, and reports it.
                let told = || problem(lab, node, vip).contains("plndr-cp-lock");
                assert!(eventually(Duration::from_secs(20), told), "{}", lab.nodes[node].log());
                assert!(lab.nodes[owner].answers_for(vip) && !lab.nodes[node].answers_for(vip));
            }
        }
        let back = eventually(Duration::from_secs(40), || served(lab));
        let logs = || lab.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n---\n");
        assert!(back, "dark for good:\n{}", logs());
        let other = IpAddr::from(VIP6);
        assert!(lab.nodes.iter().any(|node| node.answers_for(other)));
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0, "{:?}", recording.claims);
    let moved = lab.api.lease(NAMESPACE, "moved").unwrap();
    let said = moved["metadata"]["annotations"]["xvip.io/vips"].as_str().unwrap();
    assert!(said.contains("\"admitted\":[\"192.0.2.10\"]"), "{said}");
    let old = lab.api.lease(NAMESPACE, "plndr-cp-lock").unwrap();
    let said = old["metadata"]["annotations"]["xvip.io/vips"].as_str().unwrap();
    assert!(!said.contains("192.0.2.10"), "{said}");
}

/// The Lease was held before; only the address is new. After a failover the LAN is not probed.
#[test]
fn a_vip_that_is_added_is_not_taken_from_a_living_host() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    lab.user.ip("addr add 192.0.2.77/24 dev eth0").unwrap();
    let (added, old) = (IpAddr::from([192, 0, 2, 77]), IpAddr::from(VIP4));
    lab.nodes[0].reconfigure("'192.0.2.10'", "'192.0.2.10', '192.0.2.77'").unwrap();
    lab.nodes[0].signal(libc::SIGTERM);
    assert!(eventually(Duration::from_secs(20), || lab.nodes[0].has_ended()));
    lab.nodes[0].start().unwrap();
    let told = || problem(&lab, 0, added).contains("answers for it");
    assert!(eventually(Duration::from_secs(30), told), "{}", lab.nodes[0].log());
    let answers = || lab.nodes[0].answers_for(old);
    assert!(eventually(Duration::from_secs(20), answers), "{}", lab.nodes[0].log());
    assert!(!lab.nodes[0].answers_for(added));
    let addresses = lab.nodes[0].ns.ip("addr show dev lo").unwrap();
    assert!(
        !addresses.contains("192.0.2.77"),
        "this host's own traffic goes to who has it: {addresses}"
    );
    lab.user.ip("addr del 192.0.2.77/24 dev eth0").unwrap();
    let taken = eventually(Duration::from_secs(30), || lab.nodes[0].answers_for(added));
    assert!(taken, "{}", lab.nodes[0].log());
    assert_eq!(problem(&lab, 0, added), "");
}
