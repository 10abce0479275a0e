//! A read that an election needs.

use super::time::BootNs;

/// A read that this election needs. It is asked for again until something has been seen: whoever
/// does the reading may fail, and a watch that lives on never reads.
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
