//! What one step of an election asks for. A [`Turn`](super::turn::Turn) puts it into the order of
//! execution.

use super::{
    admission::{Request, Strike},
    news::{Notice, Why},
    record::{LeaseWrite, Offer, Tenure, Version},
    time::BootNs,
};

/// What one step of an election asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Fences are raised and lowered.
    pub fences: Vec<FenceChange>,
    /// The kernel becomes silent. [`Input::Silenced`](super::election::Input::Silenced) follows.
    pub silence: Option<Why>,
    /// The host becomes what it should be.
    pub host: bool,
    /// The VIPs are announced from now on.
    pub announce: bool,
    /// What leaves for the API or the LAN.
    pub sends: Vec<Outgoing>,
    /// Changes of state that people care about.
    pub news: Vec<Notice>,
}

/// A change of the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceChange {
    /// Store the tenure (when `new`) and the deadline.
    Raise {
        /// The confirmed tenure.
        tenure: Tenure,
        /// Counts the tenures of this slot.
        generation: u64,
        /// Until when the kernel may answer.
        deadline: BootNs,
        /// D of the confirmed write.
        duration_s: u32,
        /// A fence where none was live: publish, then announce.
        new: bool,
    },
    /// Store an earlier deadline, before a write that shortens D leaves.
    Lower(BootNs),
}

impl FenceChange {
    /// Whether a fence goes up where none was live.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Raise { new: true, .. })
    }
}

/// Something that leaves this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Write the Lease.
    Write(LeaseWrite),
    /// Write an offer into this version of the Lease, and nothing else. The watch shows its outcome.
    Offer(Version, Offer),
    /// Create the Lease without a holder, where there is none. The watch shows its outcome. No node
    /// takes a Lease that does not exist: a creation and a deletion in between would go unseen. An
    /// existing record has a version to compare.
    Create,
    /// Read the Lease from a quorum.
    Read,
    /// List the Leases of the namespace from a quorum, under this number.
    List(u64),
    /// Strike VIPs out of another Lease.
    Strike(Strike),
    /// Ask the LAN whether addresses are in use (RFC 5227).
    Probe,
}

impl From<Request> for Outgoing {
    fn from(request: Request) -> Self {
        match request {
            Request::List(number) => Self::List(number),
            Request::Strike(strike) => Self::Strike(strike),
            Request::Probe => Self::Probe,
        }
    }
}

impl Effects {
    /// The writes.
    pub fn writes(&self) -> impl Iterator<Item = &LeaseWrite> {
        self.sends.iter().filter_map(|send| match send {
            Outgoing::Write(write) => Some(write),
            _ => None,
        })
    }
}
