//! Following this node's own Node object: its labels, and whether it is cordoned. One watch, no polling.

use super::lease::LeaseApi;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::mpsc;

/// A watch is renewed after this long, which also ends one whose connection has died silently.
const WATCH_SECONDS: u32 = 240;
/// Between attempts, doubled after each that failed up to the limit.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_LIMIT: Duration = Duration::from_secs(32);

/// What the API knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: somebody wants it empty (`kubectl cordon`, `kubectl drain`).
    pub cordoned: bool,
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let cordoned = node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        Self { labels: node.metadata.labels.unwrap_or_default(), cordoned }
    }
}

/// Sends what is known of Node `name` whenever it has changed, until the receiver is gone. A Node that does not exist
/// has no labels and is not cordoned.
pub async fn follow(api: LeaseApi, name: String, facts: mpsc::Sender<NodeFacts>) {
    let mut last = None;
    let mut pause = PAUSE;
    for attempt in 0.. {
        match once(&api, attempt, &name, &mut last, &facts).await {
            Ok(()) => pause = PAUSE,
            Err(error) => {
                tracing::debug!(%error, node = %name, "cannot read this node's object");
                pause = (pause * 2).min(PAUSE_LIMIT);
            }
        }
        if facts.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

async fn once(
    api: &LeaseApi,
    attempt: usize,
    name: &str,
    last: &mut Option<NodeFacts>,
    facts: &mpsc::Sender<NodeFacts>,
) -> Result<(), kube::Error> {
    let (_, client, _) = api.client(attempt);
    let nodes: Api<Node> = Api::all(client);
    let found = nodes.get_opt(name).await?;
    let version = found.as_ref().and_then(|node| node.metadata.resource_version.clone());
    tell(last, found.map(Into::into).unwrap_or_default(), facts).await;
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let stream = nodes.watch(&params, version.as_deref().unwrap_or("0")).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.try_next().await? {
        match event {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                tell(last, node.into(), facts).await;
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

async fn tell(last: &mut Option<NodeFacts>, found: NodeFacts, facts: &mpsc::Sender<NodeFacts>) {
    if last.as_ref() != Some(&found) {
        *last = Some(found.clone());
        // The receiver ends with the process.
        let _ = facts.send(found).await;
    }
}
