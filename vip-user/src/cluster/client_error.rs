//! Errors of building the clients of the API.

use std::time::Duration;

/// Why no client could be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("configuration field `api.kubeconfig`: {path} cannot be used: {why}")]
    Unusable {
        /// The path of the kubeconfig.
        path: String,
        /// The reason.
        why: String,
    },
    /// The proxy for an endpoint cannot be used.
    #[error("{endpoint}: {why}")]
    Proxy {
        /// The URL of the endpoint.
        endpoint: String,
        /// The reason.
        why: String,
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
        /// The configured value.
        endpoint: String,
    },
    /// All endpoints are VIPs.
    #[error(
        "configuration field `api.endpoints`: all of them are VIPs that xvip itself would have to bring up"
    )]
    OnlyVips,
    /// The client cannot be built.
    #[error("cannot make a client for {endpoint}: {why}")]
    Build {
        /// The URL of the endpoint.
        endpoint: String,
        /// The reason.
        why: String,
    },
    /// The credentials could not be read within this time.
    #[error("the credentials could not be read within {0:?}")]
    Timeout(Duration),
}
