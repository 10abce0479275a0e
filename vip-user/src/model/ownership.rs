//! The seam between what grants and what serves. The plan of the host, the reports and the fitness look
//! at this value, and not at the election that it comes from.

use super::time::BootNs;

/// To whom the VIPs of a group belong, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nothing is known yet. Entries stay as they are: after a crash they are silent by their fence.
    Unknown,
    /// Another node has them, or nobody. Late traffic is served until then.
    Elsewhere {
        /// Until when.
        serve_until: BootNs,
    },
    /// Another program on this host has them: its frames pass.
    ProgramHere,
    /// This node. Whether the kernel answers is for the fence to decide.
    Ours {
        /// The fence, which may be over.
        until: BootNs,
        /// Counts the tenures of the slot.
        generation: u64,
    },
    /// This node gives them up: it is silent, or about to be.
    Ending {
        /// Late traffic is served until then.
        serve_until: BootNs,
    },
    /// This process has nothing to do with them any more.
    Gone {
        /// Since when no late traffic is served either.
        since: BootNs,
    },
}

impl Ownership {
    /// Whether the kernel may answer now.
    pub fn serves(self, now: BootNs) -> bool {
        matches!(self, Self::Ours { until, .. } if now < until)
    }

    /// Whether this node has them, whatever the fence says.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Ours { .. })
    }
}
