//! News of elections and of the node, for people: what has changed, and why.

use super::{fitness::Fitness, time::BootNs};
use std::net::IpAddr;
use vip_common::mac::Mac;

/// Why a fence is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// This node gives the Lease up because it stops or no longer wants it.
    Leaving,
    /// Another node has offered to serve better.
    Yielding,
    /// Another node holds the Lease, or may hold it.
    Deposed,
    /// The Lease no longer shows the tenure that was found in the maps at start.
    NotAdopted,
    /// No group asks for the Lease of the slot any more.
    Unwanted,
    /// It was not certain that the last attempt had silenced the kernel.
    Again,
}

/// A change of an election that people care about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This node took over.
    TookOver(TakeReason),
    /// The fence had run out and is live again under the same tenure.
    Regained,
    /// This process continues the tenure of an earlier process of this boot.
    Adopted,
    /// This node has lost the Lease. The string is the new holder; empty if there is none.
    Lost(String),
    /// This node follows another holder.
    Following(String),
    /// The holder is not xvip.
    Foreign {
        /// `holderIdentity`.
        holder: String,
        /// Whether the holder uses our own node name: then it is another program on this node.
        own_name: bool,
    },
    /// The Lease does not exist.
    Missing,
    /// The Lease vanished or an older content of it was restored. The holder, whose fence is live,
    /// writes it again.
    Reasserted,
    /// The fence ran out because no write was confirmed in time.
    Lapsed,
    /// Another node can serve better than this one and will get the Lease.
    Yields {
        /// Its name.
        to: String,
        /// How well this node serves.
        fitness: Fitness,
    },
    /// No node has taken the Lease that this node wanted to hand over. It keeps the Lease.
    NobodyTook,
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
    /// No change of the Lease was observed for D·(1+ρ).
    Expired,
    /// No node had ever held it.
    Created,
}

/// An item of news about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A change of leadership of a group. The VIPs may have been unanswered since `silent_since`.
    Leadership {
        /// The slot of the group.
        slot: u32,
        /// What has changed.
        notice: Notice,
        /// Since when the VIPs may have been unanswered.
        silent_since: Option<BootNs>,
    },
    /// Why something does not work; `None`: it works again.
    Problem(Subject, Option<String>),
    /// How well the node can serve the group in this slot.
    Fitness(u32, Fitness),
    /// Another station has begun to claim a VIP that this node holds.
    Conflict {
        /// The slot of the VIP's group.
        slot: u32,
        /// The VIP.
        vip: IpAddr,
        /// The MAC address of the station.
        mac: Mac,
        /// Index of the interface on which the claim was received.
        ifindex: u32,
        /// The node of the cluster that answers with this MAC address, if there is one.
        node: Option<String>,
    },
    /// This node is silent for a VIP because another station claims it (`true`), or serves it again.
    Yielded(IpAddr, bool),
    /// Why a VIP of the group in this slot is not answered although this node holds the Lease.
    Refused(u32, IpAddr, String),
}

/// What a problem is about, and whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The part that has the problem, in words.
    pub what: &'static str,
    /// Whom it concerns.
    pub of: Of,
}

/// Whom a problem concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// The whole node.
    Node,
    /// The group in this slot.
    Group(u32),
    /// One VIP.
    Vip(IpAddr),
}
