//! What an election tells: changes of state that people care about, and why.

use super::{fitness::Fitness, time::BootNs};
use std::net::IpAddr;

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
    /// Nobody wants what the slot was used for.
    Unwanted,
    /// It was not certain that an earlier attempt had silenced the kernel.
    Again,
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

/// What the node tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A change of leadership of a group. Before it the node may not have answered since
    /// `silent_since`.
    Leadership {
        /// The slot of the group.
        slot: u32,
        /// What has changed.
        notice: Notice,
        /// Since when the node may not have answered.
        silent_since: Option<BootNs>,
    },
    /// Why something does not work; `None`: it works.
    Problem(Subject, Option<String>),
    /// How well the node serves a group.
    Fitness(u32, Fitness),
    /// Another station has begun to claim a VIP that this node holds.
    Conflict {
        /// The slot of the VIP's group.
        slot: u32,
        /// The VIP.
        vip: IpAddr,
        /// The station.
        mac: [u8; 6],
        /// Where it was heard.
        ifindex: u32,
        /// The node that answers with this address, if it is one of the cluster.
        node: Option<String>,
    },
    /// A VIP is given up because another station claims it (`true`), or is served again.
    Yielded(IpAddr, bool),
    /// A VIP is not answered although this node holds its Lease, and why. It was answered, or nothing
    /// was known, before.
    Refused(u32, IpAddr, String),
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// In words.
    pub what: &'static str,
    /// Whose it is.
    pub of: Of,
}

/// Whose problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// The whole node's.
    Node,
    /// That of the group in this slot.
    Group(u32),
    /// That of one VIP.
    Vip(IpAddr),
}
