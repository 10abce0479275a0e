//! The data that an election keeps in each of its states.

use super::{
    offers::{Better, Heir},
    record::{Record, Tenure, TenureNote, Version},
    stranger::Stranger,
};
use crate::model::{fitness::Fitness, news::TakeReason, time::BootNs};
use std::{collections::BTreeMap, time::Duration};

/// The state of an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing is known of the Lease, as before the first read.
    Unknown,
    /// Another node or program holds the Lease, or none does.
    Waiting(Waiting),
    /// This node holds the Lease. It may answer until the fence runs out.
    Holding(Holding),
    /// The kernel is being silenced; then the Lease is released.
    Leaving(Holding),
    /// This process has given the Lease up for good.
    Left,
    /// A step is under way. No election is in this state between two steps.
    Moved,
}

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The last record that was observed; `None`: the Lease does not exist.
    pub seen: Option<Record>,
    /// When its present spec was first observed.
    pub since: BootNs,
    /// How long the spec must stay unchanged before this node may take the Lease.
    pub wait: Duration,
    /// Whether the record is a valid release, so that the Lease may be taken at once.
    pub released: bool,
    /// A take-over that was sent and may still be stored.
    pub taking: Option<Taking>,
    /// No write before this time.
    pub not_before: BootNs,
    /// Failed attempts to take the Lease, since the present spec was observed.
    pub failures: u32,
    /// Requests to create the Lease since it was found missing.
    pub creations: u32,
    /// No offer before this time.
    pub offer_at: BootNs,
    /// Offers that this node has sent to the present tenure.
    pub offers: u32,
    /// When a later tenure than the one in the record is dead for certain.
    pub outlived_at: Option<BootNs>,
    /// What is known of the last holder, if it was another program.
    pub stranger: Option<Box<Stranger>>,
    /// Why this node suits better than the holder says of itself, and since when.
    pub better: Option<(Better, BootNs)>,
}

/// A take-over that was sent. All attempts carry the same note. So the record is recognised as ours
/// whichever attempt is stored, and even if its answer is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taking {
    pub(super) note: TenureNote,
    pub(super) base: Version,
    pub(super) reason: TakeReason,
    pub(super) renew_us: i64,
    /// When the first attempt was sent.
    pub(super) began: BootNs,
    /// Attempts without an answer: their ids, and when each was sent.
    pub(super) in_flight: BTreeMap<u64, BootNs>,
}

/// The state of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The confirmed tenure.
    pub tenure: Tenure,
    /// The uid of a Lease that was created again, into which this tenure is being written. Until that
    /// write is confirmed, its `leaseTransitions` are not those of the tenure.
    pub anew: Option<String>,
    /// The deadline of a lowering that failed. It is repeated before the next write.
    pub lower_to: Option<BootNs>,
    /// The version of the Lease on which the next write is based.
    pub base: Version,
    /// The deadline of the fence: from then on the kernel is silent.
    pub until: BootNs,
    /// When the clock was read before sending the write that raised the fence. The fence counts from
    /// here.
    pub sent: BootNs,
    /// D of the last confirmed write.
    pub duration_s: u32,
    /// `renewTime` of the last write.
    pub renew_us: i64,
    /// When the next write is due.
    pub next_write: BootNs,
    /// Failed writes in a row. A failure counts only if no later write is on its way.
    pub failures: u32,
    /// Writes without an answer, by id.
    pub in_flight: BTreeMap<u64, InFlight>,
    /// Whether the fence has run out and
    /// [`Notice::Lapsed`](crate::model::news::Notice::Lapsed) was reported.
    pub lapsed: bool,
    /// Whether `base` is known to be outdated: then nothing is written before the Lease was observed
    /// again.
    pub stale: bool,
    /// Whether the kernel is silent, so that the Lease may be released.
    pub silent: bool,
    /// A release without an answer. It may have been stored, and another node may hold the Lease.
    pub lost_release: Option<u64>,
    /// The fitness of this node according to the last write.
    pub told: Fitness,
    /// When this process began to hold it.
    pub began: BootNs,
    /// Who should have the Lease next.
    pub heir: Option<Heir>,
    /// How long [`heir`](Self::heir) stands.
    pub heir_until: BootNs,
    /// The heir according to the last write.
    pub told_heir: Option<Heir>,
}

/// A write without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InFlight {
    pub(super) sent: BootNs,
    pub(super) base: Option<Version>,
    pub(super) release: bool,
}
