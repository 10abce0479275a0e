//! Other stations that claim VIPs which this node holds, and which addresses the nodes of the cluster
//! answer with.

use super::{record::Record, time::BootNs};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// A conflict is over when nothing has been heard of it for this long.
const QUIET: Duration = Duration::from_secs(30);
/// Two defenders must not loop (RFC 5227 section 2.4, DEFEND_INTERVAL).
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// This node yields an address only after a station has claimed it for this long.
const YIELD_AFTER: Duration = Duration::from_secs(10);

/// One station that claims a VIP which this node holds.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: BootNs,
    last: BootNs,
}

/// What a claim means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The station had not claimed the VIP before.
    pub new: bool,
    /// It has done so for long enough to yield to it.
    pub lasting: bool,
}

/// Stations that claim VIPs which this node holds.
#[derive(Debug, Default)]
pub struct Conflicts {
    seen: BTreeMap<(IpAddr, [u8; 6]), Seen>,
    defended: BTreeMap<IpAddr, BootNs>,
    yielded: BTreeSet<IpAddr>,
    /// Nodes of the cluster by the MAC addresses that they answer with, from the Leases.
    nodes: BTreeMap<[u8; 6], String>,
}

impl Conflicts {
    /// Whether the node is silent for a VIP because another station claims it.
    pub fn is_yielded(&self, vip: IpAddr) -> bool {
        self.yielded.contains(&vip)
    }

    /// The nodes of the cluster by MAC address.
    pub const fn nodes(&self) -> &BTreeMap<[u8; 6], String> {
        &self.nodes
    }

    /// Remembers whose MAC addresses a record names.
    pub fn learn(&mut self, record: Option<&Record>) {
        let Some(record) = record.filter(|record| record.tenure().is_some()) else { return };
        for mac in &record.macs {
            if self.nodes.get(mac) != Some(&record.holder) {
                self.nodes.insert(*mac, record.holder.clone());
            }
        }
    }

    /// A station claims a VIP that this node holds.
    pub fn heard(&mut self, now: BootNs, vip: IpAddr, mac: [u8; 6]) -> Heard {
        let new = !self.seen.contains_key(&(vip, mac));
        let seen = self.seen.entry((vip, mac)).or_insert(Seen { first: now, last: now });
        seen.last = now;
        Heard { new, lasting: seen.first.after(YIELD_AFTER) <= now }
    }

    /// Whether a VIP may be defended now; counts as done if so.
    pub fn defends(&mut self, now: BootNs, vip: IpAddr) -> bool {
        let last = self.defended.get(&vip);
        let may = last.is_none_or(|last| last.after(DEFEND_EVERY) <= now);
        if may {
            self.defended.insert(vip, now);
        }
        may
    }

    /// From now on the node is silent for a VIP. Says whether it was not before.
    pub fn yields(&mut self, vip: IpAddr) -> bool {
        self.yielded.insert(vip)
    }

    /// The VIPs whose last conflict is over, and whether each had been yielded.
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
        let mut hear = |s, mac| conflicts.heard(at(s), vip, [mac; 6]);
        assert_eq!(hear(0, 1), Heard { new: true, lasting: false });
        assert_eq!(hear(10, 1), Heard { new: false, lasting: true });
        assert_eq!(hear(10, 2), Heard { new: true, lasting: false });
        assert!(conflicts.defends(at(10), vip) && !conflicts.defends(at(19), vip));
        assert!(conflicts.defends(at(20), vip));
        assert!(conflicts.yields(vip) && !conflicts.yields(vip));
        conflicts.heard(at(20), vip, [2; 6]);
        assert_eq!(conflicts.take_over(at(40)), [], "one station still claims it");
        assert_eq!(conflicts.take_over(at(50)), [(vip, true)]);
        assert!(!conflicts.is_yielded(vip));
    }
}
