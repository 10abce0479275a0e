//! Kubernetes Events about a Lease, for people who look at the Lease. They decide nothing, so an Event
//! that cannot be written is dropped.

use super::{lease::LeaseApi, words::words};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Two Events about one conflict are at least this far apart.
const APART: Duration = Duration::from_secs(30);
/// The time limit for one write.
const LIMIT: Duration = Duration::from_secs(10);
/// The most Events that wait to be written; more are dropped.
const WAITING: usize = 32;

/// The reasons of Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This node answers for the VIPs.
    TookOver,
    /// This node has lost the Lease and is silent.
    Lost,
    /// This node gives the VIPs to a node that can serve them better.
    GaveWay,
    /// A VIP is not admitted to its Lease.
    Refused,
    /// Another station claims a VIP.
    Conflict,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::TookOver => "TookOver",
            Self::Lost => "Lost",
            Self::GaveWay => "GaveWay",
            Self::Refused => "Refused",
            Self::Conflict => "Conflict",
        }
    }

    /// The type of the Event: `Warning` if a person should look at it.
    const fn type_(self) -> &'static str {
        if matches!(self, Self::TookOver) { "Normal" } else { "Warning" }
    }
}

/// The content of one Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The name of the Lease that the Event is about.
    pub lease: String,
    /// The uid of that Lease, if it was read: `kubectl describe` finds Events by it.
    pub uid: Option<String>,
    /// What has happened.
    pub reason: Reason,
    /// Conflicts are limited per subject, which is the VIP. Other Events name the VIP or the Lease
    /// here.
    pub subject: String,
    /// The message of the Event.
    pub text: String,
}

/// Queues news for the task that writes Events. It never blocks, and the default drops all news.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<mpsc::Sender<News>>);

impl Recorder {
    /// Starts the task that writes the Events. `node` becomes the reporting instance.
    pub fn start(api: LeaseApi, node: String) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(api, node, receiver));
        Self(Some(sender))
    }

    /// Queues news to be written.
    pub fn tell(&self, news: News) {
        if let Some(sender) = &self.0 {
            // A full queue means that the API does not keep up or cannot be reached.
            let _ = sender.try_send(news);
        }
    }
}

async fn write_all(api: LeaseApi, node: String, mut receiver: mpsc::Receiver<News>) {
    let mut last: HashMap<(Reason, String), Instant> = HashMap::new();
    let mut number = 0_u64;
    while let Some(news) = receiver.recv().await {
        let now = Instant::now();
        let key = (news.reason, news.subject.clone());
        // Only conflicts are limited, because they repeat. Every change of leadership is news.
        let limited = last.get(&key).is_some_and(|at| now.duration_since(*at) < APART);
        if news.reason == Reason::Conflict && limited {
            continue;
        }
        last.retain(|_, at| now.duration_since(*at) < APART);
        last.insert(key, now);
        number += 1;
        let reason = news.reason.name();
        let event = event(&api, &node, number, news);
        for attempt in 0..2 {
            let (_, client, namespace) = api.client(attempt);
            let events: Api<Event> = Api::namespaced(client, namespace);
            match tokio::time::timeout(LIMIT, events.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    tracing::debug!(error = %words(&error), reason, "no Event written");
                }
                Err(_) => tracing::debug!(reason, "no Event written in time"),
            }
        }
    }
}

fn event(api: &LeaseApi, node: &str, number: u64, news: News) -> Event {
    let (namespace, _) = api.namespaced_name();
    let name = &news.lease;
    let now = Timestamp::now();
    // Time and number make the name unique. They add only characters that are valid in an object name.
    let unique = format!("{name}.{:x}-{number}", now.as_microsecond());
    Event {
        metadata: ObjectMeta {
            name: Some(unique),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some("xvip.io/xvip".into()),
        reporting_instance: Some(node.into()),
        action: Some("Elect".into()),
        reason: Some(news.reason.name().into()),
        type_: Some(news.reason.type_().into()),
        note: Some(news.text),
        regarding: Some(ObjectReference {
            api_version: Some("coordination.k8s.io/v1".into()),
            kind: Some("Lease".into()),
            namespace: Some(namespace.into()),
            name: Some(news.lease),
            uid: news.uid,
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}
