//! Reads a manifest or a pod: what xvip would make of it on this host.

use crate::{
    adapter::{
        Adapted, Input, World, adapt, flags,
        report::{Refusal, Source},
    },
    cli::kube_vip::Host,
    migrate::{
        additions::{Wanted, additions},
        edit::edited,
        facts::{ManifestFact, PodFact},
        finish::ACCOUNT,
        pod::{Pod, Program, Variable, version},
    },
    node::host,
};
use serde_json::Value;
use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// kube-vip's own D since this version, if nothing sets it.
const LONGER: (u32, u32, u32) = (1, 1, 0);
const LONGER_S: u32 = 15;
/// It leaves the address when the Lease is lost.
const PRESERVES: &str = "vip_preserve_on_leadership_loss";

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Reads a file. A pipe would keep the command waiting, and a device might have no end.
pub(super) fn file(path: &Path) -> io::Result<String> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it has more than {LONGEST} bytes")));
    }
    Ok(text)
}

/// The container, as it would be on this host.
struct InPod<'a> {
    pod: Pod<'a>,
    /// The namespace of its service account, if it has one.
    account: Option<String>,
}

impl World for InPod<'_> {
    fn is_file(&self, path: &str) -> bool {
        self.pod.host_path(path).is_some_and(|path| Host.is_file(&path))
    }

    fn service_namespace(&self) -> Option<String> {
        self.account.clone()
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        Host.resolve(name)
    }
}

/// What xvip makes of a pod on this node.
pub(super) fn adapted(pod: Pod<'_>, node: &str, account: Option<String>) -> Adapted {
    let read = |path: String| file(Path::new(&path)).map_err(|error| error.to_string());
    adapted_by(pod, (node, account), read)
}

/// The same; `read` reads the file of its settings.
fn adapted_by(
    pod: Pod<'_>,
    (node, account): (&str, Option<String>),
    read: impl Fn(String) -> Result<String, String>,
) -> Adapted {
    let (mut environment, mut refused) = (Vec::new(), Vec::new());
    for (name, value) in pod.variables() {
        match value {
            Variable::Written(value) => environment.push((name.to_owned(), value)),
            Variable::NodeName => environment.push((name.to_owned(), node.to_owned())),
            Variable::Elsewhere(from) => refused.push(Refusal {
                name: name.into(),
                given: None,
                why: format!("its value comes from {from}, which is not read here"),
                instead: "write the value into the manifest".into(),
                waivable: false,
            }),
        }
    }
    let flags = flags::parse(&pod.arguments(), &[]);
    let file = flags.config_file.clone().map(|path| {
        let inside = pod.host_path(&path).ok_or_else(|| "it is not mounted from the host".to_owned());
        (path, inside.and_then(&read))
    });
    let mut adapted = adapt(&Input { environment, flags, file }, &InPod { pod, account });
    // A variable that has nothing to do with kube-vip may come from anywhere.
    let is_known = |refusal: &Refusal| crate::adapter::table::of_variable(&refusal.name).is_some();
    adapted.refused.extend(refused.into_iter().filter(is_known));
    adapted
}

/// What is known of the manifest of this node. `image`: the one to which it is moved.
pub(super) fn manifest(
    path: &str,
    text: &str,
    object: &Value,
    (node, image): (&str, Option<&str>),
) -> Option<(ManifestFact, Adapted)> {
    let pod = Pod::read(object)?;
    let adapted = adapted(pod, node, None);
    let fact = fact(path, pod, &adapted, image);
    if fact.program == Program::Xvip {
        return Some((fact, adapted));
    }
    let several = (pod.programs() > 1).then(|| "it has more than one container of kube-vip".into());
    let no_pod = || (object["kind"] != "Pod").then(|| "it is no Pod".into());
    let (changes, unfit) = changes(text, object, image);
    Some((ManifestFact { changes, unfit: several.or(unfit).or_else(no_pod), ..fact }, adapted))
}

/// What the pod of a DaemonSet on this node says.
pub(super) fn template(
    object: &Value,
    node: &str,
    image: Option<&str>,
) -> Option<(ManifestFact, Adapted)> {
    let pod = Pod::read(object)?;
    let adapted = adapted(pod, node, Some(pod.namespace().to_owned()));
    let path = format!("pod {}/{}", pod.namespace(), pod.name());
    Some((fact(&path, pod, &adapted, image), adapted))
}

fn fact(path: &str, pod: Pod<'_>, adapted: &Adapted, image: Option<&str>) -> ManifestFact {
    let program = pod.program(image);
    ManifestFact {
        path: path.into(),
        name: pod.name().into(),
        namespace: pod.namespace().into(),
        image: pod.image().into(),
        program,
        refused: adapted.refused.iter().map(ToString::to_string).collect(),
        notes: adapted.notes.iter().map(ToString::to_string).collect(),
        changes: Vec::new(),
        unfit: None,
        preserves: is_on(adapted, PRESERVES) && program == Program::KubeVip,
        node: pod.variable("vip_nodename"),
        duration_s: adapted.config.lease.duration_s,
        vips: adapted.config.addresses(),
    }
}

/// What will be changed, and why that is not possible.
fn changes(text: &str, object: &Value, image: Option<&str>) -> (Vec<String>, Option<String>) {
    let wanted = wanted(image.unwrap_or("IMAGE"));
    match additions(object, &wanted) {
        Ok(additions) => (
            additions.words.clone(),
            edited(text, &additions.edits).err().map(|error| error.to_string()),
        ),
        Err(why) => (Vec::new(), Some(why)),
    }
}

/// What is to be added on this host.
pub(super) fn wanted(image: &str) -> Wanted {
    Wanted { image: image.into(), perfmon: host::is_linux_5() }
}

/// What is known of a pod; `None` if it is none of kube-vip's or xvip's, or has ended.
pub(super) fn pod(object: &Value, image: Option<&str>) -> Option<PodFact> {
    let pod = Pod::read(object).filter(|pod| !pod.has_ended())?;
    let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let elsewhere = |_: String| Err("it is on that node".to_owned());
    let adapted = adapted_by(pod, (node, None), elsewhere);
    let (program, version) = (pod.program(image), version(pod.image()));
    let is_set =
        |name: &str| adapted.rows.iter().any(|row| row.name == name && row.source != Source::Default);
    let is_longer = version.is_some_and(|version| version >= LONGER) && program == Program::KubeVip;
    let duration_s = if is_longer && !is_set("vip_leaseduration") {
        LONGER_S
    } else {
        adapted.config.lease.duration_s
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let mut daemonsets = owners.filter(|owner| owner["kind"] == "DaemonSet");
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = conditions.any(|found| found["type"] == "Ready" && found["status"] == "True");
    Some(PodFact {
        node: node.into(),
        namespace: pod.namespace().into(),
        name: pod.name().into(),
        container: pod.container_name().into(),
        image: pod.image().into(),
        program,
        version: version.filter(|_| program == Program::KubeVip),
        duration_s,
        preserves: is_on(&adapted, PRESERVES),
        holds_plane: is_on(&adapted, "cp_enable"),
        ready: is_ready && object["metadata"]["deletionTimestamp"].is_null(),
        daemonset: daemonsets.next().and_then(|owner| text(&owner["name"])),
        mirror: pod.is_mirror(),
    })
}

/// A pod that uses the service account of kube-vip's guides, `namespace/name`.
pub(super) fn user(object: &Value) -> Option<String> {
    let (metadata, (namespace, account)) = (&object["metadata"], ACCOUNT);
    let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let uses = metadata["namespace"] == namespace && object["spec"]["serviceAccountName"] == account;
    let name = metadata["name"].as_str().unwrap_or_default();
    (uses && !has_ended).then(|| format!("{namespace}/{name}"))
}

fn is_on(adapted: &Adapted, name: &str) -> bool {
    let on = |value: &str| crate::adapter::parse_bool(value.trim()) == Some(true);
    adapted.rows.iter().any(|row| row.name == name && on(&row.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(image: &str, more: &[(&str, &str)]) -> Value {
        let mut env = vec![
            json!({"name": "vip_arp", "value": "true"}),
            json!({"name": "cp_enable", "value": "true"}),
            json!({"name": "address", "value": "192.0.2.10"}),
        ];
        env.extend(more.iter().map(|(name, value)| json!({"name": name, "value": value})));
        json!({
            "kind": "Pod", "metadata": {"name": "kube-vip", "namespace": "kube-system"},
            "spec": {"containers": [{"name": "kube-vip", "image": image, "args": ["manager"], "env": env}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn the_duration_is_that_of_the_settings_or_of_the_version() {
        for (image, more, seconds) in [
            ("ghcr.io/kube-vip/kube-vip:v1.0.4", &[][..], 5),
            ("ghcr.io/kube-vip/kube-vip:v1.1.0", &[], 15),
            ("ghcr.io/kube-vip/kube-vip:v1.1.0", &[("vip_leaseduration", "7")], 7),
            ("registry.example/kube-vip:from-bundle", &[], 5),
            ("registry.example/xvip:1.2.0", &[], 5),
        ] {
            let found = pod(&object(image, more), None).unwrap();
            assert_eq!((found.duration_s, found.ready), (seconds, true), "{image}");
        }
    }

    #[test]
    fn what_comes_from_elsewhere_and_what_is_preserved_is_told() {
        let mut object = object("kube-vip:v1.0.4", &[(PRESERVES, "TRUE")]);
        assert!(pod(&object, None).unwrap().preserves);
        object["spec"]["containers"][0]["env"][2] =
            json!({"name": "address", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}});
        let text = serde_norway::to_string(&object).unwrap();
        let (fact, _) = manifest("/x", &text, &object, ("a", Some("xvip:1"))).unwrap();
        assert!(fact.preserves);
        assert!(fact.refused.iter().any(|why| why.contains("comes from a ConfigMap")), "{fact:?}");
        assert!(fact.changes.iter().any(|change| change.contains("xvip:1 instead of")), "{fact:?}");
        assert_eq!(fact.unfit, None);
    }

    #[test]
    fn pods_that_have_ended_do_not_count_and_two_containers_are_unfit() {
        let mut object = object("kube-vip:v1.0.4", &[]);
        for (phase, counts) in
            [("Running", true), ("Pending", true), ("Failed", false), ("Succeeded", false)]
        {
            object["status"]["phase"] = phase.into();
            assert_eq!(pod(&object, None).is_some(), counts, "{phase}");
        }
        let second = object["spec"]["containers"][0].clone();
        object["spec"]["containers"].as_array_mut().unwrap().push(second);
        let text = serde_norway::to_string(&object).unwrap();
        let (fact, _) = manifest("/x", &text, &object, ("a", Some("xvip:1"))).unwrap();
        assert!(fact.unfit.unwrap().contains("more than one container"));
    }

    #[test]
    fn only_plain_files_of_bounded_length_are_read() {
        let path = std::env::temp_dir().join(format!("xvip-reading-{}", std::process::id()));
        for (length, reads) in [(LONGEST, true), (LONGEST + 1, false)] {
            std::fs::write(&path, "x".repeat(length as usize)).unwrap();
            assert_eq!(file(&path).is_ok(), reads, "{length}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file(Path::new("/dev/zero")).is_err());
        assert!(file(&std::env::temp_dir()).is_err());
    }
}
