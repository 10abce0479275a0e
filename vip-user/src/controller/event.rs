//! What happens to the loop, and what it needs to know to begin.

use crate::{
    cluster::{events::Recorder, lease::LeaseApi, node::Report, watch::Sighting},
    metrics::Metrics,
    model::{
        agent::Policy, election::Written, group::GroupSpec, policy::OnStop, record::Record,
        slots::SlotState,
    },
};
use vip_common::abi::Claim;

/// A group as requests know it. A slot may be given to another group while a request is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId {
    /// Its slot.
    pub slot: u32,
    /// Counts the groups of this process.
    pub serial: u64,
}

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// All groups that are wanted, and no others.
    Wanted(Vec<GroupSpec>),
    /// The Lease of a group was seen, or could not be.
    Sighting(GroupId, Sighting),
    /// A write has ended.
    Written {
        /// The group of its Lease.
        group: GroupId,
        /// Its id.
        id: u64,
        /// How.
        outcome: Written,
        /// What went wrong, in words.
        problem: Option<String>,
    },
    /// The Leases of the namespace, which the admission of a group has asked for under this
    /// number; in words if they could not be listed.
    Listed(GroupId, u64, Result<Vec<(String, Record)>, String>),
    /// Whether this process may list Leases; in words if not.
    MayList(Option<String>),
    /// An attempt to create the Lease of a group, without a holder, has ended; in words if it failed.
    Created(GroupId, Option<String>),
    /// Links or addresses have changed.
    HostChanged,
    /// This node as the API shows it, or why it cannot be read.
    Node(Report),
    /// Whether the LAN answers: the gateway or a named peer. In words if it does not.
    Lan(Option<String>),
    /// Somebody else claims a VIP.
    Claim(Claim),
    /// Something outside the loop has a problem, or it is over: the subject, and why.
    Problem(&'static str, Option<String>),
    /// SIGTERM or SIGINT.
    Stop,
}

/// What the loop needs to know.
#[derive(Clone)]
pub struct Setup {
    /// A Lease of the namespace. Those of the groups differ from it by their names.
    pub api: LeaseApi,
    /// The groups that are wanted.
    pub groups: Vec<GroupSpec>,
    /// What the maps know of each slot.
    pub slots: Vec<(u32, SlotState)>,
    /// What the operator has chosen.
    pub policy: Policy,
    /// What a stop does.
    pub on_stop: OnStop,
    /// What is counted.
    pub metrics: Metrics,
    /// Where Kubernetes Events go.
    pub recorder: Recorder,
}
