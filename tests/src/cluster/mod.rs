//! A real cluster. Each node is a namespace of the lab with a kubelet and containerd. A scheduler
//! and a controller-manager run beside the API server.

pub mod manifests;
pub mod node;

use crate::{
    kube::{
        api::Real,
        assets,
        objects::{self, Mode},
    },
    lab::{API, Kube, Lab, Options, eventually},
};
use anyhow::{Context as _, ensure};
use kube::Client;
use node::ClusterNode;
use serde_json::{Value, json};
use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

/// How long the cluster may take to start on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// The cluster; dropping it removes everything.
pub struct Cluster {
    /// Its nodes. Dropped before the lab, because they are in its namespaces.
    pub nodes: Vec<ClusterNode>,
    controllers: Vec<Child>,
    /// The namespaces, the API and the clients.
    pub lab: Lab,
}

impl Cluster {
    /// Starts it and waits until every node is ready.
    ///
    /// # Errors
    /// If something is not built, or a node does not get ready.
    pub fn start(nodes: usize) -> anyhow::Result<Self> {
        let lab = Lab::new(&Options { nodes, kube: Kube::One, ..Options::default() })?;
        let mut cluster = Self { nodes: Vec::new(), controllers: Vec::new(), lab };
        cluster.start_controllers()?;
        for index in 0..nodes {
            cluster.add_node(index)?;
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    fn real(&self) -> anyhow::Result<&Real> {
        self.lab.api.real().context("a cluster has a real API")
    }

    fn start_controllers(&mut self) -> anyhow::Result<()> {
        let server = format!("https://{API}");
        let dir = self.lab.dir().to_owned();
        for (program, flags) in [
            (
                "kube-controller-manager",
                vec!["--use-service-account-credentials", "--node-monitor-period=1s"],
            ),
            ("kube-scheduler", vec![]),
        ] {
            let pki = &self.real()?.plane.pki;
            let config = pki.kubeconfig(&server, &format!("system:{program}"), "lab")?;
            let log = File::create(dir.join(format!("{program}.log")))?;
            let mut command = self.lab.api_ns.command("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(assets()?.join(program)).args(flags);
            command.arg(format!("--kubeconfig={}", config.display())).arg("--leader-elect=false");
            command.arg(format!("--cert-dir={}", dir.join(program).display()));
            if program == "kube-controller-manager" {
                command.arg(format!("--root-ca-file={}", pki.ca().display()));
                let (sign, _) = pki.service_account_keys();
                command.arg(format!("--service-account-private-key-file={}", sign.display()));
                command.arg("--node-monitor-grace-period=10s");
            }
            command.stdout(log.try_clone()?).stderr(log);
            self.controllers.push(command.spawn().with_context(|| format!("cannot start {program}"))?);
        }
        Ok(())
    }

    fn add_node(&mut self, index: usize) -> anyhow::Result<()> {
        let lab_node = &self.lab.nodes[index];
        let user = format!("system:node:{}", lab_node.name);
        let config =
            self.real()?.plane.pki.kubeconfig(&format!("https://{API}"), &user, "system:nodes")?;
        let node = ClusterNode::start(lab_node, &config, self.lab.dir())?;
        self.nodes.push(node);
        Ok(())
    }

    /// Waits until the API server reports every node as ready, and labels them as control-plane
    /// nodes.
    fn wait_ready(&self) -> anyhow::Result<()> {
        let ready = eventually(LIMIT, || {
            self.list("/api/v1/nodes").is_ok_and(|nodes| {
                nodes.iter().filter(|node| has_condition(node, "Ready")).count() == self.nodes.len()
            })
        });
        let logs = || self.nodes.iter().map(ClusterNode::log).collect::<Vec<_>>().join("\n---\n");
        ensure!(ready, "not every node gets ready:\n{}", logs());
        for node in &self.nodes {
            let labels = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
            self.patch(&format!("/api/v1/nodes/{}", node.name), &labels)?;
        }
        Ok(())
    }

    /// The items behind a path.
    ///
    /// # Errors
    /// Those of the server.
    pub fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        self.real()?.plane.call(0, async |client: Client| {
            let list: Value = client.request(http::Request::get(path).body(Vec::new())?).await?;
            Ok(list["items"].as_array().cloned().unwrap_or_default())
        })
    }

    /// Merges into an object.
    ///
    /// # Errors
    /// Those of the server.
    pub fn patch(&self, path: &str, change: &Value) -> anyhow::Result<()> {
        self.request("PATCH", path, "application/merge-patch+json", change)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Those of the server.
    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.request("DELETE", path, "application/json", &json!({}))
    }

    /// Evicts a pod, as `kubectl drain` does.
    ///
    /// # Errors
    /// Those of the server.
    pub fn evict(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let metadata = json!({"namespace": namespace, "name": pod});
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        self.request("POST", &path, "application/json", &eviction)
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &Value) -> anyhow::Result<()> {
        self.real()?.plane.call(0, async |client: Client| {
            let request =
                http::Request::builder().method(method).uri(path).header("content-type", kind);
            client.request::<Value>(request.body(serde_json::to_vec(body)?)?).await?;
            Ok(())
        })
    }

    /// Stores manifests.
    ///
    /// # Errors
    /// Those of the server.
    pub fn apply(&self, text: &str) -> anyhow::Result<()> {
        objects::apply(&self.real()?.plane, text, Mode::Store).map(drop)
    }

    /// The pods of xvip with this `app.kubernetes.io/name`.
    ///
    /// # Errors
    /// Those of the server.
    pub fn pods(&self, app: &str) -> anyhow::Result<Vec<Value>> {
        let selector = format!("labelSelector=app.kubernetes.io/name%3D{app}");
        self.list(&format!("/api/v1/namespaces/kube-system/pods?{selector}"))
    }

    /// Waits until this many pods of xvip are ready and none is terminating.
    ///
    /// # Errors
    /// With what the pods and their logs say.
    pub fn wait_for_pods(&self, app: &str, count: usize) -> anyhow::Result<()> {
        let settled = || {
            self.pods(app).is_ok_and(|pods| {
                let ready = |pod: &&Value| {
                    has_condition(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()
                };
                pods.len() == count && pods.iter().filter(ready).count() == count
            })
        };
        let pods = || self.pods(app).map(|pods| json!(pods).to_string()).unwrap_or_default();
        let logs = || self.nodes.iter().map(ClusterNode::pod_logs).collect::<Vec<_>>().join("\n---\n");
        ensure!(eventually(LIMIT, settled), "the pods do not get ready:\n{}\n{}", pods(), logs());
        Ok(())
    }

    /// The nodes whose kernel may answer for the VIPs now.
    pub fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].owns()).collect()
    }

    /// Waits until one node owns the VIPs.
    ///
    /// # Errors
    /// With the pods' logs, if none does.
    pub fn wait_for_owner(&self) -> anyhow::Result<usize> {
        let mut owner = None;
        let found = eventually(LIMIT, || {
            owner = self.owners().first().copied();
            owner.is_some()
        });
        let logs = || self.nodes.iter().map(ClusterNode::pod_logs).collect::<Vec<_>>().join("\n---\n");
        ensure!(found, "nobody owns the VIPs:\n{}", logs());
        owner.context("owner")
    }

    /// The administrator's kubeconfig, and a command that runs in the namespace where it works.
    ///
    /// # Errors
    /// Never, for a cluster.
    pub fn kubectl(&self) -> anyhow::Result<(PathBuf, Command)> {
        let admin = self.real()?.plane.admin(0).to_owned();
        Ok((admin, self.lab.api_ns.command("kubectl")))
    }
}

/// Whether an object has a condition of this type that is true.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        for mut child in self.controllers.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
