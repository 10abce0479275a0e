//! The VIPs that a Lease names, and how far the admission of each has come.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// How far the admission of a VIP has come, according to its Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The holder wants to guard it, but does not answer for it yet.
    Claimed,
    /// The same, but the previous holder answered for it. That was a version of xvip that does not name
    /// its VIPs.
    Inherited,
    /// The holder of the Lease answers for it.
    Admitted,
}

/// The longest text for the VIPs of a Lease, in characters, each with quotation marks and a comma. An
/// API server accepts 256 KiB of annotations (`TotalAnnotationSizeLimitB`).
pub const MAX_NAMED: usize = 240_000;

/// VIPs by address, with what a Lease says of each.
pub type Marks = BTreeMap<IpAddr, Mark>;

/// The annotation `xvip.io/vips`. It repeats fields of the spec, because another program that takes the
/// Lease leaves annotations as they are. After that, this one says nothing about the VIPs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guarded {
    /// `spec.leaseTransitions`.
    pub transitions: i64,
    /// `spec.acquireTime`, microseconds since 1970.
    pub acquire_us: i64,
    /// VIPs that the holder of the Lease publishes.
    #[serde(default)]
    pub admitted: BTreeSet<IpAddr>,
    /// VIPs that the holder claims, but does not publish yet.
    #[serde(default)]
    pub claimed: BTreeSet<IpAddr>,
    /// The claimed VIPs for which a holder with an older version answered before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub inherited: BTreeSet<IpAddr>,
    /// Whether that holder answered for all claimed VIPs. Then `inherited` is empty, because there may
    /// be no room to name them twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_inherited: bool,
}

/// How many characters these VIPs take in a Lease.
pub fn text_len<'a>(vips: impl IntoIterator<Item = &'a IpAddr>) -> usize {
    vips.into_iter().map(|vip| vip.to_string().len() + 3).sum()
}

/// The VIPs that a Lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names<'a> {
    /// None: the last holder was not xvip, or there was none.
    Nothing,
    /// The VIPs in this annotation.
    Listed(&'a Guarded),
    /// Unknown: the last holder was a version of xvip that does not name its VIPs.
    Unknown,
}

impl Guarded {
    /// The annotation of a tenure, which these two fields of the spec identify.
    pub fn of(transitions: i64, acquire_us: i64, marks: &Marks) -> Self {
        let with = |wanted: fn(Mark) -> bool| -> BTreeSet<IpAddr> {
            marks.iter().filter(move |(_, mark)| wanted(**mark)).map(|(ip, _)| *ip).collect()
        };
        let admitted = with(|mark| mark == Mark::Admitted);
        let claimed = with(|mark| mark != Mark::Admitted);
        let mut inherited = with(|mark| mark == Mark::Inherited);
        let all_inherited = !claimed.is_empty() && inherited == claimed;
        // Without this list the VIPs count as claimed, and are published later. An annotation that is
        // too long could not be written at all, and the Lease would have no holder.
        if all_inherited || text_len(admitted.iter().chain(&claimed).chain(&inherited)) > MAX_NAMED {
            inherited.clear();
        }
        Self { transitions, acquire_us, admitted, claimed, inherited, all_inherited }
    }

    /// What the annotation says of a VIP.
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
