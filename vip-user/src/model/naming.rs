//! Which VIPs a Lease names, and what it says of them.

use super::record::Record;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What a Lease says of a VIP that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Its holder wants to guard it, and does not answer for it yet.
    Claimed,
    /// The same. The holder before was a version that does not say what it guards, and answered for it.
    Inherited,
    /// Whoever holds the Lease answers for it.
    Admitted,
}

/// VIPs by address, with what a Lease says of them.
pub type Marks = BTreeMap<IpAddr, Mark>;

/// The annotation `xvip.io/vips`. It repeats fields of the spec: another program that takes the
/// Lease leaves annotations as they are, and then this one says nothing about the VIPs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guarded {
    /// `spec.leaseTransitions`.
    pub transitions: i64,
    /// `spec.acquireTime`, microseconds since 1970.
    pub acquire_us: i64,
    /// VIPs that are published by whoever holds the Lease.
    #[serde(default)]
    pub admitted: BTreeSet<IpAddr>,
    /// VIPs that are asked for.
    #[serde(default)]
    pub claimed: BTreeSet<IpAddr>,
    /// Those of them that an older version answered for before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub inherited: BTreeSet<IpAddr>,
}

/// Which VIPs a Lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names<'a> {
    /// None: no version of xvip has held it last.
    Nothing,
    /// These.
    Listed(&'a Guarded),
    /// Nobody knows: its last holder was a version of xvip that does not say.
    Unknown,
}

impl Record {
    /// Which VIPs it names.
    pub fn names(&self) -> Names<'_> {
        let repeats = |transitions, acquire_us| {
            self.transitions == transitions && self.acquire_us == Some(acquire_us)
        };
        match (&self.guarded, &self.note) {
            (Some(guarded), _) if repeats(guarded.transitions, guarded.acquire_us) => {
                Names::Listed(guarded)
            }
            (_, Some(note)) if repeats(note.transitions, note.acquire_us) => Names::Unknown,
            _ => Names::Nothing,
        }
    }
}

impl Guarded {
    /// The annotation of a tenure.
    pub fn of(transitions: i64, acquire_us: i64, marks: &Marks) -> Self {
        let with = |wanted: fn(Mark) -> bool| {
            marks.iter().filter(move |(_, mark)| wanted(**mark)).map(|(ip, _)| *ip).collect()
        };
        let admitted = with(|mark| mark == Mark::Admitted);
        let claimed = with(|mark| mark != Mark::Admitted);
        let inherited = with(|mark| mark == Mark::Inherited);
        Self { transitions, acquire_us, admitted, claimed, inherited }
    }

    /// What it says of a VIP.
    pub fn mark(&self, ip: IpAddr) -> Option<Mark> {
        if self.admitted.contains(&ip) {
            Some(Mark::Admitted)
        } else if self.claimed.contains(&ip) {
            Some(if self.inherited.contains(&ip) { Mark::Inherited } else { Mark::Claimed })
        } else {
            None
        }
    }
}
