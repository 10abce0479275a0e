//! `xvip run`: check everything, take the lock, start, loop, leave.

use super::{
    dump,
    feeds::{self, Stop},
    parts, settings,
};
use crate::{
    clock,
    config::Config,
    controller::{Controller, Event},
    log,
    metrics::Metrics,
    node::{
        changes::Changes,
        checks, host,
        lock::Lock,
        netlink::Netlink,
        pins::Pins,
        reports,
        settings::Settings,
        start::{self, Started},
    },
    state::DaemonState,
};
use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::sync::{mpsc, watch};

/// Runs until SIGTERM or SIGINT.
pub async fn run(path: &Path, pin_root: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(path)?;
    config.pin_root = pin_root.unwrap_or(config.pin_root);
    let _log = log::start(&config.log);
    Box::pin(hold(config, Before::default())).await
}

/// What was begun before the daemon starts.
#[derive(Default)]
pub(super) struct Before {
    /// The signals, if they are caught already.
    pub stop: Option<Stop>,
    /// Subjects and texts of problems that last as long as the process.
    pub problems: Vec<(&'static str, String)>,
}

/// Holds the VIPs of a configuration until SIGTERM or SIGINT. The log has begun.
pub(super) async fn hold(config: Config, before: Before) -> anyhow::Result<ExitCode> {
    let Before { mut stop, problems } = before;
    let (state, latest) = watch::channel(DaemonState::starting(clock::boot()));
    let pins = Pins::new(&config.pin_root, &config.instance);
    tokio::spawn(dump::follow(dump::catch()?, pins.clone(), latest.clone()));
    if let Err(error) = host::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let (me, metrics) = (parts::identity(&config)?, Metrics::default());
    let api = parts::reach_api(&config, &metrics).await?;
    let host_settings = settings::host(&config);
    let ready = ready(&host_settings, &pins);
    let (netlink, lock) = match &mut stop {
        None => ready.await?,
        Some(stop) => tokio::select! {
            ready = ready => ready?,
            () = stop.asked() => return Ok(ExitCode::SUCCESS),
        },
    };
    // Opened only after the lock: while xvip waits for the lock, nothing reads the changes.
    let changes = Changes::open(&netlink, config.selection().needs_routes())?;
    let started = start::start(&host_settings, &pins, netlink.clone(), &me.node, &me.boot_id);
    if started.is_err() && !pins.exist() {
        // A refused start leaves nothing on the host.
        pins.remove_lock(host::netns_cookie()?);
    }
    let Started { mut kernel, slots } = started?;
    let node = me.node.clone();
    let setup = parts::setup(&config, me, slots, (api.clone(), metrics.clone()));
    let (events, inbox) = mpsc::channel(256);
    let stop = stop.map_or_else(Stop::new, Ok)?;
    feeds::follow(&config, &pins, &netlink, changes, (api, node.clone()), (stop, &events))?;
    for (subject, why) in problems {
        let _ = events.send(Event::Problem(subject, Some(why))).await;
    }
    parts::observe(&config, &lock, &pins, (&metrics, latest), events.clone())?;
    if config.kernel_log_level > 0 {
        reports::follow_log(&mut kernel);
    }
    let leases = setup.lease_names();
    metrics.begin(&config.addresses(), &leases);
    tracing::info!(%node, ?leases, vips = ?config.addresses(), "xvip is running");
    tracing::info!(?leases, "Starting Leader Election, Attempting to acquire lease");
    Controller::new(kernel, events, setup, state).run(inbox).await;
    // A thread may still work on the interfaces. The end of the process stops it and frees the
    // lock.
    std::mem::forget(lock);
    tracing::info!(%node, "xvip has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Checks the host, and waits for an earlier process to end.
async fn ready(settings: &Settings, pins: &Pins) -> anyhow::Result<(Netlink, Lock)> {
    // No Lease is held yet, so this may take long on a host with very many routes.
    checks::check(settings, pins, &Netlink::patient()?).await?;
    let netlink = Netlink::open()?;
    Ok((netlink, Lock::take(pins).await.context("cannot take the lock")?))
}
