//! Claims of our VIPs by other stations.

use super::{
    Controller,
    schedule::{BURST, Schedule},
};
use crate::{
    clock,
    cluster::events::Reason,
    model::{desired::VipSpec, policy::ConflictPolicy, record::Record, time::BootNs},
    node::{dataplane::Dataplane, host::interface_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use vip_common::{
    abi::{Claim, MAX_STATIONS},
    mac::Mac,
};

/// A conflict is over when nothing has been heard of it for this long.
const QUIET: Duration = Duration::from_secs(30);
/// Two defenders must not loop (RFC 5227 section 2.4, DEFEND_INTERVAL).
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// An address is yielded only to a claim that goes on for this long.
const YIELD_AFTER: Duration = Duration::from_secs(10);

/// One station that claims a VIP which this node holds.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: BootNs,
    last: BootNs,
}

/// Stations that claim VIPs which this node holds, and what is done about it.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    seen: BTreeMap<(IpAddr, [u8; 6]), Seen>,
    defended: BTreeMap<IpAddr, BootNs>,
    yielded: BTreeSet<IpAddr>,
    /// Nodes of the cluster by the MAC addresses that they answer with, from the Leases.
    nodes: BTreeMap<[u8; 6], String>,
}

impl Conflicts {
    pub(super) fn is_yielded(&self, vip: IpAddr) -> bool {
        self.yielded.contains(&vip)
    }

    /// Nodes by MAC address, both as text.
    pub(super) fn nodes(&self) -> BTreeMap<String, String> {
        let text = |mac: &[u8; 6]| Mac(*mac).to_string();
        self.nodes.iter().map(|(mac, node)| (text(mac), node.clone())).collect()
    }

    /// Remembers whose MAC addresses a record names.
    pub(super) fn learn(&mut self, record: Option<&Record>) {
        let Some(record) = record.filter(|record| record.tenure().is_some()) else { return };
        for mac in &record.macs {
            self.nodes.insert(*mac, record.holder.clone());
        }
    }
}

impl<D: Dataplane> Controller<D> {
    pub(super) async fn claimed(&mut self, claim: Claim) {
        if self.links.links.iter().any(|link| link.mac == claim.mac) {
            return;
        }
        let vip = IpAddr::from(claim.ip);
        let mac = Mac(claim.mac).to_string();
        if self.holds_for_long(vip) {
            self.conflict(vip, &claim, &mac).await;
        }
        tracing::debug!(%vip, %mac, ifindex = claim.ifindex, "another station claims a VIP");
        self.heard(vip, &claim).await;
    }

    /// Tells the kernel who may claim the VIPs of a slot, after a look at its Lease. Only what the
    /// election accepts as evidence renews that list. If more stations than fit are known, it is
    /// cleared.
    pub(super) fn guard_neighbours(&mut self, slot: u32, record: Option<&Record>) {
        if !self.setup.guard_neighbours {
            return;
        }
        let Some(leased) = self.leases.get(&slot) else { return };
        // A lagging API server shows what is long over.
        if leased.election.accepted() != record.map(|record| &record.version) {
            return;
        }
        let own = self.links.links.iter().map(|link| link.mac);
        let stations: BTreeSet<[u8; 6]> = self.conflicts.nodes.keys().copied().chain(own).collect();
        let tenure = record.filter(|record| record.tenure().is_some() && !record.macs.is_empty());
        let until = match tenure {
            Some(record) if stations.len() <= MAX_STATIONS => {
                clock::boot().after(self.setup.timing.hold(record.duration_s))
            }
            _ => BootNs(0),
        };
        let stations: Vec<[u8; 6]> = stations.into_iter().collect();
        let told = self.dataplane.set_holder(slot, &stations, until);
        self.outcome("neighbour guard", slot, told);
    }

    /// Within 2·D of a change of holder a claim is part of the handover, and after it no node of ours
    /// sends any.
    fn holds_for_long(&self, vip: IpAddr) -> bool {
        let now = clock::boot();
        let grace = Duration::from_secs(2 * u64::from(self.setup.timing.duration_s));
        self.specs.iter().filter(|spec| spec.ip == vip).any(|spec| {
            self.leases.get(&spec.slot).is_some_and(|leased| {
                leased.serves(now)
                    && leased.election.admits(vip)
                    && leased.held_since.is_some_and(|since| since.after(grace) <= now)
            })
        })
    }

    async fn conflict(&mut self, vip: IpAddr, claim: &Claim, mac: &str) {
        let now = clock::boot();
        let known = self.conflicts.seen.contains_key(&(vip, claim.mac));
        let seen =
            self.conflicts.seen.entry((vip, claim.mac)).or_insert(Seen { first: now, last: now });
        seen.last = now;
        let long = seen.first.after(YIELD_AFTER) <= now;
        if !known {
            let interface = interface_name(claim.ifindex);
            let who = match self.conflicts.nodes.get(&claim.mac) {
                Some(node) => format!("which is node {node}"),
                None => "which is not a node of xvip".into(),
            };
            let text = format!("{vip} is also claimed by {mac} on {interface}, {who}");
            self.setup.metrics.conflict(vip);
            let of = |spec: &&VipSpec| spec.ip == vip;
            let slot = self.specs.iter().find(of).map(|spec| spec.slot);
            if let Some(leased) = slot.and_then(|slot| self.leases.get(&slot)) {
                let news = leased.news(Reason::Conflict, vip.to_string(), text.clone());
                self.setup.recorder.tell(news);
            }
            self.problem(&format!("conflict {vip}"), Some(text));
        }
        match self.setup.conflict {
            ConflictPolicy::Report => {}
            ConflictPolicy::Defend => {
                let last = self.conflicts.defended.get(&vip);
                if last.is_none_or(|last| last.after(DEFEND_EVERY) <= now) {
                    self.conflicts.defended.insert(vip, now);
                    let slot = self.specs.iter().find(|spec| spec.ip == vip).map(|spec| spec.slot);
                    if let Some(slot) = slot {
                        self.announce(slot, &[vip], false).await;
                    }
                }
            }
            ConflictPolicy::Yield => {
                if long && self.conflicts.yielded.insert(vip) {
                    tracing::warn!(%vip, %mac, "another station goes on claiming the VIP; it is yielded");
                    self.reconcile().await;
                }
            }
        }
    }

    pub(super) fn forget_conflicts(&mut self, now: BootNs) {
        let over = |seen: &Seen| seen.last.after(QUIET) <= now;
        let conflicts = &mut self.conflicts;
        let quiet: Vec<IpAddr> =
            conflicts.seen.iter().filter(|(_, seen)| over(seen)).map(|((vip, _), _)| *vip).collect();
        conflicts.seen.retain(|_, seen| !over(seen));
        for vip in quiet {
            if self.conflicts.seen.keys().any(|(other, _)| *other == vip) {
                continue;
            }
            self.problem(&format!("conflict {vip}"), None);
            self.conflicts.defended.remove(&vip);
            if self.conflicts.yielded.remove(&vip) {
                tracing::info!(%vip, "nobody else claims the VIP any more; it is served again");
                self.reconcile_at = Some(now);
                let slot = self.specs.iter().find(|spec| spec.ip == vip).map(|spec| spec.slot);
                if let Some(leased) = slot.and_then(|slot| self.leases.get_mut(&slot)) {
                    leased.announce_at = Schedule::of(&BURST);
                }
            }
        }
    }
}
