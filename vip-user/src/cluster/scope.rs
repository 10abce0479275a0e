//! What a follower follows, how often it asks, and what it reports.

use super::lease::LeaseApi;
use crate::model::{lease::election::Source, time::BootNs};
use kube::{Api, Client};
use std::time::Duration;

/// What is followed, and how.
pub struct Followed<K> {
    /// The API servers.
    pub api: LeaseApi,
    /// The API of these objects on one server: of one namespace, or of a kind without namespaces. A
    /// name identifies one object in it.
    pub of: fn(&LeaseApi, Client) -> Api<K>,
    /// Which of these objects are followed.
    pub scope: Scope,
    /// How often the servers are asked.
    pub pace: Pace,
}

/// Which objects are followed.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The object with this name: a GET, then a watch of it.
    Named(String),
    /// All objects: a LIST, then one watch.
    All,
}

/// How often the servers are asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a watch lasts before the server ends it, in seconds. The next watch then continues.
    pub watch_s: u32,
    /// The first pause after a watch or a read has ended early.
    pub first_pause: Duration,
    /// The longest pause after that.
    pub longest_pause: Duration,
    /// How the watch of a named object usually begins.
    pub begin: Begin,
}

/// How the watch of a named object begins after the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the version that was read.
    Version,
    /// With what the API server has. A seldom-written object is older than what the server remembers,
    /// and a watch from its version would be refused.
    Existing,
}

/// What a follower reports.
#[derive(Clone, Debug)]
pub enum Told<K> {
    /// An object was seen, or there is no object with its name.
    Seen(Sighted<K>),
    /// All objects of a list have been reported. The list began at this time; objects that it does not
    /// name do not exist.
    Listed(BootNs),
    /// A watch has broken, for this reason. A read follows.
    Broken(String),
    /// The API cannot be read, for this reason.
    Unreadable(String),
}

/// One object, as it was seen.
#[derive(Clone, Debug)]
pub struct Sighted<K> {
    /// The name of the object.
    pub key: String,
    /// Which read or watch has shown it.
    pub source: Source,
    /// The object. `None`: there is no object with this name.
    pub object: Option<K>,
}
