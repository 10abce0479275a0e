//! The API of a lab: the stand-in or a real one, with one interface.
#![expect(clippy::expect_used, reason = "a lab whose API cannot be asked cannot go on")]

use super::{objects, plane::ControlPlane, proxy::Proxy, proxy::Way};
use crate::standin::{Outage, StandIn};
use kube::Client;
use serde_json::{Value, json};

/// A real API server with a proxy in front of it.
pub struct Real {
    /// The servers.
    pub plane: ControlPlane,
    /// The proxy to which nodes connect.
    pub proxy: Proxy,
}

/// Either of them.
pub enum LabApi {
    /// In this process.
    StandIn(StandIn),
    /// kube-apiserver and etcd.
    Real(Box<Real>),
}

const WHAT: &str = "the API of the lab";

impl LabApi {
    /// The real one.
    pub fn real(&self) -> Option<&Real> {
        match self {
            Self::StandIn(_) => None,
            Self::Real(real) => Some(real),
        }
    }

    /// The real one, to inject faults.
    pub fn real_mut(&mut self) -> Option<&mut Real> {
        match self {
            Self::StandIn(_) => None,
            Self::Real(real) => Some(real),
        }
    }

    /// Begins or ends an outage for all clients.
    pub fn set_outage(&self, outage: Outage) {
        match self {
            Self::StandIn(api) => api.set_outage(outage),
            Self::Real(real) => {
                let stopped = if outage == Outage::Hangs { libc::SIGSTOP } else { libc::SIGCONT };
                real.plane.members[0].signal_api(stopped);
                real.proxy.set(if outage == Outage::Refuses { Way::Refuse } else { Way::Open });
            }
        }
    }

    /// A Lease as it is stored.
    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        match self {
            Self::StandIn(api) => api.lease(namespace, name),
            Self::Real(real) => {
                let asked = real
                    .plane
                    .call(0, async |client: Client| objects::lease(&client, namespace, name).await);
                asked.expect(WHAT)
            }
        }
    }

    /// Writes a Lease as another program would.
    pub fn put(&self, namespace: &str, name: &str, lease: Value) {
        match self {
            Self::StandIn(api) => api.put(namespace, name, lease),
            Self::Real(real) => {
                let done = real.plane.call(0, async |client: Client| {
                    objects::put(&client, namespace, name, lease).await
                });
                done.expect(WHAT);
            }
        }
    }

    /// Changes a Lease as `kubectl edit` would.
    pub fn edit(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value) + Send) {
        match self {
            Self::StandIn(api) => api.edit(namespace, name, change),
            Self::Real(real) => {
                let done = real.plane.call(0, async |client: Client| {
                    objects::edit(&client, namespace, name, change).await
                });
                done.expect(WHAT);
            }
        }
    }

    /// Deletes a Lease as `kubectl delete` would.
    pub fn delete(&self, namespace: &str, name: &str) {
        match self {
            Self::StandIn(api) => api.delete(namespace, name),
            Self::Real(real) => {
                let done = real
                    .plane
                    .call(0, async |client: Client| objects::delete(&client, namespace, name).await);
                done.expect(WHAT);
            }
        }
    }

    /// Kubernetes Events about Leases of `kube-system` so far.
    pub fn reports(&self) -> Vec<Value> {
        match self {
            Self::StandIn(api) => api.reports(),
            Self::Real(real) => {
                let asked = real
                    .plane
                    .call(0, async |client: Client| objects::events(&client, "kube-system").await);
                asked.expect(WHAT)
            }
        }
    }

    /// Cordons or uncordons a Node.
    pub fn cordon(&self, node: &str, cordoned: bool) {
        match self {
            Self::StandIn(api) => api.cordon(node, cordoned),
            Self::Real(real) => {
                let object = json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
                    "spec": {"unschedulable": cordoned},
                });
                let done = real.plane.call(0, async |client: Client| {
                    objects::send(&client, &object, objects::Mode::Store).await
                });
                done.expect(WHAT);
            }
        }
    }

    /// Gives a Node these labels.
    pub fn set_labels(&self, node: &str, labels: &[(&str, &str)]) {
        match self {
            Self::StandIn(api) => api.set_labels(node, labels),
            Self::Real(real) => {
                let labels: serde_json::Map<String, Value> =
                    labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                let object = json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels},
                });
                let done = real.plane.call(0, async |client: Client| {
                    objects::send(&client, &object, objects::Mode::Store).await
                });
                done.expect(WHAT);
            }
        }
    }
}
