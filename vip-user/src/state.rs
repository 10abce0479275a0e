//! What a running daemon tells about itself over its local socket.

use crate::model::{
    election::{Election, View},
    fitness::Fitness,
    time::BootNs,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The daemon's own view; `xvip status` shows it beside what the maps say. During an upgrade the two
/// may be of different versions, so a field that is missing is no error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonState {
    /// Its process id.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` of the loop's last turn, nanoseconds.
    pub turned_ns: u64,
    /// What this node lacks before it could take over; empty when it is ready.
    pub not_ready: Vec<String>,
    /// One per Lease.
    pub leases: Vec<LeaseState>,
    /// What stands in the way at the moment, by subject; tried again until it is gone.
    pub problems: BTreeMap<String, String>,
    /// Nodes of the cluster by the MAC addresses that they answer with, as learned from the Leases.
    pub nodes: BTreeMap<String, String>,
}

/// Where one election stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseState {
    /// `namespace/name`.
    pub lease: String,
    /// Its slot in the maps.
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

/// The loop turns several times a second; one that has stood for this long is stuck.
const STUCK: Duration = Duration::from_secs(10);

impl DaemonState {
    /// Whether the loop has stood still, in words.
    pub fn stuck(&self, now: BootNs) -> Option<String> {
        let stood = BootNs(self.turned_ns).until(now);
        (stood > STUCK).then(|| format!("the loop has stood still for {stood:?}"))
    }

    /// What this node lacks before it could take over.
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
