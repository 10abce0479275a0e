//! Other programs change the host: xvip puts back what they remove, and nothing answers that must
//! not.

use std::{path::PathBuf, thread::sleep, time::Duration};
use vip_tests::{
    faults::watched,
    judge::two_owner_ms,
    kernel_run,
    lab::{Lab, Options, VIP4, eventually, mac_text, node::Node},
    netns::sh,
};
use vip_user::{
    clock,
    node::{bpf, clsact::handles},
};

fn lab_of(options: &Options) -> (Lab, usize) {
    let mut lab = Lab::new(options).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    (lab, owner)
}

fn one(extra: &str) -> Lab {
    lab_of(&Options { nodes: 1, extra: extra.into(), ..Options::default() }).0
}

fn pin(lab: &Lab, node: &Node, kind: &str) -> Option<PathBuf> {
    let dir = lab.dir().join("bpf").join(&node.instance);
    let found = sh(&format!("find {} -name 'link:{kind}:*'", dir.display())).ok()?;
    found.lines().next().map(PathBuf::from)
}

/// Removes something and returns how long it was gone, in milliseconds.
#[track_caller]
fn gone_for(what: &str, take: impl FnOnce(), there: impl Fn() -> bool) -> f64 {
    assert!(there(), "{what} was not there");
    let before = clock::boot();
    take();
    assert!(eventually(Duration::from_secs(10), there), "{what} was not put back");
    before.until(clock::boot()).as_secs_f64() * 1e3
}

#[test]
fn what_others_take_away_is_put_back() {
    let lab = one("");
    let node = &lab.nodes[0];
    let shows = |args: &str, text: &str| node.ns.ip(args).unwrap().contains(text);
    // A detached link stays pinned, without an interface.
    let program = |kind: &str| {
        pin(&lab, node, kind)
            .is_some_and(|path| bpf::link_info(&path).is_ok_and(|info| info.ifindex != 0))
    };
    let rm = |kind: &str| std::fs::remove_file(pin(&lab, node, kind).unwrap()).unwrap();
    let detach = |kind: &str| {
        let path = pin(&lab, node, kind).unwrap();
        sh(&format!("bpftool link detach pinned {}", path.display())).unwrap();
    };
    let mut times = Vec::new();
    for (what, take, there) in [
        (
            "address",
            Box::new(|| drop(node.ns.ip("addr del 192.0.2.10/32 dev lo").unwrap()))
                as Box<dyn FnOnce()>,
            Box::new(|| shows("addr show dev lo", "192.0.2.10/32")) as Box<dyn Fn() -> bool>,
        ),
        (
            "group",
            Box::new(|| drop(node.ns.ip("addr del ff02::1:ff00:10/128 dev eth0").unwrap())),
            Box::new(|| shows("maddr show dev eth0", "ff02::1:ff00:10")),
        ),
        ("XDP pin", Box::new(|| rm("native")), Box::new(|| program("native"))),
        ("XDP link", Box::new(|| detach("native")), Box::new(|| program("native"))),
        ("guard pin", Box::new(|| rm("guard")), Box::new(|| program("guard"))),
        ("guard link", Box::new(|| detach("guard")), Box::new(|| program("guard"))),
        (
            "map pin",
            Box::new(|| {
                drop(sh(&format!("rm {}/bpf/{}/v2/VIPS", lab.dir().display(), node.instance)).unwrap());
            }),
            Box::new(|| node.owns()),
        ),
    ] {
        times.push((what, gone_for(what, take, there)));
    }
    // Netlink reports addresses, and links are checked twice a second. Both are faster than the
    // periodic comparison every five seconds.
    assert!(times.iter().all(|(_, ms)| *ms < 3_000.0), "{times:?}");
    println!("gone for, ms: {times:?}");
    assert!(node.owns(), "{}", node.log());
    assert!(
        eventually(Duration::from_secs(20), || node.has_no_problem().unwrap_or(false)),
        "{}",
        node.log()
    );
}

/// Another program before the guard could send frames around it. So the interface counts as
/// unguarded, and the VIP moves to a node whose guard is first. The interface is usable again when
/// the other program is gone.
#[test]
fn a_program_before_the_guard_makes_the_interface_unusable() {
    let (lab, owner) = lab_of(&Options::default());
    let intruder = kernel_run::attach_egress_first(&lab.nodes[owner].ns, "eth0").unwrap();
    let guarded = |wanted: bool| {
        let problem = &lab.nodes[owner].status().unwrap()["daemon"]["problems"]["interface eth0"];
        problem.as_str().is_some_and(|why| why.contains("not the first program")) != wanted
    };
    assert!(eventually(Duration::from_secs(5), || guarded(false)), "{}", lab.nodes[owner].log());
    let others = || lab.nodes.iter().enumerate().filter(|(node, _)| *node != owner);
    let moved = eventually(Duration::from_secs(20), || others().any(|(_, node)| node.owns()));
    assert!(moved && !lab.nodes[owner].owns(), "{}", lab.nodes[owner].log());
    drop(intruder);
    assert!(eventually(Duration::from_secs(5), || guarded(true)), "{}", lab.nodes[owner].log());
}

/// The old programs are gone with the interface. The kernel must not answer on the new one for the
/// address on `lo`. The next start serves again.
#[test]
fn an_interface_remade_while_the_controller_is_dead_answers_nothing() {
    let (mut lab, owner) = lab_of(&Options::default());
    lab.nodes[owner].kill();
    lab.remake_interface(owner).unwrap();
    assert!(lab.nodes[owner].ns.ip("addr show dev lo").unwrap().contains("192.0.2.10/32"));
    let recording = watched(&mut lab, |_| {
        sleep(Duration::from_secs(6));
        Ok(())
    })
    .unwrap();
    assert!(recording.claims.iter().all(|claim| claim.node != owner), "the kernel answered");
    assert!(recording.claims.iter().any(|claim| claim.node != owner), "another node took over");
    lab.nodes[owner].start().unwrap();
    let node = &lab.nodes[owner];
    let usable = eventually(Duration::from_secs(10), || {
        node.status().is_ok_and(|status| {
            let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
            interfaces.len() == 1 && interfaces[0]["guarded"] == true && interfaces[0]["up"] == true
        })
    });
    assert!(usable, "{}\n{}", node.status().unwrap(), node.log());
}

/// The interface vanishes and returns under a running owner.
#[test]
fn an_interface_remade_under_the_owner_is_used_again() {
    let mut lab = one("");
    let before = lab.nodes[0].status().unwrap()["interfaces"][0]["ifindex"].clone();
    lab.remake_interface(0).unwrap();
    let node = &lab.nodes[0];
    let again = eventually(Duration::from_secs(10), || {
        node.owns()
            && node.status().is_ok_and(|status| {
                let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
                interfaces.len() == 1
                    && interfaces[0]["ifindex"] != before
                    && interfaces[0]["up"] == true
            })
    });
    assert!(again, "{}", node.log());
    let mut arping = lab.asker.command("arping");
    let answered = arping.args(["-c", "3", "-w", "3", "-I", "eth0", "192.0.2.10"]).output().unwrap();
    assert!(answered.status.success(), "{}", node.log());
}

/// Answers carry the new MAC address, and it is announced to neighbours.
#[test]
fn a_changed_mac_is_announced() {
    let mut lab = one("");
    let new = [2, 0, 0, 0, 0, 0x77];
    let recording = watched(&mut lab, |lab| {
        sleep(Duration::from_millis(300));
        lab.nodes[0].ns.ip(&format!("link set eth0 address {}", mac_text(new)))?;
        sleep(Duration::from_secs(2));
        Ok(())
    })
    .unwrap();
    let end = recording.claims.last().unwrap().at_ns;
    assert_eq!(recording.asked.last_mac(0), Some(new));
    let from = end - 1_000_000_000;
    let stalled = recording.stalls.within_ms(from, end);
    assert!(recording.echoes.dark_ms(from, end) < 500.0 + stalled, "users follow");
}

/// A carrier loss shorter than the fence moves nothing. When the carrier returns, the VIP is
/// announced.
#[test]
fn carrier_lost_for_a_moment_moves_nothing() {
    let (mut lab, owner) = lab_of(&Options::default());
    let port = format!("n{}", owner + 1);
    let recording = watched(&mut lab, |lab| {
        lab.bridge.ip(&format!("link set {port} down"))?;
        sleep(Duration::from_millis(600));
        lab.bridge.ip(&format!("link set {port} up"))?;
        sleep(Duration::from_secs(2));
        Ok(())
    })
    .unwrap();
    assert_eq!(two_owner_ms(&recording.claims), 0.0);
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "the VIP moved");
    assert!(lab.nodes[owner].owns());
}

/// Unmounting the BPF file system would remove all pins at once. The lock is an open directory
/// there, so the kernel refuses.
#[test]
fn a_bpffs_in_use_cannot_be_unmounted() {
    let (lab, owner) = lab_of(&Options::default());
    let pins = lab.dir().join("bpf").display().to_string();
    let error = sh(&format!("umount {pins}")).unwrap_err().to_string();
    assert!(error.contains("busy"), "{error}");
    assert!(lab.nodes[owner].owns());
    for node in &lab.nodes {
        assert_eq!(node.status().unwrap()["interfaces"][0]["guarded"], true, "{}", node.log());
    }
}

fn without_tcx() -> Options {
    Options { environment: vec![("XVIP_NO_TCX".into(), "1".into())], ..Options::default() }
}

/// The candidate carries the VIP and announces it. Its guard counts the claims and stops them.
#[track_caller]
fn stops_claims(lab: &mut Lab, standby: usize, owner: usize) {
    let stopped = |lab: &Lab| {
        lab.nodes[standby].status().unwrap()["counters"]["claim_not_held"].as_u64().unwrap_or(0)
    };
    let before = stopped(lab);
    let recording = watched(lab, |lab| {
        let node = &lab.nodes[standby];
        node.ns.ip("addr add 192.0.2.10/32 dev eth0")?;
        let mut arping = node.ns.command("arping");
        let _ = arping.args(["-U", "-c3", "-w2", "-I", "eth0", "192.0.2.10"]).output()?;
        Ok(())
    })
    .unwrap();
    assert!(recording.claims.iter().all(|claim| claim.node == owner), "a claim left a standby");
    assert!(stopped(lab) > before, "the guard has seen no claim");
}

/// As on kernels before 6.6: the guard is a clsact filter.
#[test]
fn a_clsact_guard_stops_claims_and_is_put_back() {
    let (mut lab, owner) = lab_of(&without_tcx());
    let standby = (owner + 1) % 3;
    let filters = |lab: &Lab, direction: &str| {
        sh(&format!("tc -n {} filter show dev eth0 {direction}", lab.nodes[standby].ns.name())).unwrap()
    };
    // Found by its handle, because it has no name: aya's test for program names loads another kind
    // of program, which needs CAP_PERFMON.
    let ours = handles(&lab.nodes[standby].instance).map(|handle| format!("handle {handle:#x} "));
    let guarded = |lab: &Lab| ours.iter().any(|handle| filters(lab, "egress").contains(handle));
    assert!(guarded(&lab), "{}", lab.nodes[standby].log());
    stops_claims(&mut lab, standby, owner);
    let name = lab.nodes[standby].ns.name().to_owned();
    let took = gone_for(
        "clsact qdisc",
        || drop(sh(&format!("tc -n {name} qdisc del dev eth0 clsact")).unwrap()),
        || guarded(&lab),
    );
    println!("gone for {took:.0} ms");
    let guarded = || {
        let status = lab.nodes[standby].status().unwrap();
        status["interfaces"][0]["guarded"] == true
            && status["interfaces"][0]["up"] == true
            && status["daemon"]["problems"]["interface eth0"].is_null()
    };
    assert!(eventually(Duration::from_secs(3), guarded), "{}", lab.nodes[standby].log());
}

/// A filter of another program before the guard could send frames around it (Cilium's has the same
/// priority).
#[test]
fn a_clsact_filter_before_the_guard_does_not_stay_there() {
    let (mut lab, owner) = lab_of(&without_tcx());
    let standby = (owner + 1) % 3;
    let name = lab.nodes[standby].ns.name().to_owned();
    let first = || {
        let shown = sh(&format!("tc -n {name} filter show dev eth0 egress")).unwrap();
        let filter = shown.lines().find_map(|line| line.split_once("handle 0x"));
        filter.map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
    };
    let stranger = "bpf direct-action bytecode '1,6 0 0 0'";
    let add = format!("tc -n {name} filter add dev eth0 egress prio 1 handle 0x1 {stranger}");
    let ours = handles(&lab.nodes[standby].instance).map(|handle| format!("{handle:x}"));
    let guarded = || first().is_some_and(|first| ours.contains(&first));
    assert!(guarded());
    let before = first();
    sh(&add).unwrap();
    // The guard was first, and is first again, as a new filter.
    assert!(eventually(Duration::from_secs(10), || guarded() && first() != before));
    stops_claims(&mut lab, standby, owner);
}

#[test]
fn a_clsact_guard_is_cleaned_up() {
    let options = Options { nodes: 1, extra: "attach: tc\n".into(), ..without_tcx() };
    let (mut lab, _) = lab_of(&options);
    let qdiscs =
        |lab: &Lab| sh(&format!("tc -n {} qdisc show dev eth0", lab.nodes[0].ns.name())).unwrap();
    assert!(qdiscs(&lab).contains("clsact"));
    lab.nodes[0].kill();
    let removed = lab.nodes[0].xvip("cleanup", &[]).unwrap();
    assert!(removed.contains("clsact qdisc on eth0"), "{removed}");
    assert!(!qdiscs(&lab).contains("clsact"), "{}", qdiscs(&lab));
}

/// kube-vip's placement: the VIP is on the interface, but never a source address.
#[test]
fn placement_on_the_interface_shows_the_vip_and_never_uses_it_as_source() {
    let (mut lab, owner) =
        lab_of(&Options { extra: "placement: interface\n".into(), ..Options::default() });
    let own = 11 + owner;
    let node = &lab.nodes[owner];
    let shown = node.ns.ip("addr show dev eth0").unwrap();
    assert!(
        shown.contains("192.0.2.10/32 scope host") && shown.contains("2001:db8::10/128"),
        "{shown}"
    );
    assert!(!node.ns.ip("addr show dev lo").unwrap().contains("192.0.2.10"));
    let sources = |node: &Node| {
        let v4 = node.ns.ip("route get 192.0.2.200").unwrap();
        assert!(v4.contains(&format!("src 192.0.2.{own} ")), "{v4}");
        let v6 = node.ns.ip("-6 route get 2001:db8::200").unwrap();
        assert!(v6.contains(&format!("src 2001:db8::{own} ")), "{v6}");
    };
    sources(node);
    // The node's own address is added again after the VIP, as after a DHCP hiccup.
    node.ns.ip(&format!("addr del 192.0.2.{own}/24 dev eth0")).unwrap();
    node.ns.ip(&format!("addr add 192.0.2.{own}/24 dev eth0")).unwrap();
    node.ns.ip(&format!("addr del 2001:db8::{own}/64 dev eth0")).unwrap();
    node.ns.ip(&format!("addr add 2001:db8::{own}/64 dev eth0 nodad")).unwrap();
    sources(node);
    lab.nodes[owner].signal(libc::SIGTERM);
    let node = &mut lab.nodes[owner];
    assert!(eventually(Duration::from_secs(10), || node.has_ended()), "{}", node.log());
    assert!(!node.ns.ip("addr show dev eth0").unwrap().contains("192.0.2.10"));
    lab.wait_for_owner(Duration::from_secs(5)).unwrap();
}

/// No device carries the VIP, but it is answered: a CNI takes the traffic in.
#[test]
fn placement_none_answers_and_adds_no_address() {
    let lab = one("placement: none\n");
    let addresses = lab.nodes[0].ns.ip("addr").unwrap();
    let vip = std::net::Ipv4Addr::from(VIP4).to_string();
    assert!(!addresses.contains(&format!("{vip}/")), "{addresses}");
    let mut arping = lab.asker.command("arping");
    let answered = arping.args(["-c", "2", "-w", "2", "-I", "eth0", &vip]).output().unwrap();
    assert!(answered.status.success(), "{answered:?}");
}

/// The address is still shown, but the kernel accepts no traffic for it.
#[test]
fn a_local_route_that_was_deleted_is_put_back() {
    let lab = one("");
    let node = &lab.nodes[0];
    for (family, vip) in [("", "192.0.2.10"), ("-6 ", "2001:db8::10")] {
        let there = || {
            let routes = node.ns.ip(&format!("{family}route show table local")).unwrap();
            routes.lines().any(|route| route.starts_with(&format!("local {vip} dev lo")))
        };
        assert!(eventually(Duration::from_secs(5), there), "{}", node.log());
        // It may be put back before another command could look: that this one succeeds is enough.
        node.ns.ip(&format!("{family}route del local {vip} table local")).unwrap();
        assert!(eventually(Duration::from_secs(20), there), "{vip} is not taken in: {}", node.log());
    }
    assert!(node.owns(), "{}", node.log());
}

/// What docs/configuration.md says about source addresses, and the remedy.
#[test]
fn a_node_without_an_ipv6_address_of_its_own_uses_the_vip_as_source() {
    let lab = one("");
    let node = &lab.nodes[0];
    let source = || node.ns.ip("-6 route get 2001:db8::200").unwrap();
    assert!(source().contains("src 2001:db8::11 "), "{}", source());
    node.ns.ip("addr del 2001:db8::11/64 dev eth0").unwrap();
    node.ns.ip("-6 route add 2001:db8::/64 dev eth0").unwrap();
    assert!(source().contains("src 2001:db8::10 "), "{}", source());
    let mut sysctl = node.ns.command("sysctl");
    let only = "net.ipv6.conf.eth0.use_oif_addrs_only=1";
    assert!(sysctl.args(["-qw", only]).status().unwrap().success());
    assert!(source().contains("src fe80::"), "{}", source());
}
