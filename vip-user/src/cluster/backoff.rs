//! Pauses between attempts. They grow with every failure, expected or not. They are random, so that two
//! nodes do not keep in step.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// Pauses that grow from `first` to `longest`.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), failures: 0 }
    }

    /// Notes how long an attempt lasted. Only an attempt that lasted for a while makes the next pause
    /// short again: attempts that end at once each time are a loop.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time > 2 * self.longest {
            self.failures = 0;
        }
    }

    /// The pause after an attempt: a random time between half of what is due and all of it. `asked` is
    /// the pause that the server wants.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let due = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let due = due.max(asked.unwrap_or_default()).min(self.longest);
        // The keys of a fresh hasher are random.
        let random = RandomState::new().build_hasher().finish() % 1_000;
        due / 2 + due.mul_f64(random as f64 / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest);
        let mut due = first;
        for _ in 0..40 {
            let pause = backoff.pause(None);
            assert!(pause >= due / 2 && pause <= due, "{pause:?} where {due:?} are due");
            due = (due * 2).min(longest);
        }
        let pauses: std::collections::BTreeSet<Duration> =
            (0..20).map(|_| backoff.pause(None)).collect();
        assert!(pauses.len() > 1, "no two nodes ask at the same time");
    }

    #[test]
    fn only_what_lasted_makes_it_quick_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest);
        for _ in 0..10 {
            backoff.lasted(Duration::from_millis(100));
            backoff.pause(None);
        }
        assert!(backoff.pause(None) >= longest / 2, "what ends at once is a loop");
        backoff.lasted(Duration::from_secs(5));
        assert!(backoff.pause(None) <= first);
    }

    #[test]
    fn the_server_is_heard_within_the_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        assert!(backoff.pause(Some(Duration::from_secs(1))) >= Duration::from_millis(500));
        assert!(backoff.pause(Some(Duration::from_hours(1))) <= Duration::from_secs(2));
    }
}
