//! A read that an election needs.

use super::time::BootNs;

/// A read that this election needs. The election asks again until it has seen something: a read may
/// fail, and a live watch never reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Nothing that was seen has answered the question yet.
    pub(super) wanted: bool,
    /// A request is on its way.
    pub(super) asked: bool,
    /// When the next request is made.
    pub(super) again_at: BootNs,
    /// Requests that failed since it was wanted.
    pub(super) failures: u32,
}
