//! Operations of an administrator on a Kubernetes API: manifests, Leases, tokens.

use super::plane::ControlPlane;
use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        coordination::v1::Lease,
        core::v1::{Secret, ServiceAccount},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::Value;
use std::{path::Path, time::Duration};

/// How a manifest is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Checked by the server, with unknown fields refused; nothing is stored.
    DryRun,
    /// Created, or replaced if it exists.
    Store,
}

/// The documents of a YAML text.
///
/// # Errors
/// If it is not YAML.
pub fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value: Value = serde::Deserialize::deserialize(document)?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

/// Sends an object to the server, strictly validated.
///
/// # Errors
/// The server's message.
pub async fn send(client: &Client, object: &Value, mode: Mode) -> anyhow::Result<()> {
    sent(client, object, mode).await.map(|_| ())
}

/// The same, and what the server makes of it.
///
/// # Errors
/// The server's message.
pub async fn sent(client: &Client, object: &Value, mode: Mode) -> anyhow::Result<Value> {
    let path = collection(object)?;
    let name = object["metadata"]["name"].as_str().context("an object without a name")?;
    let dry = if mode == Mode::DryRun { "&dryRun=All" } else { "" };
    let query = format!("fieldValidation=Strict&fieldManager=lab{dry}");
    let body = serde_json::to_vec(object)?;
    let request = http::Request::post(format!("{path}?{query}")).body(body)?;
    match client.request::<Value>(request).await {
        Ok(made) => Ok(made),
        Err(kube::Error::Api(status)) if status.code == 409 && mode == Mode::Store => {
            let found = http::Request::get(format!("{path}/{name}")).body(Vec::new())?;
            let found: Value = client.request(found).await?;
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
            let body = serde_json::to_vec(&object)?;
            let request = http::Request::put(format!("{path}/{name}?{query}")).body(body)?;
            client.request::<Value>(request).await.with_context(|| format!("{path}/{name}"))
        }
        Err(error) => Err(error).with_context(|| format!("{path}/{name}")),
    }
}

/// What the server makes of a stored object by a strategic merge patch. Nothing is stored.
///
/// # Errors
/// The server's message.
pub async fn patch(client: &Client, object: &Value, patch: &Value) -> anyhow::Result<Value> {
    let path = collection(object)?;
    let name = object["metadata"]["name"].as_str().context("an object without a name")?;
    let query = "fieldValidation=Strict&fieldManager=lab&dryRun=All";
    let request = http::Request::patch(format!("{path}/{name}?{query}"));
    let request = request.header("content-type", "application/strategic-merge-patch+json");
    Ok(client.request(request.body(serde_json::to_vec(patch)?)?).await?)
}

/// The URL path of objects of this kind.
fn collection(object: &Value) -> anyhow::Result<String> {
    let version = object["apiVersion"].as_str().context("an object without apiVersion")?;
    let kind = object["kind"].as_str().context("an object without kind")?;
    let plural = match kind {
        "PriorityClass" => "priorityclasses".into(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => match kind {
            "ConfigMap" | "ServiceAccount" | "Role" | "RoleBinding" | "DaemonSet" | "Pod" => {
                bail!("{kind} without a namespace")
            }
            _ => format!("/{root}/{version}/{plural}"),
        },
    })
}

/// A token for a service account, as a pod would have it. If it is bound to a Secret, it is valid
/// while the Secret exists.
///
/// # Errors
/// Those of the server.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    secret: Option<&str>,
) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let bound_object_ref = secret.map(|name| BoundObjectReference {
        kind: Some("Secret".into()),
        api_version: Some("v1".into()),
        name: Some(name.into()),
        uid: None,
    });
    let expiration_seconds = Some(3600);
    let spec = TokenRequestSpec { expiration_seconds, bound_object_ref, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    made.status.map(|status| status.token).context("a token request without a token")
}

/// Sends every document of a file's text.
///
/// # Errors
/// Those of the server, with the document's name.
pub fn apply(plane: &ControlPlane, text: &str, mode: Mode) -> anyhow::Result<usize> {
    let objects = documents(text)?;
    plane.call(0, async |client: Client| {
        for object in &objects {
            send(&client, object, mode).await?;
        }
        Ok(objects.len())
    })
}

/// Writes a token of a service account into a file, for a kubeconfig that names it.
///
/// # Errors
/// Those of the server.
pub fn write_token(plane: &ControlPlane, account: &str, file: &Path) -> anyhow::Result<()> {
    let token =
        plane.call(0, async |client: Client| token(&client, "kube-system", account, None).await)?;
    Ok(std::fs::write(file, token)?)
}

/// The same, but valid only while a Secret exists.
///
/// # Errors
/// Those of the server.
pub fn write_bound_token(
    plane: &ControlPlane,
    account: &str,
    secret: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let bound = Some(secret);
    let token =
        plane.call(0, async |client: Client| token(&client, "kube-system", account, bound).await)?;
    Ok(std::fs::write(file, token)?)
}

/// Deletes a Secret of `kube-system`, which makes its bound tokens invalid.
///
/// # Errors
/// Those of the server.
pub fn delete_secret(plane: &ControlPlane, name: &str) -> anyhow::Result<()> {
    plane.call(0, async |client: Client| {
        let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
        secrets.delete(name, &DeleteParams::default()).await?;
        Ok(())
    })
}

/// A Lease as it is stored.
///
/// # Errors
/// Those of the server.
pub async fn lease(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = tokio::time::timeout(Duration::from_secs(10), api.get_opt(name)).await??;
    Ok(lease.map(serde_json::to_value).transpose()?)
}

/// Changes the current version of a Lease, as `kubectl edit` would.
///
/// # Errors
/// Those of the server.
pub async fn edit(
    client: &Client,
    namespace: &str,
    name: &str,
    change: impl FnOnce(&mut Value),
) -> anyhow::Result<()> {
    let mut change = Some(change);
    let mut wanted: Option<Value> = None;
    // A renewal may come between reading and writing.
    for _ in 0..50 {
        let Some(mut found) = lease(client, namespace, name).await? else { return Ok(()) };
        let current = found["metadata"]["resourceVersion"].clone();
        if let Some(change) = change.take() {
            change(&mut found);
            wanted = Some(found);
        }
        let mut object = wanted.clone().context("nothing to write")?;
        object["metadata"]["resourceVersion"] = current;
        match replace(client, namespace, name, object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return Ok(other.map(drop)?),
        }
    }
    bail!("somebody else writes the Lease all the time")
}

async fn replace(
    client: &Client,
    namespace: &str,
    name: &str,
    lease: Value,
) -> Result<Lease, kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease: Lease = from_value(lease)?;
    api.replace(name, &PostParams::default(), &lease).await
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

/// Creates or overwrites a Lease.
///
/// # Errors
/// Those of the server.
pub async fn put(client: &Client, namespace: &str, name: &str, mut lease: Value) -> anyhow::Result<()> {
    delete(client, namespace, name).await?;
    lease["metadata"]["name"] = name.into();
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &from_value(lease)?).await?;
    Ok(())
}

/// Deletes a Lease, if it exists.
///
/// # Errors
/// Those of the server.
pub async fn delete(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The Events of a namespace.
///
/// # Errors
/// Those of the server.
pub async fn events(client: &Client, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let list: Value = client.request(http::Request::get(path).body(Vec::new())?).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}
