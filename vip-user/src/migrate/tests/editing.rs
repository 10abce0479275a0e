//! The 24 manifests, each in two forms and full of comments.

use crate::migrate::{
    additions::{Wanted, additions},
    edit::{edited, parsed},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Manifest {
    namespace: String,
    image: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    security: Value,
    mounts: Vec<String>,
}

fn all() -> Vec<(String, Manifest)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/adapter/fixtures");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        all.push((name, serde_norway::from_str(&text).unwrap()));
    }
    assert_eq!(all.len(), 24);
    all
}

impl Manifest {
    fn object(&self) -> Value {
        let variable = |(name, value): &(String, String)| match value.as_str() {
            "$(spec.nodeName)" => {
                json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
            }
            value => json!({"name": name, "value": value}),
        };
        let named = self.mounts.iter().zip(0..);
        let mounts: Vec<Value> =
            named.map(|(path, n)| json!({"name": format!("host-{n}"), "mountPath": path})).collect();
        let named = self.mounts.iter().zip(0..);
        let volumes: Vec<Value> = named
            .map(|(path, n)| json!({"name": format!("host-{n}"), "hostPath": {"path": path}}))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "kube-vip", "namespace": self.namespace},
            "spec": {
                "hostNetwork": true,
                "containers": [{
                    "name": "kube-vip", "image": self.image, "args": self.args,
                    "env": self.env.iter().map(variable).collect::<Vec<_>>(),
                    "securityContext": self.security,
                    "resources": {}, "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        })
    }
}

/// The shipped patch, merged as the API server would.
fn merged(object: &Value, image: &str) -> Value {
    let shipped = include_str!("../../../../deploy/kube-vip/static-pod.yaml");
    let patch: Value = serde_norway::from_str(shipped).unwrap();
    let mut object = object.clone();
    let from = &patch["spec"]["containers"][0];
    let container = &mut object["spec"]["containers"][0];
    container["image"] = image.into();
    // A privileged container has them already.
    if container["securityContext"]["privileged"] != true {
        container["securityContext"]["capabilities"] = from["securityContext"]["capabilities"].clone();
    }
    let add = |list: &mut Value, more: &Value| {
        let mut items = list.as_array().cloned().unwrap_or_default();
        items.extend(more.as_array().unwrap().iter().cloned());
        *list = items.into();
    };
    add(&mut container["env"], &from["env"]);
    add(&mut container["volumeMounts"], &from["volumeMounts"]);
    add(&mut object["spec"]["volumes"], &patch["spec"]["volumes"]);
    object
}

/// A comment before every line, and after every value.
fn commented(text: &str) -> String {
    let mut lines = vec!["# Written by hand: \"do not edit\"".to_owned()];
    for (number, line) in text.lines().enumerate() {
        let blanks = line.len() - line.trim_start().len();
        lines.push(format!("{}# before {number}: x", " ".repeat(blanks)));
        lines.push(format!("{line} # after {number}"));
    }
    lines.join("\n") + "\n"
}

/// Lists deeper than their keys, as other generators write them.
fn deeper(value: &Value, column: usize) -> Vec<String> {
    let blanks = " ".repeat(column);
    match value {
        Value::Object(entries) if !entries.is_empty() => entries
            .iter()
            .flat_map(|(key, value)| match value {
                Value::Object(inner) if !inner.is_empty() => {
                    let mut lines = vec![format!("{blanks}{key}:")];
                    lines.extend(deeper(value, column + 4));
                    lines
                }
                Value::Array(inner) if !inner.is_empty() => {
                    let mut lines = vec![format!("{blanks}{key}:")];
                    for item in inner {
                        let mut item = deeper(item, column + 6);
                        item[0].replace_range(column + 3..column + 4, "-");
                        lines.extend(item);
                    }
                    lines
                }
                value => vec![format!("{blanks}{key}: {value}")],
            })
            .collect(),
        value => vec![format!("{blanks}{value}")],
    }
}

fn comments(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| Some(&line[line.find("# ")?..])).collect()
}

#[test]
fn each_manifest_gets_what_is_shipped_and_keeps_its_comments() {
    let wanted = Wanted { image: "registry.example:5000/xvip:0.1.0".into(), perfmon: false };
    for (name, manifest) in all() {
        let object = manifest.object();
        for text in [serde_norway::to_string(&object).unwrap(), deeper(&object, 0).join("\n")] {
            assert_eq!(parsed(&text).unwrap(), object, "{name}: {text}");
            let text = commented(&text);
            let additions = additions(&object, &wanted).unwrap();
            let result =
                edited(&text, &additions.edits).unwrap_or_else(|why| panic!("{name}: {why}\n{text}"));
            assert_eq!(parsed(&result).unwrap(), merged(&object, &wanted.image), "{name}: {result}");
            // A capability that is taken away takes the comment in its own line along.
            let gone: Vec<&str> = text.lines().filter(|line| line.contains("SYS_TIME")).collect();
            let kept: Vec<&str> = comments(&text)
                .into_iter()
                .filter(|comment| !gone.iter().any(|line| line.ends_with(comment)))
                .collect();
            assert_eq!(comments(&result), kept, "{name}: {result}");
            // Nothing is lacking then.
            let again = super::super::additions::additions(&parsed(&result).unwrap(), &wanted).unwrap();
            assert!(again.edits.is_empty(), "{name}: {:?}", again.words);
        }
    }
}

#[test]
fn every_other_line_stays_as_it_is() {
    for (name, manifest) in all() {
        let text = commented(&serde_norway::to_string(&manifest.object()).unwrap());
        let wanted = Wanted { image: "xvip:1".into(), perfmon: true };
        let edits = additions(&parsed(&text).unwrap(), &wanted).unwrap().edits;
        let result = edited(&text, &edits).unwrap();
        let mut left = result.lines();
        for line in text.lines() {
            let is_changed = line.trim_start().starts_with("image:")
                || line.contains("SYS_TIME")
                || line.contains(": []");
            assert!(is_changed || left.any(|other| other == line), "{name}: {line}\n{result}");
        }
    }
}
