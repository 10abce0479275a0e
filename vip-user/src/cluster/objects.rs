//! Requests that `xvip migrate` makes: Nodes, pods, and what kube-vip's guides have created.

use super::{
    lease::{LeaseApi, LeaseError, is_forbidden},
    lenient::Lenient,
};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// The label of the nodes of the control plane.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// So many objects are asked for at a time.
const PAGE: u32 = 500;
/// The most pages of a list.
const MOST_PAGES: usize = 2_000;

/// What is read of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Whether it belongs to the control plane.
    pub control_plane: bool,
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
        let labels: Vec<String> = node.metadata.labels.unwrap_or_default().into_keys().collect();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            control_plane: labels.iter().any(|label| label == CONTROL_PLANE),
            ready: status.conditions.iter().flatten().any(is_ready),
            boot_id: status.node_info.map(|info| info.boot_id).unwrap_or_default(),
            labels,
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

/// A binding of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingSeen {
    /// Its namespace; `None`: it is a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The ClusterRole that it grants; empty if it grants a Role.
    pub role: String,
    /// Kind, namespace and name of each subject.
    pub subjects: Vec<(String, String, String)>,
}

fn binding(metadata: ObjectMeta, role: RoleRef, subjects: Option<Vec<Subject>>) -> BindingSeen {
    let subject =
        |subject: Subject| (subject.kind, subject.namespace.unwrap_or_default(), subject.name);
    BindingSeen {
        namespace: metadata.namespace,
        name: metadata.name.unwrap_or_default(),
        role: if role.kind == "ClusterRole" { role.name } else { String::new() },
        subjects: subjects.into_iter().flatten().map(subject).collect(),
    }
}

impl LeaseApi {
    /// Asks as [`Self::ask`], but a refusal counts as an answer: another server would refuse as well,
    /// or not be there, and only the refusal names the right that is missing.
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

    /// All nodes.
    ///
    /// # Errors
    /// If the request failed; it says which right is missing.
    pub async fn nodes(&self) -> Result<Vec<NodeSeen>, LeaseError> {
        let mut found = Vec::new();
        let keep = |node: Lenient<Node>| found.push(NodeSeen::from(node));
        self.each(&ListParams::default(), keep).await?;
        Ok(found)
    }

    /// The nodes of the control plane.
    ///
    /// # Errors
    /// If the request failed; it says which right is missing.
    pub async fn control_plane(&self) -> Result<Vec<NodeSeen>, LeaseError> {
        let nodes = self.nodes().await?;
        Ok(nodes.into_iter().filter(|node| node.control_plane).collect())
    }

    /// Lists all objects of a kind, page after page.
    async fn each<K>(
        &self,
        params: &ListParams,
        mut keep: impl FnMut(Lenient<K>),
    ) -> Result<(), LeaseError>
    where
        Lenient<K>: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut params = params.clone().limit(PAGE);
        for _ in 0..MOST_PAGES {
            let list = |client| {
                let (objects, params) = (Api::<Lenient<K>>::all(client), params.clone());
                async move { objects.list(&params).await }
            };
            let page = self.told("list", list).await?;
            page.items.into_iter().for_each(&mut keep);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                None => return Ok(()),
                Some(token) => params.continue_token = Some(token),
            }
        }
        let (endpoint, _) = self.endpoints.get(0);
        let what = "the list has no end".into();
        Err(LeaseError::Request { endpoint, verb: "list", what, wanted: None, forbidden: false })
    }

    /// The pods on a node, in all namespaces, as JSON.
    ///
    /// # Errors
    /// If the request failed; it says which right is missing.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Value>, LeaseError> {
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let mut found = Vec::new();
        let keep = |pod: Lenient<Pod>| found.extend(serde_json::to_value(pod).ok());
        self.each(&params, keep).await?;
        Ok(found)
    }

    /// Takes each pod of the cluster, as JSON.
    ///
    /// # Errors
    /// If a request failed; it says which right is missing.
    pub async fn each_pod(&self, mut take: impl FnMut(Value)) -> Result<(), LeaseError> {
        let keep = |pod: Lenient<Pod>| serde_json::to_value(pod).into_iter().for_each(&mut take);
        self.each(&ListParams::default(), keep).await
    }

    /// All bindings, those of namespaces too.
    ///
    /// # Errors
    /// If a request failed; it says which right is missing.
    pub async fn bindings(&self) -> Result<Vec<BindingSeen>, LeaseError> {
        let mut found = Vec::new();
        let keep = |Lenient(object): Lenient<ClusterRoleBinding>| {
            let ClusterRoleBinding { metadata, role_ref, subjects } = object;
            found.push(binding(metadata, role_ref, subjects));
        };
        self.each(&ListParams::default(), keep).await?;
        let keep = |Lenient(object): Lenient<RoleBinding>| {
            let RoleBinding { metadata, role_ref, subjects } = object;
            found.push(binding(metadata, role_ref, subjects));
        };
        self.each(&ListParams::default(), keep).await?;
        Ok(found)
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
