//! Kubernetes Events about a Lease. They are told to whoever looks at the Lease and decide nothing:
//! one that cannot be written is dropped.

use super::{lease::LeaseApi, words::words};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Events of one reason about one subject are at least this far apart.
const APART: Duration = Duration::from_secs(30);
/// One write may take this long.
const LIMIT: Duration = Duration::from_secs(10);
/// Events that wait to be written; more are dropped.
const WAITING: usize = 32;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This node answers for the VIPs.
    TookOver,
    /// It is silent.
    Lost,
    /// It gives the VIPs to a node that can serve them better.
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

    /// Whether somebody should look.
    const fn type_(self) -> &'static str {
        if matches!(self, Self::TookOver) { "Normal" } else { "Warning" }
    }
}

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The name of the Lease that it is about.
    pub lease: String,
    /// The uid of that Lease, where it was read: `kubectl describe` finds Events by it.
    pub uid: Option<String>,
    /// What has happened.
    pub reason: Reason,
    /// What is limited together: the VIP of a conflict.
    pub subject: String,
    /// In words.
    pub text: String,
}

/// Where news are sent; never blocks. The default drops them.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<mpsc::Sender<News>>);

impl Recorder {
    /// Starts the task that writes. `node` becomes the reporting instance.
    pub fn start(api: LeaseApi, node: String) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(api, node, receiver));
        Self(Some(sender))
    }

    /// Takes news in.
    pub fn tell(&self, news: News) {
        if let Some(sender) = &self.0 {
            // A queue that is full belongs to an API that is away.
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
        // Changes of leadership alternate, and each is news; conflicts repeat.
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
    // Unique by node, time and number, and valid as an object name whatever the Lease's name is.
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
