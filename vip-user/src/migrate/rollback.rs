//! The way back to kube-vip, from wherever an earlier command has stopped.

use super::{
    edit::parsed,
    facts::Problem,
    pod::{Pod, Program},
};
use serde::{Deserialize, Serialize};

/// What is in the place of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// kube-vip's manifest, as it is in the backup.
    Original,
    /// xvip's manifest, changed by hand perhaps.
    Moved,
    /// Another file: a tool may have written kube-vip's manifest again.
    Other,
    /// Nothing.
    Nothing,
}

/// What a text in the place of the manifest is. `moved`: xvip's manifest as it was put there; `image`:
/// that of xvip.
pub fn place(found: Option<&str>, backup: &str, (moved, image): (Option<&str>, &str)) -> Place {
    let Some(text) = found else { return Place::Nothing };
    if text == backup {
        return Place::Original;
    }
    let runs_xvip = || {
        let object = parsed(text).ok()?;
        let pod = Pod::read(&object)?;
        Some(pod.image() == image || pod.program(None) == Program::Xvip)
    };
    if moved == Some(text) || runs_xvip() == Some(true) { Place::Moved } else { Place::Other }
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
    /// Whether a process has xvip's lock.
    pub locked: bool,
    /// Whether xvip has pins on this host.
    pub pins: bool,
    /// What the Lease says.
    pub note: Note,
    /// Whether the operator goes without the API.
    pub offline: bool,
}

impl Seen {
    /// Whether no xvip runs here, and none has left anything.
    fn without_xvip(&self) -> bool {
        self.daemon == Daemon::Gone && !self.locked && !self.pins
    }
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Whatever can fail on this host is tried, while a manifest is in its place.
    Check,
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
    /// An xvip that began in the last moment may have left a guard.
    Sweep,
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
    let knows_lease = !matches!(seen.note, Note::Unknown(_));
    let mut steps = Vec::new();
    if seen.without_xvip() && seen.place == Place::Original {
        if seen.note == Note::Own {
            steps.push(Step::Strip);
        }
        steps.push(Step::AwaitReady);
        return Ok(steps);
    }
    steps.push(Step::Check);
    // The kubelet itself ends the old pod first, and there is no moment without a manifest.
    if seen.without_xvip() {
        if knows_lease {
            steps.push(Step::Strip);
        }
        steps.extend([Step::PutBack, Step::AwaitReady, Step::Sweep]);
        return Ok(steps);
    }
    if seen.daemon == Daemon::Holds && knows_lease {
        steps.push(Step::HandOver);
    }
    if seen.place != Place::Nothing {
        steps.push(Step::TakeAway);
    }
    steps.extend([Step::AwaitEnd, Step::CleanUp]);
    if knows_lease {
        steps.push(Step::Strip);
    }
    steps.extend([Step::PutBack, Step::AwaitReady]);
    Ok(steps)
}

/// What stands against a way back on this host. `nodes`: the names of all Nodes with their boot ids.
pub fn other_host(nodes: &[(String, String)], node: &str, boot_id: &str) -> Option<Problem> {
    let remedy = format!("run this on {node} with its cluster's kubeconfig");
    let what = match nodes.iter().find(|(name, _)| name == node) {
        None => format!("{node} is no node of the control plane of this cluster"),
        Some((_, found)) if found.is_empty() => format!("the API does not say the boot id of {node}"),
        Some((_, found)) if found != boot_id => format!("this host is not {node}: its boot id differs"),
        Some(_) => return None,
    };
    Some(Problem::new(what, "the API", remedy))
}
