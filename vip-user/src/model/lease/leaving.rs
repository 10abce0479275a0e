//! Giving a Lease up: first the kernel goes silent, then the Lease is released.

use super::{
    election::{Election, Source, Written},
    offers::{Better, Heir},
    record::Record,
    state::{Holding, State},
};
use crate::model::{
    effects::{Effects, Outgoing},
    fitness::Fitness,
    news::{Notice, Why},
    time::Now,
};

impl Election {
    /// Counts the tenures that end soon because this node serves badly. A long one starts anew.
    pub(super) fn count_loss(&mut self, now: Now, holding: &Holding) {
        let patience = Better::Heavier.lasting(self.given_up);
        let before = match holding.began.until(now.boot) {
            lasted if lasted > patience * 2 => 0,
            _ => self.given_up,
        };
        self.given_up = before.saturating_add(u32::from(self.fitness != Fitness::Able));
    }

    /// Gives the Lease to a node that can serve better, and stays a candidate.
    pub(super) fn give_way(&mut self, now: Now, mut holding: Holding, to: String, out: &mut Effects) {
        self.count_loss(now, &holding);
        self.leave_until = now.boot.after(self.timing.wait(self.timing.duration_s));
        self.last_tenure = Some(holding.tenure.clone());
        holding.next_write = self.leave_until;
        holding.failures = 0;
        self.linger_until = now.boot.after(self.timing.linger);
        holding.heir = Some(Heir::Node(to.clone()));
        out.news.push(Notice::Yields { to, fitness: self.fitness });
        out.silence = Some(Why::Yielding);
        self.state = State::Leaving(holding);
    }

    pub(super) fn leave(&mut self, now: Now, out: &mut Effects) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        // After D·(1+ρ) other nodes have taken over anyway.
        self.leave_until = now.boot.after(self.timing.wait(self.timing.duration_s));
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Holding(mut holding) => {
                holding.next_write = self.leave_until;
                holding.failures = 0;
                holding.heir = None;
                self.linger_until = now.boot.after(self.timing.linger);
                out.silence = Some(Why::Leaving);
                self.state = State::Leaving(holding);
            }
            // If a take-over is on its way, its answer is awaited, and the Lease is then given up.
            State::Waiting(waiting) => self.state = State::Waiting(waiting),
            // The node is already giving way. No second release is needed.
            State::Leaving(holding) => self.state = State::Leaving(holding),
            State::Unknown => {
                out.silence = Some(Why::Leaving);
                self.state = State::Left;
            }
            State::Left | State::Moved => self.state = State::Left,
        }
    }

    /// Only now may the release leave this host: the kernel is silent and no frame is queued.
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
        // After the fence has run out, or after a release without an answer, a read proves nothing.
        // Another node may have taken the Lease before its older content was restored. Releasing that
        // content could let a third node take over.
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
            // The record looks like ours, but may be a restored copy: it is left to expire.
            Some(record) if record.tenure().as_ref() == Some(&holding.tenure) => {
                self.left(now, Notice::ReleaseFailed, source, Some(record), out);
            }
            // Our release was stored although its answer was lost, or another node took the Lease.
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
                    // The answer counts like a watch event: it follows the version on which the write
                    // was based.
                    return self.left(now, Notice::Released, Source::Watch, Some(record), out);
                }
                // The record names us, but may be an older content that was restored. Releasing it
                // could let a third node take over.
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
                // Nothing has left: the release cannot have been stored.
                Written::KeptBack => holding.next_write = now.boot.after(self.hedge()),
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

    /// Ends the tenure of this node, whether the release has worked or not. `record` is the last known
    /// content of the Lease.
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
            // No record can be trusted: the node starts again with a read, and adopts no tenure.
            self.state = State::Unknown;
            self.read(now, out);
        }
    }
}
