//! What an election remembers in each of its states.

use super::{
    fitness::Fitness,
    news::TakeReason,
    record::{Record, Tenure, TenureNote, Version},
    time::BootNs,
};
use std::{collections::BTreeMap, time::Duration};

/// Where an election stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing has been read since the start.
    Unknown,
    /// Somebody else holds the Lease, or nobody.
    Waiting(Waiting),
    /// This node holds it, until the fence runs out.
    Holding(Holding),
    /// The fence is being cleared, then the Lease is given up.
    Leaving(Holding),
    /// The Lease is done with.
    Left,
    /// A transition is under way. No election is in this state between two steps.
    Moved,
}

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The last reading; `None`: the Lease does not exist.
    pub seen: Option<Record>,
    /// When its spec was first seen so.
    pub since: BootNs,
    /// How long it must stay so before it may be taken.
    pub wait: Duration,
    /// It may be taken at once: a valid release.
    pub released: bool,
    /// The take-over that was sent and may yet be stored.
    pub taking: Option<Taking>,
    /// No attempt before this.
    pub not_before: BootNs,
    /// Take-overs of what was seen that failed.
    pub failures: u32,
    /// Requests to create the Lease, while there is none.
    pub creations: u32,
    /// No offer before this.
    pub offer_at: BootNs,
    /// Offers to the present tenure.
    pub offers: u32,
}

/// A take-over that was sent. All attempts carry one note, so that whichever of them is stored, and
/// even if its answer is lost, the record is recognised as ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taking {
    pub(super) note: TenureNote,
    pub(super) base: Version,
    pub(super) reason: TakeReason,
    pub(super) renew_us: i64,
    /// When the first attempt was sent.
    pub(super) began: BootNs,
    /// `sent` of each attempt that has not ended.
    pub(super) in_flight: BTreeMap<u64, BootNs>,
}

/// The state of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The confirmed tenure.
    pub tenure: Tenure,
    /// The uid of a Lease that was created anew and that the tenure is being written into. Until that
    /// is confirmed its `leaseTransitions` say nothing about the tenure's.
    pub anew: Option<String>,
    /// The fence could not be lowered to this. It comes before the next write.
    pub lower_to: Option<BootNs>,
    /// The last confirmed version.
    pub base: Version,
    /// The fence; the kernel is silent from here on.
    pub until: BootNs,
    /// `sent` of the write that raised it.
    pub sent: BootNs,
    /// D of the last confirmed write.
    pub duration_s: u32,
    /// `renewTime` of the last write.
    pub renew_us: i64,
    /// When to write next.
    pub next_write: BootNs,
    /// Writes in a row that failed, each of them the last that was sent.
    pub failures: u32,
    /// Writes on their way.
    pub in_flight: BTreeMap<u64, InFlight>,
    /// The fence has run out and [`Notice::Lapsed`](super::news::Notice::Lapsed) has been given.
    pub lapsed: bool,
    /// `base` is known to be overtaken: nothing is written before something was seen.
    pub stale: bool,
    /// The kernel has been silenced, so the Lease may be given up.
    pub silent: bool,
    /// The release whose answer did not come: it may have been stored, and somebody hold the Lease.
    pub lost_release: Option<u64>,
    /// How well this node serves, as the last write says.
    pub told: Fitness,
}

/// A renewal on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InFlight {
    pub(super) sent: BootNs,
    pub(super) base: Option<Version>,
    pub(super) release: bool,
}
