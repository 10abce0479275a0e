//! Follows this node's own Node object: its labels, and whether it is cordoned. It uses one watch and
//! does not poll.

use super::{
    lease::LeaseApi,
    lenient::Lenient,
    scope::{Begin, Followed, Pace, Scope, Sighted, Told},
};
use crate::model::facts::NodeFacts;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A kubelet writes its Node every few minutes. An API server that has restarted does not remember
/// older versions, so the watch begins with what exists.
const PACE: Pace = Pace {
    watch_s: 240,
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_secs(32),
    begin: Begin::Existing,
};

impl From<Lenient<Node>> for NodeFacts {
    fn from(Lenient(node): Lenient<Node>) -> Self {
        let cordoned = node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        Self { labels: node.metadata.labels.unwrap_or_default(), cordoned }
    }
}

/// What is known of a node, or why it cannot be read at present.
pub type Report = Result<NodeFacts, String>;

/// Sends what is known of Node `name`, or why it cannot be read, on every change until the receiver is
/// gone. A Node that does not exist has no labels and is not cordoned. `item` converts each report into
/// the item to send.
pub async fn follow<T: Send + 'static>(
    api: LeaseApi,
    name: String,
    items: mpsc::Sender<T>,
    item: impl Fn(Report) -> T + Send + 'static,
) {
    let of = |_: &LeaseApi, client| Api::<Lenient<Node>>::all(client);
    let followed = Followed { api, of, scope: Scope::Named(name), pace: PACE };
    let mut changes = changes();
    let told = move |told| changes(told).map(&item);
    followed.follow(Arc::default(), items, told).await;
}

/// Turns what the follower tells about a Node into a report, if it differs from the last one.
fn changes() -> impl FnMut(Told<Lenient<Node>>) -> Option<Report> {
    let mut last: Option<Report> = None;
    move |told| {
        let report: Report = match told {
            Told::Seen(Sighted { object, .. }) => Ok(object.map(Into::into).unwrap_or_default()),
            Told::Unreadable(why) => Err(why),
            // The read that follows a broken watch shows whether the Node can be read.
            Told::Broken(_) | Told::Listed(_) => return None,
        };
        let changed = last.as_ref() != Some(&report);
        last = Some(report.clone());
        changed.then_some(report)
    }
}

#[cfg(test)]
mod tests;
