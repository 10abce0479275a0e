//! The tasks that send events to the loop: signals, changes of the host, claims, this node, the LAN.

use super::settings;
use crate::{
    cluster::{
        health::{self, Question},
        lease::LeaseApi,
        node as api_node,
    },
    config::{Config, HealthConfig, LanCheck},
    controller::Event,
    model::health::Service,
    node::{changes::Changes, lan, netlink::Netlink, pins::Pins, reports},
};
use anyhow::Context as _;
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Starts the tasks that send events.
pub(super) fn follow(
    config: &Config,
    pins: &Pins,
    netlink: &Netlink,
    changes: Changes,
    (api, node): (LeaseApi, String),
    (stop, events): (Stop, &mpsc::Sender<Event>),
) -> anyhow::Result<()> {
    tokio::spawn(forward_stop(stop, events.clone()));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(changes.tell(sender));
    tokio::spawn(forward(receiver, events.clone(), |()| Event::HostChanged));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(reports::follow_claims(pins, sender)?);
    tokio::spawn(forward(receiver, events.clone(), Event::Claim));
    tokio::spawn(api_node::follow(api, node, events.clone(), Event::Node));
    for question in questions(config) {
        tokio::spawn(health::follow(question, events.clone(), Event::Health));
    }
    if let Some(targets) = lan_targets(config) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(lan::watch(netlink.clone(), config.selection(), targets, sender));
        tokio::spawn(forward(receiver, events.clone(), Event::Lan));
    }
    Ok(())
}

/// SIGTERM and SIGINT. From its beginning on they no longer end the process by themselves.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn forward_stop(mut stop: Stop, events: mpsc::Sender<Event>) {
    stop.asked().await;
    let _ = events.send(Event::Stop).await;
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

/// The questions to the services of this node.
fn questions(config: &Config) -> Vec<Question> {
    let HealthConfig { every_ms, timeout_ms, ca, .. } = &config.health;
    let question = |service| {
        let with_credentials = service == Service::ApiServer;
        Some(Question {
            service,
            url: config.asked_at(service)?,
            access: with_credentials.then(|| settings::access(&config.api)),
            ca: ca.clone().filter(|_| with_credentials),
            every: Duration::from_millis(*every_ms),
            limit: Duration::from_millis(*timeout_ms),
            limits: config.health_limits(service),
        })
    };
    [Service::ApiServer, Service::Kubelet].into_iter().filter_map(question).collect()
}

fn lan_targets(config: &Config) -> Option<lan::Targets> {
    let LanCheck { gateway, peers, every_ms } = config.lan_check.clone();
    let every = Duration::from_millis(every_ms);
    (gateway || !peers.is_empty()).then_some(lan::Targets { gateway, peers, every })
}
