//! What happens to the loop, and what it needs to know to begin.

use crate::{
    cluster::{events::Recorder, lease::LeaseApi, node::Report, watch::Sighting},
    metrics::Metrics,
    model::{
        desired::Placement,
        election::{Identity, Slot, Written},
        policy::{ConflictPolicy, OnStop},
        record::Record,
        timing::Timing,
    },
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use vip_common::abi::Claim;

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// The Lease of a slot was seen, or could not be.
    Sighting(u32, Sighting),
    /// A write has ended.
    Written {
        /// The slot of its Lease.
        slot: u32,
        /// Its id.
        id: u64,
        /// How.
        outcome: Written,
        /// What went wrong, in words.
        problem: Option<String>,
    },
    /// The Leases of the namespace, which the admission of a slot has asked for under this
    /// number; in words if they could not be listed.
    Listed(u32, u64, Result<Vec<(String, Record)>, String>),
    /// Whether this process may list Leases; in words if not.
    MayList(Option<String>),
    /// An attempt to create the Lease of a slot, without a holder, has ended; in words if it failed.
    Created(u32, Option<String>),
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
    /// A deadline of the loop has come.
    Timer,
}

/// What the loop needs to know about one Lease.
#[derive(Clone)]
pub struct LeaseSetup {
    /// The Lease.
    pub api: LeaseApi,
    /// Its slot in the maps.
    pub slot: u32,
    /// The highest generation that the slot has had.
    pub generation: u64,
    /// A tenure of this boot.
    pub backed: Option<Slot>,
    /// The VIPs that it guards.
    pub vips: Vec<IpAddr>,
    /// The labels of the nodes that may hold it.
    pub nodes: BTreeMap<String, String>,
}

/// What the loop needs to know.
#[derive(Clone)]
pub struct Setup {
    /// The Leases.
    pub leases: Vec<LeaseSetup>,
    /// The timings.
    pub timing: Timing,
    /// What a stop does.
    pub on_stop: OnStop,
    /// Between refreshing announcements; zero: none.
    pub refresh: Duration,
    /// Who we are.
    pub me: Identity,
    /// What is done about other stations that claim a VIP.
    pub conflict: ConflictPolicy,
    /// Whether the kernel drops claims that contradict the Lease.
    pub guard_neighbours: bool,
    /// Where held VIPs are put.
    pub placement: Placement,
    /// What is counted.
    pub metrics: Metrics,
    /// Where Kubernetes Events go.
    pub recorder: Recorder,
}
