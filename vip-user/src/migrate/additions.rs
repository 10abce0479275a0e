//! What a manifest of kube-vip lacks before xvip can run in it, as edits: the image, two capabilities,
//! the variable for the pins, and the BPF file system of the host.

use super::{
    edit::{Edit, Step, What},
    pod::Pod,
};
use crate::adapter::rights::{MOUNT, PIN_ROOT};
use serde_json::{Value, json};

/// Where the host has its BPF file system.
pub const HOST: &str = "/sys/fs/bpf";
/// The variable that names the pins.
const VARIABLE: &str = "XVIP_PIN_ROOT";
/// The names for the volume; the second one if the first one is taken.
const VOLUMES: [&str; 2] = ["bpf", "xvip-bpf"];

/// What is wanted besides the rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The image.
    pub image: String,
    /// Whether CAP_PERFMON is needed too: on Linux 5.x.
    pub perfmon: bool,
}

/// The edits, and each in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// The edits, in the order in which they are made.
    pub edits: Vec<Edit>,
    /// What they do.
    pub words: Vec<String>,
}

impl Additions {
    fn add(&mut self, path: Vec<Step>, what: What, words: String) {
        self.edits.push(Edit { path, what });
        self.words.push(words);
    }
}

/// What this manifest lacks. `Err`: why it cannot be added.
pub fn additions(object: &Value, wanted: &Wanted) -> Result<Additions, String> {
    let pod = Pod::read(object).ok_or("it has no container of kube-vip")?;
    let mut found = Additions::default();
    let at = |keys: &[&'static str]| -> Vec<Step> {
        let container = [Step::Key("spec"), Step::Key("containers"), Step::Item(pod.number)];
        container.into_iter().chain(keys.iter().copied().map(Step::Key)).collect()
    };
    if pod.image() != wanted.image {
        let words = format!("image: {} instead of {}", wanted.image, pod.image());
        found.add(at(&["image"]), What::Set(wanted.image.clone()), words);
    }
    let capabilities = &pod.container()["securityContext"]["capabilities"];
    if !pod.is_privileged() {
        let mut add = vec!["BPF", "NET_ADMIN", "NET_RAW"];
        if wanted.perfmon {
            add.insert(1, "PERFMON");
        }
        for (key, list) in [("add", add), ("drop", vec!["ALL"])] {
            let path = at(&["securityContext", "capabilities", key]);
            of_list(&mut found, &path, &capabilities[key], (key, &list));
        }
    }
    variable(&mut found, &pod, at(&["env"]));
    mount(&mut found, &pod, at(&["volumeMounts"]))?;
    Ok(found)
}

/// A list of capabilities gets those that are missing, and loses all others.
fn of_list(found: &mut Additions, path: &[Step], list: &Value, (key, wanted): (&str, &[&str])) {
    let items: Vec<&str> =
        list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap_or_default()).collect();
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| !items.contains(name)).collect();
    for name in missing.iter().rev() {
        found.add(path.to_vec(), What::First((*name).into()), format!("capabilities.{key}: {name}"));
    }
    for (number, name) in items.iter().enumerate().rev() {
        if !wanted.contains(name) {
            let words = format!("capabilities.{key}: without {name}");
            found.add(path.to_vec(), What::Remove(missing.len() + number), words);
        }
    }
}

fn variable(found: &mut Additions, pod: &Pod<'_>, env: Vec<Step>) {
    let words = format!("env: {VARIABLE}={PIN_ROOT}");
    let entries = pod.container()["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    match entries.iter().position(|entry| entry["name"] == VARIABLE) {
        Some(at) if entries[at]["value"] == PIN_ROOT => {}
        Some(at) => {
            let path = env.into_iter().chain([Step::Item(at), Step::Key("value")]).collect();
            found.add(path, What::Set(PIN_ROOT.into()), words);
        }
        None => found.add(env, What::Last(json!({"name": VARIABLE, "value": PIN_ROOT})), words),
    }
}

fn mount(found: &mut Additions, pod: &Pod<'_>, mounts: Vec<Step>) -> Result<(), String> {
    let volume_of = |name: &Value| pod.volumes().find(|volume| volume["name"] == *name);
    let mut at = pod.container()["volumeMounts"].as_array().into_iter().flatten();
    if let Some(mount) = at.find(|mount| mount["mountPath"] == MOUNT) {
        let volume = volume_of(&mount["name"]).map(|volume| &volume["hostPath"]["path"]);
        return match volume {
            Some(path) if path == HOST => Ok(()),
            _ => Err(format!("{MOUNT} is mounted, but it is not the host's {HOST}")),
        };
    }
    let is_host = |name: &str| volume_of(&name.into()).map(|volume| volume["hostPath"]["path"] == HOST);
    // A volume of this name may be that of the host, something else, or not there.
    let fits = |name: &&&str| is_host(name) != Some(false);
    let name = VOLUMES.iter().find(fits).ok_or("its volumes have the names bpf and xvip-bpf")?;
    let item = json!({"name": name, "mountPath": MOUNT});
    found.add(mounts, What::Last(item), format!("volumeMounts: {name} at {MOUNT}"));
    if is_host(name).is_none() {
        let item = json!({"name": name, "hostPath": {"path": HOST, "type": "Directory"}});
        let path = vec![Step::Key("spec"), Step::Key("volumes")];
        found.add(path, What::Last(item), format!("volumes: {name}, the host's {HOST}"));
    }
    Ok(())
}
