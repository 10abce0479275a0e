//! Manifests of kube-vip in the shapes that people have, made from the facts in the fixtures, and the
//! ways in which `deploy/` adds what xvip needs.

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// The facts of a fixture.
#[derive(Debug, Deserialize)]
pub struct Facts {
    /// `Pod` or `DaemonSet`.
    pub kind: String,
    namespace: String,
    image: String,
    args: Vec<String>,
    /// The variables.
    pub env: Vec<(String, String)>,
    security: Value,
    mounts: Vec<String>,
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The names of all fixtures.
///
/// # Errors
/// If they cannot be listed.
pub fn names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository("vip-user/src/adapter/fixtures"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// A fixture.
///
/// # Errors
/// If there is none of this name.
pub fn facts(name: &str) -> anyhow::Result<Facts> {
    let text = fs::read_to_string(repository(&format!("vip-user/src/adapter/fixtures/{name}.yaml")))?;
    Ok(serde_norway::from_str(&text)?)
}

/// A file of `deploy/`.
///
/// # Errors
/// If there is none.
pub fn deployed(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(repository(&format!("deploy/{path}"))).with_context(|| path.to_owned())
}

/// A file of `deploy/` with one object.
///
/// # Errors
/// If there is none, or it is not YAML.
pub fn deployed_object(path: &str) -> anyhow::Result<Value> {
    Ok(serde_norway::from_str(&deployed(path)?)?)
}

impl Facts {
    /// The object, as its generator writes it.
    pub fn object(&self) -> Value {
        let labels = json!({"app.kubernetes.io/name": "kube-vip-ds"});
        let variable = |(name, value): &(String, String)| match value.as_str() {
            "$(spec.nodeName)" => {
                json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
            }
            value => json!({"name": name, "value": value}),
        };
        let mounts = self.mounts.iter().zip(0..);
        let mounts: Vec<Value> =
            mounts.map(|(path, n)| json!({"name": format!("host-{n}"), "mountPath": path})).collect();
        let volumes = self.mounts.iter().zip(0..);
        let volumes: Vec<Value> = volumes
            .map(|(path, n)| json!({"name": format!("host-{n}"), "hostPath": {"path": path}}))
            .collect();
        let spec = json!({
            "hostNetwork": true,
            "containers": [{
                "name": "kube-vip",
                "image": self.image,
                "args": self.args,
                "env": self.env.iter().map(variable).collect::<Vec<_>>(),
                "securityContext": self.security,
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        });
        let metadata = json!({"name": "kube-vip-ds", "namespace": self.namespace, "labels": labels});
        if self.kind == "Pod" {
            return json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        }
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        })
    }

    /// Kubespray's template with these facts: what does not depend on variables any more, except how
    /// the container is confined, and how the lists are written.
    pub fn kubespray(&self) -> String {
        let mut text = String::from("apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-vip\nspec:\n");
        text += "  containers:\n  - args:\n    - manager\n    env:\n{% if true %}\n";
        for (name, value) in &self.env {
            text.extend(["    - name: ", name, "\n      value: ", &json!(value).to_string(), "\n"]);
        }
        text += "{% endif %}\n    image: {{ kube_vip_image_repo }}:{{ kube_vip_image_tag }}\n";
        text += "    imagePullPolicy: IfNotPresent\n    name: kube-vip\n    resources: {}\n";
        text += "{% if kube_vip_lb_fwdmethod == \"masquerade\" %}\n";
        text += "    securityContext:\n      privileged: true\n{% else %}\n    securityContext:\n";
        text += "      capabilities:\n        add:\n        - NET_ADMIN\n        - NET_RAW\n";
        // Since 2.30.
        if self.security["privileged"] == true || self.security["capabilities"]["drop"].is_array() {
            text += "        drop:\n        - ALL\n";
        }
        text += "{% endif %}\n    volumeMounts:\n    - mountPath: /etc/kubernetes/admin.conf\n";
        text += "      name: kubeconfig\n  hostAliases:\n  - hostnames:\n    - kubernetes\n";
        text += "    ip: 127.0.0.1\n  hostNetwork: true\n  volumes:\n  - hostPath:\n";
        text + "      path: /etc/kubernetes/{{kube_vip_admin_conf}}\n    name: kubeconfig\nstatus: {}\n"
    }

    /// Whether the container is privileged.
    pub fn is_privileged(&self) -> bool {
        self.security["privileged"] == true
    }
}

static PATCHED: AtomicU32 = AtomicU32::new(0);

/// Where Kubespray has the template.
const TEMPLATE: &str = "roles/kubernetes/node/templates/manifests/kube-vip.manifest.j2";

/// Applies a patch of `deploy/` to Kubespray's template.
///
/// # Errors
/// If it does not fit.
pub fn patched(template: &str, patch: &str) -> anyhow::Result<String> {
    let number = PATCHED.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("xvip-patch-{}-{number}", std::process::id()));
    let path = dir.join(TEMPLATE);
    fs::create_dir_all(path.parent().context("a path with folders")?)?;
    fs::write(&path, template)?;
    let mut git = Command::new("git");
    git.args(["apply", "-"]).current_dir(&dir).stdin(Stdio::piped());
    // Outside of every repository.
    let mut git = git.env("GIT_CEILING_DIRECTORIES", std::env::temp_dir()).spawn()?;
    git.stdin.take().context("a pipe")?.write_all(patch.as_bytes())?;
    let done = git.wait()?;
    let text = fs::read_to_string(&path);
    fs::remove_dir_all(&dir)?;
    ensure!(done.success(), "the patch does not fit");
    Ok(text?)
}

/// What Ansible makes of the template.
///
/// # Errors
/// If it is not YAML then.
pub fn rendered(template: &str, masquerades: bool) -> anyhow::Result<Value> {
    let (mut text, mut shown) = (String::new(), true);
    for line in template.lines() {
        match line {
            "{% if true %}" | "{% endif %}" => shown = true,
            "{% else %}" => shown = !masquerades,
            line if line.starts_with("{% if kube_vip_lb_fwdmethod") => shown = masquerades,
            line if shown => text.extend([line, "\n"]),
            _ => {}
        }
    }
    for (variable, value) in [
        ("{{ kube_vip_image_repo }}", "registry.example/xvip"),
        ("{{ kube_vip_image_tag }}", "0.1.0"),
        ("{{kube_vip_admin_conf}}", "admin.conf"),
    ] {
        text = text.replace(variable, value);
    }
    Ok(serde_norway::from_str(&text)?)
}

/// The values of kube-vip's chart that make this object, and the object that the chart makes of values.
pub mod chart {
    use super::{Facts, Value, json};

    /// The values that make what the facts say.
    pub fn values(facts: &Facts) -> Value {
        let mut values = json!({
            "image": {"repository": "ghcr.io/kube-vip/kube-vip", "tag": "v1.0.4"},
            "env": {}, "securityContext": facts.security, "volumes": [], "volumeMounts": [],
        });
        for (name, value) in &facts.env {
            match name.as_str() {
                "vip_address" => values["config"] = json!({"address": value}),
                name => values["env"][name] = value.as_str().into(),
            }
        }
        values
    }

    /// Adds other values, as Helm does: objects are merged, everything else is replaced.
    pub fn add(values: &mut Value, more: &Value) {
        match (values, more) {
            (Value::Object(values), Value::Object(more)) => {
                for (key, value) in more {
                    add(values.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (values, more) => *values = more.clone(),
        }
    }

    /// The DaemonSet.
    pub fn object(values: &Value) -> Value {
        let mut env = vec![json!({"name": "vip_address", "value": values["config"]["address"]})];
        let more = values["env"].as_object().into_iter().flatten();
        env.extend(more.map(|(name, value)| json!({"name": name, "value": value})));
        let mut container = json!({
            "name": "kube-vip", "args": ["manager"], "env": env,
            "securityContext": values["securityContext"],
        });
        let mut spec = json!({"hostNetwork": true});
        for (at, key) in [(&mut container, "volumeMounts"), (&mut spec, "volumes")] {
            if values[key].as_array().is_some_and(|items| !items.is_empty()) {
                at[key] = values[key].clone();
            }
        }
        spec["containers"] = json!([container]);
        json!({"kind": "DaemonSet", "spec": {"template": {"spec": spec}}})
    }
}

/// The spec of the pod.
pub fn pod(object: &Value) -> &Value {
    if object["kind"] == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] }
}

/// A strategic merge, as kustomize and the API server do it with these kinds. Lists of named items are
/// merged, others are replaced. `kube`: `additions::` compares it with the server's.
pub fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                let into = into.entry(key.clone()).or_insert(Value::Null);
                match (merge_key(key), value) {
                    (Some(name), Value::Array(items)) => merge_items(into, items, name),
                    _ => merge(into, value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "env" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

fn merge_items(into: &mut Value, items: &[Value], name: &str) {
    let mut found = into.as_array().cloned().unwrap_or_default();
    for item in items {
        match found.iter_mut().find(|known| known[name] == item[name]) {
            Some(known) => merge(known, item),
            None => found.push(item.clone()),
        }
    }
    *into = Value::Array(found);
}
