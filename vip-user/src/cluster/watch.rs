//! Following the Lease: a quorum read, then a watch from its version, which goes on in another one when its time is over;
//! again from the start after any doubt. Candidates make no other request while nothing happens.

use super::lease::{LeaseApi, record};
use crate::model::{election::Source, record::Record};
use futures::TryStreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// A watch is renewed after this long, which also ends one whose connection has died silently. Seconds.
pub const WATCH_S: u32 = 60;
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
/// contradicts what it has shown. A watch lasts `watch_s` seconds, usually [`WATCH_S`].
pub async fn follow(
    api: LeaseApi,
    watch_s: u32,
    again: Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
) {
    let mut failures: u32 = 0;
    let mut version = None;
    loop {
        let outcome = once(&api, watch_s, &again, version.take(), &sightings).await;
        if sightings.is_closed() {
            return;
        }
        match outcome {
            Ok(Some(reached)) => version = Some(reached),
            Ok(None) => {
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

/// One read and one watch, or only a watch where another one ended by itself. Where this one does, its version is
/// returned: what is watched from there on follows without a gap. An end before its time may be that of an API server
/// that comes back with a restored etcd, whose versions have begun anew.
async fn once(
    api: &LeaseApi,
    watch_s: u32,
    again: &Notify,
    reached: Option<String>,
    sightings: &mpsc::Sender<Sighting>,
) -> Result<Option<String>, String> {
    let version = if reached.is_some() {
        reached
    } else {
        let found = api.get(0).await.map_err(|error| error.to_string())?;
        let version = found.as_ref().map(|record| record.version.0.clone());
        let _ = sightings.send(Sighting::Seen(Source::Quorum, found)).await;
        version
    };
    let (endpoint, leases) = api.api(0);
    let params =
        WatchParams::default().fields(&format!("metadata.name={}", api.name())).timeout(watch_s);
    // Version 0 begins with what exists, so a Lease that was created since the read is not missed.
    let from_nothing = version.is_none();
    let mut version = version.unwrap_or_else(|| "0".into());
    let begun = Instant::now();
    let failed = |error: kube::Error| format!("{endpoint}: watch: {error}");
    let open = tokio::select! {
        stream = tokio::time::timeout(api.timeout, leases.watch(&params, &version)) => stream,
        () = again.notified() => return Ok(None),
    };
    if !matches!(open, Ok(Ok(_))) {
        api.failed(&endpoint).await;
    }
    let open = open.map_err(|_| format!("{endpoint}: watch: no answer after {:?}", api.timeout))?;
    let mut stream = std::pin::pin!(open.map_err(failed)?);
    loop {
        let next = tokio::select! {
            next = stream.try_next() => next,
            () = again.notified() => return Ok(None),
        };
        let Some(event) = next.map_err(failed)? else {
            let complete = begun.elapsed().as_secs() + 1 >= u64::from(watch_s);
            return Ok(Some(version).filter(|_| complete && !from_nothing));
        };
        let sighting = match event {
            // What exists now follows no earlier event: a read and a watch from its version show what does.
            WatchEvent::Added(_) | WatchEvent::Modified(_) if from_nothing => return Ok(None),
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                let seen = record(&lease);
                version.clone_from(&seen.version.0);
                api.remember(Some(lease));
                Sighting::Seen(Source::Watch, Some(seen))
            }
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                continue;
            }
            // A deletion is confirmed by the quorum read that follows; so is 410 Gone and its like.
            WatchEvent::Deleted(_) | WatchEvent::Error(_) => return Ok(None),
        };
        if sightings.send(sighting).await.is_err() {
            return Ok(None);
        }
    }
}
