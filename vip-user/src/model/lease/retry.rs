//! Retries. The first one comes soon, perhaps to another endpoint. Later ones come no faster than
//! renewals, and with a jitter. So nodes that an API server refused together do not come back together.

use super::{
    election::Election,
    reading::Reading,
    state::{Holding, State},
};
use crate::model::{
    effects::{Effects, Outgoing},
    time::{BootNs, Now},
};
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

/// The longest pause between retries that are not urgent, in renewal intervals.
const LONGEST_PAUSE: u32 = 4;

impl Election {
    /// The pause after a first failure.
    pub(super) fn hedge(&self) -> Duration {
        self.timing.renew_every / 4
    }

    /// This many renewal intervals, and up to a quarter more. The model has no random numbers: the
    /// extra share is a hash of the identity of this process and of how often it has tried.
    pub(super) fn spread(&self, intervals: u32, tried: u32) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.me, self.next_id, tried).hash(&mut hasher);
        let share = (hasher.finish() % 256) as u32;
        let steady = self.timing.renew_every * intervals;
        steady + steady * share / 1_024
    }

    /// How long to pause after this many failures in a row. Pauses double, up to `longest` renewal
    /// intervals.
    pub(super) fn pause(&self, failures: u32, longest: u32) -> Duration {
        match failures {
            0 | 1 => self.hedge(),
            _ => self.spread((1 << (failures - 2).min(8)).min(longest), failures),
        }
    }

    /// The pause before an offer or a creation is sent again. The election gets no answer to these;
    /// only the watch shows their outcome.
    pub(super) fn unheard(&self, requests: u32) -> Duration {
        self.pause(requests.saturating_add(1), LONGEST_PAUSE)
    }

    /// When a holder retries. One attempt must leave a quarter of a renewal interval before the fence
    /// ends, so that its answer still counts. If the retry after the next would come too late for
    /// that, the next one is moved to that instant.
    pub(super) fn holder_retries_at(&self, now: Now, holding: &Holding, failures: u32) -> BootNs {
        let next = now.boot.after(self.pause(failures, 1));
        let last = BootNs(holding.until.0.saturating_sub(self.hedge().as_nanos() as u64));
        let least = if failures > 1 { self.timing.renew_every } else { self.hedge() };
        let fits = last >= now.boot.after(least);
        if fits && next.after(self.timing.renew_every) > last { last } else { next }
    }

    /// Asks for a read at once, unless one is already wanted.
    pub(super) fn read(&mut self, now: Now, out: &mut Effects) {
        if !self.reading.wanted {
            self.reading = Reading { wanted: true, ..Reading::default() };
            self.ask(now, out);
        }
    }

    /// A read has failed: the election's own, or one of its watch. Both say the same about the API.
    pub(super) fn read_failed(&mut self, now: Now) {
        if !self.reading.wanted || !self.reading.asked {
            return;
        }
        self.reading.asked = false;
        self.reading.failures = self.reading.failures.saturating_add(1);
        let failures = self.reading.failures;
        self.reading.again_at = match &self.state {
            State::Holding(holding) => self.holder_retries_at(now, holding, failures),
            State::Leaving(_) => now.boot.after(self.pause(failures, 1)),
            _ => now.boot.after(self.pause(failures, LONGEST_PAUSE)),
        };
    }

    /// Repeats the read when it is due, even while an answer is outstanding. A holder waits less than a
    /// candidate.
    pub(super) fn act_reading(&mut self, now: Now, out: &mut Effects) {
        if self.reading_wake().is_some_and(|at| at <= now.boot) {
            self.ask(now, out);
        }
    }

    pub(super) fn reading_wake(&self) -> Option<BootNs> {
        let wanted = self.reading.wanted && self.state != State::Left;
        wanted.then_some(self.reading.again_at)
    }

    fn ask(&mut self, now: Now, out: &mut Effects) {
        let patience = match self.state {
            State::Holding(_) | State::Leaving(_) => self.timing.renew_every,
            _ => self.timing.wait(self.timing.duration_s),
        };
        self.reading.asked = true;
        self.reading.again_at = now.boot.after(patience);
        out.sends.push(Outgoing::Read);
    }
}
