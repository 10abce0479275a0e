//! Following this node's own Node object: its labels, and whether it is cordoned. One watch, no
//! polling.

use super::{
    backoff::Backoff,
    lease::{LeaseApi, LeaseError},
    lenient::Lenient,
    watch,
};
use crate::model::record::Version;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::WatchEvent};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// A watch is renewed after this long, which also ends one whose connection has died silently.
const WATCH_SECONDS: u32 = 240;
/// Between attempts, growing with each that ended before its time.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// What the API knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: somebody wants it empty (`kubectl cordon`, `kubectl drain`).
    pub cordoned: bool,
}

impl From<Lenient<Node>> for NodeFacts {
    fn from(Lenient(node): Lenient<Node>) -> Self {
        let cordoned = node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        Self { labels: node.metadata.labels.unwrap_or_default(), cordoned }
    }
}

/// What is known of a node, or why nothing can be learned at present.
pub type Report = Result<NodeFacts, String>;

/// Sends what is known of Node `name` whenever it has changed, and why it cannot be read, until the
/// receiver is gone. A Node that does not exist has no labels and is not cordoned.
pub async fn follow(api: LeaseApi, name: String, reports: mpsc::Sender<Report>) {
    let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
    let mut last = None;
    while !reports.is_closed() {
        let begun = Instant::now();
        let wanted = match once(&api, &name, &mut last, &reports).await {
            Ok(()) => {
                backoff.lasted(begun.elapsed());
                None
            }
            Err(error) => {
                tell(&mut last, Err(error.to_string()), &reports).await;
                error.wanted()
            }
        };
        tokio::time::sleep(backoff.pause(wanted)).await;
    }
}

/// A read, and a watch that begins with what the server knows: at the version of the Node it could not
/// begin where that is older than what the server remembers.
async fn once(
    api: &LeaseApi,
    name: &str,
    last: &mut Option<Report>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), LeaseError> {
    let read = |client| async move { Api::<Lenient<Node>>::all(client).get_opt(name).await };
    let (_, found) = api.ask("get", 0, read).await?;
    let version = |Lenient(node): &Lenient<Node>| {
        Version(node.metadata.resource_version.clone().unwrap_or_default())
    };
    let read = found.as_ref().map(version);
    tell(last, Ok(found.map(Into::into).unwrap_or_default()), reports).await;
    let silent_at = Instant::now() + watch::longest(WATCH_SECONDS);
    let Some((endpoint, mut events)) =
        watch::open(api, name, WATCH_SECONDS, "0", Api::<Lenient<Node>>::all).await?
    else {
        return Ok(());
    };
    loop {
        let Ok(next) = timeout_at(silent_at, events.next()).await else {
            api.endpoints.failed(&endpoint);
            break;
        };
        let Some(Ok(event)) = next else { break };
        match event {
            // A server that lags begins with what was before the read.
            WatchEvent::Added(node) | WatchEvent::Modified(node)
                if read.as_ref().is_none_or(|read| version(&node).newer_than(read)) =>
            {
                tell(last, Ok(node.into()), reports).await;
            }
            WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => break,
        }
    }
    Ok(())
}

async fn tell(last: &mut Option<Report>, found: Report, reports: &mpsc::Sender<Report>) {
    if last.as_ref() != Some(&found) {
        *last = Some(found.clone());
        // The receiver ends with the process.
        let _ = reports.send(found).await;
    }
}
