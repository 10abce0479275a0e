//! What the loop keeps for each Lease.

use super::{event::LeaseSetup, host::Schedule, namesake::Namesake};
use crate::{
    cluster::lease::LeaseApi,
    model::{
        admission::PROBE_TIME,
        desired::Links,
        election::{Election, Identity, State},
        fitness::{Damper, Fitness},
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
        matches!(self.election.state(), State::Holding(holding) if now < holding.until)
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
