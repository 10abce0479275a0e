//! Choices of the operator that change what the loop does.

use serde::{Deserialize, Serialize};

/// What this node does when another station claims a VIP that it holds (RFC 5227 section 2.4).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ConflictPolicy {
    /// Count and report the claim.
    #[default]
    Report,
    /// Also announce the VIP, at most once in ten seconds.
    Defend,
    /// Go silent for the VIP once a station has claimed it for ten seconds. Answer again when the
    /// claims end.
    Yield,
}

/// What a candidate does if a station still answers for a VIP whose Lease another program (kube-vip)
/// held last, and that program has had its time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ForeignConflict {
    /// Leave the Lease alone while the station answers.
    #[default]
    Wait,
    /// Take the Lease and serve the VIP, without asking the LAN.
    Take,
}

/// What this node does with the VIPs that it holds when the process stops.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Give them up, so that another node takes over at once.
    #[default]
    Handover,
    /// Leave the fence as it is, for a restart that takes less time than the fence lasts.
    Keep,
}
