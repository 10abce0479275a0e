//! What the loop keeps for each Lease.

use super::{event::LeaseSetup, namesake::Namesake, schedule::Schedule};
use crate::{
    clock,
    cluster::{
        events::{News, Reason},
        lease::LeaseApi,
    },
    model::{
        admission::PROBE_TIME,
        desired::Links,
        election::{Election, Identity},
        fitness::{Damper, Fitness},
        ownership::Ownership,
        time::BootNs,
        timing::Timing,
    },
};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};
use tokio::sync::Notify;

/// One Lease and the VIPs that it guards.
pub(super) struct Leased {
    pub(super) api: LeaseApi,
    /// Ends the present watch.
    pub(super) again: Arc<Notify>,
    pub(super) election: Election,
    pub(super) vips: Vec<IpAddr>,
    pub(super) announce_at: Schedule,
    pub(super) probe_at: Schedule,
    pub(super) silence_at: Option<BootNs>,
    pub(super) held_since: Option<BootNs>,
    pub(super) damper: Damper,
    /// How well the links serve these VIPs.
    pub(super) reach: Fitness,
    /// The MAC addresses that these VIPs are answered with.
    pub(super) macs: Vec<[u8; 6]>,
    /// Why this node does not serve as it should, in words.
    pub(super) weakness: Option<String>,
    /// What another process that uses our node name has written.
    pub(super) namesake: Namesake,
}

impl Leased {
    pub(super) fn new(setup: LeaseSetup, me: Identity, timing: Timing) -> Self {
        let mut election = Election::new(me, timing, setup.generation, setup.backed);
        election.admit_only(setup.api.name(), &setup.vips, PROBE_TIME);
        Self {
            api: setup.api,
            again: Arc::new(Notify::new()),
            election,
            vips: setup.vips,
            announce_at: Schedule::default(),
            probe_at: Schedule::default(),
            silence_at: None,
            held_since: None,
            damper: Damper::default(),
            reach: Fitness::Unable,
            macs: Vec::new(),
            weakness: None,
            namesake: Namesake::default(),
        }
    }

    /// Whether the kernel may answer now.
    pub(super) fn serves(&self, now: BootNs) -> bool {
        self.election.ownership(now).serves(now)
    }

    /// Whether this node waits for the Lease.
    pub(super) fn is_candidate(&self) -> bool {
        let ownership = self.election.ownership(clock::boot());
        matches!(ownership, Ownership::Elsewhere { .. } | Ownership::ProgramHere)
    }

    /// Something that is worth a Kubernetes Event about this Lease.
    pub(super) fn news(&self, reason: Reason, subject: String, text: String) -> News {
        let uid = self.election.uid().map(Into::into);
        News { lease: self.api.name().into(), uid, reason, subject, text }
    }

    /// Takes in how well the links serve these VIPs: whether all have one that is up, or some, or none.
    pub(super) fn use_links(&mut self, links: &Links) {
        let up = |vip: &&IpAddr| links.of(**vip).any(|link| link.up);
        self.reach = match self.vips.iter().filter(up).count() {
            0 => Fitness::Unable,
            some if some < self.vips.len() => Fitness::Doubtful,
            _ => Fitness::Able,
        };
        let macs: BTreeSet<[u8; 6]> =
            self.vips.iter().flat_map(|vip| links.of(*vip)).map(|link| link.mac).collect();
        self.macs = macs.into_iter().collect();
    }

    /// When something is due.
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
