//! `xvip run`: check everything, take the lock, start, loop, leave.

use crate::{
    admin::Admin,
    cli::table::has_colours,
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi, node as api_node},
    config::{Config, LanCheck, LogConfig, LogFormat, LogLevel},
    controller::{Controller, Event, LeaseSetup, Setup},
    escape,
    metrics::Metrics,
    model::election::Identity,
    node::{
        changes::Changes,
        checks, clock, host,
        kernel::Kernel,
        lan,
        lock::{Attempt, Lock},
        netlink::Netlink,
        pins::Pins,
        scrape::FromMaps,
        start::{self, Started},
    },
    observers::Observers,
    state::DaemonState,
};
use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, field::MakeExt as _, fmt::format::debug_fn};
use vip_common::abi::Claim;

/// What has failed where the local socket cannot be used.
const SOCKET: &str = "cannot listen on the local socket";

/// Lines of the log that wait for who reads it.
const LOG_LINES: usize = 4_096;
/// The end of the process waits so long for them.
const LOG_END: Duration = Duration::from_millis(1_200);

/// How often a busy lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Claims that are taken out of the ring buffer at once, and the pause after it.
const CLAIMS_AT_ONCE: usize = 16;
const CLAIMS_PAUSE: Duration = Duration::from_millis(50);

/// Runs until SIGTERM or SIGINT.
pub async fn run(path: &Path, pin_root: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(path)?;
    if let Some(pin_root) = pin_root {
        config.pin_root = pin_root;
    }
    let _log = start_log(&config.log);
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
    let endpoints = Endpoints::connect(&config.api, &config.addresses(), hold).await?;
    let metrics = Metrics::default();
    let api = LeaseApi::new(endpoints, &config.lease.namespace, &config.lease.name, hold)
        .counted_by(metrics.clone());
    // Nothing is renewed yet: a host with very many routes may take its time.
    checks::check(&config, &pins, &Netlink::patient()?).await?;
    let netlink = Netlink::open()?;
    let lock = take_lock(&pins).await?;
    // Not before: nobody reads what changes while the lock is waited for.
    let changes = Changes::open(&netlink, config.selection().needs_routes())?;
    let started = start::start(&config, &pins, netlink.clone(), &node, &boot_id);
    if started.is_err() && !pins.exist() {
        // A start that is refused leaves nothing behind.
        pins.remove_lock(host::netns_cookie()?);
    }
    let Started { mut kernel, leases } = started?;

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
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(changes.tell(sender));
    tokio::spawn(forward(receiver, events.clone(), |()| Event::HostChanged));
    tokio::spawn(forward_claims(&pins, events.clone())?);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(api_node::follow(api.clone(), node.clone(), sender));
    tokio::spawn(forward(receiver, events.clone(), Event::Node));
    if let Some(targets) = lan_targets(&config) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(lan::watch(netlink.clone(), config.selection(), targets, sender));
        tokio::spawn(forward(receiver, events.clone(), Event::Lan));
    }
    let mut observers =
        Observers::new(&lock, &config.instance, latest.clone(), events.clone()).context(SOCKET)?;
    observers.admin = config.admin.port.map(|port| {
        let address = SocketAddr::new(config.admin.address, port);
        Admin::new(address, metrics.registry(Box::new(FromMaps(pins.clone()))), latest)
    });
    observers.start()?;
    if config.kernel_log_level > 0 {
        log_from_kernel(&mut kernel);
    }
    let leases: Vec<String> = setup.leases.iter().map(|lease| lease.api.full_name()).collect();
    metrics.begin(&config.addresses(), &leases);
    tracing::info!(%node, ?leases, vips = ?config.addresses(), "xvip is running");
    Controller::new(kernel, events, setup, state).run(inbox).await;
    // A thread may still look at the interfaces. The end of the process ends that, and frees the lock.
    std::mem::forget(lock);
    tracing::info!(%node, "xvip has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Writes what is left of the log at the end, and waits for that no longer than [`LOG_END`].
struct LogEnd(Option<WorkerGuard>);

impl Drop for LogEnd {
    fn drop(&mut self) {
        let (ended, end) = std::sync::mpsc::channel();
        let guard = self.0.take();
        // Where nobody reads the log, the guard's own complaint may hang too.
        let waits = std::thread::Builder::new().spawn(move || {
            drop(guard);
            let _ = ended.send(());
        });
        if waits.is_ok() {
            let _ = end.recv_timeout(LOG_END);
        }
    }
}

/// Lines are written by a thread of their own: standard error is a pipe in a pod, and who reads it may
/// stand still. What finds no room is lost.
fn start_log(config: &LogConfig) -> LogEnd {
    let appender = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES);
    let (stderr, guard) = appender.thread_name("xvip-log").finish(io::stderr());
    let level = match config.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(log_filter(config.level, level)));
    // A log that nobody takes is no reason to end: a line about that would go to the same place.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let log = log.with_env_filter(filter).with_writer(stderr.clone());
    let log = log.with_ansi(has_colours(&io::stderr()));
    // What a field holds may come from outside: a Lease, the API, the name of an interface.
    match config.format {
        LogFormat::Text => {
            let fields = debug_fn(escape::log_field).delimited(" ");
            log.fmt_fields(fields).with_target(false).init();
        }
        LogFormat::Json => {
            log.json().flatten_event(true).with_writer(escape::JsonLog(stderr)).init();
        }
    }
    LogEnd(Some(guard))
}

/// The client library logs each failed request at ERROR and names no server. Whoever asks for a request
/// says what came of it, so these lines are left to those who look for faults. `RUST_LOG` replaces all
/// of this.
fn log_filter(level: LogLevel, word: &str) -> String {
    if matches!(level, LogLevel::Debug | LogLevel::Trace) {
        return word.to_owned();
    }
    let libraries =
        ["h2", "hyper", "hyper_util", "kube", "kube_client", "rustls", "tower", "tower_http"];
    libraries.iter().fold(word.to_owned(), |filter, library| format!("{filter},{library}=off"))
}

async fn take_lock(pins: &Pins) -> anyhow::Result<Lock> {
    let instance = pins.instance();
    let mut told = None;
    loop {
        match Lock::try_take(pins).await.context("cannot take the lock")? {
            Attempt::Taken(lock) => {
                if let Some(stranger) = lock.stranger() {
                    tracing::warn!(
                        instance,
                        stranger,
                        "the name of the local socket is taken; xvip runs on"
                    );
                }
                return Ok(lock);
            }
            Attempt::Busy(holder) => {
                if told.as_ref() != Some(&holder) {
                    tracing::warn!(instance, %holder, "another xvip runs here; waiting for it to end");
                    told = Some(holder);
                }
            }
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

/// Waits for a descriptor that aya hands out only in its raw form.
fn when_readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the types used here (ring buffer maps) own their descriptor, and return the same one
    // as long as they live.
    unsafe { AsyncFd::register(inner) }.map_err(|error| error.into_parts().1)
}

fn log_from_kernel(kernel: &mut Kernel) {
    let Some(programs) = kernel.programs() else { return };
    match aya_log::EbpfLogger::init(programs.ebpf()).map(when_readable) {
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
