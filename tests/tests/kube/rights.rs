//! The manifests of `deploy/` against a real API server: strictly valid, and with exactly the
//! rights that are needed.

use crate::{shared::Shared, trial};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, thread::sleep, time::Duration};
use vip_tests::{
    kube::objects::{self, Mode},
    lab::{Kube, Lab, Options, RBAC, eventually},
    manifests,
};

/// The user name of the nodes.
const USER: &str = "system:serviceaccount:kube-system:xvip";

pub fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let texts = files().into_iter().map(|path| (path.clone(), deployed(&path)));
    let valid = texts.chain([("crio".into(), crio())]).map(|(name, text)| {
        let shared = Arc::clone(shared);
        trial(format!("rights::the_server_accepts_{name}_strictly"), move || {
            let sent = objects::apply(&shared.plane(), &text, Mode::DryRun).unwrap();
            assert!(sent > 0);
        })
    });
    let rest = [
        trial("rights::the_server_adds_to_a_daemonset_of_kube_vip_as_the_labs_do", {
            let shared = Arc::clone(shared);
            move || additions(&shared)
        }),
        trial("rights::every_verb_is_needed_and_no_other_is_asked_for", every_verb_is_needed),
        trial("rights::a_field_that_does_not_exist_is_refused", {
            let shared = Arc::clone(shared);
            move || {
                let text = RBAC.replace("automountServiceAccountToken", "automountToken");
                let error = objects::apply(&shared.plane(), &text, Mode::DryRun).unwrap_err();
                assert!(format!("{error:#}").contains("automountToken"), "{error:#}");
            }
        }),
    ];
    valid.chain(rest).collect()
}

/// `manifests::merge`, on which the labs rely, is what a real server does with the shipped patch.
fn additions(shared: &Shared) {
    let mut patch = manifests::deployed_object("components/kube-vip-rights/daemonset.yaml").unwrap();
    for name in manifests::names().unwrap() {
        let facts = manifests::facts(&name).unwrap();
        if facts.kind != "DaemonSet" {
            continue;
        }
        let mut object = facts.object();
        object["metadata"] = json!({"namespace": "kube-system", "name": name.replace('.', "-")});
        patch["metadata"] = json!({"name": object["metadata"]["name"]});
        let mut merged = object.clone();
        manifests::merge(&mut merged, &patch);
        let (patched, created) = shared
            .plane()
            .call(0, async |client: kube::Client| {
                objects::send(&client, &object, Mode::Store).await?;
                let patched = objects::patch(&client, &object, &patch).await?;
                merged["metadata"]["name"] = "merged".into();
                Ok((patched, objects::sent(&client, &merged, Mode::DryRun).await?))
            })
            .unwrap();
        assert_eq!(sorted(&patched), sorted(&created), "{name}");
    }
}

/// The spec of the pods, with named lists in the order of their names.
fn sorted(object: &Value) -> Value {
    let mut spec = manifests::pod(object).clone();
    let by_name = |list: &mut Value| {
        if let Some(items) = list.as_array_mut() {
            items.sort_by_key(|item| item["name"].to_string());
        }
    };
    by_name(&mut spec["volumes"]);
    by_name(&mut spec["containers"][0]["env"]);
    by_name(&mut spec["containers"][0]["volumeMounts"]);
    spec
}

/// The files of the kustomize base, and the static pod.
fn files() -> Vec<String> {
    let base = objects::documents(&deployed("base/kustomization.yaml")).unwrap();
    let listed = base[0]["resources"].as_array().unwrap().iter();
    let base = listed.map(|file| format!("base/{}", file.as_str().unwrap()));
    base.chain(["static-pod/xvip.yaml".to_owned()]).collect()
}

/// The DaemonSet of `deploy/crio`: that of the base with the component's patch, merged as kustomize
/// does.
fn crio() -> String {
    let read = |path: &str| objects::documents(&deployed(path)).unwrap().remove(0);
    let kustomization = read("crio/kustomization.yaml");
    assert_eq!(kustomization["resources"], json!(["../base"]));
    let component =
        kustomization["components"][0].as_str().unwrap().trim_start_matches("../").to_owned();
    let patch = read(&format!("{component}/kustomization.yaml"))["patches"][0]["path"].clone();
    let patch = read(&format!("{component}/{}", patch.as_str().unwrap()));
    let mut daemonset = read("base/daemonset.yaml");
    merge(&mut daemonset, &patch);
    let security = &daemonset["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(security["seccompProfile"], json!({"type": "Unconfined"}));
    daemonset.to_string()
}

/// A plain merge is enough, because the patch has no lists.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Array(_)) => panic!("a patch with a list: {patch}"),
        (into, patch) => *into = patch.clone(),
    }
}

fn deployed(path: &str) -> String {
    manifests::deployed(path).unwrap()
}

/// A right: resource and verb.
type Right = (String, String);

fn pair(resource: &str, verb: &str) -> Right {
    (resource.to_owned(), verb.to_owned())
}

/// The rights in `deploy/`.
fn shipped() -> BTreeSet<Right> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for object in objects::documents(RBAC).unwrap() {
        for rule in object["rules"].as_array().into_iter().flatten() {
            for resource in strings(&rule["resources"]) {
                rights.extend(strings(&rule["verbs"]).iter().map(|verb| pair(&resource, verb)));
            }
        }
    }
    rights
}

/// The roles without one right.
fn without(right: Option<&Right>) -> Vec<Value> {
    let mut roles: Vec<Value> = objects::documents(RBAC).unwrap();
    roles.retain(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")));
    for rule in roles.iter_mut().flat_map(|role| role["rules"].as_array_mut().unwrap()) {
        if let Some((resource, verb)) = right
            && rule["resources"][0] == resource.as_str()
        {
            rule["verbs"].as_array_mut().unwrap().retain(|has| has != verb.as_str());
        }
    }
    for role in &mut roles {
        // The server would refuse a rule without verbs.
        role["rules"].as_array_mut().unwrap().retain(|rule| rule["verbs"] != Value::Array(Vec::new()));
    }
    roles
}

/// The audit log's requests of the service account, in order, and whether each was allowed.
fn recorded(lab: &Lab) -> Vec<(Right, bool)> {
    let audit = lab.api.real().unwrap().plane.members[0].audit();
    let right = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let right = (text(&event["objectRef"]["resource"]), text(&event["verb"]));
        let allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow";
        (event["user"]["username"] == USER).then_some((right, allowed))
    };
    audit.lines().filter_map(right).collect()
}

/// All requests of the service account, in the order in which they ended.
pub fn requests(lab: &Lab) -> Vec<Right> {
    recorded(lab).into_iter().map(|(right, _)| right).collect()
}

/// The rights that the service account used, and those that it was refused.
fn asked(lab: &Lab) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let (used, refused): (Vec<_>, Vec<_>) =
        recorded(lab).into_iter().partition(|(_, allowed)| *allowed);
    let rights = |all: Vec<(Right, bool)>| all.into_iter().map(|(right, _)| right).collect();
    (rights(used), rights(refused))
}

/// One node that needs every right: its VIP is limited to nodes with a label, and it writes Events.
fn every_verb_is_needed() {
    let options = Options {
        nodes: 1,
        kube: Kube::One,
        duration_s: 1,
        lease: ", renew_ms: 300".into(),
        extra: "nodes: {role: edge}\n".into(),
        ..Options::default()
    };
    let mut lab = Lab::new(&options).unwrap();
    lab.api.set_labels("node1", &[("role", "edge")]);
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_mins(1)).unwrap();
    let reported = || lab.api.reports().iter().any(|event| event["reason"] == "TookOver");
    assert!(eventually(Duration::from_secs(5), reported), "Events are written");
    // The labels are watched: a node that loses them becomes the last choice.
    lab.api.set_labels("node1", &[]);
    let barred = || problems(&lab).contains("barred");
    assert!(eventually(Duration::from_secs(5), barred), "{}", lab.nodes[0].log());
    lab.api.set_labels("node1", &[("role", "edge")]);
    lab.nodes[0].kill();
    // A watch is logged when it ends, a moment after its client has gone.
    eventually(Duration::from_secs(20), || asked(&lab).0 == shipped());
    let (used, refused) = asked(&lab);
    assert_eq!(used, shipped(), "exactly what is shipped is used");
    assert_eq!(refused, BTreeSet::new(), "nothing else is asked for");

    for right in shipped() {
        works_not_without(&mut lab, &right);
    }
}

/// Gives the service account the rights of `deploy/`, less one.
fn give(lab: &Lab, less: Option<&Right>) {
    let given = lab.api.real().unwrap().plane.call(0, async |client: kube::Client| {
        for role in without(less) {
            objects::send(&client, &role, Mode::Store).await?;
        }
        Ok(())
    });
    given.unwrap();
}

fn problems(lab: &Lab) -> String {
    lab.nodes[0].status().unwrap()["daemon"]["problems"].to_string()
}

#[track_caller]
fn works_not_without(lab: &mut Lab, right: &Right) {
    give(lab, Some(right));
    // So that there is no tenure to adopt.
    lab.nodes[0].xvip("cleanup", &[]).unwrap();
    lab.api.delete("kube-system", "plndr-cp-lock");
    // Authorization reads roles through a cache.
    sleep(Duration::from_millis(500));
    lab.nodes[0].start().unwrap();
    let (resource, verb) = (right.0.as_str(), right.1.as_str());
    let forbidden = |lab: &Lab| asked(lab).1.contains(right);
    let seen = eventually(Duration::from_secs(15), || forbidden(lab));
    assert!(seen, "{resource} {verb} is not asked for:\n{}", lab.nodes[0].log());
    let told = |lab: &Lab| problems(lab).contains("forbidden");
    match (resource, verb) {
        // A node that cannot write Events is no worse an owner.
        ("events", _) => {}
        // Unknown is not bad: labels that cannot be read bar no node, and a problem is reported.
        ("nodes", _) => {
            assert!(eventually(Duration::from_secs(10), || told(lab)), "{right:?}: {}", problems(lab));
            lab.wait_for_owner(Duration::from_mins(1)).unwrap();
        }
        _ => assert!(eventually(Duration::from_secs(10), || told(lab)), "{right:?}: {}", problems(lab)),
    }
    if matches!((resource, verb), ("leases", "get" | "create")) {
        assert!(!lab.nodes[0].owns());
    }
    lab.nodes[0].kill();
    give(lab, None);
}
