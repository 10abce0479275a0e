//! The election for one Lease, as seen by one node: a state machine without I/O.

use super::{
    admission::{Admission, Obstacle},
    offers::Heir,
    reading::Reading,
    record::{Record, Tenure, Version},
    state::{Holding, State},
};
use crate::model::{
    effects::{Effects, FenceChange, Outgoing},
    fitness::Fitness,
    ownership::Ownership,
    policy::ForeignConflict,
    time::{BootNs, Now, Unhashed},
    timing::Timing,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use vip_common::mac::Mac;

/// The identity of this process, as its tenures carry it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Node name; becomes `holderIdentity`.
    pub node: String,
    /// Uuid of this process.
    pub process: String,
    /// Boot id of this host.
    pub boot_id: String,
}

/// How an observation was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A GET without `resourceVersion`, and when it began: it shows a state from then or later. Two of
    /// them may be answered in the reverse order.
    Quorum(BootNs),
    /// A watch event. It may come from an API server that lags behind. No version was written between
    /// it and the event before it, or the quorum read with which the watch began.
    Watch,
}

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// 2xx, with the Lease that the server returned.
    Stored(Record),
    /// 409 or 404: the base is no longer current, or the Lease exists already.
    Conflict,
    /// Anything else: the write may or may not have been stored.
    Failed,
    /// The write never left this node ([`Step::KeepBack`](crate::model::turn::Step::KeepBack)). It says
    /// nothing about the API, so it is written again soon, however often it was kept back.
    KeptBack,
}

/// An event that an election must handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The Lease was read (`None`: it does not exist).
    Observed(Source, Option<Record>),
    /// A write has ended.
    Written {
        /// [`LeaseWrite::id`](super::record::LeaseWrite::id).
        id: u64,
        /// Its outcome.
        outcome: Written,
    },
    /// The fence could not be lowered to this deadline.
    NotLowered(BootNs),
    /// A read has failed.
    ReadFailed,
    /// Follows [`Effects::silence`]: the kernel is silent, no program still uses the old value, and no
    /// announcement is queued.
    Silenced,
    /// The outcome of [`Outgoing::List`], with its number: the Leases of the namespace by name, or why
    /// the API could not list them.
    Listed(u64, Result<Vec<(String, Record)>, String>),
    /// Another station answers for an address.
    Heard(IpAddr, Mac),
    /// The outcome of [`Outgoing::Visit`]: whether a connection to the VIP was accepted. `None`: none
    /// could be tried.
    Visited(IpAddr, Option<bool>),
    /// Another node should have the Lease. A node that does not hold it ignores this.
    HandOver(Heir),
    /// Give the Lease up.
    Leave,
    /// The time of [`Election::wake_at`] has come.
    Tick,
}

/// A live slot of this boot that was found in the pinned maps at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdoptedFence {
    /// The tenure for which its fence was raised.
    pub tenure: Tenure,
    /// The deadline of the fence.
    pub until: BootNs,
    /// D of the last confirmed write.
    pub duration_s: u32,
    /// VIPs for which the kernel answers under this tenure.
    pub served: BTreeSet<IpAddr>,
}

/// A summary of an election's state, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `unknown`, `waiting`, `holding`, `lapsed`, `leaving` or `left`.
    pub state: &'static str,
    /// `holderIdentity` of the last record that was observed.
    pub holder: Option<String>,
    /// When the wait for the Lease ends, if this node waits.
    pub takeover_at: Option<BootNs>,
}

/// The election for one Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Election {
    pub(super) me: Identity,
    pub(super) timing: Timing,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) adopted: Option<AdoptedFence>,
    pub(super) last_tenure: Option<Tenure>,
    pub(super) fitness: Fitness,
    pub(super) weight: u8,
    /// How many tenures this node has given up soon because it served badly.
    pub(super) given_up: u32,
    pub(super) macs: Vec<Mac>,
    /// `None`: all VIPs count as admitted. This suits a single Lease that no other Lease can
    /// contradict.
    pub(super) admission: Option<Admission>,
    pub(super) foreign_conflict: ForeignConflict,
    pub(super) leaving: bool,
    pub(super) next_id: u64,
    pub(super) linger_until: BootNs,
    pub(super) leave_until: BootNs,
    pub(super) reading: Reading,
    pub(super) evidence_at: Unhashed,
    pub(super) passes: bool,
}

impl Election {
    /// A new election. `generation` is the highest that the slot has ever had. `adopted` is the tenure
    /// of the slot, if it was raised on this boot.
    pub fn new(me: Identity, timing: Timing, generation: u64, adopted: Option<AdoptedFence>) -> Self {
        Self {
            me,
            timing,
            state: State::Unknown,
            generation,
            adopted,
            last_tenure: None,
            fitness: Fitness::Able,
            weight: 0,
            given_up: 0,
            macs: Vec::new(),
            admission: None,
            foreign_conflict: ForeignConflict::default(),
            leaving: false,
            next_id: 0,
            linger_until: BootNs(0),
            leave_until: BootNs(0),
            reading: Reading::default(),
            evidence_at: Unhashed::default(),
            passes: false,
        }
    }

    /// Handles one input and returns what must be done.
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        let before = (std::mem::discriminant(&self.state), self.passes);
        let changes = self.admission_changes();
        let mut out = Effects::default();
        match input {
            Input::Leave => self.leave(now, &mut out),
            Input::HandOver(heir) => self.hand_over(now, heir),
            Input::NotLowered(deadline) => {
                if let State::Holding(holding) = &mut self.state {
                    holding.lower_to = Some(deadline);
                }
            }
            Input::ReadFailed => self.read_failed(now),
            Input::Silenced => self.silenced(now),
            Input::Written { id, outcome } => self.written(now, id, outcome, &mut out),
            Input::Observed(source, record) => {
                if self.is_evidence(source, record.as_ref()) {
                    self.reading = Reading::default();
                    self.evidence_at = Unhashed(now.boot);
                    self.observed(now, source, record, &mut out);
                } else if source != Source::Watch && self.state != State::Left {
                    // This read was overtaken and is discarded. Perhaps only a read can show what
                    // happened to the Lease since.
                    self.read_failed(now);
                    self.read(now, &mut out);
                }
            }
            Input::Listed(list, leases) => {
                if let Some(admission) = &mut self.admission {
                    admission.listed(now.boot, &self.timing, list, leases);
                }
            }
            Input::Visited(ip, served) => self.visited(now, ip, served),
            Input::Heard(ip, mac) => {
                self.heard_of(now, ip, mac);
                if let Some(admission) = &mut self.admission {
                    admission.heard(now.boot, ip, mac);
                }
            }
            Input::Tick => {}
        }
        self.act(now, &mut out);
        debug_assert_ne!(self.state, State::Moved, "a transition has no end");
        self.passes = self.passes_until().is_some_and(|until| now.boot < until);
        let moved = before != (std::mem::discriminant(&self.state), self.passes);
        let admitted = changes != self.admission_changes();
        let raised = out.fences.iter().any(FenceChange::is_new);
        out.host = moved || admitted || raised || out.silence.is_some();
        out.announce = raised || (admitted && self.ownership(now.boot).serves(now.boot));
        let requests = self.admission.as_mut().map(Admission::take_requests).unwrap_or_default();
        out.sends.extend(requests.into_iter().map(Outgoing::from));
        out
    }

    /// Sets how well this node could serve, and with which MAC addresses. The next step uses both.
    /// Returns whether the fitness has changed.
    pub fn set_fitness(&mut self, fitness: Fitness, macs: Vec<Mac>) -> bool {
        let changed = self.fitness != fitness;
        (self.fitness, self.macs) = (fitness, macs);
        changed
    }

    /// Sets how much the VIPs belong to this node. The next write says so.
    pub fn set_weight(&mut self, weight: u8) {
        self.weight = weight;
    }

    /// Sets what this node does if a station answers for VIPs that another program held last.
    pub fn on_foreign_conflict(&mut self, conflict: ForeignConflict) {
        self.foreign_conflict = conflict;
    }

    /// From now on the election admits VIPs one by one to the Lease `name`. The LAN is asked for
    /// `probe_time` before a VIP is admitted for the first time.
    pub fn admit_only(&mut self, name: &str, vips: &[IpAddr], probe_time: Duration) {
        self.admission = Some(Admission::new(name, vips, probe_time));
    }

    /// Replaces the list of VIPs that the Lease guards.
    pub fn want(&mut self, vips: &[IpAddr]) {
        if let Some(admission) = &mut self.admission {
            admission.want(vips);
        }
    }

    /// The VIPs that are no longer wanted, but that the Lease still names.
    pub fn dropped(&self) -> Vec<IpAddr> {
        self.admission.as_ref().map(Admission::dropped).unwrap_or_default()
    }

    /// Forgets a VIP that is no longer wanted. The kernel of this host must not answer for it any more.
    pub fn forget(&mut self, ip: IpAddr) {
        if let Some(admission) = &mut self.admission {
            admission.forget(ip);
        }
    }

    /// Whether the VIP may be published while this node holds the Lease.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.admission.as_ref().is_none_or(|admission| admission.admits(ip))
    }

    /// Grows whenever an answer of [`admits`](Self::admits) changes.
    pub fn admission_changes(&self) -> u64 {
        self.admission.as_ref().map_or(0, Admission::changes)
    }

    /// The VIPs for which the LAN is to be asked.
    pub fn asking(&self) -> Vec<IpAddr> {
        self.admission.as_ref().map(Admission::asking).unwrap_or_default()
    }

    /// The obstacle of each VIP, if any may have changed since the last call.
    pub fn take_obstacles(&mut self) -> Option<Vec<(IpAddr, Option<Obstacle>)>> {
        self.admission.as_mut()?.take_obstacles()
    }

    /// The LAN cannot be asked for an address: no interface that answers for it is up, or the question
    /// could not be sent.
    pub fn cannot_ask(&mut self, now: Now, ip: IpAddr) {
        if let Some(admission) = &mut self.admission {
            admission.cannot_ask(now.boot, ip);
        }
    }

    /// How well this node could serve, as last set.
    pub fn fitness(&self) -> Fitness {
        self.fitness
    }

    /// How many tenures this node has given up soon because it served badly.
    pub fn given_up(&self) -> u32 {
        self.given_up
    }

    /// The latest time for the next call of [`step`](Self::step) with [`Input::Tick`].
    pub fn wake_at(&self, now: BootNs) -> Option<BootNs> {
        let wake = match &self.state {
            State::Unknown | State::Left | State::Moved => None,
            State::Waiting(waiting) => Some(self.waiting_wake(waiting)),
            State::Holding(holding) => {
                let lapse = (!holding.lapsed).then_some(holding.until);
                let write = holding.may_write().then(|| self.next_write(holding));
                let admission = (!holding.lapsed)
                    .then(|| self.admission.as_ref().and_then(Admission::wake_at))
                    .flatten();
                let heir = holding.heir.is_some().then_some(holding.heir_until);
                [lapse, admission, write, heir].into_iter().flatten().min()
            }
            State::Leaving(holding) if holding.may_release() => {
                Some(holding.next_write.min(self.leave_until))
            }
            State::Leaving(_) => Some(self.leave_until),
        };
        let linger = (self.linger_until > now).then_some(self.linger_until);
        let passes = self.passes_until().filter(|_| self.passes);
        wake.into_iter().chain(self.reading_wake()).chain(passes).chain(linger).min()
    }

    /// When the last evidence arrived. Reads that began earlier may have been overtaken.
    pub fn evidence_at(&self) -> BootNs {
        self.evidence_at.0
    }

    /// To which node or program the VIPs belong.
    pub fn ownership(&self, now: BootNs) -> Ownership {
        let serve_until = self.linger_until;
        match &self.state {
            State::Unknown | State::Moved => Ownership::Unknown,
            State::Waiting(_) if self.passes => Ownership::ProgramHere,
            State::Waiting(_) => Ownership::Elsewhere { serve_until },
            State::Holding(Holding { until, .. }) => {
                Ownership::Ours { until: *until, generation: self.generation }
            }
            State::Leaving(_) => Ownership::Ending { serve_until },
            State::Left if now < serve_until => Ownership::Ending { serve_until },
            State::Left => Ownership::Gone { since: serve_until },
        }
    }

    /// The state of the election, for people.
    pub fn view(&self, now: BootNs) -> View {
        let holder = |holding: &Holding| Some(holding.tenure.note.holder.clone());
        let (state, holder, takeover_at) = match &self.state {
            State::Unknown | State::Moved => ("unknown", None, None),
            State::Waiting(waiting) => {
                let holder = waiting.seen.as_ref().map(|seen| seen.holder.clone());
                ("waiting", holder, Some(waiting.since.after(waiting.wait)))
            }
            State::Holding(holding) if now < holding.until => ("holding", holder(holding), None),
            State::Holding(holding) => ("lapsed", holder(holding), None),
            State::Leaving(holding) => ("leaving", holder(holding), None),
            State::Left => ("left", None, None),
        };
        View { state, holder, takeover_at }
    }

    /// The VIPs may have been unanswered since this time: the last sign of another holder, or the end
    /// of our own fence.
    pub fn silent_since(&self) -> Option<BootNs> {
        match &self.state {
            State::Waiting(waiting) => Some(waiting.since),
            State::Holding(holding) => Some(holding.until),
            _ => None,
        }
    }

    /// The uid of the Lease, if it has been read.
    pub fn uid(&self) -> Option<&str> {
        match &self.state {
            State::Waiting(waiting) => waiting.seen.as_ref().map(|seen| seen.uid.as_str()),
            State::Holding(holding) | State::Leaving(holding) => Some(&holding.tenure.uid),
            _ => None,
        }
    }

    /// The version of the Lease that was last accepted as evidence.
    pub fn accepted(&self) -> Option<&Version> {
        match &self.state {
            State::Waiting(waiting) => waiting.seen.as_ref().map(|seen| &seen.version),
            State::Holding(holding) => Some(&holding.base),
            _ => None,
        }
    }

    /// The present state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The generation of the last tenure on this slot.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Until when the guard lets frames of a foreign program pass that holds the Lease on this node.
    /// Each renewal extends this. The program may have been killed and have left its address behind. So
    /// the guard is back before another node may take the Lease.
    fn passes_until(&self) -> Option<BootNs> {
        let State::Waiting(waiting) = &self.state else { return None };
        let record = waiting.seen.as_ref()?;
        let here = record.holder == self.me.node && record.tenure().is_none();
        here.then(|| waiting.since.after(self.timing.foreign_pass(self.duration_of(record))))
    }

    /// Whether an observation counts as evidence. A version newer than the known one does. So does a
    /// quorum read that shows the known version or began after the last evidence arrived. Other watch
    /// events come from a lagging API server, and other reads were overtaken. They change nothing.
    fn is_evidence(&self, source: Source, record: Option<&Record>) -> bool {
        let known = match &self.state {
            State::Unknown | State::Left | State::Moved => None,
            State::Waiting(waiting) => waiting.seen.as_ref().map(|seen| &seen.version),
            State::Holding(holding) | State::Leaving(holding) => Some(&holding.base),
        };
        let shown = record.map(|record| &record.version);
        let newer = shown.zip(known).is_some_and(|(shown, known)| shown.newer_than(known));
        match source {
            Source::Quorum(began) => newer || shown == known || began > self.evidence_at.0,
            Source::Watch if matches!(self.state, State::Unknown | State::Left) => false,
            // A deletion arrives without a version of its own. A quorum read must confirm it.
            Source::Watch => newer || (known.is_none() && shown.is_some()),
        }
    }

    fn observed(&mut self, now: Now, source: Source, record: Option<Record>, out: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Unknown => self.first_observation(now, record, out),
            State::Waiting(waiting) => self.observed_waiting(now, waiting, source, record, out),
            State::Holding(holding) => self.observed_holding(now, holding, source, record, out),
            State::Leaving(holding) => self.observed_leaving(now, holding, source, record, out),
            State::Left | State::Moved => self.state = State::Left,
        }
    }

    fn written(&mut self, now: Now, id: u64, outcome: Written, out: &mut Effects) {
        if matches!(outcome, Written::Stored(_)) {
            self.evidence_at = Unhashed(now.boot);
        }
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Waiting(waiting) => self.written_waiting(now, waiting, id, outcome, out),
            State::Holding(holding) => self.written_holding(now, holding, id, outcome, out),
            State::Leaving(holding) => self.written_leaving(now, holding, id, outcome, out),
            other => self.state = other,
        }
    }

    /// Does what is due at this time.
    fn act(&mut self, now: Now, out: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Waiting(waiting) => self.act_waiting(now, waiting, out),
            State::Holding(holding) => self.act_holding(now, holding, out),
            State::Leaving(holding) => self.act_leaving(now, holding, out),
            other => self.state = other,
        }
        self.act_reading(now, out);
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The D on which a holder of this record may rely.
    pub(super) fn duration_of(&self, record: &Record) -> u32 {
        self.timing.counted(record.duration_s)
    }
}

/// The largest `renewTime` that xvip can write. In any time zone it must lie before the end of the year
/// 9999.
const LAST_US: i64 = 253_402_207_200_999_999;

/// A `renewTime` that differs from the previous one. It is later, unless the previous one was set by
/// hand to [`LAST_US`] or beyond.
pub(super) fn next_renew_time(now: Now, previous: Option<i64>) -> i64 {
    let previous = previous.filter(|previous| *previous < LAST_US);
    previous.map_or(now.wall_us, |previous| now.wall_us.max(previous.saturating_add(1)))
}
