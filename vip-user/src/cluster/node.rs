//! Following this node's own Node object, for its labels. One watch, no polling.

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
/// Between attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// Sends the labels of Node `name` whenever they have changed, until the receiver is gone. A Node that does not exist has none.
pub async fn follow_labels(api: LeaseApi, name: String, labels: mpsc::Sender<Labels>) {
    let mut last = None;
    for attempt in 0.. {
        if let Err(error) = once(&api, attempt, &name, &mut last, &labels).await {
            tracing::debug!(%error, node = %name, "cannot read this node's labels");
        }
        if labels.is_closed() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(
    api: &LeaseApi,
    attempt: usize,
    name: &str,
    last: &mut Option<Labels>,
    labels: &mpsc::Sender<Labels>,
) -> Result<(), kube::Error> {
    let (_, client, _) = api.client(attempt);
    let nodes: Api<Node> = Api::all(client);
    let found = nodes.get_opt(name).await?;
    let version = found.as_ref().and_then(|node| node.metadata.resource_version.clone());
    tell(last, found.and_then(|node| node.metadata.labels), labels).await;
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let stream = nodes.watch(&params, version.as_deref().unwrap_or("0")).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.try_next().await? {
        match event {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                tell(last, node.metadata.labels, labels).await;
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

async fn tell(last: &mut Option<Labels>, found: Option<Labels>, labels: &mpsc::Sender<Labels>) {
    let found = found.unwrap_or_default();
    if last.as_ref() != Some(&found) {
        *last = Some(found.clone());
        // The receiver ends with the process.
        let _ = labels.send(found).await;
    }
}
