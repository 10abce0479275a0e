//! Requests that `xvip migrate` makes: Nodes, pods, and what kube-vip's guides have created.

use super::{
    lease::{LeaseApi, LeaseError, is_forbidden},
    lenient::Lenient,
};
use k8s_openapi::api::{
    core::v1::{Node, Pod, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// The label of the nodes of the control plane.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// What is read of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Whether its kubelet reports that it is ready.
    pub ready: bool,
    /// The boot id that its kubelet has reported.
    pub boot_id: String,
    /// The names of its labels.
    pub labels: Vec<String>,
}

impl From<Lenient<Node>> for NodeSeen {
    fn from(Lenient(node): Lenient<Node>) -> Self {
        let status = node.status.unwrap_or_default();
        let is_ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        Self {
            name: node.metadata.name.unwrap_or_default(),
            ready: status.conditions.iter().flatten().any(is_ready),
            boot_id: status.node_info.map(|info| info.boot_id).unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default().into_keys().collect(),
        }
    }
}

/// An object that kube-vip's guides create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created<'a> {
    /// A ClusterRoleBinding.
    Binding(&'a str),
    /// A ClusterRole.
    Role(&'a str),
    /// A service account: namespace and name.
    Account(&'a str, &'a str),
}

impl LeaseApi {
    /// Asks as [`Self::ask`], but a refusal counts as an answer: another server would refuse as well, or
    /// not be there, and only the refusal names the right that is missing.
    async fn told<T, F>(
        &self,
        verb: &'static str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, LeaseError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let asked = |client| {
            let answer = request(client);
            async move {
                match answer.await {
                    Err(error) if is_forbidden(&error) => Ok(Err(error)),
                    answer => answer.map(Ok),
                }
            }
        };
        let (endpoint, answer) = self.ask(verb, 0, asked).await?;
        answer.map_err(|error| LeaseError::of(endpoint, verb, &error))
    }

    /// The nodes of the control plane.
    ///
    /// # Errors
    /// If the request failed; it says which right is missing.
    pub async fn control_plane(&self) -> Result<Vec<NodeSeen>, LeaseError> {
        let params = ListParams::default().labels(CONTROL_PLANE);
        let list = |client| {
            let (nodes, params) = (Api::<Lenient<Node>>::all(client), params.clone());
            async move { nodes.list(&params).await }
        };
        let nodes = self.told("list", list).await?;
        Ok(nodes.items.into_iter().map(Into::into).collect())
    }

    /// The pods on a node, in all namespaces, as JSON.
    ///
    /// # Errors
    /// If the request failed; it says which right is missing.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Value>, LeaseError> {
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let list = |client| {
            let (pods, params) = (Api::<Lenient<Pod>>::all(client), params.clone());
            async move { pods.list(&params).await }
        };
        let pods = self.told("list", list).await?;
        Ok(pods.items.into_iter().filter_map(|pod| serde_json::to_value(pod).ok()).collect())
    }

    /// Removes a label from a Node. It is no error if it has none.
    ///
    /// # Errors
    /// If the request failed.
    pub async fn unlabel(&self, node: &str, label: &str) -> Result<(), LeaseError> {
        let patch = json!({"metadata": {"labels": {label: null}}});
        let change = |client| {
            let (nodes, patch) = (Api::<Lenient<Node>>::all(client), Patch::Merge(patch.clone()));
            async move { nodes.patch_metadata(node, &PatchParams::default(), &patch).await.map(drop) }
        };
        self.told("patch", change).await
    }

    /// Whether an object exists.
    ///
    /// # Errors
    /// If the request failed.
    pub async fn exists(&self, object: Created<'_>) -> Result<bool, LeaseError> {
        let get = |client: Client| async move {
            match object {
                Created::Binding(name) => {
                    let objects = Api::<ClusterRoleBinding>::all(client);
                    objects.get_metadata_opt(name).await.map(|found| found.is_some())
                }
                Created::Role(name) => {
                    let objects = Api::<ClusterRole>::all(client);
                    objects.get_metadata_opt(name).await.map(|found| found.is_some())
                }
                Created::Account(namespace, name) => {
                    let objects = Api::<ServiceAccount>::namespaced(client, namespace);
                    objects.get_metadata_opt(name).await.map(|found| found.is_some())
                }
            }
        };
        self.told("get", get).await
    }

    /// Deletes an object. It is no error if it is gone.
    ///
    /// # Errors
    /// If the request failed.
    pub async fn delete(&self, object: Created<'_>) -> Result<(), LeaseError> {
        let params = DeleteParams::default();
        let delete = |client: Client| {
            let params = params.clone();
            async move {
                let deleted = match object {
                    Created::Binding(name) => {
                        Api::<ClusterRoleBinding>::all(client).delete(name, &params).await.map(drop)
                    }
                    Created::Role(name) => {
                        Api::<ClusterRole>::all(client).delete(name, &params).await.map(drop)
                    }
                    Created::Account(namespace, name) => {
                        let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
                        accounts.delete(name, &params).await.map(drop)
                    }
                };
                match deleted {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    deleted => deleted,
                }
            }
        };
        self.told("delete", delete).await
    }
}
