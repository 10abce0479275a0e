//! What the generator prints runs here without a refusal, and has the rights that it needs.

use super::*;
use crate::adapter::{
    manifest::{self, Credentials},
    rights,
};
use serde_json::Value;

const LINE: &str = "--interface eth0 --address 192.0.2.10,2001:db8::10 --controlplane --arp \
                    --leaderElection --leaseDuration 15 --leaseRetry 2 --peerPass hunter2";

fn input(line: &str) -> Input {
    Input { flags: flags::parse(&words(line), &[]), ..Input::default() }
}

fn wanted(in_cluster: bool) -> manifest::Wanted {
    let image = "registry.example/xvip:1".into();
    let credentials = if in_cluster { Credentials::Account } else { Credentials::Kubeconfig };
    manifest::Wanted { image, credentials, taint: true, perfmon: false }
}

/// Prints an object and reads it again, as a kubelet does.
fn printed(object: &Value) -> Value {
    serde_norway::from_str(&serde_norway::to_string(object).unwrap()).unwrap()
}

fn variables(container: &Value) -> Vec<(String, String)> {
    let variable = |entry: &Value| {
        let name = entry["name"].as_str().unwrap().to_owned();
        match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => (name, "Node1".to_owned()),
            _ => (name, entry["value"].as_str().unwrap().to_owned()),
        }
    };
    container["env"].as_array().unwrap().iter().map(variable).collect()
}

#[test]
fn what_is_generated_runs_here() {
    let pod = printed(&manifest::pod(&input(LINE), &wanted(false)));
    let daemonset = printed(&manifest::daemonset(&input(LINE), &wanted(true)));
    for spec in [&pod["spec"], &daemonset["spec"]["template"]["spec"]] {
        let container = &spec["containers"][0];
        let environment = variables(container);
        let adapted = adapt(&Input { environment, ..Input::default() }, &Host::default());
        assert!(adapted.refused.is_empty(), "{:?}", adapted.refused);
        assert_eq!(adapted.config.node.as_deref(), Some("node1"));
        assert_eq!(adapted.config.vips.len(), 2);
        assert_eq!(adapted.config.lease.duration_s, 15);
        assert_eq!(container["name"], "kube-vip");
        assert_eq!(container["args"], serde_json::json!(["manager"]));
        assert_eq!(container["ports"][0]["containerPort"], 2112);
        let add = serde_json::json!(["BPF", "NET_ADMIN", "NET_RAW"]);
        assert_eq!(container["securityContext"]["capabilities"]["add"], add);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["volumeMounts"][0]["mountPath"], rights::MOUNT);
        assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/sys/fs/bpf");
        assert_eq!(
            (&spec["hostNetwork"], &spec["priorityClassName"]),
            (&true.into(), &"system-node-critical".into())
        );
    }
    assert!(!serde_norway::to_string(&pod).unwrap().contains("hunter2"));
}

/// The kubeconfigs that a pod mounts, where they are on the host.
fn mounted(pod: &Value) -> Vec<String> {
    let (volumes, container) = (&pod["spec"]["volumes"], &pod["spec"]["containers"][0]);
    let mounts = container["volumeMounts"].as_array().unwrap().iter().skip(1);
    let both = mounts.zip(volumes.as_array().unwrap().iter().skip(1));
    both.map(|(mount, volume)| {
        assert_eq!((&mount["name"], &mount["readOnly"]), (&volume["name"], &Value::Bool(true)));
        assert_eq!(mount["mountPath"], volume["hostPath"]["path"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!("{} {}", text(&mount["mountPath"]), text(&volume["hostPath"]["type"]))
    })
    .collect()
}

#[test]
fn the_first_node_prefers_the_credentials_that_have_rights_already() {
    let first = manifest::Wanted { credentials: Credentials::First, ..wanted(false) };
    let pod = manifest::pod(&input(LINE), &first);
    let (admin, super_admin) = ("/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf");
    assert_eq!(mounted(&pod), [format!("{admin} File"), format!("{super_admin} FileOrCreate")]);
    let environment = variables(&pod["spec"]["containers"][0]);
    let used = |files: &[&'static str]| {
        let host = Host { files: files.to_vec(), namespace: None };
        let input = Input { environment: environment.clone(), ..Input::default() };
        adapt(&input, &host).config.api.kubeconfig.unwrap().display().to_string()
    };
    assert_eq!(used(&[admin, super_admin]), super_admin);
    assert_eq!(used(&[admin]), admin);
    let usual = variables(&manifest::pod(&input(LINE), &wanted(false))["spec"]["containers"][0]);
    assert!(!usual.iter().any(|(name, _)| name == "k8s_config_file"));
}

#[test]
fn linux_5_needs_one_more_right() {
    let added = |perfmon| {
        let pod = manifest::pod(&input(LINE), &manifest::Wanted { perfmon, ..wanted(false) });
        pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"].to_string()
    };
    assert!(added(true).contains("PERFMON"));
    assert!(!added(false).contains("PERFMON"));
}

#[test]
fn flags_that_no_variable_carries_stay_flags() {
    let line = format!("{LINE} --prometheusHTTPServer= --leaderElectionType kubernetes --metalKey x");
    let pod = manifest::pod(&input(&line), &wanted(false));
    let container = &pod["spec"]["containers"][0];
    let wanted = ["manager", "--prometheusHTTPServer=", "--leaderElectionType=kubernetes"];
    assert_eq!(container["args"], serde_json::json!(wanted), "no secret");
    assert_eq!(container["ports"], Value::Null);
    let flags = flags::parse(&wanted.map(str::to_owned)[1..], &[]);
    let environment = variables(container);
    let adapted = adapt(&Input { environment, flags, file: None }, &Host::default());
    assert!(adapted.refused.is_empty(), "{:?}", adapted.refused);
    assert_eq!(adapted.config.admin.port, None);
}

#[test]
fn a_shell_counts_only_by_exact_names() {
    let shell = [("PORT", "8080"), ("port", "6444"), ("VIP_INTERFACE", "x"), ("HOME", "/root")];
    assert_eq!(manifest::of_the_shell(owned(&shell)), owned(&[("port", "6444"), ("HOME", "/root")]));
}

#[test]
fn a_role_is_in_the_namespace_of_the_lease() {
    let line = format!("{LINE} --namespace leases");
    let [account, granted, binding] = manifest::rbac(&input(&line), true, false);
    let pod = manifest::pod(&input(&line), &wanted(true));
    let of_lease = variables(&pod["spec"]["containers"][0]);
    assert!(of_lease.contains(&("cp_namespace".into(), "leases".into())));
    assert_eq!(granted["metadata"]["namespace"], "leases");
    assert_eq!(binding["metadata"]["namespace"], "leases");
    assert_eq!(account["metadata"]["namespace"], pod["metadata"]["namespace"]);
    assert_eq!(binding["subjects"][0]["namespace"], pod["metadata"]["namespace"]);
    let named = format!("{LINE} --leaseName other/x");
    assert_eq!(manifest::rbac(&input(&named), true, false)[1]["metadata"]["namespace"], "other");
}

#[test]
fn a_pod_mounts_its_kubeconfig_alone_and_a_daemonset_has_an_account() {
    let pod = manifest::pod(&input(LINE), &wanted(false));
    assert_eq!(pod["metadata"]["name"], "kube-vip");
    for label in ["k8s-app", "component", "app.kubernetes.io/name"] {
        assert_eq!(pod["metadata"]["labels"][label], "kube-vip", "{label}");
    }
    assert_eq!(mounted(&pod), ["/etc/kubernetes/admin.conf File"]);
    assert_eq!(pod["spec"]["serviceAccountName"], Value::Null);
    let other = manifest::pod(&input("--k8sConfigPath /root/.kube/config --arp"), &wanted(false));
    assert_eq!(mounted(&other), ["/root/.kube/config File"]);
    let daemonset = manifest::daemonset(&input(LINE), &wanted(true));
    let (selector, template) = (&daemonset["spec"]["selector"], &daemonset["spec"]["template"]);
    let name = "app.kubernetes.io/name";
    assert_eq!(selector["matchLabels"][name], template["metadata"]["labels"][name]);
    assert_eq!(template["spec"]["serviceAccountName"], "kube-vip");
    assert_eq!(template["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(template["spec"]["tolerations"][1]["effect"], "NoExecute");
    let anywhere = manifest::Wanted { taint: false, ..wanted(true) };
    assert_eq!(
        manifest::daemonset(&input(LINE), &anywhere)["spec"]["template"]["spec"]["affinity"],
        Value::Null
    );
}

#[test]
fn a_served_loss_gets_time_to_end() {
    let grace = |line: &str| {
        manifest::pod(&input(line), &wanted(false))["spec"]["terminationGracePeriodSeconds"].clone()
    };
    assert_eq!(grace(LINE), 15);
    assert_eq!(grace(&format!("{LINE} --preserveVipOnLeadershipLoss")), 30);
}

#[test]
fn roles_have_the_names_of_kube_vip() {
    let names = |objects: [Value; 3]| {
        objects
            .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""))
    };
    let cluster = [
        "ServiceAccount kube-vip",
        "ClusterRole system:kube-vip-role",
        "ClusterRoleBinding system:kube-vip-binding",
    ];
    assert_eq!(names(manifest::rbac(&input(""), false, false)), cluster);
    let role = ["ServiceAccount kube-vip", "Role kube-vip", "RoleBinding kube-vip"];
    assert_eq!(names(manifest::rbac(&input(""), true, false)), role);
    let [_, granted, binding] = manifest::rbac(&input(""), true, true);
    assert_eq!(granted["rules"].as_array().unwrap().len(), 1, "a Role cannot grant Nodes");
    assert_eq!(binding["subjects"][0]["namespace"], "kube-system");
    let [_, granted, _] = manifest::rbac(&input(""), false, true);
    assert_eq!(granted["metadata"]["namespace"], Value::Null);
}

#[test]
fn the_generator_says_what_it_cannot_do() {
    let names =
        |line: &str| manifest::refused(&input(line)).into_iter().map(|r| r.name).collect::<Vec<_>>();
    assert!(names(LINE).is_empty());
    assert_eq!(names("--config-file a.yaml --nonsense"), ["--nonsense", "config-file"]);
}
