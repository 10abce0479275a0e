//! The admin port: metrics, health and state over HTTP. It decides nothing and changes nothing.

use crate::{model::time::BootNs, node::clock, state::DaemonState};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};

/// The loop turns several times a second; one that has stood for this long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// A port that is in use is tried again after this: an upgrade waits for the old process to end.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Admin {
    registry: Arc<Registry>,
    latest: watch::Receiver<DaemonState>,
}

/// Serves for ever. A port that cannot be had is no reason to give up a VIP: it is tried again.
pub async fn serve(address: SocketAddr, registry: Registry, latest: watch::Receiver<DaemonState>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/state", get(state))
        .with_state(Admin { registry: Arc::new(registry), latest });
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "admin port is open");
                told = false;
                let served = axum::serve(listener, router.clone()).await;
                tracing::warn!(?served, "admin port was closed");
            }
            Err(error) if !told => {
                tracing::warn!(%address, %error, "admin port cannot be opened; trying again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &admin.registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Whether the process works. It does while the API is away: a restart would mend nothing.
async fn healthz(State(admin): State<Admin>) -> Response {
    let stood = BootNs(admin.latest.borrow().turned_ns).until(clock::boot());
    let mut reasons = Vec::new();
    if stood > STUCK {
        reasons.push(format!("the loop has stood still for {stood:?}"));
        reasons.extend(admin.latest.borrow().problems.get("loop").cloned());
    }
    verdict(reasons)
}

/// Whether this node could take over if it had to.
async fn readyz(State(admin): State<Admin>) -> Response {
    verdict(admin.latest.borrow().not_ready.clone())
}

async fn state(State(admin): State<Admin>) -> Json<DaemonState> {
    Json(admin.latest.borrow().clone())
}

fn verdict(reasons: Vec<String>) -> Response {
    if reasons.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
    }
}
