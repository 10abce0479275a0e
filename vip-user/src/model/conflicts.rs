//! Other stations that claim VIPs which this node holds, and the MAC addresses with which the nodes of
//! the cluster answer.

use super::{lease::record::Record, time::BootNs};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use vip_common::mac::Mac;

/// A conflict is over when no claim was heard for this long.
const QUIET: Duration = Duration::from_secs(30);
/// The shortest pause between two defences, so that two defenders do not loop (RFC 5227 section 2.4,
/// DEFEND_INTERVAL).
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// This node yields a VIP only after a station has claimed it for this long.
const YIELD_AFTER: Duration = Duration::from_secs(10);

/// When a station has claimed a VIP that this node holds.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: BootNs,
    last: BootNs,
}

/// How a claim compares with earlier ones of the same station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whether this is the station's first claim of the VIP in this conflict.
    pub new: bool,
    /// Whether the station has claimed the VIP for long enough that this node may yield.
    pub lasting: bool,
}

/// Stations that claim VIPs which this node holds.
#[derive(Debug, Default)]
pub struct Conflicts {
    seen: BTreeMap<(IpAddr, Mac), Seen>,
    defended: BTreeMap<IpAddr, BootNs>,
    yielded: BTreeSet<IpAddr>,
    /// Nodes of the cluster by the MAC addresses with which they answer, as the Leases say.
    nodes: BTreeMap<Mac, String>,
}

impl Conflicts {
    /// Whether this node is silent for a VIP because another station claims it.
    pub fn is_yielded(&self, vip: IpAddr) -> bool {
        self.yielded.contains(&vip)
    }

    /// The nodes of the cluster by MAC address.
    pub const fn nodes(&self) -> &BTreeMap<Mac, String> {
        &self.nodes
    }

    /// Remembers to which node the MAC addresses of a record belong.
    pub fn learn(&mut self, record: Option<&Record>) {
        let Some(record) = record.filter(|record| record.tenure().is_some()) else { return };
        for mac in &record.macs {
            if self.nodes.get(mac) != Some(&record.holder) {
                self.nodes.insert(*mac, record.holder.clone());
            }
        }
    }

    /// Notes that a station claims a VIP which this node holds.
    pub fn heard(&mut self, now: BootNs, vip: IpAddr, mac: Mac) -> Heard {
        let new = !self.seen.contains_key(&(vip, mac));
        let seen = self.seen.entry((vip, mac)).or_insert(Seen { first: now, last: now });
        seen.last = now;
        Heard { new, lasting: seen.first.after(YIELD_AFTER) <= now }
    }

    /// Whether a VIP may be defended now. If so, this counts as the defence.
    pub fn defends(&mut self, now: BootNs, vip: IpAddr) -> bool {
        let last = self.defended.get(&vip);
        let may = last.is_none_or(|last| last.after(DEFEND_EVERY) <= now);
        if may {
            self.defended.insert(vip, now);
        }
        may
    }

    /// Makes this node silent for a VIP. Returns whether it was not silent before.
    pub fn yields(&mut self, vip: IpAddr) -> bool {
        self.yielded.insert(vip)
    }

    /// Removes the conflicts that are over. Returns the VIPs without a conflict, and whether each was
    /// yielded.
    pub fn take_over(&mut self, now: BootNs) -> Vec<(IpAddr, bool)> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        let over = |seen: &Seen| seen.last.after(QUIET) <= now;
        let quiet: BTreeSet<IpAddr> =
            self.seen.iter().filter(|(_, seen)| over(seen)).map(|((vip, _), _)| *vip).collect();
        self.seen.retain(|_, seen| !over(seen));
        let mut ended = Vec::new();
        for vip in quiet {
            if self.seen.keys().any(|(other, _)| *other == vip) {
                continue;
            }
            self.defended.remove(&vip);
            ended.push((vip, self.yielded.remove(&vip)));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> BootNs {
        BootNs(s * 1_000_000_000)
    }

    #[test]
    fn a_conflict_lasts_and_ends() {
        let (mut conflicts, vip) = (Conflicts::default(), IpAddr::from([192, 0, 2, 10]));
        let mut hear = |s, mac| conflicts.heard(at(s), vip, Mac([mac; 6]));
        assert_eq!(hear(0, 1), Heard { new: true, lasting: false });
        assert_eq!(hear(10, 1), Heard { new: false, lasting: true });
        assert_eq!(hear(10, 2), Heard { new: true, lasting: false });
        assert!(conflicts.defends(at(10), vip) && !conflicts.defends(at(19), vip));
        assert!(conflicts.defends(at(20), vip));
        assert!(conflicts.yields(vip) && !conflicts.yields(vip));
        conflicts.heard(at(20), vip, Mac([2; 6]));
        assert_eq!(conflicts.take_over(at(40)), [], "one station still claims it");
        assert_eq!(conflicts.take_over(at(50)), [(vip, true)]);
        assert!(!conflicts.is_yielded(vip));
    }
}
