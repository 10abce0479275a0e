//! Checks the configuration as every other one is checked, and blames the name that was given.

use crate::{adapter::gather::Gathered, config::Config};

pub(in crate::adapter) fn apply(gathered: &mut Gathered, config: &Config) {
    for refused in config.check_all() {
        let Some(id) = name_of(gathered, refused.field) else {
            let why = format!("{} cannot be used: {}", refused.value, refused.allowed);
            gathered.refuse(refused.field, why, "");
            continue;
        };
        // The first reason is the nearest one.
        if gathered.refused.iter().any(|earlier| earlier.name == id) {
            continue;
        }
        // Without a VIP nothing else could be said that was not said.
        if refused.field == "vips" && config.vips.is_empty() {
            continue;
        }
        // A VIP that can be none, such as 127.0.0.1, was refused already.
        if is_local_vip(config) && matches!(refused.field, "api.endpoints" | "health.api_server") {
            continue;
        }
        let (why, instead) = match refused.field {
            "lease.renew_ms" => timers(gathered, config),
            _ => (
                format!("`{}`: {} cannot be used", refused.field, refused.value),
                format!("allowed: {}", refused.allowed),
            ),
        };
        gathered.refuse(id, why, instead);
    }
}

/// Whether the address of this node's own API server is a VIP.
fn is_local_vip(config: &Config) -> bool {
    config.vips.iter().any(|vip| vip.address.is_loopback())
}

/// Why the two timers do not go together. One of them may not be set.
fn timers(gathered: &Gathered, config: &Config) -> (String, String) {
    let timing = config.timing();
    let hold = timing.hold(timing.duration_s).as_millis();
    let (duration, retry) = (timing.duration_s, timing.renew_every.as_millis());
    let default = |id| if gathered.text(id).is_none() { " (the default)" } else { "" };
    let why = format!(
        "vip_leaseduration={duration}{} gives a fence of {hold} ms, and two renewals, {retry} ms apart \
         by vip_retryperiod{}, do not fit into it",
        default("vip_leaseduration"),
        default("vip_retryperiod"),
    );
    let most = hold / 2_000;
    let shorter = if most > 0 { format!("vip_retryperiod={most}, or ") } else { String::new() };
    (why, format!("set {shorter}a longer vip_leaseduration"))
}

/// What else names an API server: a variable of the manifest.
const KUBELET_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// kube-vip's name for a field.
fn name_of(gathered: &Gathered, field: &str) -> Option<&'static str> {
    let lease_has_namespace = gathered.text("vip_leasename").is_some_and(|name| name.contains('/'));
    let id = match field {
        "vips" if gathered.text("address").is_none() && gathered.text("vip_address").is_some() => {
            "vip_address"
        }
        "vips" => "address",
        "interfaces" => "vip_interface",
        "node" => "vip_nodename",
        "lease.name" => "vip_leasename",
        "lease.namespace" if lease_has_namespace => "vip_leasename",
        "lease.namespace" => "cp_namespace",
        "lease.renew_ms" => "vip_retryperiod",
        "lease.duration_s" | "lease.margin_ms" => "vip_leaseduration",
        "announce.refresh_s" => "vip_arpRate",
        "api.endpoints" if gathered.text("kubernetes_addr").is_none() => KUBELET_HOST,
        "api.endpoints" => "kubernetes_addr",
        "health.api_server" => "control_plane_health_check_address",
        "health.every_ms" => "control_plane_health_check_period_seconds",
        "health.timeout_ms" => "control_plane_health_check_timeout_seconds",
        "health.refusals" | "health.slow_s" => "control_plane_health_check_failure_threshold",
        "admin.port" => "prometheus_server",
        "admin.health_port" => "health_check_port",
        _ => return None,
    };
    Some(id)
}
