//! Where the VIPs should be. A holder says how well it serves, and who should have the Lease instead. A
//! candidate that suits better offers to take it. Nothing here permits an answer: the holder decides
//! whether to go silent and give the Lease up, or to keep it.

use crate::model::{fitness::Fitness, timing::Timing};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A tenure younger than this is not given up because its holder is in doubt. When all nodes fall ill
/// one after the other (a slow etcd), the VIPs would otherwise go round.
pub const SETTLED: Duration = Duration::from_secs(30);
/// A candidate must have been better than a doubtful holder for this long. It may be about to fall ill
/// of the same cause.
const BETTER_FOR: Duration = Duration::from_secs(3);
/// A heavier node takes the VIPs back only after it has been able for this long.
const WEIGHT_AFTER: Duration = Duration::from_mins(1);
/// Every tenure that a node gives up soon, because it serves badly, doubles that time, this often at
/// most. Otherwise a node that fails whenever it holds the Lease would take it back for ever.
const MOST_DOUBLINGS: u32 = 5;
/// A candidate makes this many offers to one tenure for its weight, or because of a wish. An older
/// version of xvip ignores such offers.
pub(super) const MOST_OFFERS: u32 = 8;
/// How long a wish to hand over stands, at least.
const HANDOVER_LASTS: Duration = Duration::from_secs(10);

/// How long a wish to hand over stands. Then the holder keeps the Lease. With a long D, the write that
/// states the wish may be further away than [`HANDOVER_LASTS`].
pub fn handover_lasts(timing: &Timing) -> Duration {
    HANDOVER_LASTS.max(timing.renew_every * 2)
}

/// Who should have the Lease next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Heir {
    /// Any node that serves no worse than the holder. In text: `*`, which is no name of a node.
    Anyone,
    /// This node, unless it is unable.
    Node(String),
}

impl From<String> for Heir {
    fn from(text: String) -> Self {
        if text == "*" { Self::Anyone } else { Self::Node(text) }
    }
}

impl From<Heir> for String {
    fn from(heir: Heir) -> Self {
        match heir {
            Heir::Anyone => "*".into(),
            Heir::Node(node) => node,
        }
    }
}

/// Where the VIPs should be, as the annotation `xvip.io/preference` states it. It names the tenure of
/// its writer, because older versions of xvip leave the annotations of others as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preference {
    /// `spec.leaseTransitions`.
    pub transitions: i64,
    /// `spec.acquireTime`, microseconds since 1970.
    pub acquire_us: i64,
    /// How much the VIPs belong to the holder.
    #[serde(default)]
    pub weight: u8,
    /// Who should have the Lease instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heir: Option<Heir>,
    /// Whether the holder is [`Fitness::Impaired`]. Older versions of xvip do not know this word, so
    /// the annotation `xvip.io/fitness` says `doubtful`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub impaired: bool,
}

/// Why a candidate suits better than the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Better {
    /// The holder wants to give the Lease to it.
    Wished,
    /// It serves better.
    Fitter,
    /// It serves better than a holder that is in doubt.
    Surer,
    /// Both are able, and the VIPs belong to it.
    Heavier,
}

impl Better {
    /// How long this must last before the candidate offers. `given_up` counts the tenures that the
    /// candidate has had to give up soon.
    pub(super) fn lasting(self, given_up: u32) -> Duration {
        match self {
            Self::Wished | Self::Fitter => Duration::ZERO,
            Self::Surer => BETTER_FOR,
            Self::Heavier => WEIGHT_AFTER * (1 << given_up.min(MOST_DOUBLINGS)),
        }
    }

    /// Whether an older version of xvip may ignore the offer.
    pub(super) fn may_be_ignored(self) -> bool {
        matches!(self, Self::Wished | Self::Heavier)
    }
}

/// How well a node suits the VIPs of a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suits {
    /// How well it could serve.
    pub fitness: Fitness,
    /// How much the VIPs belong to it. It counts only between nodes that are able.
    pub weight: u8,
}

impl Suits {
    /// Whether both nodes are able, and the VIPs belong more to this one.
    pub(super) fn outweighs(self, other: Self) -> bool {
        self.fitness == Fitness::Able && other.fitness == Fitness::Able && self.weight > other.weight
    }

    /// Whether a holder that suits like this gives the Lease to the node of `offer`. It says that
    /// `heir` should have it. The candidate has waited long enough before it offered.
    pub fn gives_way_to(self, offer: &Offer, heir: Option<&Heir>) -> bool {
        let theirs = Self { fitness: offer.fitness, weight: offer.weight };
        let wished = match heir {
            Some(Heir::Node(node)) => *node == offer.node && theirs.fitness < Fitness::Unable,
            Some(Heir::Anyone) => theirs.fitness <= self.fitness && theirs.fitness < Fitness::Unable,
            None => false,
        };
        wished || theirs.fitness < self.fitness || theirs.outweighs(self)
    }
}

/// A candidate that suits better than the holder. The candidate writes it into the Lease as an
/// annotation, by CAS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The candidate's node name.
    pub node: String,
    /// How well it could serve.
    pub fitness: Fitness,
    /// How much the VIPs belong to it.
    #[serde(default)]
    pub weight: u8,
    /// `leaseTransitions` of the tenure to which the offer was made.
    pub transitions: i64,
    /// `acquireTime` of that tenure, microseconds since 1970.
    pub acquire_us: i64,
}
