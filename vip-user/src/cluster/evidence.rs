//! Which events of a watch count: those that follow what was read or shown last of their object, with
//! nothing written in between. An API server may lag behind a read, so an event can be older than what
//! is known.

use crate::model::record::Version;
use std::collections::BTreeMap;

/// How far a watch has come.
#[derive(Debug)]
pub(super) struct Reached {
    /// Where another watch can start. `None`: this one began with what exists, and has not shown yet
    /// what was read.
    version: Option<Version>,
    /// What was read before a watch that began with what exists.
    read: Option<Version>,
    /// Objects that were read while the watch lasts, and the version of that read.
    confirmed: BTreeMap<String, Version>,
}

/// What an event says to whoever knows what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It follows what was known of its object.
    Next,
    /// It is what was read, or older.
    Known,
    /// Something was written since the read, and this may not be all of it: another read is needed.
    Unclear,
}

impl Reached {
    /// A watch begins at the version of a read: whatever it shows follows.
    pub(super) fn at(version: Version) -> Self {
        Self { version: Some(version), read: None, confirmed: BTreeMap::new() }
    }

    /// The watch of one object begins with what exists. `read` is the version of what was read, if
    /// there was anything.
    pub(super) fn existing(read: Option<Version>) -> Self {
        Self { version: None, read, confirmed: BTreeMap::new() }
    }

    /// Where another watch can start.
    pub(super) fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// The watch has come to this version of any object.
    pub(super) fn passes(&mut self, version: Version) {
        if self.version.is_some() {
            self.confirmed.retain(|_, read| read.newer_than(&version));
            self.version = Some(version);
        }
    }

    /// An object was read while the watch lasts: the watch has to come as far as that.
    pub(super) fn confirm(&mut self, key: String, read: Version) {
        self.confirmed.insert(key, read);
    }

    /// Takes in an event.
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

#[cfg(test)]
mod tests;
