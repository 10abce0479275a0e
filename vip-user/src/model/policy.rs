//! What an operator may choose for the loop to do.

use serde::{Deserialize, Serialize};

/// What is done about another station that claims a VIP (RFC 5227 section 2.4).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ConflictPolicy {
    /// Count and tell.
    #[default]
    Report,
    /// Also announce the VIP, at most once in ten seconds.
    Defend,
    /// Be silent for the VIP once the claims have gone on for ten seconds, until they end.
    Yield,
}

/// What a stop does with a VIP that is held.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Give it up: another node takes over at once.
    #[default]
    Handover,
    /// Leave the fence as it is, for a restart that is shorter than it.
    Keep,
}
