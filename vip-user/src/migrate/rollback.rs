//! The way back to kube-vip, from wherever an earlier command has stopped.

use super::facts::Problem;
use serde::{Deserialize, Serialize};

/// What is in the place of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// kube-vip's manifest.
    Original,
    /// Another file: that of xvip, changed by hand perhaps.
    Other,
    /// Nothing.
    Nothing,
}

/// What the Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The API does not answer. Why.
    Unknown(String),
    /// It notes a tenure of this node.
    Own,
    /// It notes none of this node.
    NotOwn,
}

/// The xvip on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// None runs.
    Gone,
    /// It runs and does not hold the Lease.
    Waits,
    /// It holds the Lease.
    Holds,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is in the place of the manifest.
    pub place: Place,
    /// The xvip on this host.
    pub daemon: Daemon,
    /// Whether xvip has pins on this host.
    pub pins: bool,
    /// What the Lease says.
    pub note: Note,
    /// Whether the operator goes without the API.
    pub offline: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another node gets the Lease.
    HandOver,
    /// The manifest leaves the folder, so the kubelet stops the pod.
    TakeAway,
    /// The process must be gone: it would write the Lease again, and has the lock.
    AwaitEnd,
    /// xvip's programs go: after a crash the guard would silence kube-vip.
    CleanUp,
    /// The note of our tenure leaves the Lease: kube-vip under the same name must not pass for it.
    Strip,
    /// kube-vip's manifest returns.
    PutBack,
    /// Its pod is ready.
    AwaitReady,
}

/// The steps that are left.
///
/// # Errors
/// If there is no way back from here.
pub fn steps(seen: &Seen) -> Result<Vec<Step>, Problem> {
    if let (Note::Unknown(why), false) = (&seen.note, seen.offline) {
        return Err(Problem::new(
            format!("the Lease cannot be read, and may note a tenure of this node: {why}"),
            "the API",
            "wait for an API server, or add --offline if every xvip has this version",
        ));
    }
    let returned = seen.place == Place::Original;
    if returned && !seen.pins && seen.daemon == Daemon::Gone {
        return Ok(vec![Step::AwaitReady]);
    }
    let mut steps = Vec::new();
    if seen.daemon == Daemon::Holds && !seen.offline {
        steps.push(Step::HandOver);
    }
    if seen.place != Place::Nothing {
        steps.push(Step::TakeAway);
    }
    steps.extend([Step::AwaitEnd, Step::CleanUp]);
    if !matches!(seen.note, Note::Unknown(_)) {
        steps.push(Step::Strip);
    }
    steps.extend([Step::PutBack, Step::AwaitReady]);
    Ok(steps)
}
