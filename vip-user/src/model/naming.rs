//! Which VIPs a Lease names, and what it says of them.

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

/// An API server takes 256 KiB of annotations (`TotalAnnotationSizeLimitB`). The VIPs of a Lease may
/// have so many characters, each with quotation marks and a comma.
pub const MAX_NAMED: usize = 240_000;

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
    /// It answered for all of them. They are not named twice: there may be no room for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_inherited: bool,
}

/// How many characters these VIPs take in a Lease.
pub fn text_len<'a>(vips: impl IntoIterator<Item = &'a IpAddr>) -> usize {
    vips.into_iter().map(|vip| vip.to_string().len() + 3).sum()
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

impl Guarded {
    /// The annotation of a tenure.
    pub fn of(transitions: i64, acquire_us: i64, marks: &Marks) -> Self {
        let with = |wanted: fn(Mark) -> bool| -> BTreeSet<IpAddr> {
            marks.iter().filter(move |(_, mark)| wanted(**mark)).map(|(ip, _)| *ip).collect()
        };
        let admitted = with(|mark| mark == Mark::Admitted);
        let claimed = with(|mark| mark != Mark::Admitted);
        let mut inherited = with(|mark| mark == Mark::Inherited);
        let all_inherited = !claimed.is_empty() && inherited == claimed;
        // A VIP that only counts as claimed comes later, but it comes. A Lease that cannot be written
        // has no holder.
        if all_inherited || text_len(admitted.iter().chain(&claimed).chain(&inherited)) > MAX_NAMED {
            inherited.clear();
        }
        Self { transitions, acquire_us, admitted, claimed, inherited, all_inherited }
    }

    /// What it says of a VIP.
    pub fn mark(&self, ip: IpAddr) -> Option<Mark> {
        if self.admitted.contains(&ip) {
            Some(Mark::Admitted)
        } else if self.claimed.contains(&ip) {
            let is_inherited = self.all_inherited || self.inherited.contains(&ip);
            Some(if is_inherited { Mark::Inherited } else { Mark::Claimed })
        } else {
            None
        }
    }
}
