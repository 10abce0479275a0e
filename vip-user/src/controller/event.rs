//! The events of the loop, and what the loop needs to start.

use crate::{
    cluster::{events::Recorder, lease::LeaseApi, node::Report, watch::Sighting},
    handover::{Reply, Wish},
    metrics::Metrics,
    model::{
        agent::Policy,
        group::GroupSpec,
        health::{Ailment, Service},
        lease::{election::Written, record::Record},
        policy::OnStop,
        slots::SlotState,
    },
};
use std::net::IpAddr;
use tokio::sync::oneshot;
use vip_common::abi::Claim;

/// Identifies a group in requests. Its slot may be given to another group while a request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId {
    /// Its slot.
    pub slot: u32,
    /// The number of the group, counted over the life of this process.
    pub serial: u64,
}

/// Everything that can happen to the loop.
#[derive(Debug)]
pub enum Event {
    /// All groups that are wanted. Groups that are not listed are not wanted any more.
    Wanted(Vec<GroupSpec>),
    /// The Lease of a group was seen, or could not be read.
    Sighting(GroupId, Sighting),
    /// A write has ended.
    Written {
        /// The group whose Lease was written.
        group: GroupId,
        /// The id of the write.
        id: u64,
        /// How the write ended.
        outcome: Written,
        /// What went wrong, if anything did.
        problem: Option<String>,
    },
    /// The Leases of the namespace, which the admission of a group has asked for under this number, or
    /// why they could not be listed.
    Listed(GroupId, u64, Result<Vec<(String, Record)>, String>),
    /// Whether this process may list Leases: `None` if it may, else the refusal.
    MayList(Option<String>),
    /// An attempt to create the Lease of a group without a holder has ended; with the problem if it
    /// failed.
    Created(GroupId, Option<String>),
    /// Links or addresses have changed.
    HostChanged,
    /// This node as the API shows it, or why it cannot be read.
    Node(Report),
    /// Whether the LAN (the gateway or a named peer) answers: `None` if it does, else the problem.
    Lan(Option<String>),
    /// What ails a service of this node; `None`: it is well.
    Health(Service, Option<Ailment>),
    /// Root asks this node to hand a Lease over, or all that it holds.
    HandOver {
        /// Which, and to whom.
        wish: Wish,
        /// Where the reply goes.
        answer: oneshot::Sender<Reply>,
    },
    /// Another station claims a VIP.
    Claim(Claim),
    /// Whether a connection was accepted at a VIP of a group for which another station answers. `None`:
    /// none could be tried.
    Visited(GroupId, IpAddr, Option<bool>),
    /// Something outside the loop has a problem: its subject, and the reason, or `None` once it is
    /// over.
    Problem(&'static str, Option<String>),
    /// SIGTERM or SIGINT.
    Stop,
}

/// What the loop needs to start.
#[derive(Clone)]
pub struct Setup {
    /// The API of any Lease of the namespace. The Leases of the groups differ from it only by name.
    pub api: LeaseApi,
    /// The groups that are wanted.
    pub groups: Vec<GroupSpec>,
    /// What the maps know of each slot.
    pub slots: Vec<(u32, SlotState)>,
    /// The operator's settings for the agent.
    pub policy: Policy,
    /// What a stop does.
    pub on_stop: OnStop,
    /// A port of the service behind the VIPs.
    pub port: u16,
    /// Where the loop counts.
    pub metrics: Metrics,
    /// Where Kubernetes Events go.
    pub recorder: Recorder,
}

impl Setup {
    /// The Leases of the groups, with their namespace.
    pub fn lease_names(&self) -> Vec<String> {
        self.groups.iter().map(|group| self.api.named(&group.lease).full_name()).collect()
    }
}
