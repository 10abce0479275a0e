//! When something is due.

use super::time::BootNs;
use std::{collections::VecDeque, time::Duration};

/// Rounds of an announcement burst, after the fence went up.
pub const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Rounds of an address probe (RFC 5227 section 2.1.1).
pub const PROBES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];
/// A host that did not take a change is tried again after this.
pub const RETRY: Duration = Duration::from_secs(1);

/// Instants at which something is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(VecDeque<BootNs>);

impl Schedule {
    /// These rounds, from `now` on.
    pub fn of(now: BootNs, rounds: &[Duration]) -> Self {
        Self(rounds.iter().map(|after| now.after(*after)).collect())
    }

    /// The next one.
    pub fn next(&self) -> Option<BootNs> {
        self.0.front().copied()
    }

    /// Something is due by then: at that instant, unless there is an earlier round.
    pub fn again_by(&mut self, at: BootNs) {
        if self.next().is_none_or(|next| next > at) {
            self.0.push_front(at);
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes everything that is due off; says whether anything was.
    pub fn take_due(&mut self, now: BootNs) -> bool {
        let waiting = self.0.len();
        self.0.retain(|at| *at > now);
        self.0.len() < waiting
    }

    /// How many rounds are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// One more round, after all others.
    pub fn then(&mut self, at: BootNs) {
        self.0.push_back(at);
    }
}
