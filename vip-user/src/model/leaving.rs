//! Giving a Lease up: silence first, then the release.

use super::{
    effects::{Effects, Outgoing},
    election::{Election, Source, Written},
    news::{Notice, Why},
    record::Record,
    state::{Holding, State},
    time::Now,
};

impl Election {
    /// Gives the Lease to a node that can serve better, and goes on as a candidate.
    pub(super) fn give_way(&mut self, now: Now, mut holding: Holding, to: String, out: &mut Effects) {
        self.leave_until = now.boot.after(self.timing.wait(self.timing.duration_s));
        self.last_tenure = Some(holding.tenure.clone());
        holding.next_write = self.leave_until;
        holding.failures = 0;
        self.linger_until = now.boot.after(self.timing.linger);
        out.news.push(Notice::Yields { to, fitness: self.fitness });
        out.silence = Some(Why::Yielding);
        self.state = State::Leaving(holding);
    }

    pub(super) fn leave(&mut self, now: Now, out: &mut Effects) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        // Past D·(1+ρ) others have taken over anyway.
        self.leave_until = now.boot.after(self.timing.wait(self.timing.duration_s));
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Holding(mut holding) => {
                holding.next_write = self.leave_until;
                holding.failures = 0;
                self.linger_until = now.boot.after(self.timing.linger);
                out.silence = Some(Why::Leaving);
                self.state = State::Leaving(holding);
            }
            // A take-over on its way must not be orphaned: it is waited for and then given up.
            State::Waiting(waiting) => self.state = State::Waiting(waiting),
            // Already giving way: the release that is under way is the last.
            State::Leaving(holding) => self.state = State::Leaving(holding),
            State::Unknown => {
                out.silence = Some(Why::Leaving);
                self.state = State::Left;
            }
            State::Left | State::Moved => self.state = State::Left,
        }
    }

    /// Only now, with the kernel silent and nothing queued, may the release leave this host.
    pub(super) fn silenced(&mut self, now: Now) {
        if let State::Leaving(holding) = &mut self.state {
            holding.silent = true;
            holding.next_write = now.boot;
        }
    }

    pub(super) fn observed_leaving(
        &mut self,
        now: Now,
        mut holding: Holding,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        // What holds of a holder whose fence has run out holds here, and more: a release of which
        // nothing was heard may have let another node take the Lease, and the older content have been
        // put back since. To release that would invite a third.
        let release_sent =
            holding.lost_release.is_some() || holding.in_flight.values().any(|sent| sent.release);
        let alone = now.boot < holding.until && !release_sent;
        let known = record.as_ref().is_some_and(|record| record.version == holding.base);
        let proven = alone || known || source == Source::Watch;
        match record {
            Some(record) if proven && record.tenure().as_ref() == Some(&holding.tenure) => {
                holding.base = record.version;
                holding.stale = false;
                if holding.silent {
                    holding.next_write = now.boot;
                }
                self.state = State::Leaving(holding);
            }
            // It is ours by its content, and perhaps not by right: it runs out by itself.
            Some(record) if record.tenure().as_ref() == Some(&holding.tenure) => {
                self.left(now, Notice::ReleaseFailed, source, Some(record), out);
            }
            // Released by a write whose answer was lost, or taken away: nothing is left to give up.
            record => self.left(now, Notice::Released, source, record, out),
        }
    }

    pub(super) fn written_leaving(
        &mut self,
        now: Now,
        mut holding: Holding,
        id: u64,
        outcome: Written,
        out: &mut Effects,
    ) {
        if let Some(attempt) = holding.in_flight.remove(&id) {
            match outcome {
                Written::Stored(record) if attempt.release => {
                    // As good as an event: it follows the version that the write was based on.
                    return self.left(now, Notice::Released, Source::Watch, Some(record), out);
                }
                // The record names us, but may be an older content that was restored. A release of it
                // could let a third node in.
                Written::Stored(record) if attempt.is_blind(now, &holding) => {
                    return self.left(
                        now,
                        Notice::ReleaseFailed,
                        Source::Quorum(now.boot),
                        Some(record),
                        out,
                    );
                }
                // A renewal that was on its way when the stop came raises no fence any more.
                Written::Stored(record) => {
                    holding.base = record.version;
                    if holding.silent {
                        holding.next_write = now.boot;
                    }
                }
                Written::Conflict => {
                    holding.stale = true;
                    self.read(now, out);
                }
                Written::Failed if attempt.release => {
                    holding.lost_release = Some(id);
                    if holding.was_last(&attempt) {
                        holding.failures = holding.failures.saturating_add(1);
                        holding.next_write = now.boot.after(self.pause(holding.failures, 1));
                    }
                }
                Written::Failed => {}
            }
        }
        self.state = State::Leaving(holding);
    }

    pub(super) fn act_leaving(&mut self, now: Now, mut holding: Holding, out: &mut Effects) {
        if now.boot >= self.leave_until {
            return self.left(now, Notice::ReleaseFailed, Source::Quorum(now.boot), None, out);
        }
        if holding.may_release() && now.boot >= holding.next_write {
            holding.next_write = now.boot.after(self.timing.renew_every);
            let base = Some(holding.base.clone());
            let write = self.write(now, &mut holding, base);
            out.sends.push(Outgoing::Write(write));
        }
        self.state = State::Leaving(holding);
    }

    /// The Lease is given up, as far as it could be. `record` is what stands in its place.
    fn left(
        &mut self,
        now: Now,
        notice: Notice,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        out.news.push(notice);
        if self.leaving {
            self.state = State::Left;
        } else if record.is_some() {
            self.follow(now, None, source, record, out);
        } else {
            // Nothing is known for certain: as after a start, with nothing of ours in the slot.
            self.state = State::Unknown;
            self.read(now, out);
        }
    }
}
