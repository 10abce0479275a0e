//! The admin port: metrics, health and state over HTTP. It decides nothing and changes nothing.

use crate::{
    clock,
    controller::Event,
    escape,
    guests::{Guests, tell},
    state::DaemonState,
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

/// Time until a busy port is tried again: during an upgrade the old process still has it.
const RETRY: Duration = Duration::from_secs(2);
/// Connections that are served at a time, one request on each.
const CONNECTIONS: usize = 16;
/// Time limits of a request's arrival and of the whole connection.
const HEADER_LIMIT: Duration = Duration::from_secs(2);
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The longest head of a request.
const HEADER_BYTES: usize = 16 << 10;
/// Reading every map takes a while, so scrapes within this time share one result.
const SCRAPE_EVERY: Duration = Duration::from_millis(250);
/// The subject under which the port's problems are reported.
const SUBJECT: &str = "admin port";
/// The same for the port that serves `/healthz` alone.
const HEALTH_SUBJECT: &str = "health port";

/// The admin port, not open yet.
#[derive(Clone)]
pub struct Admin {
    address: SocketAddr,
    registry: Arc<Registry>,
    latest: watch::Receiver<DaemonState>,
    scraped: Arc<Mutex<Option<(Instant, String)>>>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Admin {
    /// An admin port for this address; `serve` opens it.
    pub fn new(address: SocketAddr, registry: Registry, latest: watch::Receiver<DaemonState>) -> Self {
        Self { address, registry: Arc::new(registry), latest, scraped: Arc::default() }
    }

    /// Serves for ever. A busy port is tried again, because it is no reason to give up a VIP.
    pub(crate) async fn serve(self, events: &mpsc::Sender<Event>) {
        let address = self.address;
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/state", get(state))
            .with_state(self);
        serve(&[address], SUBJECT, router, events).await;
    }

    /// The text of `/metrics`, computed at most once in [`SCRAPE_EVERY`].
    fn scrape(&self) -> Result<String, fmt::Error> {
        let mut scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = scraped.as_ref().filter(|(at, _)| at.elapsed() < SCRAPE_EVERY);
        if let Some((_, text)) = fresh {
            return Ok(text.clone());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        let text = escape::metrics(&text);
        *scraped = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

/// A port that only says whether the process works, for probes that know no other way. It listens on
/// every address, because a kubelet asks the address of the host.
#[derive(Clone, Debug)]
pub struct HealthPort {
    /// The port.
    pub port: u16,
    /// The state of the loop.
    pub latest: watch::Receiver<DaemonState>,
}

impl HealthPort {
    /// Serves for ever, as [`Admin::serve`].
    pub(crate) async fn serve(self, events: &mpsc::Sender<Event>) {
        // Where IPv6 is off, only the second one can be opened.
        let everywhere = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
        let addresses = everywhere.map(|address| SocketAddr::new(address, self.port));
        let router = Router::new().route("/healthz", get(alive)).with_state(self.latest);
        serve(&addresses, HEALTH_SUBJECT, router, events).await;
    }
}

/// Opens the first address that can be opened, and serves there.
async fn serve(
    addresses: &[SocketAddr],
    subject: &'static str,
    router: Router,
    events: &mpsc::Sender<Event>,
) {
    loop {
        let mut why = String::new();
        for address in addresses {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    tracing::info!(%address, "{subject} is open");
                    tell(events, subject, None).await;
                    return accept(listener, router).await;
                }
                Err(error) => why = format!("{address} cannot be opened: {error}"),
            }
        }
        tell(events, subject, Some(why)).await;
        sleep(RETRY).await;
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let mut guests = Guests::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                guests.admit(timeout(CONNECTION_LIMIT, answer(stream, router.clone()))).await;
            }
            // Out of descriptors or memory: accept again later.
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Answers one request and then closes the connection.
async fn answer(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a request to the admin port has failed");
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.scrape() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether the process works. An unreachable API does not count as a failure, because a restart would
/// not help.
async fn healthz(State(admin): State<Admin>) -> Response {
    alive(State(admin.latest)).await
}

async fn alive(State(latest): State<watch::Receiver<DaemonState>>) -> Response {
    verdict(latest.borrow().stuck(clock::boot()).into_iter().collect())
}

/// Whether this node could take over if it had to.
async fn readyz(State(admin): State<Admin>) -> Response {
    verdict(admin.latest.borrow().lacks(clock::boot()))
}

async fn state(State(admin): State<Admin>) -> Response {
    let state = admin.latest.borrow().clone();
    let text = escape::json(&serde_json::to_string(&state).unwrap_or_default());
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn verdict(reasons: Vec<String>) -> Response {
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let lines = reasons.iter().map(|reason| escape::printable(reason) + "\n");
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect::<String>()).into_response()
}

#[cfg(test)]
mod tests;
