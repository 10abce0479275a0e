//! `xvip migrate` on a live cluster of two nodes, with client-go's election in the place of kube-vip
//! and kubelets that know static pods only.

use crate::trial;
use libtest_mimic::Trial;
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    kube::kubelet::{BROKEN, Kubelet},
    lab::{API, Kube, Lab, Options},
};

const IMAGE: &str = "registry.example/xvip:0.1.0";
const LEASE: &str = "plndr-cp-lock";
const LIMIT: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    vec![trial("migrate::a_cluster_moves_from_kube_vip_and_a_node_back", moves)]
}

struct Cluster {
    lab: Lab,
    kubelets: Vec<Kubelet>,
    admin: PathBuf,
}

impl Cluster {
    fn new() -> Self {
        let options = Options { kube: Kube::One, nodes: 2, duration_s: 5, ..Options::default() };
        let mut lab = Lab::new(&options).unwrap();
        let admin = lab.dir().join("admin.conf");
        let plane = &lab.api.real().unwrap().plane;
        let made = plane.pki.kubeconfig(&format!("https://{API}"), "admin", "system:masters").unwrap();
        fs::rename(made, &admin).unwrap();
        for index in 0..2 {
            let pins = lab.dir().join("bpf").join(&lab.nodes[index].name);
            lab.nodes[index].instance = "default".into();
            lab.nodes[index].pin_by_environment(&pins).unwrap();
        }
        let kubelets = (0..2).map(|index| Kubelet::new(&lab, index).unwrap()).collect();
        Self { lab, kubelets, admin }
    }

    fn manifest(&self, node: usize) -> PathBuf {
        self.kubelets[node].folder.join("kube-vip.yaml")
    }

    fn sync(&mut self) {
        for kubelet in &mut self.kubelets {
            kubelet.sync(&mut self.lab).unwrap();
        }
    }

    /// Syncs until something is true.
    #[track_caller]
    fn until(&mut self, limit: Duration, mut condition: impl FnMut(&Lab) -> bool) {
        for _ in 0..limit.as_millis() / 100 {
            self.sync();
            if condition(&self.lab) {
                return;
            }
            sleep(Duration::from_millis(100));
        }
        let logs: Vec<String> = self.lab.nodes.iter().map(vip_tests::lab::node::Node::log).collect();
        panic!("{:?}\n{}", self.lab.api.lease("kube-system", LEASE), logs.join("\n"));
    }

    fn begin(&self, node: usize, words: &[&str], kubeconfig: &Path) -> (Child, PathBuf) {
        let at = &self.lab.nodes[node];
        let output = self.lab.dir().join(format!("migrate-{}.log", at.name));
        let file = File::create(&output).unwrap();
        let mut command = at.command().unwrap();
        command.arg("migrate").args(&words[..1]).args(["--manifests"]).arg(&self.kubelets[node].folder);
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--state").arg(self.lab.dir().join(&at.name).join("state"));
        command.arg("--pin-root").arg(at.pin_root());
        if words[0] == "apply" {
            let sysctls = self.lab.dir().join(&at.name).join("sysctl.d");
            fs::create_dir_all(&sysctls).unwrap();
            command.arg("--sysctls").arg(sysctls);
        }
        command.env("NODE_NAME", &at.name);
        command.args(&words[1..]).stdout(file.try_clone().unwrap()).stderr(file);
        (command.spawn().unwrap(), output)
    }

    /// Runs a command to its end, while the kubelets work.
    #[track_caller]
    fn run(&mut self, node: usize, words: &[&str]) -> (String, i32) {
        let admin = self.admin.clone();
        self.run_with(node, words, &admin)
    }

    #[track_caller]
    fn run_with(&mut self, node: usize, words: &[&str], kubeconfig: &Path) -> (String, i32) {
        let begun = self.begin(node, words, kubeconfig);
        self.end(begun)
    }

    #[track_caller]
    fn end(&mut self, (mut child, output): (Child, PathBuf)) -> (String, i32) {
        for _ in 0..1_200 {
            self.sync();
            if let Some(status) = child.try_wait().unwrap() {
                return (fs::read_to_string(output).unwrap(), status.code().unwrap_or(-1));
            }
            sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("it does not end: {}", fs::read_to_string(output).unwrap());
    }

    fn holder(lab: &Lab) -> String {
        let lease = lab.api.lease("kube-system", LEASE).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }
}

/// kube-vip's manifest, with comments.
fn manifest(kubeconfig: &Path) -> String {
    let path = kubeconfig.display();
    let mut text = String::from(
        "# Written by hand.\napiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-vip\n  namespace: kube-system\n\
         spec:\n  containers:\n  - args:\n    - manager\n    env:\n",
    );
    for (name, value) in [
        ("vip_arp", "true"),
        ("cp_enable", "true"),
        ("cp_namespace", "kube-system"),
        ("address", "192.0.2.10,2001:db8::10"),
        ("vip_interface", "eth0"),
        ("vip_leaderelection", "true"),
        ("vip_leasename", LEASE),
        ("vip_leaseduration", "5"),
        ("vip_renewdeadline", "3"),
        ("vip_retryperiod", "1"),
        ("kubernetes_addr", &format!("https://{API}")),
        ("k8s_config_file", &path.to_string()),
    ] {
        let _ = write!(text, "    - name: {name} # {value}\n      value: \"{value}\"\n");
    }
    text += "    - name: vip_nodename\n      valueFrom:\n        fieldRef:\n          fieldPath: spec.nodeName\n";
    text += "    image: ghcr.io/kube-vip/kube-vip:v1.0.4 # pinned\n    name: kube-vip\n";
    text += "    securityContext:\n      capabilities:\n        add:\n        - NET_ADMIN\n        - NET_RAW\n";
    let _ = write!(
        text,
        "    volumeMounts:\n    - mountPath: {path}\n      name: kubeconfig\n  hostNetwork: true\n"
    );
    text + &format!("  volumes:\n  - hostPath:\n      path: {path}\n    name: kubeconfig\n")
}

fn moves() {
    let mut cluster = Cluster::new();
    let text = manifest(&cluster.admin);
    // node2 is the holder.
    fs::write(cluster.manifest(1), &text).unwrap();
    cluster.until(LIMIT, |lab| Cluster::holder(lab) == "node2");
    fs::write(cluster.manifest(0), &text).unwrap();
    cluster.sync();
    plans(&mut cluster);
    refuses_the_holder(&mut cluster, &text);
    goes_back_if_it_does_not_arrive(&mut cluster, &text);
    moves_and_returns(&mut cluster, &text);
    returns_after_a_crash(&mut cluster, &text);
    moves_all_and_finishes(&mut cluster);
    leaves_no_note_after_a_crash(&mut cluster);
}

fn plans(cluster: &mut Cluster) {
    let (said, code) = cluster.run(0, &["plan", "-o", "json", "--image", IMAGE]);
    assert_eq!(code, 0, "{said}");
    let plan: Value = serde_json::from_str(&said).unwrap();
    let rows = plan["plan"]["rows"].as_array().unwrap();
    let turns: Vec<&str> = rows.iter().map(|row| row["turn"].as_str().unwrap()).collect();
    assert_eq!(turns, ["now", "last"], "{said}");
    assert_eq!(rows[1]["node"], "node2", "{said}");
    let (said, code) = cluster.run(0, &["plan"]);
    assert!(code == 0 && said.contains("nothing stands against it"), "{said}");
    // The rights that xvip itself has do not suffice.
    let limited = cluster.lab.dir().join("kubeconfig");
    let (said, code) = cluster.run_with(0, &["plan"], &limited);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot list resource"), "{said}");
}

fn refuses_the_holder(cluster: &mut Cluster, text: &str) {
    let (said, code) = cluster.run(1, &["apply", "--image", IMAGE]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("this node holds the Lease, and kube-vip still runs on node1"), "{said}");
    assert_eq!(fs::read_to_string(cluster.manifest(1)).unwrap(), text);
}

fn goes_back_if_it_does_not_arrive(cluster: &mut Cluster, text: &str) {
    let (said, code) = cluster.run(0, &["apply", "--image", BROKEN, "--timeout", "10"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("node1 did not arrive: after 10 s"), "{said}");
    assert!(said.contains("node1 runs kube-vip again"), "{said}");
    assert_eq!(fs::read_to_string(cluster.manifest(0)).unwrap(), text);
    assert_eq!(Cluster::holder(&cluster.lab), "node2");
}

fn moves_and_returns(cluster: &mut Cluster, text: &str) {
    let (said, code) = cluster.run(0, &["apply", "--image", IMAGE]);
    assert_eq!(code, 0, "{said}\n{}", cluster.lab.nodes[0].log());
    let moved = fs::read_to_string(cluster.manifest(0)).unwrap();
    assert!(moved.contains("image: registry.example/xvip:0.1.0 # pinned"), "{moved}");
    assert_eq!(moved.matches('#').count(), text.matches('#').count(), "{moved}");
    assert_eq!(Cluster::holder(&cluster.lab), "node2");
    let (said, code) = cluster.run(0, &["apply", "--image", IMAGE]);
    assert!(code == 1 && said.contains("this node runs xvip already"), "{said}");
    let (said, code) = cluster.run(0, &["finish"]);
    assert!(code == 1 && said.contains("kube-vip still runs there"), "{said}");
    let (said, code) = cluster.run(0, &["rollback"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(cluster.manifest(0)).unwrap(), text);
    let (said, code) = cluster.run(0, &["rollback"]);
    assert!(code == 1 && said.contains("no node was moved here"), "{said}");
}

/// The command dies when xvip's manifest is gone and kube-vip's is not back.
fn returns_after_a_crash(cluster: &mut Cluster, text: &str) {
    let (said, code) = cluster.run(0, &["apply", "--image", IMAGE]);
    assert_eq!(code, 0, "{said}");
    cluster.kubelets[0].stopped = true;
    let admin = cluster.admin.clone();
    let (mut child, output) = cluster.begin(0, &["rollback"], &admin);
    let path = cluster.manifest(0);
    cluster.until(LIMIT, |_| !path.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let (said, code) = cluster.run(0, &["apply", "--image", IMAGE]);
    assert!(code == 1 && said.contains("a rollback has begun here"), "{said}");
    cluster.kubelets[0].stopped = false;
    let (said, code) = cluster.run(0, &["rollback"]);
    assert_eq!(code, 0, "{said}\n{}", fs::read_to_string(output).unwrap());
    assert_eq!(fs::read_to_string(path).unwrap(), text);
}

fn moves_all_and_finishes(cluster: &mut Cluster) {
    for node in 0..2 {
        let (said, code) = cluster.run(node, &["apply", "--image", IMAGE]);
        assert_eq!(code, 0, "{said}\n{}", cluster.lab.nodes[node].log());
    }
    cluster.until(LIMIT, |lab| Cluster::holder(lab) == "node1");
    let (said, code) = cluster.run(0, &["finish"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("found label kube-vip.io/has-ip of node node2"), "{said}");
    let (said, code) = cluster.run(0, &["finish", "--yes"]);
    assert_eq!(code, 0, "{said}");
    let (said, code) = cluster.run(0, &["finish"]);
    assert!(code == 0 && !said.contains("found label"), "{said}");
}

/// xvip dies as the holder. Its note stays in the Lease, and its guard on the host. Then the other node
/// goes back as well: it may hand the VIP to nobody, because only kube-vip is left.
fn leaves_no_note_after_a_crash(cluster: &mut Cluster) {
    let notes = |lab: &Lab, node: &str| {
        let lease = lab.api.lease("kube-system", LEASE).unwrap();
        let note = lease["metadata"]["annotations"]["xvip.io/tenure"].as_str();
        note.is_some_and(|note| note.contains(node))
    };
    cluster.kubelets[0].stopped = true;
    cluster.lab.nodes[0].kill();
    assert!(notes(&cluster.lab, "node1"));
    let admin = cluster.admin.clone();
    let begun = cluster.begin(0, &["rollback"], &admin);
    let path = cluster.manifest(0);
    cluster.until(LIMIT, |_| !path.exists());
    cluster.kubelets[0].stopped = false;
    let (said, code) = cluster.end(begun);
    assert_eq!(code, 0, "{said}");
    assert!(!notes(&cluster.lab, "node1"), "{said}");
    assert!(said.contains("removed guard program on eth0"), "{said}");
    let (said, code) = cluster.run(1, &["rollback"]);
    assert_eq!(code, 0, "{said}");
    assert!(!notes(&cluster.lab, "node2"), "{said}");
    cluster.until(LIMIT, |lab| !Cluster::holder(lab).is_empty());
}
