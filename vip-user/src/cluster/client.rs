//! One client per API server. Credentials come from a kubeconfig or the pod's service account; the
//! servers from the configuration, because admin.conf on kubeadm nodes points at the VIP itself.

use crate::config::{ApiConfig, host_address, server};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{net::IpAddr, time::Duration};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("configuration field `api.kubeconfig`: {path} cannot be used")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// There is no kubeconfig and no service account.
    #[error(
        "configuration field `api.kubeconfig` is not set and this is not a pod with a service account"
    )]
    ServiceAccount(#[source] kube::config::InClusterError),
    /// An endpoint is not a URL.
    #[error(
        "configuration field `api.endpoints`: {endpoint} cannot be used: a URL like https://10.0.0.1:6443 is needed"
    )]
    Endpoint {
        /// The value.
        endpoint: String,
    },
    /// Only VIPs are left.
    #[error(
        "configuration field `api.endpoints`: all of them are VIPs that xvip itself would have to bring up"
    )]
    OnlyVips,
    /// The client cannot be built.
    #[error("cannot make a client for {endpoint}")]
    Build {
        /// The server.
        endpoint: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

/// Says which endpoints are left out because they are VIPs.
pub(super) fn warn_of_vips(config: &ApiConfig, vips: &[IpAddr]) {
    for endpoint in &config.endpoints {
        if vips.iter().any(|vip| names(endpoint, *vip)) {
            tracing::warn!(%endpoint, "API endpoint is a VIP of this configuration and is left out");
        }
    }
}

fn names(endpoint: &str, vip: IpAddr) -> bool {
    server(endpoint).and_then(|uri| host_address(&uri)) == Some(vip)
}

/// Clients in the configured order, each with its endpoint.
pub async fn connect(
    config: &ApiConfig,
    vips: &[IpAddr],
    connect_timeout: Duration,
) -> Result<Vec<(String, Client)>, ClientError> {
    let base = credentials(config).await?;
    let mut clients = Vec::new();
    for endpoint in &config.endpoints {
        let invalid = || ClientError::Endpoint { endpoint: endpoint.clone() };
        let uri = server(endpoint).ok_or_else(invalid)?;
        if host_address(&uri).is_some_and(|ip| vips.contains(&ip)) {
            continue;
        }
        let mut config_of = base.clone();
        config_of.tls_server_name = config.tls_server_name.clone().or(config_of.tls_server_name);
        config_of.cluster_url = uri;
        config_of.connect_timeout = Some(connect_timeout);
        // Every request has a time limit of its own; a watch has none.
        config_of.read_timeout = None;
        config_of.write_timeout = None;
        config_of.default_retry = false;
        let build = |source| ClientError::Build { endpoint: endpoint.clone(), source };
        clients.push((endpoint.clone(), Client::try_from(config_of).map_err(build)?));
    }
    if clients.is_empty() { Err(ClientError::OnlyVips) } else { Ok(clients) }
}

async fn credentials(config: &ApiConfig) -> Result<kube::Config, ClientError> {
    let Some(path) = &config.kubeconfig else {
        return kube::Config::incluster().map_err(ClientError::ServiceAccount);
    };
    let refuse = |source| ClientError::Kubeconfig { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(refuse)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(refuse)
}
