//! Times at which something must be done.

use super::time::BootNs;
use std::{collections::VecDeque, time::Duration};

/// Rounds of an announcement burst, counted from when the fence was raised.
pub const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Rounds of an address probe (RFC 5227 section 2.1.1), counted from the first.
pub const PROBES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];
/// Rounds of questions about a Lease that another program held last, counted from the first.
pub const QUESTIONS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1)];
/// Pause before a change that the host did not take is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// Times at which something must be done, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(VecDeque<BootNs>);

impl Schedule {
    /// These rounds, counted from `now`.
    pub fn of(now: BootNs, rounds: &[Duration]) -> Self {
        Self(rounds.iter().map(|after| now.after(*after)).collect())
    }

    /// The time of the next round.
    pub fn next(&self) -> Option<BootNs> {
        self.0.front().copied()
    }

    /// Adds a round at that time, unless there is one at that time or earlier.
    pub fn again_by(&mut self, at: BootNs) {
        if self.next().is_none_or(|next| next > at) {
            self.0.push_front(at);
        }
    }

    /// Removes all rounds.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes all rounds that are due. Returns whether there were any.
    pub fn take_due(&mut self, now: BootNs) -> bool {
        let waiting = self.0.len();
        self.0.retain(|at| *at > now);
        self.0.len() < waiting
    }

    /// How many rounds are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Adds a round after all others.
    pub fn then(&mut self, at: BootNs) {
        self.0.push_back(at);
    }
}
