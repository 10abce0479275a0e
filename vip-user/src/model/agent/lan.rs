//! What this node observes of other stations and other nodes.

use super::Agent;
use crate::model::{
    lease::{
        election::{Input, Source},
        record::Record,
    },
    namesake::Look,
    news::{News, Of},
    policy::ConflictPolicy,
    time::{BootNs, Now},
    turn::{Stations, Turn},
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use vip_common::{
    abi::{Claim, MAX_STATIONS},
    mac::Mac,
};

impl Agent {
    /// A Lease was read.
    pub(super) fn seen(
        &mut self,
        now: Now,
        slot: u32,
        source: Source,
        record: Option<Record>,
        turn: &mut Turn,
    ) {
        self.look_for_namesake(now.boot, slot, record.as_ref());
        self.conflicts.learn(record.as_ref());
        if !self.policy.guard_neighbours {
            return self.feed(now, slot, Input::Observed(source, record), turn);
        }
        self.feed(now, slot, Input::Observed(source, record.clone()), turn);
        if let Some(stations) = self.stations(now.boot, slot, record.as_ref()) {
            turn.stations.push((slot, stations));
        }
    }

    /// The stations that may claim the VIPs of a group, given a reading of its Lease. Only a reading
    /// that the election accepts as evidence renews this list. The list expires at once if there are
    /// too many stations.
    fn stations(&self, now: BootNs, slot: u32, record: Option<&Record>) -> Option<Stations> {
        let group = self.groups.get(&slot)?;
        // A lagging API server shows an outdated Lease.
        if group.election.accepted() != record.map(|record| &record.version) {
            return None;
        }
        let own = self.links.links.iter().map(|link| link.mac);
        let macs: BTreeSet<Mac> = self.conflicts.nodes().keys().copied().chain(own).collect();
        let tenure = record.filter(|record| record.tenure().is_some() && !record.macs.is_empty());
        let until = match tenure {
            Some(record) if macs.len() <= MAX_STATIONS => {
                now.after(self.policy.timing.hold(record.duration_s))
            }
            _ => BootNs(0),
        };
        Some(Stations { macs: macs.into_iter().collect(), until })
    }

    /// Reports that another process renews a Lease under our node name.
    fn look_for_namesake(&mut self, now: BootNs, slot: u32, record: Option<&Record>) {
        let me = &self.policy.me;
        let Some(group) = self.groups.get_mut(&slot) else { return };
        let waits = group.is_candidate(now);
        let place = match group.namesake.look(me, waits, record) {
            Look::Nothing => return,
            Look::Over => return self.tell("node name", Of::Node, None),
            Look::SameHost => "another process of this host".to_owned(),
            Look::OtherBoot(boot_id) => format!("another host (boot id {boot_id:?})"),
        };
        let (node, lease) = (&me.node, group.lease());
        let why = format!(
            "{place} holds {lease} under the node name {node:?}, which must be unique: set `node`"
        );
        self.tell("node name", Of::Node, Some(why));
    }

    /// Another station claims an address.
    pub(super) fn claimed(&mut self, now: Now, claim: &Claim, turn: &mut Turn) {
        let mac = Mac(claim.mac);
        if self.links.links.iter().any(|link| link.mac == mac) {
            return;
        }
        let vip = IpAddr::from(claim.ip);
        let Some(slot) = self.slot_of(vip) else { return };
        if self.holds_for_long(now.boot, slot, vip) {
            self.conflict(now.boot, slot, vip, claim, turn);
        }
        // If this host does not answer for the address, the claim may come from a living host.
        self.feed(now, slot, Input::Heard(vip, mac), turn);
    }

    fn slot_of(&self, vip: IpAddr) -> Option<u32> {
        let mut groups = self.groups.iter();
        groups.find(|(_, group)| group.spec.vips.contains(&vip)).map(|(slot, _)| *slot)
    }

    /// Whether this node has held the VIP for at least 2·D. Claims before that are part of the
    /// handover. After that, no node of ours sends any.
    fn holds_for_long(&self, now: BootNs, slot: u32, vip: IpAddr) -> bool {
        let grace = Duration::from_secs(2 * u64::from(self.policy.timing.duration_s));
        self.groups.get(&slot).is_some_and(|group| {
            group.serves(now)
                && group.election.admits(vip)
                && group.held_since.is_some_and(|since| since.after(grace) <= now)
        })
    }

    fn conflict(&mut self, now: BootNs, slot: u32, vip: IpAddr, claim: &Claim, turn: &mut Turn) {
        let (mac, ifindex) = (Mac(claim.mac), claim.ifindex);
        let heard = self.conflicts.heard(now, vip, mac);
        if heard.new {
            let node = self.conflicts.nodes().get(&mac).cloned();
            self.news.push(News::Conflict { slot, vip, mac, ifindex, node });
        }
        match self.policy.conflict {
            ConflictPolicy::Report => {}
            ConflictPolicy::Defend => {
                if self.conflicts.defends(now, vip) {
                    self.announce_now(slot, vip);
                }
            }
            ConflictPolicy::Yield => {
                if heard.lasting && self.conflicts.yields(vip) {
                    self.news.push(News::Yielded(vip, true));
                    turn.host = true;
                }
            }
        }
    }

    pub(super) fn forget_conflicts(&mut self, now: BootNs) {
        for (vip, yielded) in self.conflicts.take_over(now) {
            self.tell("conflict", Of::Vip(vip), None);
            if !yielded {
                continue;
            }
            self.news.push(News::Yielded(vip, false));
            self.host.is_due(now);
            if let Some(slot) = self.slot_of(vip)
                && let Some(group) = self.groups.get_mut(&slot)
            {
                group.begin_burst(now);
                self.set_timer(now, slot);
            }
        }
    }
}
