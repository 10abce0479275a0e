//! What kube-vip's settings say about watching the API server of this node. xvip watches it anyway.

use super::{World, gather::Gathered};
use crate::config::{Asked, Config};
use std::path::PathBuf;

/// Reads `control_plane_health_check_*`. `lb_enable` with the method `local` asks for nothing more than
/// what xvip does by itself: the VIP moves when the API server of this node is dead.
pub(super) fn apply(gathered: &mut Gathered, config: &mut Config, world: &dyn World) {
    let number = |gathered: &mut Gathered, id: &'static str| -> Option<u32> {
        let number = gathered.number(id)?;
        let found = u32::try_from(number).ok().filter(|number| *number > 0);
        if found.is_none() {
            gathered.refuse(id, "it must be more than zero", "set 1 or more");
        }
        found
    };
    let period_s = number(gathered, "control_plane_health_check_period_seconds");
    let timeout_s = number(gathered, "control_plane_health_check_timeout_seconds");
    let threshold = number(gathered, "control_plane_health_check_failure_threshold");
    let health = &mut config.health;
    if let Some(period_s) = period_s {
        health.every_ms = u64::from(period_s) * 1_000;
    }
    if let Some(timeout_s) = timeout_s {
        health.timeout_ms = u64::from(timeout_s) * 1_000;
    }
    if let Some(threshold) = threshold {
        health.refusals = threshold;
        health.slow_s = u64::from(threshold) * health.every_ms.div_ceil(1_000);
    }
    // One lost answer is no illness, however long it may take.
    health.slow_s = health.slow_s.max(health.timeout_ms.div_ceil(1_000) + 1);
    let (ca, address) = ("control_plane_health_check_ca_path", "control_plane_health_check_address");
    if let Some(file) = gathered.text(ca).map(str::to_owned) {
        if !world.is_file(&file) {
            gathered.refuse(ca, "there is no such file, or it is empty", "mount the file of the CA");
        }
        config.health.ca = Some(PathBuf::from(file));
    }
    let Some(address) = gathered.text(address).map(str::to_owned) else {
        // The first loopback address may be a proxy that leads to other nodes, such as KubePrism.
        let port = gathered.number("port").unwrap_or(6443);
        let local = super::rules::api::local(port);
        if config.api.endpoints.contains(&local) {
            config.health.api_server = Asked::At(format!("{local}/readyz"));
        }
        return;
    };
    let lower = address.to_lowercase();
    let host = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        let why = "it is no URL with http or https";
        let instead = "set a URL like https://127.0.0.1:6443/readyz";
        return gathered.refuse("control_plane_health_check_address", why, instead);
    }
    config.health.api_server = Asked::At(address);
}
