//! Each manifest of kube-vip, before and after what `deploy/` adds: the real binary, confined as the
//! manifest says, names exactly what is missing, and then nothing more.

use serde_json::{Value, json};
use std::process::{Command, Output};
use vip_tests::{
    lab::node::xvip,
    manifests::{self, Facts, chart, deployed, deployed_object, merge, pod},
};

/// What the runtimes leave to a container by default, as far as it matters here.
const DEFAULT: [&str; 2] = ["NET_RAW", "DAC_OVERRIDE"];
/// Losses that have nothing to do with rights.
const WITHOUT: &str = "svc_enable,lb_enable,enable_node_labeling";

/// A manifest before and after.
struct Case {
    name: String,
    /// The losses that are accepted.
    without: &'static str,
    before: Value,
    after: Value,
}

fn cases() -> Vec<Case> {
    let merged = |before: &Value, patch: &str| {
        let mut after = before.clone();
        merge(&mut after, &deployed_object(patch).unwrap());
        after
    };
    let mut cases = Vec::new();
    for name in manifests::names().unwrap() {
        let facts = manifests::facts(&name).unwrap();
        let (before, after) = match name.as_str() {
            "kubespray-2.29" => kubespray(&facts, "kube-vip/kubespray-2.27.patch"),
            // Kubespray's template of 2.23 and 2.24 is older than the patches.
            name if name.starts_with("kubespray") && !name.starts_with("kubespray-2.2") => {
                kubespray(&facts, "kube-vip/kubespray-2.30.patch")
            }
            name if name.starts_with("chart") => {
                let mut values = chart::values(&facts);
                let before = chart::object(&values);
                chart::add(&mut values, &deployed_object("kube-vip/chart-values.yaml").unwrap());
                (before, chart::object(&values))
            }
            _ if facts.kind == "Pod" => {
                let before = facts.object();
                let after = merged(&before, "kube-vip/static-pod.yaml");
                (before, after)
            }
            _ => {
                let before = facts.object();
                let after = merged(&before, "components/kube-vip-rights/daemonset.yaml");
                (before, after)
            }
        };
        // The shipped values of the chart turn off what xvip does not do.
        let without = if name.starts_with("chart") { "" } else { WITHOUT };
        cases.push(Case { name, without, before, after });
    }
    cases
}

fn kubespray(facts: &Facts, patch: &str) -> (Value, Value) {
    let template = facts.kubespray();
    let patched = manifests::patched(&template, &deployed(patch).unwrap()).unwrap();
    let made = |template: &str| manifests::rendered(template, facts.is_privileged()).unwrap();
    (made(&template), made(&patched))
}

/// Asks in a pod's container, confined as the pod says and by what it runs through. A BPF file system
/// of its own stands for that of the host, and is only where the pod mounts it.
fn run(object: &Value, without: &str, through: &[&str]) -> Output {
    let (pod, container) = (pod(object), &pod(object)["containers"][0]);
    let mut script =
        String::from("set -e\nmount -t tmpfs none /run\nmount -t bpf -o mode=0700 bpf /sys/fs/bpf\n");
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (host, path) = (text(&volume["hostPath"]["path"]), text(&mount["mountPath"]));
        // Files of the host that the test machine does not have are left out.
        if host == "/sys/fs/bpf" {
            script.extend(["mkdir -p ", &path, "\nmount --bind ", &host, " ", &path, "\n"]);
        }
    }
    script += "mount -t tmpfs none /sys/fs/bpf\nexec \"$@\"\n";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "timeout", "30", "sh", "-c", &script, "sh"]);
    command.args([
        "setpriv",
        "--inh-caps=-all",
        &format!("--bounding-set={}", capabilities(container)),
    ]);
    command.args(through).args([xvip().unwrap().to_str().unwrap(), "manager", "--check"]).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("xvip_without", without);
    for variable in container["env"].as_array().unwrap() {
        let value = variable["value"].as_str().unwrap_or("node1");
        command.env(variable["name"].as_str().unwrap(), value);
    }
    command.output().unwrap()
}

/// For setpriv: the capabilities of a container.
fn capabilities(container: &Value) -> String {
    let context = &container["securityContext"];
    if context["privileged"] == true {
        return "+all".into();
    }
    let list = |name: &str| -> Vec<String> {
        let list = context["capabilities"][name].as_array().into_iter().flatten();
        list.map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let defaults = DEFAULT.map(str::to_owned).into_iter();
    let kept = defaults.filter(|_| !list("drop").contains(&"ALL".to_owned()));
    kept.chain(list("add"))
        .fold("-all".to_owned(), |all, name| format!("{all},+{}", name.to_lowercase()))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The lines that xvip prints for the manifest, as one object.
fn printed(words: &str) -> Value {
    let mut lines =
        words.lines().skip_while(|line| !line.contains("add to the container and to the pod"));
    if lines.next().is_none() {
        return json!({});
    }
    let lines: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    serde_norway::from_str(&lines.join("\n")).unwrap()
}

/// What the second manifest has more than the first, in the form of the printed lines.
fn added(before: &Value, after: &Value) -> Value {
    let mut added = json!({});
    let container = |object: &Value| pod(object)["containers"][0].clone();
    let (old, new) = (container(before), container(after));
    if old["securityContext"] != new["securityContext"] {
        added["securityContext"] = new["securityContext"].clone();
    }
    for (key, old, new) in [
        ("env", &old["env"], &new["env"]),
        ("volumeMounts", &old["volumeMounts"], &new["volumeMounts"]),
        ("volumes", &pod(before)["volumes"], &pod(after)["volumes"]),
    ] {
        let known =
            |item: &&Value| old.as_array().into_iter().flatten().all(|old| old["name"] != item["name"]);
        let more = new.as_array().into_iter().flatten().filter(known).cloned();
        added[key] = more.collect();
    }
    added
}

#[test]
fn each_manifest_lacks_exactly_what_is_shipped() {
    let cases = cases();
    assert_eq!(cases.len(), 24);
    for Case { name, without, before, after } in cases {
        let refused = run(&before, without, &[]);
        let words = said(&refused);
        assert_eq!(refused.status.code(), Some(78), "{name}: {words}");
        assert_eq!(printed(&words), added(&before, &after), "{name}: {words}");
        let check = run(&after, without, &[]);
        let words = said(&check);
        assert_eq!(printed(&words), json!({}), "{name}: {words}");
        // It serves Services alone.
        let runs = name != "harvester";
        assert_eq!(check.status.success(), runs, "{name}: {words}");
        assert_eq!(words.contains("this would run here: 192.0.2.10 on "), runs, "{name}: {words}");
    }
}

/// As in CRI-O. The line is printed only where it helps.
#[test]
fn a_seccomp_filter_that_refuses_bpf_is_named_with_the_line_that_lifts_it() {
    let case = cases().into_iter().find(|case| case.name == "kubeadm").unwrap();
    let refused = run(&case.after, case.without, &[env!("CARGO_BIN_EXE_xvip-without-bpf")]);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(78), "{words}");
    assert_eq!(printed(&words), json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}));
    assert!(words.contains("a seccomp filter is in force"), "{words}");
}

#[test]
fn the_shipped_files_agree_with_each_other() {
    let container = |object: &Value| pod(object)["containers"][0].clone();
    let daemonset = deployed_object("components/kube-vip-rights/daemonset.yaml").unwrap();
    let static_pod = deployed_object("kube-vip/static-pod.yaml").unwrap();
    assert_eq!(container(&daemonset), container(&static_pod));
    assert_eq!(pod(&daemonset)["volumes"], pod(&static_pod)["volumes"]);
    let values = deployed_object("kube-vip/chart-values.yaml").unwrap();
    for key in ["securityContext", "volumeMounts"] {
        assert_eq!(values[key], container(&static_pod)[key], "{key}");
    }
    assert_eq!(values["volumes"], pod(&static_pod)["volumes"]);
}
