//! Holding a Lease: renewals raise the fence, definitive evidence of another holder drops it.

use super::{
    admission::Admission,
    effects::{Effects, FenceChange, Outgoing},
    election::{AdoptedFence, Election, Source, Written, next_renew_time},
    fitness::Fitness,
    news::{Notice, Why},
    record::{LeaseWrite, Record, Tenure, Version},
    state::{Holding, InFlight, State},
    time::{BootNs, Now},
};
use std::collections::BTreeMap;

/// Attempts that may be on their way at once. A slow one is not cancelled: its answer may still come.
const MAX_IN_FLIGHT: usize = 4;

impl Holding {
    pub(super) fn new(tenure: Tenure, base: Version, duration_s: u32, now: BootNs) -> Self {
        Self {
            tenure,
            anew: None,
            lower_to: None,
            base,
            until: BootNs(0),
            sent: BootNs(0),
            duration_s,
            renew_us: 0,
            next_write: now,
            failures: 0,
            in_flight: BTreeMap::new(),
            lapsed: true,
            stale: false,
            silent: false,
            lost_release: None,
            told: Fitness::Able,
        }
    }

    /// Whether the record is of this tenure.
    fn is_told_by(&self, record: &Record) -> bool {
        let same_lease = record.uid == self.tenure.uid || self.anew.as_ref() == Some(&record.uid);
        same_lease && record.tenure().is_some_and(|tenure| tenure.note == self.tenure.note)
    }

    /// Whether no write was sent after this one. An older failure says nothing about the API now.
    pub(super) fn was_last(&self, attempt: &InFlight) -> bool {
        self.in_flight.values().all(|other| other.sent <= attempt.sent)
    }

    /// Whether a renewal may leave this host.
    pub(super) fn may_write(&self) -> bool {
        !self.stale && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// Whether a release may leave this host.
    pub(super) fn may_release(&self) -> bool {
        self.silent && !self.stale
    }
}

impl InFlight {
    /// Whether the write created a Lease after the fence ran out. It compared no version, so another
    /// Lease may have come and gone meanwhile, and its holder may still answer. While our fence was
    /// live no other node can have held one.
    pub(super) fn is_blind(&self, now: Now, holding: &Holding) -> bool {
        self.base.is_none() && now.boot >= holding.until
    }
}

impl Election {
    /// A live slot of this boot is a tenure of ours, whichever process began it.
    pub(super) fn first_observation(&mut self, now: Now, record: Option<Record>, out: &mut Effects) {
        let Some(AdoptedFence { tenure, until, duration_s, served }) = self.adopted.take() else {
            return self.follow(now, None, Source::Quorum(now.boot), record, out);
        };
        if now.boot >= until {
            out.silence = Some(Why::NotAdopted);
            return self.follow(now, None, Source::Quorum(now.boot), record, out);
        }
        if let Some(admission) = &mut self.admission {
            admission.adopt(served);
        }
        let base = record.as_ref().map_or(Version(String::new()), |record| record.version.clone());
        let mut holding = Holding::new(tenure, base, duration_s, now.boot);
        holding.until = until;
        // The process before this one may have counted with a smaller ρ: what it sent it sent before
        // now.
        let sent = until.0.saturating_sub(self.timing.hold(duration_s).as_nanos() as u64);
        holding.sent = BootNs(sent.min(now.boot.0));
        holding.renew_us = record.as_ref().and_then(|record| record.renew_us).unwrap_or(0);
        holding.lapsed = false;
        let ours = record.as_ref().and_then(Record::tenure).as_ref() == Some(&holding.tenure);
        if ours {
            out.news.push(Notice::Adopted);
        }
        self.observed_holding(now, holding, Source::Quorum(now.boot), record, out);
    }

    pub(super) fn observed_holding(
        &mut self,
        now: Now,
        mut holding: Holding,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        let live = now.boot < holding.until;
        // Once the fence has run out, a read proves nothing: another node may have taken the Lease in
        // between and still answer, and somebody have put our older content back. A watch would have
        // shown it.
        let known = record.as_ref().is_some_and(|record| record.version == holding.base);
        let proven = live || known || source == Source::Watch;
        match record {
            Some(record) if proven && holding.is_told_by(&record) => {
                holding.tenure.uid.clone_from(&record.uid);
                holding.base = record.version.clone();
                holding.stale = false;
                self.rests_on(&record, live);
                holding.renew_us = holding.renew_us.max(record.renew_us.unwrap_or(0));
                if record.duration_s < holding.duration_s {
                    // Somebody shortened D by hand: takers that start now see only the new value.
                    self.shorten(&mut holding, record.duration_s, out);
                }
                match record.offer {
                    Some(offer) if offer.is_for(&holding.tenure) && offer.fitness < self.fitness => {
                        self.give_way(now, holding, offer.node, out);
                    }
                    _ => self.state = State::Holding(holding),
                }
            }
            None if live => self.reassert(now, holding, None, out),
            Some(record) if live && may_reassert(&holding.tenure, &record) => {
                holding.renew_us = holding.renew_us.max(record.renew_us.unwrap_or(0));
                holding.anew = Some(record.uid);
                self.reassert(now, holding, Some(record.version), out);
            }
            other => self.deposed(now, holding, source, other, out),
        }
    }

    /// Somebody else holds the Lease, or may do so.
    fn deposed(
        &mut self,
        now: Now,
        holding: Holding,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        out.silence = Some(Why::Deposed);
        let holder = record.as_ref().map(|record| record.holder.clone()).unwrap_or_default();
        out.news.push(Notice::Lost(holder));
        self.last_tenure = Some(holding.tenure);
        self.linger_until = now.boot.after(self.timing.linger);
        self.follow(now, None, source, record, out);
    }

    pub(super) fn written_holding(
        &mut self,
        now: Now,
        mut holding: Holding,
        id: u64,
        outcome: Written,
        out: &mut Effects,
    ) {
        if let Some(attempt) = holding.in_flight.remove(&id) {
            match outcome {
                Written::Stored(record) if attempt.is_blind(now, &holding) => {
                    return self.deposed(now, holding, Source::Quorum(now.boot), Some(record), out);
                }
                Written::Stored(record) => self.renewed(now, &mut holding, &attempt, &record, out),
                Written::Conflict => {
                    if attempt.base.is_none() || attempt.base.as_ref() == Some(&holding.base) {
                        holding.stale = true;
                        self.read(now, out);
                    }
                }
                Written::Failed if holding.was_last(&attempt) => {
                    holding.failures = holding.failures.saturating_add(1);
                    holding.next_write = self.holder_retries_at(now, &holding, holding.failures);
                }
                Written::Failed => {}
            }
        }
        self.state = State::Holding(holding);
    }

    pub(super) fn act_holding(&mut self, now: Now, mut holding: Holding, out: &mut Effects) {
        if !holding.lapsed && now.boot >= holding.until {
            holding.lapsed = true;
            out.news.push(Notice::Lapsed);
        }
        if let (false, Some(admission)) = (holding.lapsed, &mut self.admission) {
            admission.act(now.boot);
        }
        if holding.may_write() && now.boot >= self.next_write(&holding) {
            holding.next_write = now.boot.after(self.timing.renew_every);
            self.shorten(&mut holding, self.timing.duration_s, out);
            let base = Some(holding.base.clone());
            let write = self.write(now, &mut holding, base);
            out.fences.extend(holding.lower_to.take().map(FenceChange::Lower));
            out.sends.push(Outgoing::Write(write));
        }
        self.state = State::Holding(holding);
    }

    /// When to write next: a holder that serves worse than it has told says so soon, so that a better
    /// one can offer.
    pub(super) fn next_write(&self, holding: &Holding) -> BootNs {
        let news = self.admission.as_ref().is_some_and(Admission::has_news);
        if (self.fitness > holding.told || news) && holding.failures == 0 {
            holding.next_write.min(holding.sent.after(self.hedge()))
        } else {
            holding.next_write
        }
    }

    /// The write of the standing tenure (or of its release), remembered as on its way.
    pub(super) fn write(
        &mut self,
        now: Now,
        holding: &mut Holding,
        base: Option<Version>,
    ) -> LeaseWrite {
        holding.renew_us = next_renew_time(now, Some(holding.renew_us));
        let id = self.fresh_id();
        let release = holding.silent;
        holding.told = self.fitness;
        let vips = self.admission.as_mut().map(|admission| admission.write(release));
        let in_flight = holding.in_flight.len();
        // `now` was read before the request leaves: the fence is counted from here.
        holding.in_flight.insert(id, InFlight { sent: now.boot, base: base.clone(), release });
        LeaseWrite {
            id,
            base,
            note: holding.tenure.note.clone(),
            duration_s: self.timing.duration_s,
            renew_us: holding.renew_us,
            release,
            in_flight,
            fitness: self.fitness,
            macs: self.macs.clone(),
            vips,
        }
    }

    /// A write was answered with 2xx. It counts only if the body carries our tenure under a new
    /// version; the fence is the shorter of D written and D returned, counted from `sent`.
    fn renewed(
        &mut self,
        now: Now,
        holding: &mut Holding,
        attempt: &InFlight,
        record: &Record,
        out: &mut Effects,
    ) {
        let created = attempt.base.is_none();
        let note_is_ours = record.tenure().is_some_and(|tenure| tenure.note == holding.tenure.note);
        let ours = holding.is_told_by(record) || (created && note_is_ours);
        if !ours || attempt.base.as_ref() == Some(&record.version) {
            holding.stale = true;
            return self.read(now, out);
        }
        holding.failures = 0;
        let current = created || attempt.base.as_ref() == Some(&holding.base);
        if current || record.version.newer_than(&holding.base) {
            holding.base = record.version.clone();
            holding.stale = false;
            self.rests_on(record, now.boot < holding.until);
        }
        holding.tenure.uid.clone_from(&record.uid);
        self.shorten(holding, record.duration_s, out);
        holding.duration_s = self.timing.duration_s.min(record.duration_s);
        let deadline = self.timing.fence(attempt.sent, holding.duration_s);
        if deadline <= holding.until || deadline <= now.boot {
            return;
        }
        let new = now.boot >= holding.until;
        if new {
            out.news.push(Notice::Regained);
        }
        holding.until = deadline;
        holding.lower_to = None;
        holding.sent = attempt.sent;
        holding.lapsed = false;
        out.fences.push(FenceChange::Raise {
            tenure: holding.tenure.clone(),
            generation: self.generation,
            deadline,
            duration_s: holding.duration_s,
            new,
        });
    }

    /// The next write replaces this record. Where it no longer names a VIP and the fence has run out,
    /// somebody else may have admitted that VIP: entries of before must not wake with the fence.
    fn rests_on(&mut self, record: &Record, live: bool) {
        if let Some(admission) = &mut self.admission
            && admission.stored(record, live)
            && !live
        {
            self.generation += 1;
        }
    }

    /// A fence that was raised for a longer D is lowered to what takers may assume of the shorter.
    fn shorten(&self, holding: &mut Holding, duration_s: u32, out: &mut Effects) {
        if duration_s >= holding.duration_s {
            return;
        }
        let lower = self.timing.fence(holding.sent, duration_s);
        if lower < holding.until {
            holding.until = lower;
            out.fences.push(FenceChange::Lower(lower));
        }
        holding.duration_s = duration_s;
    }

    fn reassert(&mut self, now: Now, mut holding: Holding, base: Option<Version>, out: &mut Effects) {
        if let Some(base) = &base {
            holding.base = base.clone();
        }
        holding.stale = false;
        holding.next_write = now.boot.after(self.timing.renew_every);
        if let Some(admission) = &mut self.admission {
            admission.reassert();
        }
        out.news.push(Notice::Reasserted);
        let write = self.write(now, &mut holding, base);
        out.fences.extend(holding.lower_to.take().map(FenceChange::Lower));
        out.sends.push(Outgoing::Write(write));
        self.state = State::Holding(holding);
    }
}

/// Whether a record that is not ours may be overwritten under a live fence: nobody else can hold the
/// Lease then, so it was blanked by hand, or an older content was restored. A release of our own
/// tenure is not blank: somebody may already have taken it. Whatever names another holder in a
/// Lease of another uid is left alone, for silence is always safe.
fn may_reassert(tenure: &Tenure, record: &Record) -> bool {
    if record.releases(tenure) {
        return false;
    }
    let older = record.uid == tenure.uid && record.transitions < tenure.note.transitions;
    if record.holder.is_empty() {
        return older || record.uid != tenure.uid || record.transitions == tenure.note.transitions;
    }
    older && record.tenure().is_some()
}
