//! What a pod or its manifest says.

use serde_json::Value;
use std::fmt;

/// Variables that only a container of kube-vip, or of xvip in its place, has.
const MARKS: [&str; 4] = ["vip_arp", "cp_enable", "bgp_enable", "svc_enable"];
/// The variable for the pins of xvip.
const PINS: &str = "XVIP_PIN_ROOT";
/// The annotation that says where a kubelet has a pod from.
const SOURCE: &str = "kubernetes.io/config.source";
/// The subcommands that run.
const RUNS: [&str; 3] = ["manager", "service", "start"];

/// Which program a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// kube-vip.
    KubeVip,
    /// xvip.
    Xvip,
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::KubeVip => "kube-vip",
            Self::Xvip => "xvip",
        })
    }
}

/// A pod with a container of kube-vip, or of xvip in its place.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    object: &'a Value,
    /// Which container.
    pub number: usize,
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// It is written in the manifest.
    Written(String),
    /// It is the name of the node.
    NodeName,
    /// It comes from elsewhere, as the text says.
    Elsewhere(&'static str),
}

impl<'a> Pod<'a> {
    /// Finds the container; `None` if there is none.
    pub fn read(object: &'a Value) -> Option<Self> {
        let containers = object["spec"]["containers"].as_array()?;
        let number = containers.iter().position(is_ours)?;
        Some(Self { object, number })
    }

    /// How many containers run kube-vip, or xvip in its place.
    pub fn programs(&self) -> usize {
        let containers = self.object["spec"]["containers"].as_array();
        containers.into_iter().flatten().filter(|container| is_ours(container)).count()
    }

    /// The name of the container.
    pub fn container_name(&self) -> &'a str {
        self.container()["name"].as_str().unwrap_or_default()
    }

    /// Whether a kubelet has read it from a file, and the API only shows it.
    pub fn is_mirror(&self) -> bool {
        self.object["metadata"]["annotations"][SOURCE] == "file"
    }

    /// Whether it has ended for good.
    pub fn has_ended(&self) -> bool {
        matches!(self.object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    }

    /// The container.
    pub fn container(&self) -> &'a Value {
        &self.object["spec"]["containers"][self.number]
    }

    /// The name of the pod.
    pub fn name(&self) -> &'a str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its namespace. A kubelet puts a static pod without one into `default`.
    pub fn namespace(&self) -> &'a str {
        self.object["metadata"]["namespace"]
            .as_str()
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
    }

    /// Its image.
    pub fn image(&self) -> &'a str {
        self.container()["image"].as_str().unwrap_or_default()
    }

    /// Which program it runs. `named`: the image to which nodes are moved.
    pub fn program(&self, named: Option<&str>) -> Program {
        let has_pins = self.variables().iter().any(|(name, _)| *name == PINS);
        program((self.image(), has_pins), named)
    }

    /// Its variables.
    pub fn variables(&self) -> Vec<(&'a str, Variable)> {
        let entries = self.container()["env"].as_array().into_iter().flatten();
        entries.filter_map(|entry| Some((entry["name"].as_str()?, variable(entry)))).collect()
    }

    /// A variable whose value is written in the manifest.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables().into_iter().find_map(|(found, value)| match value {
            Variable::Written(value) if found == name && !value.is_empty() => Some(value),
            _ => None,
        })
    }

    /// The command line after the subcommand.
    pub fn arguments(&self) -> Vec<String> {
        words(self.container())
            .into_iter()
            .skip_while(|word| !RUNS.contains(word))
            .skip(1)
            .map(str::to_owned)
            .collect()
    }

    /// The path on the host of a path in the container, if it is mounted.
    pub fn host_path(&self, path: &str) -> Option<String> {
        let mounts = self.container()["volumeMounts"].as_array().into_iter().flatten();
        let under = |mount: &&Value| {
            let at = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
            path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let depth = |mount: &&Value| mount["mountPath"].as_str().map_or(0, str::len);
        let mount = mounts.filter(under).max_by_key(depth)?;
        let volume = self.volumes().find(|volume| volume["name"] == mount["name"])?;
        let host = volume["hostPath"]["path"].as_str()?;
        let at = mount["mountPath"].as_str()?.trim_end_matches('/');
        let inner = mount["subPath"].as_str().map_or(String::new(), |inner| format!("/{inner}"));
        Some(format!("{}{inner}{}", host.trim_end_matches('/'), &path[at.len()..]))
    }

    /// Its volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.object["spec"]["volumes"].as_array().into_iter().flatten()
    }

    /// Whether the container is privileged.
    pub fn is_privileged(&self) -> bool {
        self.container()["securityContext"]["privileged"] == true
    }
}

/// Which program an image contains. A pod of kube-vip may have the variable for the pins already, so
/// this counts last.
pub fn program((image, has_pins): (&str, bool), named: Option<&str>) -> Program {
    let last = repository(image).rsplit('/').next().unwrap_or_default();
    if named == Some(image) {
        Program::Xvip
    } else if last.contains("kube-vip") {
        Program::KubeVip
    } else if last.contains("xvip") || has_pins {
        Program::Xvip
    } else {
        Program::KubeVip
    }
}

/// An image without its tag and its digest.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let slash = name.rfind('/').map_or(0, |slash| slash + 1);
    name[slash..].find(':').map_or(name, |colon| &name[..slash + colon])
}

/// The version of kube-vip in the tag of an image; `None` if the tag is none.
pub fn version(image: &str) -> Option<(u32, u32, u32)> {
    let tag = image.split('@').next()?.strip_prefix(repository(image))?.strip_prefix(':')?;
    let mut parts = tag.strip_prefix('v').unwrap_or(tag).splitn(3, '.');
    let mut number = || {
        let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    Some((number()?, number()?, number().unwrap_or(0)))
}

fn variable(entry: &Value) -> Variable {
    let from = &entry["valueFrom"];
    if from.is_null() {
        return Variable::Written(entry["value"].as_str().unwrap_or_default().into());
    }
    match from["fieldRef"]["fieldPath"].as_str() {
        Some("spec.nodeName") => Variable::NodeName,
        Some(_) => Variable::Elsewhere("a field of the pod"),
        None if !from["configMapKeyRef"].is_null() => Variable::Elsewhere("a ConfigMap"),
        None if !from["secretKeyRef"].is_null() => Variable::Elsewhere("a Secret"),
        None => Variable::Elsewhere("another source"),
    }
}

fn words(container: &Value) -> Vec<&str> {
    let list = |key: &str| container[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    list("command").chain(list("args")).collect()
}

fn is_ours(container: &Value) -> bool {
    let entries = container["env"].as_array().into_iter().flatten();
    let mut names = entries.filter_map(|entry| entry["name"].as_str());
    let words = words(container);
    let runs = RUNS.iter().any(|word| words.contains(word));
    let image = container["image"].as_str().unwrap_or_default();
    let by_image = repository(image).rsplit('/').next().is_some_and(|name| name.contains("kube-vip"));
    // Other programs of the same project have other subcommands.
    runs && (by_image || names.any(|name| MARKS.contains(&name)))
}
