//! Waiting for a Lease. Timers run from what this node has observed, and use no time stamp of the
//! record.

use super::{
    admission::PROBE_TIME,
    election::{Election, Source, Written, next_renew_time},
    offers::{MOST_OFFERS, Suits},
    record::{LeaseWrite, Record, TenureNote},
    state::{Holding, State, Taking, Waiting},
    stranger::STRANGER_STOPS,
};
use crate::model::{
    effects::{Effects, FenceChange, Outgoing},
    fitness::Fitness,
    news::{Notice, TakeReason, Why},
    time::{BootNs, Now},
};
use std::{collections::BTreeMap, time::Duration};

impl Election {
    /// Starts (or restarts) the wait for `record`. A longer wait from `before` is kept. A release
    /// counts only as the watch event right after the newest tenure. A read may hide writes in between,
    /// or show an older content that was restored.
    pub(super) fn follow(
        &mut self,
        now: Now,
        before: Option<&Waiting>,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        let own = self.wait_for(record.as_ref());
        let given_up = before.filter(|_| source == Source::Watch).zip(record.as_ref());
        let given_up = given_up.and_then(|(before, record)| self.strangers_release(before, record));
        let (stranger, given_up) = match given_up {
            Some((stranger, wait)) => (Some(stranger), Some(wait)),
            None => (Self::stranger(now, before, record.as_ref()), None),
        };
        let wait = match (before, &record) {
            _ if let Some(wait) = given_up => wait,
            (Some(before), record) if !succeeds(before, record.as_ref()) => before.wait.max(own),
            _ => own,
        };
        let released = match (&record, &self.last_tenure) {
            (Some(record), Some(tenure)) if source == Source::Watch => {
                // The annotation must have come with the write that emptied the holder, not before it.
                let ended = |seen: &Record| {
                    seen.tenure().as_ref() == Some(tenure) && seen.released != record.released
                };
                let ended = before.is_none_or(|before| before.seen.as_ref().is_some_and(ended));
                record.releases(tenure) && ended
            }
            _ => false,
        };
        self.tell(before, record.as_ref(), out);
        let probes = self.was_never_held(record.as_ref());
        if probes {
            out.sends.push(Outgoing::Probe);
        }
        if let Some(admission) = &mut self.admission {
            admission.lost();
            if probes {
                admission.probing(now.boot, PROBE_TIME);
            }
        }
        let unbroken = before.filter(|_| source == Source::Watch);
        let outlived_at = self.follow_tenure(now, unbroken, record.as_ref(), wait);
        let taking = before.and_then(|before| before.taking.clone());
        let not_before = before.map_or(BootNs(0), |before| before.not_before);
        let offer_at = before.map_or(BootNs(0), |before| before.offer_at);
        let tenure = record.as_ref().and_then(Record::tenure);
        let of_same = |before: &&Waiting| before.seen.as_ref().and_then(Record::tenure) == tenure;
        let of_same = before.filter(of_same);
        let offers = of_same.map_or(0, |before| before.offers);
        let better = of_same.and_then(|before| before.better);
        self.state = State::Waiting(Waiting {
            seen: record,
            since: now.boot,
            wait,
            released,
            taking,
            not_before,
            failures: 0,
            creations: 0,
            offer_at,
            offers,
            better,
            outlived_at,
            stranger: stranger.map(Box::new),
        });
    }

    /// Notes the newest tenure that this node has seen: only a release of that one counts. If an older
    /// content was restored, a later tenure may still have a live fence. Its node can renew it only by
    /// a write that an unbroken watch (`before`) would show. So after `wait` the later tenure is dead,
    /// and the restored one counts again. Returns when that will be.
    fn follow_tenure(
        &mut self,
        now: Now,
        before: Option<&Waiting>,
        record: Option<&Record>,
        wait: Duration,
    ) -> Option<BootNs> {
        let tenure = record?.tenure()?;
        if self.last_tenure.as_ref().is_some_and(|last| tenure.is_before(last)) {
            let wait = wait.max(self.timing.wait(self.timing.duration_s));
            let known = before.and_then(|before| before.outlived_at);
            let outlived_at = known.unwrap_or(now.boot.after(wait));
            if now.boot < outlived_at {
                return Some(outlived_at);
            }
        }
        self.last_tenure = Some(tenure);
        None
    }

    pub(super) fn observed_waiting(
        &mut self,
        now: Now,
        mut waiting: Waiting,
        source: Source,
        record: Option<Record>,
        out: &mut Effects,
    ) {
        if let (Some(taking), Some(record)) = (&waiting.taking, &record) {
            // The answer to our write was lost. While a fence from the first attempt would be live, no
            // other node can have taken the Lease. Later, a read proves nothing (as for a holder).
            let duration_s = self.timing.duration_s.min(record.duration_s);
            let proven =
                source == Source::Watch || now.boot < self.timing.fence(taking.began, duration_s);
            if proven && record.tenure().is_some_and(|tenure| tenure.note == taking.note) {
                let taking = taking.clone();
                return self.took(now, taking, record, BootNs(0), out);
            }
            // Once another write has replaced the base, ours can never be stored.
            if taking.base != record.version {
                waiting.taking = None;
            }
        }
        // A watch shows every version, so if only a label differs, a label was edited. A read hides
        // versions: the holder may have renewed before the older content was restored.
        let unchanged = match (&waiting.seen, &record) {
            (Some(seen), Some(record)) => {
                let complete = source == Source::Watch || seen.version == record.version;
                complete && seen.same_spec(record)
            }
            (None, None) => true,
            _ => false,
        };
        if unchanged {
            waiting.seen = record;
            self.state = State::Waiting(waiting);
        } else {
            self.follow(now, Some(&waiting), source, record, out);
        }
    }

    pub(super) fn written_waiting(
        &mut self,
        now: Now,
        mut waiting: Waiting,
        id: u64,
        outcome: Written,
        out: &mut Effects,
    ) {
        let sent = waiting.taking.as_mut().and_then(|taking| taking.in_flight.remove(&id));
        if let (Some(sent), Some(taking)) = (sent, waiting.taking.clone()) {
            match outcome {
                Written::Stored(record)
                    if record.tenure().is_some_and(|tenure| tenure.note == taking.note)
                        && taking.base != record.version =>
                {
                    return self.took(now, taking, &record, sent, out);
                }
                Written::Stored(_) | Written::Conflict => {
                    waiting.not_before = now.boot.after(self.spread(1, waiting.failures));
                    self.read(now, out);
                }
                Written::Failed if taking.in_flight.values().all(|other| *other <= sent) => {
                    waiting.failures = waiting.failures.saturating_add(1);
                    waiting.not_before = now.boot.after(self.pause(waiting.failures, 1));
                }
                Written::KeptBack => waiting.not_before = now.boot.after(self.hedge()),
                Written::Failed => {}
            }
        }
        self.state = State::Waiting(waiting);
    }

    pub(super) fn act_waiting(&mut self, now: Now, mut waiting: Waiting, out: &mut Effects) {
        let undecided = waiting.taking.as_ref().is_some_and(|taking| !taking.in_flight.is_empty());
        if self.leaving {
            self.state = if undecided && now.boot < self.leave_until {
                State::Waiting(waiting)
            } else {
                State::Left
            };
            return;
        }
        let permitted = self.lan_permits(now, &mut waiting, out);
        if permitted && now.boot >= self.due(&waiting).max(waiting.not_before) {
            waiting.not_before = now.boot.after(self.timing.renew_every);
            let write = self.take(now, &mut waiting);
            if write.is_none() {
                waiting.creations = waiting.creations.saturating_add(1);
                waiting.not_before = now.boot.after(self.unheard(waiting.creations));
            }
            out.sends.push(write.map_or(Outgoing::Create, Outgoing::Write));
        } else if self.offers_at(now, &mut waiting).is_some_and(|at| at <= now.boot)
            && let Some(seen) = &waiting.seen
            && let Some(offer) = seen.offer_by(&self.me.node, self.suits())
        {
            waiting.offers = waiting.offers.saturating_add(1);
            waiting.offer_at = now.boot.after(self.unheard(waiting.offers));
            out.sends.push(Outgoing::Offer(seen.version.clone(), offer));
        }
        self.state = State::Waiting(waiting);
    }

    fn suits(&self) -> Suits {
        Suits { fitness: self.fitness, weight: self.weight }
    }

    /// When this node may offer to the holder, if it suits better now. Notes why it does, and since
    /// when.
    fn offers_at(&self, now: Now, waiting: &mut Waiting) -> Option<BootNs> {
        let why = waiting.seen.as_ref().and_then(|seen| seen.invites(&self.me.node, self.suits()));
        match (why, waiting.better) {
            (Some(why), Some((before, _))) if why == before => {}
            (why, _) => {
                waiting.better = why.map(|why| (why, now.boot));
                waiting.offers = 0;
            }
        }
        self.next_offer(waiting)
    }

    fn next_offer(&self, waiting: &Waiting) -> Option<BootNs> {
        let seen = waiting.seen.as_ref()?;
        let (why, since) = waiting.better?;
        if seen.invites(&self.me.node, self.suits()) != Some(why)
            || (why.may_be_ignored() && waiting.offers >= MOST_OFFERS)
        {
            return None;
        }
        seen.offer_by(&self.me.node, self.suits())?;
        Some(waiting.offer_at.max(since.after(why.lasting(self.given_up))))
    }

    pub(super) fn waiting_wake(&self, waiting: &Waiting) -> BootNs {
        if self.leaving {
            return self.leave_until;
        }
        let due = self.lan_wake(waiting, self.due(waiting).max(waiting.not_before));
        self.next_offer(waiting).map_or(due, |offer| due.min(offer))
    }

    /// When the Lease may be taken (or created, if there is none).
    pub(super) fn due(&self, waiting: &Waiting) -> BootNs {
        match &waiting.seen {
            _ if self.fitness == Fitness::Barred => BootNs(u64::MAX),
            _ if let Some(due) = self.given_up_at(waiting) => due,
            None => waiting.since,
            Some(seen) if waiting.released => waiting.since.after(self.politeness(seen)),
            Some(_) => {
                let due = waiting.since.after(waiting.wait);
                match self.fitness {
                    Fitness::Unable => due.after(self.timing.wait(self.timing.duration_s)),
                    _ => due.after(self.timing.renew_every * self.places()),
                }
            }
        }
    }

    /// How long this node leaves a Lease that was given up to nodes that suit better. The heir goes
    /// first. So a planned stop costs less than a lease, even if all other nodes are unable.
    fn politeness(&self, seen: &Record) -> Duration {
        let places = match self.places() {
            places if places < 3 && seen.is_reserved_for(&self.me.node) => 0,
            places => places + u32::from(seen.is_reserved_from(&self.me.node)),
        };
        (self.timing.renew_every * places).min(self.timing.wait(self.timing.duration_s))
    }

    /// How many renewal intervals a node of this fitness waits longer than an able one.
    pub(super) fn places(&self) -> u32 {
        match self.fitness {
            Fitness::Able => 0,
            Fitness::Doubtful => 1,
            Fitness::Impaired => 2,
            Fitness::Unable | Fitness::Barred => 3,
        }
    }

    /// Whether this node knows of no holder of the Lease, ever. Then the LAN is asked for its addresses
    /// first.
    fn was_never_held(&self, record: Option<&Record>) -> bool {
        self.last_tenure.is_none() && record.is_some_and(Record::is_unheld)
    }

    /// How long a record must stay unchanged before a node may take it. A missing Lease is created at
    /// once, without a holder: a holder with a live fence then writes its own tenure into it.
    fn wait_for(&self, record: Option<&Record>) -> Duration {
        match record {
            None => Duration::ZERO,
            record if self.was_never_held(record) => {
                self.timing.wait(self.timing.duration_s).max(PROBE_TIME)
            }
            Some(record) if record.holder.is_empty() && record.is_strangers() => {
                self.timing.wait(self.duration_of(record)).max(STRANGER_STOPS)
            }
            Some(record) if record.holder.is_empty() || record.tenure().is_some() => {
                self.timing.wait(self.duration_of(record))
            }
            Some(record) => self.timing.foreign_wait(self.duration_of(record)),
        }
    }

    fn tell(&self, before: Option<&Waiting>, record: Option<&Record>, out: &mut Effects) {
        let notice = match record {
            None => Notice::Missing,
            Some(record) => {
                let seen = before.and_then(|before| before.seen.as_ref());
                if record.holder.is_empty() || seen.is_some_and(|seen| seen.holder == record.holder) {
                    return;
                }
                let holder = record.holder.clone();
                if record.tenure().is_some() {
                    Notice::Following(holder)
                } else {
                    Notice::Foreign { own_name: holder == self.me.node, holder }
                }
            }
        };
        out.news.push(notice);
    }

    /// The write that takes the Lease, by CAS on the version that was observed. `None` if there is no
    /// Lease.
    fn take(&mut self, now: Now, waiting: &mut Waiting) -> Option<LeaseWrite> {
        let overrules = self.overrules(waiting);
        let seen = waiting.seen.as_ref()?;
        let id = self.fresh_id();
        let base = seen.version.clone();
        let last = self.last_tenure.as_ref().map(|last| last.note.transitions);
        let previous = Some(seen.transitions).max(last);
        let mut taking =
            waiting.taking.take().filter(|taking| taking.base == base).unwrap_or_else(|| Taking {
                note: TenureNote {
                    holder: self.me.node.clone(),
                    transitions: next_transitions(previous),
                    acquire_us: now.wall_us,
                    process: self.me.process.clone(),
                    boot_id: self.me.boot_id.clone(),
                },
                reason: match waiting.released {
                    _ if seen.is_unheld() => TakeReason::Created,
                    true => TakeReason::Released,
                    false => TakeReason::Expired,
                },
                renew_us: seen.renew_us.unwrap_or(0),
                base: base.clone(),
                began: now.boot,
                in_flight: BTreeMap::new(),
            });
        taking.renew_us = next_renew_time(now, Some(taking.renew_us));
        let vips = self.admission.as_mut().map(|admission| {
            admission.overrule(overrules);
            admission.take(seen)
        });
        let Suits { fitness, .. } = self.stated(true);
        let preference = self.preference(&taking.note, fitness, None);
        let write = LeaseWrite {
            id,
            base: Some(base),
            note: taking.note.clone(),
            duration_s: self.timing.duration_s,
            renew_us: taking.renew_us,
            release: false,
            in_flight: taking.in_flight.len(),
            fitness,
            preference,
            macs: self.macs.clone(),
            vips,
        };
        taking.in_flight.insert(id, now.boot);
        waiting.taking = Some(taking);
        Some(write)
    }

    /// The Lease is ours. If `sent` is unknown (0), only the first renewal raises the fence.
    fn took(&mut self, now: Now, taking: Taking, record: &Record, sent: BootNs, out: &mut Effects) {
        let Some(tenure) = record.tenure() else {
            self.state = State::Unknown;
            return self.read(now, out);
        };
        self.last_tenure = Some(tenure.clone());
        self.generation += 1;
        let duration_s = self.timing.duration_s.min(record.duration_s);
        let mut holding = Holding::new(tenure.clone(), record.version.clone(), duration_s, now.boot);
        holding.renew_us = taking.renew_us.max(record.renew_us.unwrap_or(0));
        holding.told = record.fitness;
        if let Some(admission) = &mut self.admission {
            admission.took(record);
        }
        let deadline = self.timing.fence(sent, duration_s);
        if self.leaving {
            out.silence = Some(Why::Leaving);
            self.state = State::Leaving(holding);
            return;
        }
        if sent > BootNs(0) && deadline > now.boot {
            holding.until = deadline;
            holding.sent = sent;
            holding.lapsed = false;
            holding.next_write = sent.after(self.timing.renew_every);
            out.news.push(Notice::TookOver(taking.reason));
            let generation = self.generation;
            out.fences.push(FenceChange::Raise { tenure, generation, deadline, duration_s, new: true });
        }
        self.state = State::Holding(holding);
    }
}

/// Whether `record` begins a later tenure of xvip than `before` shows, in the same Lease or where there
/// was none. Only then does a shorter wait replace the longer one. A renewal begins no tenure, so the
/// longest D of a tenure counts. An edit, a cleared holder, a restore, a deletion or a foreign holder
/// never shortens a wait.
fn succeeds(before: &Waiting, record: Option<&Record>) -> bool {
    let Some(record) = record else { return false };
    let Some(seen) = &before.seen else { return record.tenure().is_some() };
    record.uid == seen.uid
        && record.transitions > seen.transitions
        && record.tenure().is_some()
        && (seen.tenure().is_some() || seen.holder.is_empty())
}

/// The API's field has 32 bits, and may have been set to the largest number by hand: then it starts at
/// 0.
fn next_transitions(previous: Option<i64>) -> i64 {
    previous.filter(|previous| *previous < i64::from(i32::MAX)).map_or(0, |previous| previous + 1)
}
