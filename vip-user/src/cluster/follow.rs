//! Following objects of the Kubernetes API: one quorum read of everything in a scope, then one watch
//! from its version. A watch whose time is over is followed by another from where it ended. After
//! anything else there is a new read. A follower makes no other request while nothing happens.

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
    model::{election::Source, record::Version},
};
use futures::{FutureExt as _, StreamExt as _};
use kube::{Resource, api::WatchEvent};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

/// What the API server has now, whatever version that is.
const WHAT_EXISTS: &str = "0";

/// What a follower does next.
#[derive(Debug)]
enum Next {
    /// With a read, and a watch that begins so.
    Read(Begin),
    /// With a watch from where the last one ended.
    After(Reached),
}

impl Next {
    /// The API server has forgotten the version of what was read, or shown last.
    const FORGOTTEN: Self = Self::Read(Begin::Existing);
    /// An object was written since it was read: the version of another read is remembered.
    const WRITTEN: Self = Self::Read(Begin::Version);
}

/// Where what was seen goes.
struct Out<K, T> {
    items: mpsc::Sender<T>,
    item: Box<dyn FnMut(Told<K>) -> Option<T> + Send>,
}

impl<K, T> Out<K, T> {
    async fn tell(&mut self, told: Told<K>) {
        if let Some(item) = (self.item)(told) {
            // A follower without a receiver sees that, and ends.
            let _ = self.items.send(item).await;
        }
    }
}

impl<K> Followed<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Follows until the receiver is gone. `again` ends the present watch: something contradicts what
    /// it has shown. `item` makes what is sent, if anything is.
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

    /// One read and one watch, or only a watch if the last one ended in its time. Returns what comes
    /// next. A watch that ends early may mean that the API server came back with a restored etcd, whose
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

    /// Takes in an event. If it ends the watch, returns what comes next.
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
        // A quorum read confirms a deletion: the next one of this object, or one at once, among all.
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

    /// A watch has ended with an error.
    async fn broken<T>(&self, endpoint: &str, what: &str, out: &mut Out<K, T>) -> Next {
        out.tell(Told::Broken(format!("{endpoint}: watch: {what}"))).await;
        self.with_a_read()
    }

    /// With a read, and a watch that begins as usual.
    fn with_a_read(&self) -> Next {
        Next::Read(self.pace.begin)
    }

    /// Reads what is in the scope, and tells of it. Returns where the watch begins.
    async fn read<T>(
        &self,
        begin: Begin,
        again: &Notify,
        out: &mut Out<K, T>,
    ) -> Result<Reached, LeaseError> {
        // What is read now answers every doubt from before.
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

    /// Reads one of all objects while their watch lasts. Only a list has a version where there is no
    /// such object.
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

/// A server that lives ends a watch in its time. One that says nothing for longer has lost its power.
fn longest(watch_s: u32) -> Duration {
    Duration::from_secs(u64::from(watch_s) + 15)
}
