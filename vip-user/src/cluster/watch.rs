//! Following the Lease: a quorum read, then a watch from its version; again from the start after any
//! doubt. Candidates make no other request while nothing happens.

use super::lease::{LeaseApi, record};
use crate::model::{election::Source, record::Record};
use futures::TryStreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};

/// A watch is renewed after this long, which also ends one whose connection has died silently. Seconds.
const WATCH_S: u32 = 60;
/// Pause after a failure, doubled each time up to the limit.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_LIMIT: Duration = Duration::from_secs(2);

/// What following the Lease brings.
#[derive(Debug)]
pub enum Sighting {
    /// The Lease, or that there is none.
    Seen(Source, Option<Record>),
    /// The API cannot be read; in words.
    Unreadable(String),
}

/// Follows the Lease until the receiver is gone. `again` ends the present watch: something
/// contradicts what it has shown.
pub async fn follow(api: LeaseApi, again: Arc<Notify>, sightings: mpsc::Sender<Sighting>) {
    let mut failures: u32 = 0;
    loop {
        let outcome = once(&api, &again, &sightings).await;
        if sightings.is_closed() {
            return;
        }
        match outcome {
            Ok(()) => {
                failures = 0;
                tokio::time::sleep(BACKOFF).await;
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                if sightings.send(Sighting::Unreadable(why)).await.is_err() {
                    return;
                }
                let pause = BACKOFF.saturating_mul(1 << failures.min(6)).min(BACKOFF_LIMIT);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One read and one watch. Returns when the watch ends by itself.
async fn once(
    api: &LeaseApi,
    again: &Notify,
    sightings: &mpsc::Sender<Sighting>,
) -> Result<(), String> {
    let found = api.get(0).await.map_err(|error| error.to_string())?;
    let version = found.as_ref().map(|record| record.version.0.clone());
    let _ = sightings.send(Sighting::Seen(Source::Quorum, found)).await;
    let (endpoint, leases) = api.api(0);
    let params =
        WatchParams::default().fields(&format!("metadata.name={}", api.name())).timeout(WATCH_S);
    // Version 0 begins with what exists, so a Lease that was created since the read is not missed.
    let from_nothing = version.is_none();
    let version = version.unwrap_or_else(|| "0".into());
    let failed = |error: kube::Error| format!("{endpoint}: watch: {error}");
    let open = tokio::select! {
        stream = leases.watch(&params, &version) => stream,
        () = again.notified() => return Ok(()),
    };
    if open.is_err() {
        api.failed(&endpoint).await;
    }
    let mut stream = std::pin::pin!(open.map_err(failed)?);
    loop {
        let next = tokio::select! {
            next = stream.try_next() => next,
            () = again.notified() => return Ok(()),
        };
        let Some(event) = next.map_err(failed)? else { return Ok(()) };
        let sighting = match event {
            // What exists now follows no earlier event: a read and a watch from its version show what does.
            WatchEvent::Added(_) | WatchEvent::Modified(_) if from_nothing => return Ok(()),
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                let seen = record(&lease);
                api.remember(Some(lease));
                Sighting::Seen(Source::Watch, Some(seen))
            }
            WatchEvent::Bookmark(_) => continue,
            // A deletion is confirmed by the quorum read that follows; so is 410 Gone and its like.
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => return Ok(()),
        };
        if sightings.send(sighting).await.is_err() {
            return Ok(());
        }
    }
}
