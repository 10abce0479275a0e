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
        if refused.field == "api.endpoints" && gathered.text("kubernetes_addr").is_none() {
            continue;
        }
        let why = format!("`{}`: {} cannot be used", refused.field, refused.value);
        gathered.refuse(id, why, format!("allowed: {}", refused.allowed));
    }
}

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
