//! Following the Lease: one quorum read, then a watch from its version. A watch whose time is over is
//! followed by another from where it ended; after any error there is a new read. Candidates make no
//! other request while nothing happens.

use super::{
    backoff::Backoff,
    lease::{LeaseApi, LeaseError, record},
    lenient::Lenient,
    words::{refusal, words},
};
use crate::{
    clock,
    model::{
        election::Source,
        record::{Record, Version},
    },
};
use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::{
    Api, Client, Resource,
    api::{WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

/// A watch is renewed after this long. Seconds. The server ends it, so a connection that died in
/// silence ends later, by [`longest`].
pub const WATCH_S: u32 = 60;
/// The first pause after a watch or a read has ended before its time.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest one, or a quarter of the fence: whoever reads so often asks for less than a holder that
/// renews.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A version that the API server no longer knows.
const GONE: u16 = 410;

/// What following the Lease brings.
#[derive(Debug)]
pub enum Sighting {
    /// The Lease, or that there is none.
    Seen(Source, Option<Record>),
    /// The API cannot be read; in words.
    Unreadable(String),
}

/// How a watch begins.
#[derive(Debug)]
enum Begin {
    /// At the version of what is read now.
    Read,
    /// With what the API server has now: it has forgotten the version of what was read.
    Forgotten,
    /// Where the last one ended.
    After(String),
}

/// What the API server has now, whatever version that is.
const WHAT_EXISTS: &str = "0";

/// Follows the Lease until the receiver is gone. `again` ends the present watch: something
/// contradicts what it has shown. A watch lasts `watch_s` seconds, usually [`WATCH_S`].
pub async fn follow(
    api: LeaseApi,
    watch_s: u32,
    again: Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
) {
    let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE.max(api.timeout / 4));
    let mut begin = Begin::Read;
    loop {
        let started = Instant::now();
        let ended = once(&api, watch_s, &again, begin, &sightings).await;
        if sightings.is_closed() {
            return;
        }
        begin = match ended {
            Ok(next @ Begin::After(_)) => {
                backoff.lasted(started.elapsed());
                next
            }
            Ok(next) => {
                backoff.lasted(started.elapsed());
                tokio::time::sleep(backoff.pause(None)).await;
                next
            }
            Err(error) => {
                if sightings.send(Sighting::Unreadable(error.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(backoff.pause(error.wanted())).await;
                Begin::Read
            }
        };
    }
}

/// One read and one watch, or only a watch where another one ended by itself; and how the next one
/// begins. An end before its time may be that of an API server that comes back with a restored etcd,
/// whose versions have begun anew.
async fn once(
    api: &LeaseApi,
    watch_s: u32,
    again: &Notify,
    begin: Begin,
    sightings: &mpsc::Sender<Sighting>,
) -> Result<Begin, LeaseError> {
    let forgotten = matches!(begin, Begin::Forgotten);
    let read = match begin {
        Begin::After(version) => Some(Version(version)),
        Begin::Read | Begin::Forgotten => read(api, again, sightings).await?,
    };
    // Events count from the version that was read on. A watch that begins with what exists has to show
    // it first.
    let mut reached = read.clone().filter(|_| !forgotten);
    let from = reached.clone().map_or_else(|| WHAT_EXISTS.to_owned(), |version| version.0);
    let opened_at = Instant::now();
    let silent_at = opened_at + longest(watch_s);
    let opened = tokio::select! {
        opened = open(api, api.name(), watch_s, &from, |client| api.leases(client)) => opened?,
        () = again.notified() => return Ok(Begin::Read),
    };
    let Some((endpoint, mut events)) = opened else { return Ok(Begin::Forgotten) };
    loop {
        let next = tokio::select! {
            next = timeout_at(silent_at, events.next()) => next,
            () = again.notified() => return Ok(Begin::Read),
        };
        let Ok(next) = next else {
            api.endpoints.failed(&endpoint);
            return Err(broken(&endpoint, "the connection is dead".into()));
        };
        let Some(event) = next else {
            let complete = opened_at.elapsed().as_secs() + 1 >= u64::from(watch_s);
            let after = reached.filter(|_| complete);
            return Ok(after.map_or(Begin::Read, |version| Begin::After(version.0)));
        };
        let lease = match event {
            Ok(WatchEvent::Added(Lenient(lease)) | WatchEvent::Modified(Lenient(lease))) => lease,
            Ok(WatchEvent::Bookmark(bookmark)) => {
                reached = reached.map(|_| Version(bookmark.metadata.resource_version));
                continue;
            }
            // A deletion is confirmed by the quorum read that follows.
            Ok(WatchEvent::Deleted(_)) => return Ok(Begin::Read),
            Ok(WatchEvent::Error(status)) if status.code == GONE => return Ok(Begin::Forgotten),
            Ok(WatchEvent::Error(status)) => return Err(broken(&endpoint, refusal(&status))),
            Err(error) if is_gone(&error) => return Ok(Begin::Forgotten),
            Err(error) => {
                api.endpoints.failed(&endpoint);
                return Err(broken(&endpoint, words(&error)));
            }
        };
        let seen = record(&lease);
        if reached.is_none() {
            match begins(read.as_ref(), &seen.version) {
                Start::Now => reached = read.clone(),
                Start::Later => {}
                Start::Never => return Ok(Begin::Read),
            }
            continue;
        }
        reached = Some(seen.version.clone());
        api.remember(Some(lease));
        if sightings.send(Sighting::Seen(Source::Watch, Some(seen))).await.is_err() {
            return Ok(Begin::Read);
        }
    }
}

/// Reads the Lease and tells what was found; returns the version, from which a watch can begin.
async fn read(
    api: &LeaseApi,
    again: &Notify,
    sightings: &mpsc::Sender<Sighting>,
) -> Result<Option<Version>, LeaseError> {
    // What is read now answers every doubt from before.
    let _ = again.notified().now_or_never();
    let began = clock::boot();
    let found = api.get(0).await?;
    let version = found.as_ref().map(|record| record.version.clone());
    let _ = sightings.send(Sighting::Seen(Source::Quorum(began), found)).await;
    Ok(version)
}

/// Whether the events of a watch that began with what exists follow what was read.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// This is what was read: whatever comes next has followed it, and nothing was written in between.
    Now,
    /// The API server lags behind the read.
    Later,
    /// Something was written since the read, and this may not be all of it: another read, and a watch
    /// from its version.
    Never,
}

fn begins(read: Option<&Version>, shown: &Version) -> Start {
    match read {
        Some(read) if read == shown => Start::Now,
        Some(read) if read.newer_than(shown) => Start::Later,
        _ => Start::Never,
    }
}

/// What a watch brings.
pub(super) type Events<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<K>, kube::Error>> + Send>>;

/// Opens a watch of one object at whichever endpoint answers first. `None`: the version is no longer
/// known there.
pub(super) async fn open<K>(
    api: &LeaseApi,
    name: &str,
    watch_s: u32,
    version: &str,
    of: impl Fn(Client) -> Api<K>,
) -> Result<Option<(String, Events<K>)>, LeaseError>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(watch_s);
    let (endpoint, events) = api
        .ask("watch", 0, |client| {
            let (objects, params) = (of(client), params.clone());
            async move {
                match objects.watch(&params, version).await {
                    Ok(events) => Ok(Some(events.boxed())),
                    Err(error) if is_gone(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
        .await?;
    Ok(events.map(|events| (endpoint, events as Events<K>)))
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == GONE)
}

/// A server that lives ends a watch in its time. One that says nothing for longer has lost its power.
pub(super) fn longest(watch_s: u32) -> Duration {
    Duration::from_secs(u64::from(watch_s) + 15)
}

fn broken(endpoint: &str, what: String) -> LeaseError {
    let endpoint = endpoint.into();
    LeaseError::Request { endpoint, verb: "watch", what, wanted: None, forbidden: false }
}

#[cfg(test)]
mod tests;
