//! Why there is no client of the API.

use std::time::Duration;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("configuration field `api.kubeconfig`: {path} cannot be used: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// Why, in words.
        why: String,
    },
    /// The proxy for an endpoint cannot be used.
    #[error("{endpoint}: {why}")]
    Proxy {
        /// The server.
        endpoint: String,
        /// Why, in words.
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
        /// The value.
        endpoint: String,
    },
    /// Only VIPs are left.
    #[error(
        "configuration field `api.endpoints`: all of them are VIPs that xvip itself would have to bring up"
    )]
    OnlyVips,
    /// The client cannot be built.
    #[error("cannot make a client for {endpoint}: {why}")]
    Build {
        /// The server.
        endpoint: String,
        /// Why, in words.
        why: String,
    },
    /// Reading the credentials has no end.
    #[error("the credentials could not be read within {0:?}")]
    Timeout(Duration),
}
