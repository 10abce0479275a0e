//! The state that a running daemon sends over its local socket.

use crate::model::{
    fitness::Fitness,
    lease::election::{Election, View},
    time::BootNs,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The daemon's own view; `xvip status` shows it beside the maps. During an upgrade daemon and
/// reader may be of different versions, so a missing field is not an error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonState {
    /// The process id of the daemon.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` of the loop's last turn, in nanoseconds.
    pub turned_ns: u64,
    /// What this node lacks before it could take over; empty when it is ready.
    pub not_ready: Vec<String>,
    /// One entry for each Lease.
    pub leases: Vec<LeaseState>,
    /// The present problems, by subject; xvip keeps trying until each is over.
    pub problems: BTreeMap<String, String>,
    /// MAC address to node name, as learned from the Leases.
    pub nodes: BTreeMap<String, String>,
}

/// The state of one election.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseState {
    /// `namespace/name`.
    pub lease: String,
    /// The slot of the group in the maps.
    pub slot: u32,
    /// `unknown`, `waiting`, `holding`, `lapsed`, `leaving` or `left`.
    pub state: String,
    /// `holderIdentity` as last seen.
    pub holder: Option<String>,
    /// How well this node could serve: `able`, `doubtful`, `unable` or `barred`.
    #[serde(default)]
    pub fitness: Fitness,
    /// Milliseconds until this node may take over.
    pub takeover_in_ms: Option<u64>,
}

/// A loop without a turn for this long is stuck: it turns several times a second.
const STUCK: Duration = Duration::from_secs(10);

impl DaemonState {
    /// The text that says how long the loop has been stuck; `None` if it is not.
    pub fn stuck(&self, now: BootNs) -> Option<String> {
        let stood = BootNs(self.turned_ns).until(now);
        (stood > STUCK).then(|| format!("the loop has stood still for {stood:?}"))
    }

    /// What this node lacks before it could take over, including a stuck loop.
    pub fn lacks(&self, now: BootNs) -> Vec<String> {
        self.not_ready.iter().cloned().chain(self.stuck(now)).collect()
    }

    /// The state before the loop's first turn.
    pub fn starting(now: BootNs) -> Self {
        Self {
            pid: std::process::id(),
            turned_ns: now.0,
            not_ready: vec!["this process is starting".into()],
            ..Self::default()
        }
    }
}

impl LeaseState {
    pub(crate) fn of(now: BootNs, lease: String, slot: u32, election: &Election) -> Self {
        let View { state, holder, takeover_at } = election.view(now);
        Self {
            lease,
            slot,
            state: state.into(),
            holder,
            fitness: election.fitness(),
            takeover_in_ms: takeover_at.map(|at| now.until(at).as_millis() as u64),
        }
    }
}
