//! Generates the manifests that `kube-vip manifest` and `kube-vip kubeadm` generate, with the rights
//! that xvip needs.

use super::{
    Input,
    gather::{self, Gathered},
    report::Refusal,
    rights,
    rules::api::{ADMIN, SUPER_ADMIN},
    table::{self, Kind},
    value,
};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The credentials of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// A kubeconfig of the host.
    #[default]
    Kubeconfig,
    /// On the first node of a new cluster: `admin.conf` has no rights there at first.
    First,
    /// A service account.
    Account,
}

/// What kind of object is wanted, besides the settings.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The image, with its tag.
    pub image: String,
    /// How the pod reaches the API.
    pub credentials: Credentials,
    /// Whether CAP_PERFMON is needed: on Linux 5.x.
    pub perfmon: bool,
    /// Whether the DaemonSet runs on nodes of the control plane only, whatever their taints.
    pub taint: bool,
}

/// Where kube-vip's pod and its Lease usually are.
const USUAL: &str = "kube-system";

/// What the settings say about a pod.
struct Pod {
    environment: Vec<Value>,
    arguments: Vec<String>,
    namespace: String,
    /// The kubeconfigs of the host.
    files: Vec<String>,
    port: Option<u16>,
    grace_s: u64,
}

/// The variables of the container that these settings make, without those whose value is only known in
/// a pod.
pub fn environment(input: &Input) -> Vec<(String, String)> {
    let gathered = gather::gather(input);
    let mut variables: Vec<(String, String)> = vec![
        ("vip_arp".into(), gathered.truth("vip_arp").to_string()),
        ("port".into(), gathered.text("port").unwrap_or("6443").into()),
    ];
    // A secret has no effect here, and a manifest is no place for it.
    let shown = |name: &&table::Name| name.in_environment && name.kind != Kind::Secret;
    for name in table::all().filter(shown) {
        let Some(given) = gathered.values.get(name.id) else { continue };
        if !matches!(name.id, "vip_arp" | "port" | "vip_nodename") && !given.value.is_empty() {
            variables.push((name.id.into(), given.value.clone()));
        }
    }
    let mut add = |id: &str, text: String| {
        if gathered.text(id).is_none() && !text.is_empty() {
            variables.push((id.into(), text));
        }
    };
    if gathered.truth("cp_enable") {
        add("cp_namespace", lease_namespace(&gathered));
    }
    add("vip_subnet", prefixes(&gathered));
    if !gathered.values.contains_key("prometheus_server") {
        add("prometheus_server", ":2112".into());
    }
    if !gathered.without.is_empty() {
        variables.push((table::WITHOUT.into(), gathered.without.join(",")));
    }
    variables
}

/// The flags of the container: those whose value no variable can carry.
pub fn arguments(input: &Input) -> Vec<String> {
    let mut lost = Vec::new();
    for (name, given) in &input.flags.given {
        // An empty variable is not set.
        let has_variable = name.in_environment && !given.value.is_empty();
        let is_shown = name.kind != Kind::Secret && name.id != "config-file";
        if is_shown && !has_variable && !is_set(input, name) {
            lost.push(format!("--{}={}", given.spelled, given.value));
        }
    }
    lost
}

/// Whether a variable sets this name, so that its flag does not count.
fn is_set(input: &Input, name: &table::Name) -> bool {
    let sets = |(variable, value): &(String, String)| *variable == name.id && !value.is_empty();
    name.in_environment && input.environment.iter().any(sets)
}

/// What counts of the shell's variables: those that are spelled as kube-vip spells them. A shell has
/// many others, such as `PORT`.
pub fn of_the_shell(variables: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_exact = |(variable, _): &(String, String)| match table::of_variable(variable) {
        Some(name) => name.id == variable,
        None => table::plain(variable) != table::plain(table::WITHOUT) || variable == table::WITHOUT,
    };
    variables.into_iter().filter(is_exact).collect()
}

/// The prefix of each family that the VIPs have, IPv4 first.
fn prefixes(gathered: &Gathered) -> String {
    let items: Vec<IpAddr> =
        value::list(gathered.text("address").unwrap_or_default()).flat_map(str::parse).collect();
    let mut found = Vec::new();
    found.extend(items.iter().any(IpAddr::is_ipv4).then_some("32"));
    found.extend(items.iter().any(IpAddr::is_ipv6).then_some("128"));
    found.join(",")
}

/// A static pod.
pub fn pod(input: &Input, wanted: &Wanted) -> Value {
    let pod = settings(input, wanted);
    let labels = json!({
        "k8s-app": "kube-vip", "component": "kube-vip", "app.kubernetes.io/name": "kube-vip",
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kube-vip", "namespace": pod.namespace, "labels": labels},
        "spec": spec(&pod, wanted),
    })
}

/// A DaemonSet, with the name and the selector that kube-vip's has: a selector can never be changed.
pub fn daemonset(input: &Input, wanted: &Wanted) -> Value {
    let pod = settings(input, wanted);
    let name = "kube-vip-ds";
    let labels = json!({
        "k8s-app": "kube-vip", "component": "kube-vip", "app.kubernetes.io/name": name,
    });
    let mut spec = spec(&pod, wanted);
    if wanted.taint {
        let exists = |effect: &str| json!({"effect": effect, "operator": "Exists"});
        spec["tolerations"] = json!([exists("NoSchedule"), exists("NoExecute")]);
        let role = |role: &str| {
            let key = format!("node-role.kubernetes.io/{role}");
            json!({"matchExpressions": [{"key": key, "operator": "Exists"}]})
        };
        spec["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [role("master"), role("control-plane")],
            },
        }});
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": pod.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            // Each node gives its VIPs up before the next one is updated.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// The service account, its role and the binding, with kube-vip's names and the rights that xvip uses.
pub fn rbac(input: &Input, role: bool, role_binding: bool) -> [Value; 3] {
    let gathered = gather::gather(input);
    let (namespace, of_lease) = (namespace(&gathered), lease_namespace(&gathered));
    let api = "rbac.authorization.k8s.io/v1";
    let group = "rbac.authorization.k8s.io";
    let leases = json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "list", "watch", "create", "update"],
    });
    // Its own Node: whether it is cordoned. A Role cannot grant this.
    let nodes = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "watch"]});
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "kube-vip", "namespace": namespace},
    });
    let (kind, name) =
        if role { ("Role", "kube-vip") } else { ("ClusterRole", "system:kube-vip-role") };
    let rules = if role { json!([leases]) } else { json!([leases, nodes]) };
    let mut granted =
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "rules": rules});
    // As with kube-vip, a Role needs a RoleBinding.
    let (binding, bound) = if role || role_binding {
        ("RoleBinding", "kube-vip")
    } else {
        ("ClusterRoleBinding", "system:kube-vip-binding")
    };
    let mut binding = json!({
        "apiVersion": api, "kind": binding, "metadata": {"name": bound},
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "kube-vip", "namespace": namespace}],
    });
    if role {
        granted["metadata"]["namespace"] = of_lease.clone().into();
    }
    if role || role_binding {
        binding["metadata"]["namespace"] = of_lease.into();
    }
    [account, granted, binding]
}

/// What the generator cannot put into a manifest.
pub fn refused(input: &Input) -> Vec<Refusal> {
    let mut refused = input.flags.refused.clone();
    if input.flags.config_file.is_some() {
        refused.push(Refusal {
            name: "config-file".into(),
            given: None,
            why: "a manifest contains variables, and kube-vip's generator reads no file either".into(),
            instead: "give the settings as flags".into(),
            waivable: false,
        });
    }
    refused
}

/// The namespace of the pod, and of its service account.
fn namespace(gathered: &Gathered) -> String {
    gathered.text("svc_namespace").unwrap_or(USUAL).to_owned()
}

/// The namespace of the Lease: a Role must be there, wherever the pod is.
fn lease_namespace(gathered: &Gathered) -> String {
    let of_name = gathered.text("vip_leasename").and_then(|name| Some(name.split_once('/')?.0));
    of_name.or_else(|| gathered.text("cp_namespace")).unwrap_or(USUAL).to_owned()
}

fn settings(input: &Input, wanted: &Wanted) -> Pod {
    let gathered = gather::gather(input);
    let mut environment: Vec<Value> = environment(input)
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let node =
        json!({"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
    environment.insert(environment.len().min(2), node);
    environment.push(json!({"name": "XVIP_PIN_ROOT", "value": rights::PIN_ROOT}));
    let file = gathered.text("k8s_config_file").unwrap_or(ADMIN).to_owned();
    let files = match wanted.credentials {
        Credentials::Account => Vec::new(),
        Credentials::Kubeconfig => vec![file],
        Credentials::First => vec![ADMIN.to_owned(), SUPER_ADMIN.to_owned()],
    };
    if wanted.credentials == Credentials::First {
        // Preferred while it exists and is not empty.
        environment.retain(|entry| entry["name"] != "k8s_config_file");
        environment.push(json!({"name": "k8s_config_file", "value": SUPER_ADMIN}));
    }
    let server = gathered.values.get("prometheus_server").map_or(":2112", |given| &given.value);
    let preserves = gathered.truth("vip_preserve_on_leadership_loss");
    Pod {
        environment,
        namespace: namespace(&gathered),
        arguments: arguments(input),
        files,
        port: server.rsplit(':').next().and_then(|port| port.parse().ok()),
        // A handover takes one write; what is served afterwards comes on top.
        grace_s: if preserves { 30 } else { 15 },
    }
}

fn spec(pod: &Pod, wanted: &Wanted) -> Value {
    let mut rights = vec!["BPF", "NET_ADMIN", "NET_RAW"];
    rights.extend(wanted.perfmon.then_some("PERFMON"));
    let arguments = std::iter::once("manager".to_owned()).chain(pod.arguments.iter().cloned());
    let mut container = json!({
        "name": "kube-vip",
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments.collect::<Vec<_>>(),
        "env": pod.environment,
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        // Nothing answers while it looks for its Lease: 1.4 durations of another one, 600 s at most.
        "startupProbe": {
            "exec": {"command": ["/xvip", "health"]},
            "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 900,
        },
        "readinessProbe": {
            "exec": {"command": ["/xvip", "health", "--ready"]},
            "periodSeconds": 2, "timeoutSeconds": 3,
        },
        "securityContext": {
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": rights},
        },
        "volumeMounts": [{"name": "bpf", "mountPath": rights::MOUNT}],
    });
    if let Some(port) = pod.port {
        container["ports"] = json!([{"name": "metrics", "containerPort": port}]);
    }
    let mut volumes =
        vec![json!({"name": "bpf", "hostPath": {"path": "/sys/fs/bpf", "type": "Directory"}})];
    for (index, path) in pod.files.iter().enumerate() {
        let name = if index == 0 { "kubeconfig".into() } else { format!("kubeconfig-{index}") };
        let mount = json!({"name": name, "mountPath": path, "readOnly": true});
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.push(mount);
        }
        // The pod starts once its file is there. The second one may be removed later: an empty one is
        // made then, and counts as none.
        let kind = if index == 0 { "File" } else { "FileOrCreate" };
        volumes.push(json!({"name": name, "hostPath": {"path": path, "type": kind}}));
    }
    let mut spec = json!({
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": pod.grace_s,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
    });
    if wanted.credentials == Credentials::Account {
        spec["serviceAccountName"] = "kube-vip".into();
    }
    spec
}
