//! A read of the Lease that an election needs.

use crate::model::time::BootNs;

/// A read that this election needs. The election repeats it until an observation has arrived. A read
/// may fail, and an open watch reads nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    /// No observation has arrived yet that satisfies the need.
    pub(super) wanted: bool,
    /// A request is on its way.
    pub(super) asked: bool,
    /// When the next request is made.
    pub(super) again_at: BootNs,
    /// Requests that have failed since the read became necessary.
    pub(super) failures: u32,
}
