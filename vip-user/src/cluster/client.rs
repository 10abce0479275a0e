//! One client per API server. Credentials come from a kubeconfig or the pod's service account. The
//! servers come from the configuration, because admin.conf on kubeadm nodes points at the VIP itself.

use super::{
    client_error::ClientError,
    kubeconfig::{self, Credentials},
    proxy::proxy_for,
    words::words,
};
use crate::server_url::{host_address, server};
use http::Uri;
use kube::{Client, config::AuthInfo};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// The time limit for reading the credentials again.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for resolving a name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// How the API is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig with the credentials; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// API servers, as URLs, in the order in which they are tried.
    pub endpoints: Vec<String>,
    /// The name that must be in a server's certificate; `None`: the name in the kubeconfig, else
    /// `kubernetes`.
    pub tls_server_name: Option<String>,
}

/// Warns of the endpoints that are left out because they are VIPs.
pub(super) fn warn_of_vips(config: &Access, vips: &[IpAddr]) {
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
    config: &Access,
    vips: &[IpAddr],
    connect_timeout: Duration,
) -> Result<Vec<(String, Client)>, ClientError> {
    let Credentials { config: base, proxy } = credentials(config).await?;
    let mut clients = Vec::new();
    for endpoint in &config.endpoints {
        let invalid = || ClientError::Endpoint { endpoint: endpoint.clone() };
        let uri = server(endpoint).ok_or_else(invalid)?;
        if host_address(&uri).is_some_and(|ip| vips.contains(&ip)) {
            continue;
        }
        let refuse = |why| ClientError::Proxy { endpoint: endpoint.clone(), why };
        let proxy = proxy_for(&uri, proxy.as_deref(), variable).map_err(refuse)?;
        let client = build(config, base.clone(), (endpoint, uri, proxy), connect_timeout)?;
        clients.push((endpoint.clone(), client));
    }
    if clients.is_empty() { Err(ClientError::OnlyVips) } else { Ok(clients) }
}

/// Builds the client of one server.
fn build(
    access: &Access,
    mut config: kube::Config,
    (endpoint, uri, proxy): (&str, Uri, Option<Uri>),
    connect_timeout: Duration,
) -> Result<Client, ClientError> {
    config.proxy_url = proxy;
    config.tls_server_name = server_name(access, config.tls_server_name);
    if uri.scheme_str() == Some("http") || config.accept_invalid_certs {
        // No certificate is verified, so no bundle of CAs is needed; the image has none.
        config.root_cert.get_or_insert_default();
    }
    config.cluster_url = uri;
    config.connect_timeout = Some(connect_timeout);
    // Every request has its own time limit, and a watch has none.
    config.read_timeout = None;
    config.write_timeout = None;
    config.default_retry = false;
    let failed = |error| ClientError::Build { endpoint: endpoint.into(), why: words(&error) };
    Client::try_from(config).map_err(failed)
}

/// A client of one server on this host, without a proxy. The credentials are read on another thread.
/// They are left out if the server's certificate is not checked: any process may listen on loopback.
pub(super) async fn direct(
    access: Access,
    endpoint: String,
    connect_timeout: Duration,
) -> Result<Client, ClientError> {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let Credentials { mut config, .. } = runtime.block_on(credentials(&access))?;
        if config.accept_invalid_certs {
            config.auth_info = AuthInfo::default();
        }
        let invalid = || ClientError::Endpoint { endpoint: endpoint.clone() };
        let uri = server(&endpoint).ok_or_else(invalid)?;
        build(&access, config, (&endpoint, uri, None), connect_timeout)
    };
    match tokio::time::timeout(READ_LIMIT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(client)) => client,
        Ok(Err(_)) | Err(_) => Err(ClientError::Timeout(READ_LIMIT)),
    }
}

#[expect(clippy::disallowed_methods, reason = "proxies are configured by environment everywhere")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The name that the certificate of every API server contains, whatever its address.
const SERVER_NAME: &str = "kubernetes";

/// The name to verify: the setting, else the kubeconfig's, else the default.
pub(super) fn server_name(config: &Access, of_kubeconfig: Option<String>) -> Option<String> {
    config.tls_server_name.clone().or(of_kubeconfig).or_else(|| Some(SERVER_NAME.into()))
}

/// The same as [`connect`] on another thread, because a kubeconfig may name a program that must be run
/// for credentials.
pub(super) async fn connect_aside(
    config: Access,
    vips: Vec<IpAddr>,
    connect_timeout: Duration,
) -> Result<Vec<(String, Client)>, ClientError> {
    let runtime = tokio::runtime::Handle::current();
    let work = move || runtime.block_on(connect(&config, &vips, connect_timeout));
    let read = tokio::time::timeout(READ_LIMIT, tokio::task::spawn_blocking(work)).await;
    match read {
        Ok(Ok(clients)) => clients,
        Ok(Err(_)) | Err(_) => Err(ClientError::Timeout(READ_LIMIT)),
    }
}

async fn credentials(config: &Access) -> Result<Credentials, ClientError> {
    if let Some(path) = &config.kubeconfig {
        return kubeconfig::read(path).await;
    }
    let config = kube::Config::incluster().map_err(ClientError::ServiceAccount)?;
    Ok(Credentials { config, proxy: None })
}

/// The endpoints whose names resolve to VIPs only: this node would wait for an API server that waits
/// for this node. A name that cannot be resolved in time does not count.
pub(super) async fn named_vips(config: &Access, vips: &[IpAddr]) -> Vec<String> {
    let mut found = Vec::new();
    for endpoint in &config.endpoints {
        let Ok(uri) = endpoint.parse::<http::Uri>() else { continue };
        let Some(host) = uri.host().filter(|_| host_address(&uri).is_none()) else { continue };
        let look_up = tokio::net::lookup_host((host, 0));
        let Ok(Ok(resolved)) = tokio::time::timeout(RESOLVE_LIMIT, look_up).await else { continue };
        let resolved: Vec<IpAddr> = resolved.map(|socket| socket.ip()).collect();
        if !resolved.is_empty() && resolved.iter().all(|ip| vips.contains(ip)) {
            found.push(endpoint.clone());
        }
    }
    found
}
