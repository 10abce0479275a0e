//! Instants. Only `CLOCK_BOOTTIME` decides anything; the wall clock is written into the Lease for
//! people to read.

use std::{
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

/// `CLOCK_BOOTTIME` in nanoseconds: monotonic, and it goes on while the host sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootNs(pub u64);

impl BootNs {
    /// This instant plus a span.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        let nanos = span.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Self(self.0.saturating_add(nanos))
    }

    /// Time from `self` until `later`, zero if that is past.
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for BootNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}

/// An instant that is compared with others and means nothing by itself. It has no part in a hash: for
/// the model checker, states that differ in nothing else are one, if it sees to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub BootNs);

impl Hash for Mark {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The clock that decides.
    pub boot: BootNs,
    /// Microseconds since 1970, information only.
    pub wall_us: i64,
}
