//! A kubelet on a node of a lab, as far as static pods go: it watches a folder, stops what is gone,
//! starts what is new, and shows a mirror pod in the API. It runs kube-vip's stand-in or `xvip
//! manager`.

use super::{
    foreign::{Foreign, Settings},
    objects::{self, Mode},
};
use crate::lab::{
    Lab, eventually,
    service::{Health, Service},
};
use anyhow::{Context as _, ensure};
use kube::Client;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};

/// A pod has this long to end.
const GRACE: Duration = Duration::from_secs(30);
/// An image that does not exist: its pod never gets ready.
pub const BROKEN: &str = "registry.example/xvip:broken";

/// Where a kubelet says whether it is well.
const HEALTH: u16 = 10248;

/// What runs.
#[derive(Debug)]
enum Running {
    KubeVip(Foreign),
    Xvip,
    Nothing,
}

/// The kubelet.
#[derive(Debug)]
pub struct Kubelet {
    node: usize,
    /// The folder of the static pods.
    pub folder: PathBuf,
    /// Whether it does nothing at present.
    pub stopped: bool,
    running: Option<(String, Running)>,
    _health: Service,
}

impl Kubelet {
    /// A kubelet whose folder is empty. Its Node is in the API and is ready.
    ///
    /// # Errors
    /// If the API refuses the Node.
    pub fn new(lab: &Lab, node: usize) -> anyhow::Result<Self> {
        let name = &lab.nodes[node].name;
        let folder = lab.dir().join(name).join("manifests");
        fs::create_dir_all(&folder)?;
        let command = lab.nodes[node].command()?;
        let mut variables = command.get_envs();
        let boot = variables.find(|(name, _)| *name == "XVIP_BOOT_ID").and_then(|(_, value)| value);
        let boot = boot.context("a boot id")?.to_string_lossy().into_owned();
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "node-role.kubernetes.io/control-plane": "", "kube-vip.io/has-ip": "192.0.2.10",
            }},
        });
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "Lab", "message": ""}],
            "nodeInfo": {
                "bootID": boot, "machineID": "", "systemUUID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        }});
        let path = format!("/api/v1/nodes/{name}/status");
        call(lab, async |client| {
            objects::send(&client, &object, Mode::Store).await?;
            merge(&client, &path, &status).await
        })?;
        let health = Service::start(&lab.nodes[node].ns, HEALTH, Health::Good);
        Ok(Self { node, folder, stopped: false, running: None, _health: health })
    }

    /// Does what a kubelet does when its folder has changed, or a container has ended.
    ///
    /// # Errors
    /// If a pod cannot be started or stopped.
    pub fn sync(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        if self.stopped {
            return Ok(());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                files.push(fs::read_to_string(path)?);
            }
        }
        ensure!(files.len() <= 1, "two static pods of one name");
        let wanted = files.pop();
        if self.running.as_ref().map(|(text, _)| text) != wanted.as_ref() {
            self.stop(lab)?;
            if let Some(text) = wanted {
                self.start(lab, text)?;
            }
        }
        if let Some((text, Running::Xvip)) = &self.running
            && lab.nodes[self.node].has_ended()
        {
            let object: Value = serde_norway::from_str(text)?;
            self.run_xvip(lab, &object)?;
        }
        Ok(())
    }

    fn pod(&self, lab: &Lab) -> String {
        format!("kube-vip-{}", lab.nodes[self.node].name)
    }

    fn stop(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let Some((_, running)) = self.running.take() else { return Ok(()) };
        match running {
            Running::KubeVip(mut foreign) => {
                foreign.terminate();
                ensure!(eventually(GRACE, || foreign.has_ended()), "{}", foreign.log());
            }
            Running::Xvip => {
                let node = &mut lab.nodes[self.node];
                node.signal(libc::SIGTERM);
                ensure!(eventually(GRACE, || node.has_ended()), "{}", node.log());
            }
            Running::Nothing => {}
        }
        let path =
            format!("/api/v1/namespaces/kube-system/pods/{}?gracePeriodSeconds=0", self.pod(lab));
        call(lab, async |client| {
            let request = http::Request::delete(path).body(Vec::new())?;
            let _: Value = client.request(request).await?;
            Ok(())
        })
    }

    fn start(&mut self, lab: &mut Lab, text: String) -> anyhow::Result<()> {
        let mut object: Value = serde_norway::from_str(&text)?;
        let image = object["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        let running = if image.contains("kube-vip:") {
            let settings = Settings { vips: Lab::vips(), ..Settings::default() };
            Running::KubeVip(Foreign::start(lab, self.node, &settings)?)
        } else if image == BROKEN {
            Running::Nothing
        } else {
            self.run_xvip(lab, &object)?;
            Running::Xvip
        };
        let is_ready = image != BROKEN;
        object["metadata"]["name"] = self.pod(lab).into();
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.source": "file"});
        object["spec"]["nodeName"] = lab.nodes[self.node].name.clone().into();
        let status = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
        }});
        let path = format!("/api/v1/namespaces/kube-system/pods/{}/status", self.pod(lab));
        call(lab, async |client| {
            objects::send(&client, &object, Mode::Store).await?;
            merge(&client, &path, &status).await
        })?;
        self.running = Some((text, running));
        Ok(())
    }

    /// Every path in the manifest is the same on the host, but that of the pins.
    fn run_xvip(&self, lab: &mut Lab, object: &Value) -> anyhow::Result<()> {
        let node = &mut lab.nodes[self.node];
        let (name, pins) = (node.name.clone(), node.pin_root().to_owned());
        for entry in object["spec"]["containers"][0]["env"].as_array().into_iter().flatten() {
            let variable = entry["name"].as_str().unwrap_or_default();
            match entry["value"].as_str() {
                Some(_) if variable == "XVIP_PIN_ROOT" => {
                    node.set_variable(variable, &pins.display().to_string());
                }
                Some(value) => node.set_variable(variable, value),
                None => node.set_variable(variable, &name),
            }
        }
        node.start_as(&["manager"])
    }
}

fn call(lab: &Lab, work: impl AsyncFnOnce(Client) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    lab.api.real().context("a real API")?.plane.call(0, work)
}

async fn merge(client: &Client, path: &str, patch: &Value) -> anyhow::Result<()> {
    let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
    let _: Value = client.request(request.body(serde_json::to_vec(patch)?)?).await?;
    Ok(())
}
