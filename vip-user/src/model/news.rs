//! What an election tells: changes of state that people care about, and why.

use super::fitness::Fitness;

/// Why a fence is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// This node gives up on purpose.
    Leaving,
    /// Another node has offered to serve better.
    Yielding,
    /// Somebody else holds the Lease.
    Deposed,
    /// The tenure found in the maps at start is not in the Lease any more.
    NotAdopted,
}

/// A change of state that people care about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This node took over.
    TookOver(TakeReason),
    /// The fence had run out and is live again under the same tenure.
    Regained,
    /// This process continues the tenure of an earlier process of this boot.
    Adopted,
    /// Somebody else holds the Lease now.
    Lost(String),
    /// This node follows another holder.
    Following(String),
    /// The holder is not xvip.
    Foreign {
        /// `holderIdentity`.
        holder: String,
        /// It stands under our own node name: another program on this node.
        own_name: bool,
    },
    /// The Lease does not exist.
    Missing,
    /// The Lease vanished or went back in time under a live fence and is written again.
    Reasserted,
    /// The fence ran out because no write was confirmed in time.
    Lapsed,
    /// Another node can serve better than this one and gets the Lease.
    Yields {
        /// Its name.
        to: String,
        /// How well this node serves.
        fitness: Fitness,
    },
    /// The Lease was given up.
    Released,
    /// The holder could not give the Lease up. The Lease will expire.
    ReleaseFailed,
}

/// Why a node took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TakeReason {
    /// The holder gave it up.
    Released,
    /// The holder was not heard of for D·(1+ρ).
    Expired,
    /// Nobody had ever held it.
    Created,
}
