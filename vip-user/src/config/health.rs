//! Settings of the checks of this node's API server and kubelet.

use super::Config;
use crate::{
    model::health::{Limits, Service},
    server_url::{host_address, server},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// The kubelet's own health port. It listens on loopback and has no password.
const KUBELET: &str = "http://127.0.0.1:10248/healthz";
/// Where an API server says whether it can serve.
const READY: &str = "/readyz";

/// Which services of this node are asked whether they are well, and how.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// The API server: `auto` (`/readyz` of the first of `api.endpoints` on loopback), `off`, or a URL.
    pub api_server: Asked,
    /// The kubelet: `auto` (port 10248 on loopback, once it has answered), `off`, or a URL.
    pub kubelet: Asked,
    /// Time between two questions, in milliseconds.
    pub every_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// After this many refused connections in a row to the API server this node is `unable`.
    pub refusals: u32,
    /// After so many seconds without a good answer of the API server this node is `doubtful`.
    pub slow_s: u64,
    /// After so many seconds with good answers alone this node is `able` again.
    pub good_s: u64,
    /// A file with the CA of the API server's certificate. Default: that of the credentials.
    pub ca: Option<PathBuf>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            api_server: Asked::Auto,
            kubelet: Asked::Auto,
            every_ms: 1_000,
            timeout_ms: 2_000,
            refusals: 3,
            slow_s: 6,
            good_s: 10,
            ca: None,
        }
    }
}

/// Where a service is asked.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(from = "String", into = "String")]
pub enum Asked {
    /// Where it usually listens.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// At this URL.
    At(String),
}

impl From<String> for Asked {
    fn from(word: String) -> Self {
        match word.as_str() {
            "auto" => Self::Auto,
            "off" => Self::Off,
            _ => Self::At(word),
        }
    }
}

impl From<Asked> for String {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Auto => "auto".into(),
            Asked::Off => "off".into(),
            Asked::At(url) => url,
        }
    }
}

impl Config {
    /// Where a service of this node is asked; `None`: it is not.
    pub fn asked_at(&self, service: Service) -> Option<Uri> {
        let (asked, path) = match service {
            Service::ApiServer => (&self.health.api_server, READY),
            Service::Kubelet => (&self.health.kubelet, "/healthz"),
        };
        match (asked, service) {
            (Asked::Off, _) => None,
            (Asked::At(url), _) => server(url).and_then(|uri| with_path(uri, path)),
            (Asked::Auto, Service::Kubelet) => server(KUBELET),
            (Asked::Auto, Service::ApiServer) => {
                let mut servers = self.api.endpoints.iter().filter_map(|url| server(url));
                let local = servers.find(is_loopback)?;
                with_path(local, path)
            }
        }
    }

    /// How long a service may be ill before that counts.
    pub fn health_limits(&self, service: Service) -> Limits {
        let HealthConfig { refusals, slow_s, good_s, .. } = self.health;
        match service {
            Service::ApiServer => Limits {
                refusals,
                slow: Duration::from_secs(slow_s),
                good: Duration::from_secs(good_s),
                ..Limits::of(service)
            },
            Service::Kubelet => Limits::of(service),
        }
    }
}

fn is_loopback(uri: &Uri) -> bool {
    match host_address(uri) {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => uri.host() == Some("localhost"),
    }
}

/// The URL, with `path` if it has none of its own.
fn with_path(uri: Uri, path: &'static str) -> Option<Uri> {
    if uri.path() != "/" {
        return Some(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    Uri::from_parts(parts).ok()
}
