//! The VIPs that share one owner, and everything that the node keeps for them.

use super::{
    desired::Links,
    fitness::{Damper, Fitness},
    lease::{
        admission::PROBE_TIME,
        election::{AdoptedFence, Election, Identity},
        stranger::HeldBack,
    },
    namesake::Namesake,
    ownership::Ownership,
    schedule::Schedule,
    time::BootNs,
    timing::Timing,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use vip_common::mac::Mac;

/// VIPs that share one owner, as the configuration asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSpec {
    /// The name of the Lease that guards them.
    pub lease: String,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The labels of the nodes that may hold the Lease.
    pub nodes: BTreeMap<String, String>,
    /// How much the VIPs belong to each node, by name. A node that is not listed has weight 0.
    pub weights: BTreeMap<String, u8>,
}

impl GroupSpec {
    /// How much the VIPs belong to node `node`.
    pub fn weight_of(&self, node: &str) -> u8 {
        self.weights.get(node).copied().unwrap_or(0)
    }
}

/// VIPs that share one owner, with their election and their timers.
#[derive(Debug)]
pub struct Group {
    pub(super) spec: GroupSpec,
    /// Number of the group within this process. A slot may be given to another group, but this number
    /// is unique.
    pub(super) serial: u64,
    pub(super) election: Election,
    /// When the next rounds of announcements are due.
    pub(super) announce_at: Schedule,
    /// In this many of the next rounds, known neighbours are asked too.
    pub(super) asking_rounds: u8,
    /// VIPs were published after a burst had begun.
    pub(super) published_late: bool,
    /// When the next rounds of address probes are due.
    pub(super) probe_at: Schedule,
    /// When to try again to clear a fence that could not be cleared.
    pub(super) silence_at: Option<BootNs>,
    /// When the present tenure raised its fence.
    pub(super) held_since: Option<BootNs>,
    pub(super) damper: Damper,
    /// How well the links serve these VIPs, without damping.
    pub(super) reach: Fitness,
    /// The MAC addresses with which these VIPs are answered.
    pub(super) macs: Vec<Mac>,
    /// Why this node does not serve as well as it could, in words.
    pub(super) weakness: Option<String>,
    /// Why its Lease is not taken, as it was reported last.
    pub(super) held_back: Option<HeldBack>,
    /// The fitness that was reported last.
    pub(super) told: Option<Fitness>,
    /// Renewals by another process that uses our node name.
    pub(super) namesake: Namesake,
    /// Whether the group began with a tenure of this boot.
    pub(super) adopted: bool,
    /// Whether the configuration still asks for it. If not, it is given up and forgotten.
    pub(super) wanted: bool,
}

impl Group {
    /// A new group. With `asks_first`, the LAN is asked before an address is published for the first
    /// time under a Lease.
    pub(super) fn new(
        spec: GroupSpec,
        serial: u64,
        me: Identity,
        timing: Timing,
        (generation, adopted): (u64, Option<AdoptedFence>),
        asks_first: bool,
    ) -> Self {
        let was_adopted = adopted.is_some();
        let weight = spec.weight_of(&me.node);
        let mut election = Election::new(me, timing, generation, adopted);
        election.set_weight(weight);
        if asks_first {
            election.admit_only(&spec.lease, &spec.vips, PROBE_TIME);
        }
        Self {
            spec,
            serial,
            election,
            announce_at: Schedule::default(),
            asking_rounds: 0,
            published_late: false,
            probe_at: Schedule::default(),
            silence_at: None,
            held_since: None,
            damper: Damper::default(),
            reach: Fitness::Unable,
            macs: Vec::new(),
            weakness: None,
            held_back: None,
            told: None,
            namesake: Namesake::default(),
            adopted: was_adopted,
            wanted: true,
        }
    }

    /// Its number, which no other group of this process has.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// The name of its Lease.
    pub fn lease(&self) -> &str {
        &self.spec.lease
    }

    /// Its VIPs.
    pub fn vips(&self) -> &[IpAddr] {
        &self.spec.vips
    }

    /// Its election.
    pub const fn election(&self) -> &Election {
        &self.election
    }

    /// Why this node does not serve it as well as it could, in words.
    pub fn weakness(&self) -> Option<&str> {
        self.weakness.as_deref()
    }

    /// Whether the kernel may answer now.
    pub fn serves(&self, now: BootNs) -> bool {
        self.election.ownership(now).serves(now)
    }

    /// Whether this node waits for the Lease.
    pub fn is_candidate(&self, now: BootNs) -> bool {
        let ownership = self.election.ownership(now);
        matches!(ownership, Ownership::Elsewhere { .. } | Ownership::ProgramHere)
    }

    /// Notes for how many of these VIPs a link is up, and with which MAC addresses they are answered.
    pub(super) fn use_links(&mut self, links: &Links) {
        let up = |vip: &&IpAddr| links.of(**vip).any(|link| link.up);
        self.reach = match self.spec.vips.iter().filter(up).count() {
            0 => Fitness::Unable,
            some if some < self.spec.vips.len() => Fitness::Impaired,
            _ => Fitness::Able,
        };
        let macs: BTreeSet<Mac> =
            self.spec.vips.iter().flat_map(|vip| links.of(*vip)).map(|link| link.mac).collect();
        self.macs = macs.into_iter().collect();
    }

    /// When the next of its timers is due.
    pub(super) fn wake_at(&self, now: BootNs) -> Option<BootNs> {
        let timers = [
            self.election.wake_at(now),
            self.announce_at.next(),
            self.probe_at.next(),
            self.silence_at,
            self.damper.wake_at(now),
        ];
        timers.into_iter().flatten().min()
    }
}
