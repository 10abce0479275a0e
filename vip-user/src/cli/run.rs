//! `xvip run`: check everything, take the lock, start, loop, leave.

use super::{feeds, settings};
use crate::{
    admin::Admin,
    clock,
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi},
    config::Config,
    controller::{Controller, Setup},
    log,
    metrics::Metrics,
    model::{election::Identity, slots::SlotState},
    node::{
        changes::Changes,
        checks, events as node_events, host,
        lock::Lock,
        netlink::Netlink,
        pins::Pins,
        scrape::FromMaps,
        start::{self, Started},
    },
    observers::Observers,
    state::DaemonState,
};
use anyhow::Context as _;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::sync::{mpsc, watch};

/// The context of a failure of the local socket.
const SOCKET: &str = "cannot listen on the local socket";

/// Runs until SIGTERM or SIGINT.
pub async fn run(path: &Path, pin_root: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(path)?;
    config.pin_root = pin_root.unwrap_or(config.pin_root);
    let _log = log::start(&config.log);
    if let Err(error) = host::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let me = identity(&config)?;
    let metrics = Metrics::default();
    let api = reach_api(&config, &metrics).await?;
    let (pins, host_settings) =
        (Pins::new(&config.pin_root, &config.instance), settings::host(&config));
    // No Lease is held yet, so this may take long on a host with very many routes.
    checks::check(&host_settings, &pins, &Netlink::patient()?).await?;
    let netlink = Netlink::open()?;
    let lock = Lock::take(&pins).await.context("cannot take the lock")?;
    // Opened only after the lock: while xvip waits for the lock, nothing reads the changes.
    let changes = Changes::open(&netlink, config.selection().needs_routes())?;
    let started = start::start(&host_settings, &pins, netlink.clone(), &me.node, &me.boot_id);
    if started.is_err() && !pins.exist() {
        // A refused start leaves nothing on the host.
        pins.remove_lock(host::netns_cookie()?);
    }
    let Started { mut kernel, slots } = started?;
    let node = me.node.clone();
    let setup = setup(&config, me, slots, (api.clone(), metrics.clone()));
    let (events, inbox) = mpsc::channel(256);
    let (state, latest) = watch::channel(DaemonState::starting(clock::boot()));
    feeds::follow(&config, &pins, &netlink, changes, (api.clone(), node.clone()), &events)?;
    let mut observers =
        Observers::new(&lock, &config.instance, latest.clone(), events.clone()).context(SOCKET)?;
    observers.admin = config.admin.port.map(|port| {
        let address = SocketAddr::new(config.admin.address, port);
        Admin::new(address, metrics.registry(Box::new(FromMaps(pins.clone()))), latest)
    });
    observers.start()?;
    if config.kernel_log_level > 0 {
        node_events::follow_log(&mut kernel);
    }
    let name = |lease: &String| api.named(lease).full_name();
    let leases: Vec<String> = setup.groups.iter().map(|group| name(&group.lease)).collect();
    metrics.begin(&config.addresses(), &leases);
    tracing::info!(%node, ?leases, vips = ?config.addresses(), "xvip is running");
    Controller::new(kernel, events, setup, state).run(inbox).await;
    // A thread may still work on the interfaces. The end of the process stops it and frees the
    // lock.
    std::mem::forget(lock);
    tracing::info!(%node, "xvip has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Who this process is.
fn identity(config: &Config) -> anyhow::Result<Identity> {
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let boot_id = host::boot_id().context("cannot read the boot id")?;
    Ok(Identity { node, process: uuid::Uuid::new_v4().to_string(), boot_id })
}

/// The way to the Leases.
async fn reach_api(config: &Config, metrics: &Metrics) -> anyhow::Result<LeaseApi> {
    let timing = config.timing();
    let hold = timing.hold(timing.duration_s);
    let endpoints =
        Endpoints::connect(&settings::access(&config.api), &config.addresses(), hold).await?;
    let api = LeaseApi::new(endpoints, &config.lease.namespace, &config.lease.name, hold);
    Ok(api.counted_by(metrics.clone()))
}

/// What the loop needs to know.
fn setup(
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
        metrics,
        recorder,
    }
}
