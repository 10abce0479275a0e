//! Follows objects of the Kubernetes API: one quorum read of everything in a scope, then one watch from
//! its version. When a watch ends in its time, the next one continues where it ended. After any other
//! end there is a new read. While nothing happens, a follower makes no other request.

use super::{
    backoff::Backoff,
    evidence::{Reached, Shown},
    lease::LeaseError,
    requests::{GONE, is_gone},
    scope::{Begin, Followed, Scope, Sighted, Told},
    words::{refusal, words},
};
use crate::{
    clock,
    model::lease::{election::Source, record::Version},
};
use futures::{FutureExt as _, StreamExt as _};
use kube::{Resource, api::WatchEvent};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

/// As the version of a watch: begin with whatever the API server has now.
const WHAT_EXISTS: &str = "0";

/// What a follower does next.
#[derive(Debug)]
enum Next {
    /// It reads, and then opens a watch that begins in this way.
    Read(Begin),
    /// It opens a watch where the last one ended.
    After(Reached),
}

impl Next {
    /// The API server has forgotten the version that was last read or shown.
    const FORGOTTEN: Self = Self::Read(Begin::Existing);
    /// An object was written since it was read. The API server remembers the version of a new read.
    const WRITTEN: Self = Self::Read(Begin::Version);
}

/// Where a follower sends what it has seen.
struct Out<K, T> {
    items: mpsc::Sender<T>,
    item: Box<dyn FnMut(Told<K>) -> Option<T> + Send>,
}

impl<K, T> Out<K, T> {
    async fn tell(&mut self, told: Told<K>) {
        if let Some(item) = (self.item)(told) {
            // Without a receiver this fails. The follower checks for that and ends.
            let _ = self.items.send(item).await;
        }
    }
}

impl<K> Followed<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Follows until the receiver is gone. `again` ends the present watch, because something
    /// contradicts what it has shown. `item` converts each report into the item to send, if any.
    pub async fn follow<T>(
        self,
        again: Arc<Notify>,
        items: mpsc::Sender<T>,
        item: impl FnMut(Told<K>) -> Option<T> + Send + 'static,
    ) {
        let mut out = Out { items, item: Box::new(item) };
        let mut backoff = Backoff::new(self.pace.first_pause, self.pace.longest_pause);
        let mut next = self.with_a_read();
        while !out.items.is_closed() {
            let started = Instant::now();
            let wanted = match self.once(&again, next, &mut out).await {
                Ok(how) => {
                    backoff.lasted(started.elapsed());
                    next = how;
                    if matches!(next, Next::After(_)) {
                        continue;
                    }
                    None
                }
                Err(error) => {
                    out.tell(Told::Unreadable(error.to_string())).await;
                    next = self.with_a_read();
                    error.wanted()
                }
            };
            tokio::time::sleep(backoff.pause(wanted)).await;
        }
    }

    /// Makes one read and one watch, or only a watch if the last one ended in its time. Returns what
    /// comes next. If a watch ends early, the API server may be back with a restored etcd, whose
    /// versions start again.
    async fn once<T>(
        &self,
        again: &Notify,
        next: Next,
        out: &mut Out<K, T>,
    ) -> Result<Next, LeaseError> {
        let mut reached = match next {
            Next::After(reached) => reached,
            Next::Read(begin) => self.read(begin, again, out).await?,
        };
        let from = reached.version().map_or(WHAT_EXISTS, |version| version.0.as_str());
        let opened_at = Instant::now();
        let silent_at = opened_at + longest(self.pace.watch_s);
        let opened = tokio::select! {
            opened = self.open(from) => opened?,
            () = again.notified() => return Ok(self.with_a_read()),
        };
        let Some((endpoint, mut events)) = opened else { return Ok(Next::FORGOTTEN) };
        loop {
            let event = tokio::select! {
                event = timeout_at(silent_at, events.next()) => event,
                () = again.notified() => return Ok(self.with_a_read()),
            };
            let event = match event {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) if is_gone(&error) => return Ok(Next::FORGOTTEN),
                Ok(Some(Err(error))) => {
                    self.api.endpoints.failed(&endpoint);
                    return Ok(self.broken(&endpoint, &words(&error), out).await);
                }
                Ok(None) => {
                    let complete = opened_at.elapsed().as_secs() + 1 >= u64::from(self.pace.watch_s);
                    let continues = complete && reached.version().is_some();
                    return Ok(if continues { Next::After(reached) } else { self.with_a_read() });
                }
                Err(_) => {
                    self.api.endpoints.failed(&endpoint);
                    return Ok(self.broken(&endpoint, "the connection is dead", out).await);
                }
            };
            if let Some(next) = self.take_in(event, &endpoint, &mut reached, out).await? {
                return Ok(next);
            }
        }
    }

    /// Handles an event. If the event ends the watch, returns what comes next.
    async fn take_in<T>(
        &self,
        event: WatchEvent<K>,
        endpoint: &str,
        reached: &mut Reached,
        out: &mut Out<K, T>,
    ) -> Result<Option<Next>, LeaseError> {
        let (object, deleted) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                reached.passes(Version(bookmark.metadata.resource_version));
                return Ok(None);
            }
            WatchEvent::Error(status) if status.code == GONE => return Ok(Some(Next::FORGOTTEN)),
            WatchEvent::Error(status) => {
                return Ok(Some(self.broken(endpoint, &refusal(&status), out).await));
            }
        };
        // A quorum read must confirm a deletion. The next read of a single object does; one of many
        // objects is read at once.
        if deleted && matches!(self.scope, Scope::Named(_)) {
            return Ok(Some(self.with_a_read()));
        }
        let key = key(&object);
        match reached.shows(&key, &version(&object)) {
            Shown::Known => Ok(None),
            Shown::Unclear => Ok(Some(Next::WRITTEN)),
            Shown::Next if deleted => {
                let read = self.confirm(&key, out).await?;
                reached.confirm(key, read);
                Ok(None)
            }
            Shown::Next => {
                let seen = Sighted { key, source: Source::Watch, object: Some(object) };
                out.tell(Told::Seen(seen)).await;
                Ok(out.items.is_closed().then(|| self.with_a_read()))
            }
        }
    }

    /// Reports a watch that has ended with an error. A read comes next.
    async fn broken<T>(&self, endpoint: &str, what: &str, out: &mut Out<K, T>) -> Next {
        out.tell(Told::Broken(format!("{endpoint}: watch: {what}"))).await;
        self.with_a_read()
    }

    /// A read, and then a watch that begins as the pace says.
    fn with_a_read(&self) -> Next {
        Next::Read(self.pace.begin)
    }

    /// Reads and reports everything in the scope. Returns where the watch begins.
    async fn read<T>(
        &self,
        begin: Begin,
        again: &Notify,
        out: &mut Out<K, T>,
    ) -> Result<Reached, LeaseError> {
        // This read answers every doubt that was raised before it.
        let _ = again.notified().now_or_never();
        let began = clock::boot();
        let source = Source::Quorum(began);
        match &self.scope {
            Scope::Named(name) => {
                let object = self.get(name).await?;
                let read = object.as_ref().map(version);
                out.tell(Told::Seen(Sighted { key: name.clone(), source, object })).await;
                Ok(match (begin, read) {
                    (Begin::Version, Some(version)) => Reached::at(version),
                    (Begin::Version | Begin::Existing, read) => Reached::existing(read),
                })
            }
            Scope::All => {
                let (objects, version) = self.list(None).await?;
                for object in objects {
                    let seen = Sighted { key: key(&object), source, object: Some(object) };
                    out.tell(Told::Seen(seen)).await;
                }
                out.tell(Told::Listed(began)).await;
                Ok(Reached::at(version))
            }
        }
    }

    /// Reads one of all objects while their watch lasts. This is a list, because only a list has a
    /// version if the object does not exist.
    async fn confirm<T>(&self, key: &str, out: &mut Out<K, T>) -> Result<Version, LeaseError> {
        let source = Source::Quorum(clock::boot());
        let (objects, version) = self.list(Some(key)).await?;
        let object = objects.into_iter().next();
        out.tell(Told::Seen(Sighted { key: key.into(), source, object })).await;
        Ok(version)
    }
}

fn key<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn version<K: Resource>(object: &K) -> Version {
    Version(object.meta().resource_version.clone().unwrap_or_default())
}

/// How long a watch may stay open. A live server ends it in its time; one that has lost its power never
/// does.
fn longest(watch_s: u32) -> Duration {
    Duration::from_secs(u64::from(watch_s) + 15)
}
