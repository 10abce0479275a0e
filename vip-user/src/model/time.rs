//! Instants. Only `CLOCK_BOOTTIME` decides anything; the wall clock is written into the Lease for
//! people to read.

use std::{
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

/// `CLOCK_BOOTTIME` in nanoseconds: monotonic, and it keeps counting while the host sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootNs(pub u64);

impl BootNs {
    /// This instant plus a span, at most the largest `u64`.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        let nanos = span.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Self(self.0.saturating_add(nanos))
    }

    /// Time from `self` until `later`; zero if `later` is not after `self`.
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for BootNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}

/// An instant that is only compared with other instants. It is left out of hashes, so that the model
/// checker merges states that differ only in it. The checker must itself keep apart states in which
/// that comparison comes out differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unhashed(pub BootNs);

impl Hash for Unhashed {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: the clock that all decisions use.
    pub boot: BootNs,
    /// The wall clock in microseconds since 1970, for people only.
    pub wall_us: i64,
}
