//! What kube-vip's settings say about watching the API server of this node.

use super::gather::Gathered;

/// How the API server of the node is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthWishes {
    /// Whether the settings ask for it: an address to ask, or a load balancer that gives the VIP up.
    pub asked: bool,
    /// `auto`, or the URL to ask.
    pub api_server: String,
    /// Milliseconds between two questions; `None`: xvip's default.
    pub every_ms: Option<u64>,
    /// Milliseconds until a question counts as unanswered; `None`: xvip's default.
    pub timeout_ms: Option<u64>,
    /// How many failures in a row count; `None`: xvip's default.
    pub refusals: Option<u32>,
    /// The file with the certificate authorities of the URL.
    pub ca: Option<String>,
}

/// Reads `control_plane_health_check_*`, and `lb_enable`. With the method `local` the latter only asks
/// for the VIP to move when the API server of this node is dead.
pub(super) fn wishes(gathered: &mut Gathered) -> HealthWishes {
    let number = |gathered: &mut Gathered, id: &'static str| -> Option<u32> {
        let number = gathered.number(id)?;
        let found = u32::try_from(number).ok().filter(|number| *number > 0);
        if found.is_none() {
            gathered.refuse(id, "it must be more than zero", "set 1 or more");
        }
        found
    };
    let every = number(gathered, "control_plane_health_check_period_seconds");
    let timeout = number(gathered, "control_plane_health_check_timeout_seconds");
    let refusals = number(gathered, "control_plane_health_check_failure_threshold");
    let address = gathered.text("control_plane_health_check_address").map(str::to_owned);
    if let Some(address) = &address {
        let lower = address.to_lowercase();
        let host = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            let why = "it is no URL with http or https";
            let instead = "set a URL like https://127.0.0.1:6443/readyz";
            gathered.refuse("control_plane_health_check_address", why, instead);
        }
    }
    let millis = |seconds: Option<u32>| seconds.map(|seconds| u64::from(seconds) * 1_000);
    let balances = gathered.truth("lb_enable") && gathered.truth("cp_enable");
    HealthWishes {
        asked: balances || address.is_some(),
        api_server: address.unwrap_or_else(|| "auto".into()),
        every_ms: millis(every),
        timeout_ms: millis(timeout),
        refusals,
        ca: gathered.text("control_plane_health_check_ca_path").map(str::to_owned),
    }
}
