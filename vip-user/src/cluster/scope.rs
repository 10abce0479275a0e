//! What a follower follows, how often it asks, and what it tells.

use super::lease::LeaseApi;
use crate::model::{election::Source, time::BootNs};
use kube::{Api, Client};
use std::time::Duration;

/// What is followed, and how.
pub struct Followed<K> {
    /// The API servers.
    pub api: LeaseApi,
    /// The objects of this kind on one server: those of one namespace, or of a kind without namespaces.
    /// A name means one of them.
    pub of: fn(&LeaseApi, Client) -> Api<K>,
    /// Which of them.
    pub scope: Scope,
    /// How often the servers are asked.
    pub pace: Pace,
}

/// Which objects are followed.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The one of this name: a GET, then a watch of it.
    Named(String),
    /// All: a LIST, then one watch.
    All,
}

/// How often the servers are asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A watch is renewed after this long. Seconds. The server ends it.
    pub watch_s: u32,
    /// The first pause after a watch or a read has ended before its time.
    pub first_pause: Duration,
    /// The longest one.
    pub longest_pause: Duration,
    /// How the watch of a named object usually begins.
    pub begin: Begin,
}

/// How the watch of a named object begins after the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the version that was read.
    Version,
    /// With what the API server has. An object that is seldom written is older than what the server
    /// remembers, and a watch from its version would be refused.
    Existing,
}

/// What following brings.
#[derive(Clone, Debug)]
pub enum Told<K> {
    /// An object was seen, or that there is none of its name.
    Seen(Sighted<K>),
    /// All of a list has been told. It began then, and what it did not name does not exist.
    Listed(BootNs),
    /// A watch has broken; in words. A read follows.
    Broken(String),
    /// The API cannot be read; in words.
    Unreadable(String),
}

/// What was seen of one object.
#[derive(Clone, Debug)]
pub struct Sighted<K> {
    /// Its name.
    pub key: String,
    /// Where that comes from.
    pub source: Source,
    /// The object. `None`: there is none of this name.
    pub object: Option<K>,
}
