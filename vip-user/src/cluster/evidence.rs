//! Decides which events of a watch count as evidence. They must follow what was last read or shown of
//! their object, with nothing written in between. An API server may lag behind a read, so an event can
//! be older than what this node knows.

use crate::model::lease::record::Version;
use std::collections::BTreeMap;

/// How far a watch has come.
#[derive(Debug)]
pub(super) struct Reached {
    /// The version at which another watch can start. `None`: this watch began with what exists, and has
    /// not yet shown what was read.
    version: Option<Version>,
    /// The version that was read before a watch that began with what exists.
    read: Option<Version>,
    /// Objects that were read while the watch lasts, with the version of that read.
    confirmed: BTreeMap<String, Version>,
}

/// What an event shows, compared with what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The event follows what was known of its object.
    Next,
    /// The event shows what was read, or something older.
    Known,
    /// Something was written since the read, and the event may not show all of it. Another read is
    /// needed.
    Unclear,
}

impl Reached {
    /// A watch that begins at the version of a read. All of its events follow that read.
    pub(super) fn at(version: Version) -> Self {
        Self { version: Some(version), read: None, confirmed: BTreeMap::new() }
    }

    /// A watch of one object that begins with what exists. `read` is the version that was read, `None`
    /// if there was no object.
    pub(super) fn existing(read: Option<Version>) -> Self {
        Self { version: None, read, confirmed: BTreeMap::new() }
    }

    /// The version at which another watch can start, if one is known.
    pub(super) fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Notes that the watch has reached this version, of whichever object.
    pub(super) fn passes(&mut self, version: Version) {
        if self.version.is_some() {
            self.confirmed.retain(|_, read| read.newer_than(&version));
            self.version = Some(version);
        }
    }

    /// Notes that an object was read while the watch lasts. Its events up to that version are known.
    pub(super) fn confirm(&mut self, key: String, read: Version) {
        self.confirmed.insert(key, read);
    }

    /// Notes an event of an object, and returns what it shows.
    pub(super) fn shows(&mut self, key: &str, version: &Version) -> Shown {
        if self.version.is_none() {
            return match begins(self.read.as_ref(), version) {
                Start::Now => {
                    self.version = self.read.take();
                    Shown::Known
                }
                Start::Later => Shown::Known,
                Start::Never => Shown::Unclear,
            };
        }
        let shown = match self.confirmed.get(key) {
            Some(read) if read == version || read.newer_than(version) => Shown::Known,
            Some(read) if !version.newer_than(read) => Shown::Unclear,
            Some(_) | None => Shown::Next,
        };
        self.passes(version.clone());
        shown
    }
}

/// Whether the events of a watch that began with what exists follow what was read.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// This is what was read. All later events follow it, and nothing was written in between.
    Now,
    /// The API server lags behind the read, so the event shows something older.
    Later,
    /// Something was written since the read, and the event may not show all of it. Another read is
    /// needed, and a watch that begins at its version.
    Never,
}

fn begins(read: Option<&Version>, shown: &Version) -> Start {
    match read {
        Some(read) if read == shown => Start::Now,
        Some(read) if read.newer_than(shown) => Start::Later,
        _ => Start::Never,
    }
}

#[cfg(test)]
mod tests;
