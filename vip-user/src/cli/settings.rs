//! Turns the configuration into the settings of each part.

use crate::{
    cluster::{client::Access, events::Recorder},
    config::{ApiConfig, Config, OnLoss},
    controller::{LeaseSetup, Setup},
    metrics::Metrics,
    model::election::Identity,
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

/// Settings of the loop.
pub fn loop_setup(
    config: &Config,
    me: Identity,
    leases: Vec<LeaseSetup>,
    metrics: Metrics,
    recorder: Recorder,
) -> Setup {
    Setup {
        leases,
        timing: config.timing(),
        on_stop: config.on_stop,
        refresh: Duration::from_secs(config.announce.refresh_s),
        me,
        conflict: config.conflict,
        guard_neighbours: config.guard_neighbours,
        placement: config.placement,
        metrics,
        recorder,
    }
}
