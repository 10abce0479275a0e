//! Builds the parts of the daemon from the configuration: its identity, the client of the API, the
//! setup of the loop, and the thread that serves `xvip status` and the admin port.

use super::settings;
use crate::{
    admin::{Admin, HealthPort},
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi},
    config::Config,
    controller::{Event, Setup},
    metrics::Metrics,
    model::{lease::election::Identity, slots::SlotState},
    node::{host, lock::Lock, pins::Pins, scrape::FromMaps},
    observers::Observers,
    state::DaemonState,
};
use anyhow::Context as _;
use std::net::SocketAddr;
use tokio::sync::{mpsc, watch};

/// The context of a failure of the local socket.
const SOCKET: &str = "cannot listen on the local socket";

/// Who this process is.
pub(super) fn identity(config: &Config) -> anyhow::Result<Identity> {
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let boot_id = host::boot_id().context("cannot read the boot id")?;
    Ok(Identity { node, process: uuid::Uuid::new_v4().to_string(), boot_id })
}

/// The way to the Leases.
pub(super) async fn reach_api(config: &Config, metrics: &Metrics) -> anyhow::Result<LeaseApi> {
    let timing = config.timing();
    let hold = timing.hold(timing.duration_s);
    let endpoints =
        Endpoints::connect(&settings::access(&config.api), &config.addresses(), hold).await?;
    let api = LeaseApi::new(endpoints, &config.lease.namespace, &config.lease.name, hold);
    Ok(api.counted_by(metrics.clone()))
}

/// What the loop needs to know.
pub(super) fn setup(
    config: &Config,
    me: Identity,
    slots: Vec<(u32, SlotState)>,
    (api, metrics): (LeaseApi, Metrics),
) -> Setup {
    let recorder =
        if config.events { Recorder::start(api.clone(), me.node.clone()) } else { Recorder::default() };
    Setup {
        api,
        groups: config.groups(),
        slots,
        policy: settings::policy(config, me),
        on_stop: config.on_stop,
        port: config.visit_port(),
        metrics,
        recorder,
    }
}

/// Starts the thread that answers `xvip status`, probes and scrapes.
pub(super) fn observe(
    config: &Config,
    lock: &Lock,
    pins: &Pins,
    (metrics, latest): (&Metrics, watch::Receiver<DaemonState>),
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let mut observers = Observers::new(lock, pins, latest.clone(), events).context(SOCKET)?;
    observers.health = config.admin.health_port.map(|port| HealthPort { port, latest: latest.clone() });
    observers.admin = config.admin.port.map(|port| {
        let address = SocketAddr::new(config.admin.address, port);
        Admin::new(address, metrics.registry(Box::new(FromMaps(pins.clone()))), latest)
    });
    observers.start()
}
