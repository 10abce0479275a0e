//! Holding a Lease. Confirmed renewals raise the fence; evidence of another holder silences the node.

use super::{
    admission::Admission,
    election::{AdoptedFence, Election, Source, Written, next_renew_time},
    offers::{Heir, Offer, Preference, SETTLED, Suits, handover_lasts},
    record::{LeaseWrite, Record, Tenure, TenureNote, Version},
    state::{Holding, InFlight, State},
};
use crate::model::{
    effects::{Effects, FenceChange, Outgoing},
    fitness::Fitness,
    news::{Notice, Why},
    time::{BootNs, Now},
};
use std::collections::BTreeMap;

/// How many writes may be on their way at once. A slow one is not cancelled: its answer may still come.
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
            began: now,
            heir: None,
            heir_until: BootNs(0),
            told_heir: None,
        }
    }

    /// Whether the record carries this tenure, in its own Lease or in one that was created again.
    fn is_told_by(&self, record: &Record) -> bool {
        let same_lease = record.uid == self.tenure.uid || self.anew.as_ref() == Some(&record.uid);
        same_lease && record.tenure().is_some_and(|tenure| tenure.note == self.tenure.note)
    }

    /// Whether no write was sent after this one. The failure of an older one says nothing about the API
    /// now.
    pub(super) fn was_last(&self, attempt: &InFlight) -> bool {
        self.in_flight.values().all(|other| other.sent <= attempt.sent)
    }

    /// Whether this process has held it for so short a time that doubts do not count.
    fn is_young(&self, now: Now) -> bool {
        now.boot < self.began.after(SETTLED)
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
    /// Whether the write created a Lease and the fence has run out since. It compared no version, so
    /// another Lease may have existed in between, whose holder may still answer. While our fence is
    /// live, no other node can hold one.
    pub(super) fn is_blind(&self, now: Now, holding: &Holding) -> bool {
        self.base.is_none() && now.boot >= holding.until
    }
}

impl Election {
    /// Handles the first reading. A live slot of this boot belongs to a tenure of this node, whichever
    /// process began it.
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
        // Our own ρ may be larger than that of the earlier process. The time computed from it could
        // then lie in the future, but the request left before now.
        let sent = until.0.saturating_sub(self.timing.hold(duration_s).as_nanos() as u64);
        holding.sent = BootNs(sent.min(now.boot.0));
        holding.renew_us = record.as_ref().and_then(|record| record.renew_us).unwrap_or(0);
        holding.lapsed = false;
        // The tenure is older than this process. A holder that restarts again and again must not hide
        // its doubts for ever.
        holding.began = BootNs(0);
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
        // Once the fence has run out, a read proves nothing. Another node may have taken the Lease and
        // still answer, although our older content was restored. A watch would have shown that.
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
                    // D was shortened by hand: takers that start now see only the new value.
                    self.shorten(&mut holding, record.duration_s, out);
                }
                match record.offer {
                    Some(offer) if self.accepts(now, &holding, &offer) => {
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

    /// Another node holds the Lease, or may hold it: this node goes silent and waits.
    fn deposed(
        &mut self,
        now: Now,
        holding: Holding,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        self.count_loss(now, &holding);
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
                Written::KeptBack if holding.was_last(&attempt) => {
                    holding.next_write = now.boot.after(self.hedge());
                }
                Written::Failed | Written::KeptBack => {}
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
        if holding.heir.is_some() && now.boot >= holding.heir_until {
            holding.heir = None;
            out.news.push(Notice::NobodyTook);
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

    /// When to write next. The write comes early if the fitness is worse than the last write says, so
    /// that a better node can offer. The same applies to a new heir, and if the admission has something
    /// new to write.
    pub(super) fn next_write(&self, holding: &Holding) -> BootNs {
        if holding.failures > 0 {
            return holding.next_write;
        }
        let soon = holding.sent.after(self.hedge());
        let worse = match self.fitness {
            fitness if fitness <= holding.told => None,
            Fitness::Doubtful => Some(soon.max(holding.began.after(SETTLED))),
            _ => Some(soon),
        };
        let admission = self.admission.as_ref().is_some_and(Admission::has_news);
        let news = (admission || holding.heir != holding.told_heir).then_some(soon);
        // What the take-over could not say yet, because other Leases had to be read: the VIPs are dark
        // until then.
        let first = (admission && holding.sent <= holding.began).then_some(holding.began);
        [worse, news, first].into_iter().flatten().fold(holding.next_write, BootNs::min)
    }

    /// How well this node suits, as a holder says it. While its tenure is `young` it does not mention
    /// doubts.
    pub(super) fn stated(&self, young: bool) -> Suits {
        let fitness = match self.fitness {
            Fitness::Doubtful if young => Fitness::Able,
            fitness => fitness,
        };
        Suits { fitness, weight: self.weight }
    }

    /// Whether this holder gives the Lease to the node that has made the offer.
    fn accepts(&self, now: Now, holding: &Holding, offer: &Offer) -> bool {
        let stated = self.stated(holding.is_young(now));
        holding.tenure.is_addressed_by(offer) && stated.gives_way_to(offer, holding.heir.as_ref())
    }

    /// Another node should have the Lease. The next write says so, and that node offers.
    pub(super) fn hand_over(&mut self, now: Now, heir: Heir) {
        if let State::Holding(holding) = &mut self.state {
            holding.heir = Some(heir);
            holding.heir_until = now.boot.after(handover_lasts(&self.timing));
        }
    }

    /// What a write says about where the VIPs should be.
    pub(super) fn preference(
        &self,
        note: &TenureNote,
        fitness: Fitness,
        heir: Option<Heir>,
    ) -> Option<Preference> {
        let TenureNote { transitions, acquire_us, .. } = *note;
        let (weight, impaired) = (self.weight, fitness == Fitness::Impaired);
        let says = weight > 0 || heir.is_some() || impaired;
        says.then_some(Preference { transitions, acquire_us, weight, heir, impaired })
    }

    /// A write of the present tenure, or its release. It is remembered as on its way.
    pub(super) fn write(
        &mut self,
        now: Now,
        holding: &mut Holding,
        base: Option<Version>,
    ) -> LeaseWrite {
        holding.renew_us = next_renew_time(now, Some(holding.renew_us));
        let id = self.fresh_id();
        let release = holding.silent;
        let Suits { fitness, .. } = self.stated(holding.is_young(now));
        holding.told = fitness;
        holding.told_heir.clone_from(&holding.heir);
        let vips = self.admission.as_mut().map(|admission| admission.write(release));
        let in_flight = holding.in_flight.len();
        // `now` was read before the request leaves, so the fence can count from it.
        holding.in_flight.insert(id, InFlight { sent: now.boot, base: base.clone(), release });
        LeaseWrite {
            id,
            base,
            note: holding.tenure.note.clone(),
            duration_s: self.timing.duration_s,
            renew_us: holding.renew_us,
            release,
            in_flight,
            fitness,
            preference: self.preference(&holding.tenure.note, fitness, holding.heir.clone()),
            macs: self.macs.clone(),
            vips,
        }
    }

    /// A write was answered with 2xx. It counts only if the body carries our tenure under a new
    /// version. The fence counts from `sent` and uses the shorter of D written and D returned.
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

    /// The next write will replace `record`. If a VIP has lost its admission in it and the fence has
    /// run out, another Lease may have admitted that VIP. A new generation keeps the old entries silent
    /// when the fence rises again.
    fn rests_on(&mut self, record: &Record, live: bool) {
        if let Some(admission) = &mut self.admission
            && admission.stored(record, live)
            && !live
        {
            self.generation += 1;
        }
    }

    /// Lowers a fence that was raised for a longer D: takers may already count with the shorter one.
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

/// Whether a holder with a live fence may overwrite a record that does not carry its tenure. No other
/// node can hold the Lease then: it was blanked by hand, or an older content was restored. A release of
/// our own tenure is different: another node may have taken the Lease after it. A Lease of another uid
/// that names a holder is left alone, because silence is always safe.
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
