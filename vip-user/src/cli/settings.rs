//! Turns the configuration into the settings of each part.

use crate::{
    cluster::client::Access,
    config::{ApiConfig, Config, OnLoss},
    model::{agent::Policy, lease::election::Identity},
    node::settings::Settings,
};
use std::time::Duration;

/// Settings of the API client.
pub fn access(config: &ApiConfig) -> Access {
    let ApiConfig { kubeconfig, endpoints, tls_server_name } = config.clone();
    Access { kubeconfig, endpoints, tls_server_name }
}

/// Settings of the host part.
pub fn host(config: &Config) -> Settings {
    Settings {
        selection: config.selection(),
        leases: config.groups().into_iter().map(|group| (group.lease, group.vips)).collect(),
        namespace: config.lease.namespace.clone(),
        attach: config.attach.clone(),
        placement: config.placement,
        margin: config.timing().margin,
        kernel_log_level: config.kernel_log_level,
        drops_on_loss: config.on_loss == OnLoss::Drop,
    }
}

/// What the operator has chosen for the agent.
pub fn policy(config: &Config, me: Identity) -> Policy {
    Policy {
        me,
        timing: config.timing(),
        refresh: Duration::from_secs(config.announce.refresh_s),
        conflict: config.conflict,
        foreign_conflict: config.lease.foreign_conflict,
        guard_neighbours: config.guard_neighbours,
        placement: config.placement,
        asks_first: true,
    }
}
