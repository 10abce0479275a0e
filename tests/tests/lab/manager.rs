//! `xvip manager`: a kube-vip manifest runs the real binary, or is refused before anything has changed.

use serde_json::json;
use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::Duration,
};
use vip_tests::{
    lab::{
        Lab, Options, eventually,
        node::{Node, xvip},
    },
    netns::sh,
};

const LEASE: &str = "plndr-cp-lock";
const BASE: [(&str, &str); 13] = [
    ("vip_arp", "true"),
    ("cp_enable", "true"),
    ("cp_namespace", "kube-system"),
    ("address", "192.0.2.10,2001:db8::10"),
    ("vip_interface", "eth0"),
    ("vip_subnet", "32,128"),
    ("vip_leaderelection", "true"),
    ("vip_leaseduration", "3"),
    ("vip_renewdeadline", "2"),
    ("vip_retryperiod", "1"),
    ("kubernetes_addr", "http://192.0.2.100:6443"),
    ("svc_leasename", "plndr-svcs-lock"),
    ("health_check_port", "2113"),
];

/// Nodes with the variables of a manifest. Each has pins of its own.
fn nodes(count: usize) -> Lab {
    let mut lab = Lab::new(&Options { nodes: count, ..Options::default() }).unwrap();
    let dir = lab.dir().to_owned();
    for node in &mut lab.nodes {
        node.instance = "default".into();
        let pins: PathBuf = dir.join("bpf").join(&node.name);
        node.pin_by_environment(&pins).unwrap();
        for (name, value) in BASE {
            node.set_variable(name, value);
        }
        let name = node.name.to_uppercase();
        node.set_variable("vip_nodename", &name);
        node.set_variable("k8s_config_file", &dir.join("kubeconfig").display().to_string());
    }
    lab
}

fn manager(node: &Node, words: &[&str]) -> Output {
    let command = node.command().unwrap();
    let mut limited = Command::new("timeout");
    limited.arg("20").arg(command.get_program()).args(command.get_args()).arg("manager").args(words);
    limited.envs(variables(&command)).output().unwrap()
}

/// The same with the rights that kube-vip's own manifests grant.
fn manager_without_bpf(node: &Node, words: &[&str]) -> Output {
    let rights =
        ["bounding-set", "inh-caps"].map(|which| format!("--{which}=-all,+net_admin,+net_raw"));
    let mut limited = Command::new("timeout");
    limited.args(["20", "nsenter"]).arg(format!("--net=/run/netns/{}", node.ns.name())).arg("setpriv");
    limited.args(rights).arg(xvip().unwrap()).arg("manager").args(words);
    limited.envs(variables(&node.command().unwrap())).output().unwrap()
}

fn variables(command: &Command) -> Vec<(OsString, OsString)> {
    let set = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    set.collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn is_on(node: &Node) -> bool {
    let addresses = node.ns.ip("addr show eth0").unwrap();
    addresses.contains("192.0.2.10/32") && addresses.contains("2001:db8::10/128")
}

#[test]
fn a_manifest_of_kube_vip_holds_its_vips_and_hands_them_over() {
    let mut lab = nodes(2);
    for node in &mut lab.nodes {
        // This loss is accepted, and stays a problem.
        node.set_variable("svc_enable", "true");
        node.set_variable("xvip_without", "svc_enable");
        let check = manager(node, &["--check"]);
        assert!(check.status.success(), "{}", said(&check));
        assert!(said(&check).contains("the Lease was not looked at"), "there is one candidate only");
        node.start_as(&["manager", "--dnsMode", "first"]).unwrap();
    }
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let other = 1 - owner;
    assert!(
        eventually(Duration::from_secs(5), || is_on(&lab.nodes[owner])),
        "{}",
        lab.nodes[owner].log()
    );
    let lease = lab.api.lease("kube-system", LEASE).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], lab.nodes[owner].name);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 3);
    let log = lab.nodes[owner].log();
    assert!(log.contains("svc_leasename=\"plndr-svcs-lock\" (environment)"), "{log}");
    assert!(log.contains("--dnsMode=\"first\" (flag, the flag of dns_mode)"), "{log}");
    let problems = lab.nodes[owner].status().unwrap()["daemon"]["problems"].clone();
    assert!(problems["svc_enable"].as_str().unwrap().contains("does not serve Services"), "{problems}");
    for (port, path, found) in
        [(2113, "healthz", true), (2113, "metrics", false), (2112, "metrics", true)]
    {
        let url = format!("http://{}:{port}/{path}", lab.nodes[owner].ip);
        let mut ask = lab.nodes[owner].ns.command("curl");
        let asked = ask.args(["-sf", "-o", "/dev/null", &url]).status().unwrap();
        assert_eq!(asked.success(), found, "{port} {path}");
    }
    lab.nodes[owner].signal(libc::SIGUSR1);
    let dumped = || lab.nodes[owner].log().contains("state: daemon.leases {");
    assert!(eventually(Duration::from_secs(5), dumped), "{}", lab.nodes[owner].log());
    let log = lab.nodes[owner].log();
    assert!(log.contains(r#"state: vips {"address":"192.0.2.10","answering":true"#), "{log}");
    assert!(lab.nodes[owner].owns(), "it goes on");
    lab.nodes[owner].signal(libc::SIGTERM);
    assert!(
        eventually(Duration::from_secs(10), || lab.nodes[other].owns()),
        "{}",
        lab.nodes[other].log()
    );
    assert!(eventually(Duration::from_secs(10), || lab.nodes[owner].has_ended()));
    let log = lab.nodes[owner].log();
    for phrase in
        ["VIP addresses remain on interface: 192.0.2.10", "cleaned up preserved VIP 192.0.2.10"]
    {
        assert!(log.contains(phrase), "{phrase}: {log}");
    }
    let addresses = lab.nodes[owner].ns.ip("addr show eth0").unwrap();
    assert!(!addresses.contains("192.0.2.10/") && !addresses.contains("2001:db8::10/"), "{addresses}");
}

#[test]
fn what_cannot_run_is_refused_before_anything_has_changed() {
    let mut lab = nodes(1);
    let pins = lab.dir().join("bpf").display().to_string();
    let pinned = || sh(&format!("find {pins}")).unwrap();
    let before = (lab.nodes[0].ns.ip("addr").unwrap(), pinned());
    let node = &mut lab.nodes[0];
    node.set_variable("vip_leaseduration", "15s");
    node.set_variable("bgp_enable", "true");
    let refused = manager(node, &["--nonsense"]);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(78), "{words}");
    for part in [
        "vip_leaseduration=\"15s\" (environment) is refused",
        "bgp_enable=\"true\" (environment) is refused",
        "several modes are on",
        "--nonsense",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    node.set_variable("vip_leaseduration", "3");
    node.set_variable("bgp_enable", "false");
    node.set_variable("XVIP_PIN_ROOT", "/nowhere/xvip");
    for words in [&[][..], &["--check"][..]] {
        let lacking = manager_without_bpf(node, words);
        let words = said(&lacking);
        assert_eq!(lacking.status.code(), Some(78), "{words}");
        assert!(words.contains("this container lacks BPF"), "{words}");
        assert!(words.contains("/nowhere/xvip is not on a BPF file system"), "{words}");
        assert!(words.contains("volumes: [{name: bpf, hostPath: {path: /sys/fs/bpf"), "{words}");
    }
    assert_eq!((lab.nodes[0].ns.ip("addr").unwrap(), pinned()), before);
    assert!(lab.api.lease("kube-system", LEASE).is_none());
}

#[test]
fn a_lease_of_another_namespace_that_is_renewed_is_never_passed_over() {
    let mut lab = nodes(1);
    lab.nodes[0].set_variable("cp_namespace", "elsewhere");
    let renewed = |count: u32| format!("2030-01-01T00:00:{count:02}.000000Z");
    let spec = json!({
        "holderIdentity": "node9", "leaseDurationSeconds": 15, "leaseTransitions": 1,
        "acquireTime": renewed(0), "renewTime": renewed(0),
    });
    let metadata = json!({"namespace": "kube-system", "name": LEASE});
    lab.api.put("kube-system", LEASE, json!({"metadata": metadata, "spec": spec}));
    let refused = thread::scope(|scope| {
        let running = scope.spawn(|| manager(&lab.nodes[0], &[]));
        let mut count = 1;
        while !running.is_finished() {
            thread::sleep(Duration::from_millis(500));
            let now = renewed(count % 60);
            lab.api.edit("kube-system", LEASE, move |lease| lease["spec"]["renewTime"] = now.into());
            count += 1;
        }
        running.join().unwrap()
    });
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(78), "{words}");
    assert!(words.contains("set vip_leasename=kube-system/plndr-cp-lock"), "{words}");
    assert!(lab.api.lease("elsewhere", LEASE).is_none(), "nothing was written");
}

#[test]
fn an_api_that_does_not_answer_is_waited_for_and_sigterm_ends_it() {
    let mut lab = nodes(1);
    let node = &mut lab.nodes[0];
    node.set_variable("cp_namespace", "elsewhere");
    node.set_variable("kubernetes_addr", "http://192.0.2.77:6443");
    node.start_as(&["manager"]).unwrap();
    let waits = || node.log().contains("nothing is held until it can");
    assert!(eventually(Duration::from_secs(20), waits), "{}", node.log());
    assert!(!node.has_ended());
    node.signal(libc::SIGTERM);
    assert!(eventually(Duration::from_secs(5), || node.has_ended()), "{}", node.log());
}

/// The maps of this host name the Lease that it has used: a restart needs no API to find it.
#[test]
fn a_restart_finds_its_lease_without_the_api() {
    let mut lab = nodes(1);
    lab.nodes[0].set_variable("cp_namespace", "elsewhere");
    lab.nodes[0].start_as(&["manager"]).unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    assert!(lab.api.lease("elsewhere", LEASE).is_some());
    assert!(lab.nodes[0].log().contains("the Lease was found"), "{}", lab.nodes[0].log());
    lab.nodes[0].kill();
    let node = &mut lab.nodes[0];
    node.set_variable("kubernetes_addr", "http://192.0.2.77:6443");
    node.start_as(&["manager"]).unwrap();
    let runs = || node.log().matches("xvip is running").count() == 2;
    assert!(eventually(Duration::from_secs(20), runs), "{}", node.log());
    assert!(!node.log().contains("nothing is held until it can"), "{}", node.log());
}

/// The Lease of the settings has changed, and another node still renews the one before.
#[test]
fn a_lease_that_this_host_has_used_is_not_left_while_it_is_renewed() {
    let mut lab = nodes(1);
    lab.nodes[0].start_as(&["manager"]).unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    lab.nodes[0].signal(libc::SIGTERM);
    assert!(eventually(Duration::from_secs(10), || lab.nodes[0].has_ended()));
    lab.nodes[0].set_variable("vip_leasename", "elsewhere/other");
    let renewed = |count: u32| format!("2030-01-01T00:00:{:02}.000000Z", count % 60);
    let renew = |count: u32| {
        let now = renewed(count);
        lab.api.edit("kube-system", LEASE, move |lease| {
            lease["spec"]["holderIdentity"] = "node9".into();
            lease["spec"]["renewTime"] = now.into();
        });
    };
    renew(0);
    let (refused, checked) = thread::scope(|scope| {
        let node = &lab.nodes[0];
        let running = scope.spawn(|| (manager(node, &[]), manager(node, &["--check"])));
        let mut count = 1;
        while !running.is_finished() {
            thread::sleep(Duration::from_millis(500));
            renew(count);
            count += 1;
        }
        running.join().unwrap()
    });
    for output in [refused, checked] {
        let words = said(&output);
        assert_eq!(output.status.code(), Some(78), "{words}");
        let why = "this host has used the Lease kube-system/plndr-cp-lock, which node9 still renews";
        assert!(words.contains(why), "{words}");
    }
    assert!(lab.api.lease("elsewhere", "other").is_none(), "nothing was written");
}

/// A host that refuses the VIP ends as a refused setting does.
#[test]
fn a_vip_that_is_an_address_of_this_host_is_refused() {
    let mut lab = nodes(1);
    let own = lab.nodes[0].ip.to_string();
    lab.nodes[0].set_variable("address", &own);
    let refused = manager(&lab.nodes[0], &[]);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(78), "{words}");
    assert!(words.contains("this host's own address"), "{words}");
}
