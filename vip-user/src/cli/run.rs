//! `xvip run`: check everything, take the lock, start, loop, leave.

use super::settings;
use crate::{
    admin::Admin,
    clock,
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi, node as api_node},
    config::{Config, LanCheck},
    controller::{Controller, Event, Setup},
    log,
    metrics::Metrics,
    model::election::Identity,
    node::{
        changes::Changes,
        checks, events as node_events, host, lan,
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
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// The context of a failure of the local socket.
const SOCKET: &str = "cannot listen on the local socket";

/// Runs until SIGTERM or SIGINT.
pub async fn run(path: &Path, pin_root: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(path)?;
    if let Some(pin_root) = pin_root {
        config.pin_root = pin_root;
    }
    let _log = log::start(&config.log);
    if let Err(error) = host::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let boot_id = host::boot_id().context("cannot read the boot id")?;
    let pins = Pins::new(&config.pin_root, &config.instance);
    let timing = config.timing();
    let hold = timing.hold(timing.duration_s);
    let endpoints =
        Endpoints::connect(&settings::access(&config.api), &config.addresses(), hold).await?;
    let metrics = Metrics::default();
    let api = LeaseApi::new(endpoints, &config.lease.namespace, &config.lease.name, hold)
        .counted_by(metrics.clone());
    let host_settings = settings::host(&config);
    // No Lease is held yet, so this may take long on a host with very many routes.
    checks::check(&host_settings, &pins, &Netlink::patient()?).await?;
    let netlink = Netlink::open()?;
    let lock = Lock::take(&pins).await.context("cannot take the lock")?;
    // Opened only after the lock: while xvip waits for the lock, nothing reads the changes.
    let changes = Changes::open(&netlink, config.selection().needs_routes())?;
    let started = start::start(&host_settings, &pins, netlink.clone(), &node, &boot_id);
    if started.is_err() && !pins.exist() {
        // A refused start leaves nothing on the host.
        pins.remove_lock(host::netns_cookie()?);
    }
    let Started { mut kernel, slots } = started?;

    let process = uuid::Uuid::new_v4().to_string();
    let me = Identity { node: node.clone(), process, boot_id };
    let recorder =
        if config.events { Recorder::start(api.clone(), node.clone()) } else { Recorder::default() };
    let setup = Setup {
        api: api.clone(),
        groups: config.groups(),
        slots,
        policy: settings::policy(&config, me),
        on_stop: config.on_stop,
        metrics: metrics.clone(),
        recorder,
    };
    let (events, inbox) = mpsc::channel(256);
    let (state, latest) = watch::channel(DaemonState::starting(clock::boot()));
    follow(&config, &pins, &netlink, changes, (api.clone(), node.clone()), &events)?;
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
    let leases: Vec<String> =
        setup.groups.iter().map(|group| api.named(&group.lease).full_name()).collect();
    metrics.begin(&config.addresses(), &leases);
    tracing::info!(%node, ?leases, vips = ?config.addresses(), "xvip is running");
    Controller::new(kernel, events, setup, state).run(inbox).await;
    // A thread may still work on the interfaces. The end of the process stops it and frees the
    // lock.
    std::mem::forget(lock);
    tracing::info!(%node, "xvip has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts the tasks that send events.
fn follow(
    config: &Config,
    pins: &Pins,
    netlink: &Netlink,
    changes: Changes,
    (api, node): (LeaseApi, String),
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    tokio::spawn(forward_signals(events.clone())?);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(changes.tell(sender));
    tokio::spawn(forward(receiver, events.clone(), |()| Event::HostChanged));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(node_events::follow_claims(pins, sender)?);
    tokio::spawn(forward(receiver, events.clone(), Event::Claim));
    tokio::spawn(api_node::follow(api, node, events.clone(), Event::Node));
    if let Some(targets) = lan_targets(config) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(lan::watch(netlink.clone(), config.selection(), targets, sender));
        tokio::spawn(forward(receiver, events.clone(), Event::Lan));
    }
    Ok(())
}

fn forward_signals(
    events: mpsc::Sender<Event>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = events.send(Event::Stop).await;
    })
}

/// Forwards the values of a task as events.
async fn forward<T>(
    mut receiver: mpsc::Receiver<T>,
    events: mpsc::Sender<Event>,
    event: fn(T) -> Event,
) {
    while let Some(item) = receiver.recv().await {
        if events.send(event(item)).await.is_err() {
            return;
        }
    }
}

fn lan_targets(config: &Config) -> Option<lan::Targets> {
    let LanCheck { gateway, peers, every_ms } = config.lan_check.clone();
    let every = Duration::from_millis(every_ms);
    (gateway || !peers.is_empty()).then_some(lan::Targets { gateway, peers, every })
}
