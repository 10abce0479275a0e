//! The wish of `xvip handover`, as it travels over the local socket.

use serde::{Deserialize, Serialize};

/// Asks the daemon to hand Leases over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The directory that proves the client's rights: see [`proof`](crate::node::proof).
    pub proof: String,
    /// The Lease (`name` or `namespace/name`); `None`: all that this node holds.
    pub lease: Option<String>,
    /// The node that should have them; `None`: any that can serve as well.
    pub to: Option<String>,
}

/// The daemon's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Reply {
    /// These Leases are offered now.
    Offered {
        /// `namespace/name` of each.
        leases: Vec<String>,
        /// How long the offer stands, in milliseconds.
        lasts_ms: u64,
    },
    /// Nothing happens; the reason in words.
    Refused(String),
}
