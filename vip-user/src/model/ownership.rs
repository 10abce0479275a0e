//! The value through which the election is seen from outside. The plan of the host, the reports and the
//! fitness use it instead of the states of the election.

use super::time::BootNs;

/// To which node the VIPs of a group belong, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The Lease has not been read yet. Entries stay as they are: after a crash the fence silences
    /// them.
    Unknown,
    /// Another node has the VIPs, or none has.
    Elsewhere {
        /// Until when this node serves traffic that still arrives.
        serve_until: BootNs,
    },
    /// Another program on this host has the VIPs: its frames pass.
    ProgramHere,
    /// This node has the VIPs. The fence decides whether the kernel answers.
    Ours {
        /// The deadline of the fence, which may have passed.
        until: BootNs,
        /// The number of the tenure on this slot.
        generation: u64,
    },
    /// This node gives the VIPs up: it is silent, or about to be.
    Ending {
        /// Until when this node serves traffic that still arrives.
        serve_until: BootNs,
    },
    /// This process has given the VIPs up for good.
    Gone {
        /// When this node stopped serving traffic that still arrived.
        since: BootNs,
    },
}

impl Ownership {
    /// Whether the kernel may answer now.
    pub fn serves(self, now: BootNs) -> bool {
        matches!(self, Self::Ours { until, .. } if now < until)
    }

    /// Whether this node has the VIPs, even if the fence has run out.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Ours { .. })
    }
}
