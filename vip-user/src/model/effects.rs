//! The effects of one step of an election. A [`Turn`](super::turn::Turn) puts them into the order of
//! execution.

use super::{
    lease::{
        admission::{Request, Strike},
        offers::Offer,
        record::{LeaseWrite, Tenure, Version},
    },
    news::{Notice, Why},
    time::BootNs,
};
use std::net::IpAddr;

/// Everything that one step of an election wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Fences to raise or lower, in this order.
    pub fences: Vec<FenceChange>,
    /// The kernel is to go silent.
    /// [`Input::Silenced`](super::lease::election::Input::Silenced) follows.
    pub silence: Option<Why>,
    /// The host is to be brought into its desired state.
    pub host: bool,
    /// Announcements of the VIPs begin.
    pub announce: bool,
    /// Requests to the API and questions to the LAN.
    pub sends: Vec<Outgoing>,
    /// Changes of state to report to people.
    pub news: Vec<Notice>,
}

/// A change of the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceChange {
    /// Store the deadline, and the tenure too if `new`.
    Raise {
        /// The confirmed tenure.
        tenure: Tenure,
        /// The number of the tenure on this slot.
        generation: u64,
        /// Until when the kernel may answer.
        deadline: BootNs,
        /// D of the confirmed write.
        duration_s: u32,
        /// Whether no fence was live before. Then VIPs are published and announced.
        new: bool,
    },
    /// Store an earlier deadline, before a write that shortens D leaves.
    Lower(BootNs),
}

impl FenceChange {
    /// Whether this raises a fence where none was live.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Raise { new: true, .. })
    }
}

/// Something that leaves this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Write the Lease.
    Write(LeaseWrite),
    /// Write an offer into this version of the Lease, and nothing else. The watch shows the outcome.
    Offer(Version, Offer),
    /// Create the Lease without a holder if it does not exist. The watch shows the outcome. No node
    /// takes a Lease that does not exist: it would miss a creation and a deletion in between. An
    /// existing record has a version to compare.
    Create,
    /// Read the Lease from a quorum.
    Read,
    /// List the Leases of the namespace from a quorum. The answer carries this number.
    List(u64),
    /// Strike VIPs out of another Lease.
    Strike(Strike),
    /// Ask the LAN whether addresses are in use (RFC 5227).
    Probe,
    /// Try to connect to a VIP for which a station answers.
    Visit(IpAddr),
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
    /// The writes of the Lease among them.
    pub fn writes(&self) -> impl Iterator<Item = &LeaseWrite> {
        self.sends.iter().filter_map(|send| match send {
            Outgoing::Write(write) => Some(write),
            _ => None,
        })
    }
}
