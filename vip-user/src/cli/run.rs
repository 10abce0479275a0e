//! `xvip run`: check everything, take the lock, start, loop, leave.

use crate::{
    admin,
    cli::table::has_colours,
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi, node as api_node},
    config::{Config, LanCheck, LogConfig, LogFormat, LogLevel},
    controller::{Controller, Event, LeaseSetup, Setup},
    metrics::Metrics,
    model::election::Identity,
    node::{
        clock, host,
        kernel::Kernel,
        lan,
        lock::Lock,
        netlink::{Changes, Netlink, next_change},
        pins::Pins,
        scrape::FromMaps,
        start::{self, Started},
    },
    state::DaemonState,
};
use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use std::{
    io,
    net::SocketAddr,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt as _, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing_subscriber::EnvFilter;
use vip_common::abi::Claim;

/// How often a busy lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Claims that are taken out of the ring buffer at once, and the pause after it.
const CLAIMS_AT_ONCE: usize = 16;
const CLAIMS_PAUSE: Duration = Duration::from_millis(50);

/// Runs until SIGTERM or SIGINT.
pub async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    start_log(&config.log);
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let boot_id = host::boot_id().context("cannot read the boot id")?;
    let pins = Pins::new(&config.pin_root, &config.instance);
    let timing = config.timing();
    let hold = timing.hold(timing.duration_s);
    let endpoints = Endpoints::connect(&config.api, &config.addresses(), hold).await?;
    let metrics = Metrics::default();
    let api = LeaseApi::new(endpoints, &config.lease.namespace, &config.lease.name, hold)
        .counted_by(metrics.clone());
    let (netlink, changes) = Netlink::open(config.selection().needs_routes())?;
    start::check(&config, &pins, &netlink).await?;
    let lock = take_lock(&config.instance).await?;
    let started = start::start(&config, &pins, netlink.clone(), changes, &node, &boot_id)?;
    let Started { mut kernel, changes, leases } = started;

    let process = uuid::Uuid::new_v4().to_string();
    let me = Identity { node: node.clone(), process, boot_id };
    let leases = config.groups().into_iter().zip(leases).map(|(group, found)| LeaseSetup {
        api: api.named(&group.lease),
        slot: found.slot,
        generation: found.generation,
        backed: found.backed,
        vips: group.vips,
        nodes: group.nodes,
    });
    let mut setup = Setup::new(&config, me, leases.collect());
    setup.metrics = metrics.clone();
    if config.events {
        setup.recorder = Recorder::start(api.clone(), node.clone());
    }
    let (events, inbox) = mpsc::channel(256);
    let (state, latest) = watch::channel(DaemonState::starting(clock::boot()));
    tokio::spawn(forward_signals(events.clone())?);
    tokio::spawn(forward_changes(changes, events.clone()));
    tokio::spawn(forward_claims(&pins, events.clone())?);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(api_node::follow(api.clone(), node.clone(), sender));
    tokio::spawn(forward(receiver, events.clone(), Event::Node));
    if let Some(targets) = lan_targets(&config) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(lan::watch(netlink.clone(), config.selection(), targets, sender));
        tokio::spawn(forward(receiver, events.clone(), Event::Lan));
    }
    if let Some(port) = config.admin.port {
        let address = SocketAddr::new(config.admin.address, port);
        let registry = metrics.registry(Box::new(FromMaps(pins.clone())));
        tokio::spawn(admin::serve(address, registry, latest.clone()));
    }
    tokio::spawn(serve_state(lock.listener()?, latest)?);
    if config.kernel_log_level > 0 {
        log_from_kernel(&mut kernel);
    }
    let leases: Vec<String> = setup.leases.iter().map(|lease| lease.api.full_name()).collect();
    metrics.begin(&config.addresses(), &leases);
    tracing::info!(%node, ?leases, vips = ?config.addresses(), "xvip is running");
    Controller::new(kernel, events, setup, state).run(inbox).await;
    tracing::info!(%node, "xvip has stopped");
    Ok(ExitCode::SUCCESS)
}

fn start_log(config: &LogConfig) {
    let level = match config.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(has_colours(&io::stderr()));
    match config.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

async fn take_lock(instance: &str) -> anyhow::Result<Lock> {
    let mut told = false;
    loop {
        if let Some(lock) = Lock::try_take(instance).context("cannot take the lock")? {
            return Ok(lock);
        }
        if !told {
            tracing::warn!(instance, "another xvip runs here; waiting for it to end");
            told = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
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

async fn forward_changes(mut changes: Changes, events: mpsc::Sender<Event>) {
    while next_change(&mut changes).await {
        if events.send(Event::HostChanged).await.is_err() {
            return;
        }
        // A change seldom comes alone. One look serves the rest of a burst, and must come after it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut more = false;
        while changes.try_recv().is_ok() {
            more = true;
        }
        if more && events.send(Event::HostChanged).await.is_err() {
            return;
        }
    }
}

/// Hands on what a task brings.
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

fn forward_claims(
    pins: &Pins,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let map = MapData::from_pin(pins.map("CLAIMS")).and_then(Map::from_map_data);
    let ring = map.and_then(RingBuf::<MapData>::try_from).context("cannot open map CLAIMS")?;
    let mut ring = when_readable(ring).context("cannot wait for claims")?;
    Ok(async move {
        while let Ok(mut ready) = ring.readable_mut().await {
            let ring = ready.get_inner_mut();
            let mut claims = Vec::new();
            while claims.len() < CLAIMS_AT_ONCE
                && let Some(item) = ring.next()
            {
                claims.extend(bytemuck::try_pod_read_unaligned::<Claim>(&item));
            }
            if claims.len() < CLAIMS_AT_ONCE {
                ready.clear_ready();
            }
            for claim in claims {
                if events.send(Event::Claim(claim)).await.is_err() {
                    return;
                }
            }
            // A flood of claims must not crowd out renewals; what does not fit is counted as lost.
            tokio::time::sleep(CLAIMS_PAUSE).await;
        }
    })
}

/// Answers everyone who connects to the lock with the daemon's state, as JSON.
fn serve_state(
    listener: UnixListener,
    latest: watch::Receiver<DaemonState>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot listen on the lock")?;
    Ok(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let state = serde_json::to_vec(&*latest.borrow()).unwrap_or_default();
            // A reader that has gone away does not matter.
            let _ = stream.write_all(&state).await;
        }
    })
}

/// Waits for a descriptor that aya hands out only in its raw form.
fn when_readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the types used here (ring buffer maps) own their descriptor, and return the same one
    // as long as they live.
    unsafe { AsyncFd::register(inner) }.map_err(|error| error.into_parts().1)
}

fn log_from_kernel(kernel: &mut Kernel) {
    match aya_log::EbpfLogger::init(kernel.programs().ebpf()).map(when_readable) {
        Ok(Ok(mut logger)) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Ok(Err(error)) => tracing::warn!(%error, "no log from the kernel"),
        Err(error) => tracing::warn!(%error, "no log from the kernel"),
    }
}
