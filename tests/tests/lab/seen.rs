//! What xvip shows: metrics, health, state, Events, logs.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    frames,
    lab::{ASKER_MAC, Lab, Options, VIP4, eventually, node::Node},
    netns::sh,
    packet_socket::PacketSocket,
};

/// Status line and body of a GET on the node's loopback.
fn get(node: &Node, path: &str) -> Option<(String, String)> {
    node.ns
        .run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:21112").ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            let (head, body) = text.split_once("\r\n\r\n")?;
            Some((head.lines().next()?.to_owned(), body.to_owned()))
        })
        .unwrap()
}

fn options() -> Options {
    Options { extra: "admin: {port: 21112}\nlog: {format: json}\n".into(), ..Options::default() }
}

#[test]
fn the_admin_port_tells_the_truth() {
    let mut lab = Lab::new(&Options { nodes: 1, ..options() }).unwrap();
    let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
    lab.nodes[0].ns.ip(nowhere).unwrap();
    lab.start().unwrap();
    let node = &lab.nodes[0];
    // Before the first turn of the loop, the reason is that the process is starting.
    let unread = |(line, reasons): (String, String)| {
        line.contains("503") && reasons.contains("the Lease has not been read yet")
    };
    let not_ready = || get(node, "/readyz").is_some_and(unread);
    assert!(
        eventually(Duration::from_secs(10), not_ready),
        "{:?} {}",
        get(node, "/readyz"),
        node.log()
    );
    assert!(get(node, "/healthz").unwrap().0.contains("200"), "a restart would mend nothing");
    let problem = |node: &Node| {
        node.status().unwrap()["daemon"]["problems"]["API kube-system/plndr-cp-lock"].is_string()
    };
    assert!(eventually(Duration::from_secs(10), || problem(node)), "{}", node.log());
    node.ns.ip("neigh del 192.0.2.100 dev eth0").unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let node = &lab.nodes[0];
    assert!(get(node, "/readyz").unwrap().0.contains("200"));
    let state: Value = serde_json::from_str(&get(node, "/state").unwrap().1).unwrap();
    assert_eq!(state["leases"][0]["state"], "holding");

    let mut arping = lab.asker.command("arping");
    assert!(arping.args(["-c3", "-w3", "-I", "eth0", "192.0.2.10"]).output().unwrap().status.success());
    let metrics = get(node, "/metrics").unwrap().1;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert_eq!(value("xvip_leader{lease=\"kube-system/plndr-cp-lock\"}"), 1.0);
    assert!((0.0..=2.65).contains(&value("xvip_fence_left_seconds")));
    assert!(value("xvip_answers_total{protocol=\"arp\"}") >= 3.0);
    assert_eq!(value("xvip_attach_mode{interface=\"eth0\",mode=\"native\"}"), 1.0);
    assert!(
        value("xvip_transitions_total{lease=\"kube-system/plndr-cp-lock\",reason=\"created\"}") >= 1.0
    );
    assert!(value("xvip_api_request_seconds_count{verb=\"put\",outcome=\"ok\"}") >= 1.0);
    let failed = |outcome: &str| {
        metrics
            .contains(&format!("xvip_api_request_seconds_count{{verb=\"get\",outcome=\"{outcome}\"}}"))
    };
    assert!(failed("timeout") || failed("error"), "{metrics}");
    assert_eq!(
        value("xvip_problem{subject=\"API kube-system/plndr-cp-lock\"}"),
        0.0,
        "it was there and is over"
    );
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics");
}

/// The manual lists every metric by name and type, and no other.
#[test]
fn the_manual_lists_every_metric() {
    let mut lab = Lab::new(&Options { nodes: 1, ..options() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let metrics = get(&lab.nodes[0], "/metrics").unwrap().1;
    let full =
        |name: &str, kind: &str| if kind == "counter" { format!("{name}_total") } else { name.into() };
    let served: BTreeSet<(String, String)> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (full(name, kind), kind.to_owned()))
        .collect();
    let manual = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<(String, String)> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `xvip_")?.split_once("` | "))
        .map(|(name, rest)| {
            (format!("xvip_{name}"), rest.split(' ').next().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(served, documented);
}

#[test]
fn leadership_and_conflicts_become_events_and_log_lines() {
    let mut lab = Lab::new(&options()).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let reports = |lab: &Lab, reason: &str| {
        lab.api.reports().into_iter().filter(|event| event["reason"] == reason).collect::<Vec<Value>>()
    };
    let name = lab.nodes[owner].name.clone();
    assert!(eventually(Duration::from_secs(5), || !reports(&lab, "TookOver").is_empty()));
    let event = reports(&lab, "TookOver").remove(0);
    assert_eq!(event["regarding"]["name"], "plndr-cp-lock");
    // `kubectl describe lease` finds Events by the uid.
    let lease = lab.api.lease("kube-system", "plndr-cp-lock").unwrap();
    assert_eq!(event["regarding"]["uid"], lease["metadata"]["uid"], "{lease}");
    assert_eq!(event["reportingInstance"], name);

    // Claims within 2·D of a take-over are part of it. Later ones are a conflict, which is reported
    // once.
    sleep(Duration::from_secs(6));
    for _ in 0..5 {
        let send =
            || PacketSocket::open("eth0").unwrap().send(&frames::arp_request(ASKER_MAC, VIP4, VIP4));
        lab.asker.run(send).unwrap().unwrap();
        sleep(Duration::from_millis(1_100));
    }
    assert!(eventually(Duration::from_secs(5), || !reports(&lab, "Conflict").is_empty()));
    let conflicts = reports(&lab, "Conflict");
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert!(
        conflicts[0]["note"]
            .as_str()
            .unwrap()
            .contains("192.0.2.10 is also claimed by 02:00:00:00:00:c8")
    );
    let problems = lab.nodes[owner].status().unwrap()["daemon"]["problems"].clone();
    assert!(problems["conflict 192.0.2.10"].is_string(), "{problems}");
    assert!(lab.nodes[owner].owns(), "a conflict is reported and moves nothing");

    // Another holder is written into the Lease: the owner is silent at once, and logs it.
    lab.api.edit("kube-system", "plndr-cp-lock", |lease| {
        lease["spec"]["holderIdentity"] = "kubectl".into();
    });
    assert!(eventually(Duration::from_secs(5), || !reports(&lab, "Lost").is_empty()));
    assert!(!lab.nodes[owner].owns());
    let log = lab.nodes[owner].log();
    let lines: Vec<&str> = log.lines().skip(1).collect();
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        parsed.iter().any(|line| line["message"] == "lost leadership" && line["level"] == "WARN"),
        "{log}"
    );
}

/// `xvip config` changes nothing and needs no rights.
#[test]
fn config_check_and_show() {
    let lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let xvip = vip_tests::lab::node::xvip().unwrap();
    let file = lab.dir().join("node1.yaml").display().to_string();
    let run = |args: &str| sh(&format!("{} config {args}", xvip.display()));
    assert!(
        run(&format!("check {file}")).unwrap().contains("is valid: 192.0.2.10, 2001:db8::10 on eth0")
    );
    let shown: Value = serde_json::from_str(&run(&format!("show {file} -o json")).unwrap()).unwrap();
    let of =
        |field: &str| shown.as_array().unwrap().iter().find(|s| s["field"] == field).cloned().unwrap();
    assert_eq!(of("lease.duration_s")["value"], 3);
    assert_eq!(of("lease.duration_s")["source"], "file");
    assert_eq!(of("attach")["source"], "default");
    // Where the maps are pinned: the flag, then the variable, then the file.
    let pin_root = |before: &str, after: &str| {
        let line = format!("{before} {} config show {file} -o json {after}", xvip.display());
        let shown: Value = serde_json::from_str(&sh(&line).unwrap()).unwrap();
        let of = |setting: &&Value| setting["field"] == "pin_root";
        shown.as_array().unwrap().iter().find(of).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(pin_root("XVIP_PIN_ROOT=/a", "--pin-root /b"), "/b");
    assert_eq!(pin_root("XVIP_PIN_ROOT=/a", ""), "/a");
    assert_eq!(pin_root("", ""), lab.dir().join("bpf").display().to_string());
    std::fs::write(lab.dir().join("bad.yaml"), "vips: [10.0.0.300]\ninterfaces: [eth0]\n").unwrap();
    let refused =
        run(&format!("check {}", lab.dir().join("bad.yaml").display())).unwrap_err().to_string();
    assert!(refused.contains("vips"), "{refused}");
}
