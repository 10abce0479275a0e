//! The election for one Lease, as seen by one node: a state machine without I/O.

use super::{
    admission::{Admission, Obstacle},
    effects::{Effects, FenceChange, Outgoing},
    fitness::Fitness,
    ownership::Ownership,
    reading::Reading,
    record::{Record, Tenure, Version},
    state::{Holding, State},
    time::{BootNs, Mark, Now},
    timing::{MAX_DURATION_S, Timing},
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Node name; becomes `holderIdentity`.
    pub node: String,
    /// Uuid of this process.
    pub process: String,
    /// Boot id of this host.
    pub boot_id: String,
}

/// Where an observation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A GET without `resourceVersion`, and when it began: linearizable from then on. Two of them may
    /// be answered in the other order.
    Quorum(BootNs),
    /// A watch event: may come from an API server that lags behind. It follows the event before it, or
    /// the quorum read that the watch began with, and nothing was written in between.
    Watch,
}

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// 2xx, and what the server returned.
    Stored(Record),
    /// 409 or 404: the base is not current any more, or the Lease exists already.
    Conflict,
    /// Anything else: the write may or may not have been stored.
    Failed,
}

/// What happens to an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The Lease was read (`None`: it does not exist).
    Observed(Source, Option<Record>),
    /// A write has ended.
    Written {
        /// [`LeaseWrite::id`](super::record::LeaseWrite::id).
        id: u64,
        /// How.
        outcome: Written,
    },
    /// The fence could not be lowered to this.
    NotLowered(BootNs),
    /// A read has failed.
    ReadFailed,
    /// After [`Effects::silence`]: the kernel is silent, no program runs on the old value and no
    /// announcement is queued.
    Silenced,
    /// The outcome of [`Outgoing::List`]: the Leases of the namespace by name, or why they could not be
    /// listed.
    Listed(u64, Result<Vec<(String, Record)>, String>),
    /// Another station answers for an address.
    Heard(IpAddr, [u8; 6]),
    /// Give the Lease up.
    Leave,
    /// The time of [`Election::wake_at`] has come.
    Tick,
}

/// A live slot of this boot, found in the pinned maps at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdoptedFence {
    /// The tenure that its fence was raised for.
    pub tenure: Tenure,
    /// The fence.
    pub until: BootNs,
    /// D of the last confirmed write.
    pub duration_s: u32,
    /// VIPs that the kernel answers for under this tenure.
    pub served: BTreeSet<IpAddr>,
}

/// Where an election stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `unknown`, `waiting`, `holding`, `lapsed`, `leaving` or `left`.
    pub state: &'static str,
    /// `holderIdentity` as last seen.
    pub holder: Option<String>,
    /// When this node may take over.
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
    pub(super) macs: Vec<[u8; 6]>,
    /// `None`: all VIPs count as admitted, as where there is one Lease and nobody else.
    pub(super) admission: Option<Admission>,
    pub(super) leaving: bool,
    pub(super) next_id: u64,
    pub(super) linger_until: BootNs,
    pub(super) leave_until: BootNs,
    pub(super) reading: Reading,
    pub(super) evidence_at: Mark,
    pub(super) passes: bool,
}

impl Election {
    /// A new election. `generation` is the highest that the slot has ever had, `adopted` its tenure
    /// if that was raised on this boot.
    pub fn new(me: Identity, timing: Timing, generation: u64, adopted: Option<AdoptedFence>) -> Self {
        Self {
            me,
            timing,
            state: State::Unknown,
            generation,
            adopted,
            last_tenure: None,
            fitness: Fitness::Able,
            macs: Vec::new(),
            admission: None,
            leaving: false,
            next_id: 0,
            linger_until: BootNs(0),
            leave_until: BootNs(0),
            reading: Reading::default(),
            evidence_at: Mark::default(),
            passes: false,
        }
    }

    /// Takes one input in and says what is to be done.
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        let before = (std::mem::discriminant(&self.state), self.passes);
        let changes = self.admission_changes();
        let mut out = Effects::default();
        match input {
            Input::Leave => self.leave(now, &mut out),
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
                    self.evidence_at = Mark(now.boot);
                    self.observed(now, source, record, &mut out);
                } else if source != Source::Watch && self.state != State::Left {
                    // It may be the only one that shows what has happened to the Lease since.
                    self.read_failed(now);
                    self.read(now, &mut out);
                }
            }
            Input::Listed(list, leases) => {
                if let Some(admission) = &mut self.admission {
                    admission.listed(now.boot, &self.timing, list, leases);
                }
            }
            Input::Heard(ip, mac) => {
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

    /// How well this node could serve, and with which MAC addresses. Taken into account by the next
    /// step; says whether something has changed.
    pub fn set_fitness(&mut self, fitness: Fitness, macs: Vec<[u8; 6]>) -> bool {
        let changed = self.fitness != fitness;
        (self.fitness, self.macs) = (fitness, macs);
        changed
    }

    /// Publishes only those of these VIPs that have been admitted to the Lease `name`, after the
    /// LAN was asked for `probe_time`.
    pub fn admit_only(&mut self, name: &str, vips: &[IpAddr], probe_time: Duration) {
        self.admission = Some(Admission::new(name, vips, probe_time));
    }

    /// Guards these VIPs from now on.
    pub fn want(&mut self, vips: &[IpAddr]) {
        if let Some(admission) = &mut self.admission {
            admission.want(vips);
        }
    }

    /// The VIPs that are not wanted any more, and that the Lease still names.
    pub fn dropped(&self) -> Vec<IpAddr> {
        self.admission.as_ref().map(Admission::dropped).unwrap_or_default()
    }

    /// The kernel of this host does not answer for a VIP that is not wanted any more.
    pub fn forget(&mut self, ip: IpAddr) {
        if let Some(admission) = &mut self.admission {
            admission.forget(ip);
        }
    }

    /// Whether the VIP may be published while this node holds the Lease.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.admission.as_ref().is_none_or(|admission| admission.admits(ip))
    }

    /// Changes whenever another answer of [`admits`](Self::admits) does.
    pub fn admission_changes(&self) -> u64 {
        self.admission.as_ref().map_or(0, Admission::changes)
    }

    /// The VIPs that the LAN is to be asked for.
    pub fn asking(&self) -> Vec<IpAddr> {
        self.admission.as_ref().map(Admission::asking).unwrap_or_default()
    }

    /// What stands in the way of each VIP, if that has changed.
    pub fn take_obstacles(&mut self) -> Option<Vec<(IpAddr, Option<Obstacle>)>> {
        self.admission.as_mut()?.take_obstacles()
    }

    /// The LAN cannot be asked for an address: no interface that answers for it is up, or the question
    /// did not leave.
    pub fn cannot_ask(&mut self, now: Now, ip: IpAddr) {
        if let Some(admission) = &mut self.admission {
            admission.cannot_ask(now.boot, ip);
        }
    }

    /// How well this node could serve.
    pub fn fitness(&self) -> Fitness {
        self.fitness
    }

    /// When to call [`step`](Self::step) with [`Input::Tick`], at the latest.
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
                [lapse, admission, write].into_iter().flatten().min()
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

    /// When the last evidence came: a read that began before it may be overtaken.
    pub fn evidence_at(&self) -> BootNs {
        self.evidence_at.0
    }

    /// To whom the VIPs belong.
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

    /// Where the election stands, for people.
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

    /// Since when this node may not have answered: the last sign of another holder, or the end of its
    /// own fence.
    pub fn silent_since(&self) -> Option<BootNs> {
        match &self.state {
            State::Waiting(waiting) => Some(waiting.since),
            State::Holding(holding) => Some(holding.until),
            _ => None,
        }
    }

    /// The uid of the Lease, where it was read.
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

    /// Until when a program on this node that holds the Lease may answer, unless it renews. It may
    /// have been killed, and its address remain: the guard is back before another node may take the
    /// Lease.
    fn passes_until(&self) -> Option<BootNs> {
        let State::Waiting(waiting) = &self.state else { return None };
        let record = waiting.seen.as_ref()?;
        let here = record.holder == self.me.node && record.tenure().is_none();
        here.then(|| waiting.since.after(self.timing.foreign_pass(self.duration_of(record))))
    }

    /// What is newer than everything known is evidence, and so is whatever a quorum read shows that
    /// began after the last evidence came. A watch event that is older comes from a lagging API server,
    /// an older answer of a read was overtaken: they change nothing.
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
            // A deletion arrives without a version of its own and is confirmed by a quorum read.
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
            self.evidence_at = Mark(now.boot);
        }
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Waiting(waiting) => self.written_waiting(now, waiting, id, outcome, out),
            State::Holding(holding) => self.written_holding(now, holding, id, outcome, out),
            State::Leaving(holding) => self.written_leaving(now, holding, id, outcome, out),
            other => self.state = other,
        }
    }

    /// What the passage of time asks for.
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

    /// D that a holder of this record may count on: never less than our own.
    pub(super) fn duration_of(&self, record: &Record) -> u32 {
        record.duration_s.clamp(self.timing.duration_s, MAX_DURATION_S.max(self.timing.duration_s))
    }
}

/// The last microsecond that xvip can write: a time zone must still fit before the end of the year
/// 9999.
const LAST_US: i64 = 253_402_207_200_999_999;

/// A `renewTime` that differs from the one before it: later, unless somebody has set it to the end of
/// time by hand.
pub(super) fn next_renew_time(now: Now, previous: Option<i64>) -> i64 {
    let previous = previous.filter(|previous| *previous < LAST_US);
    previous.map_or(now.wall_us, |previous| now.wall_us.max(previous.saturating_add(1)))
}
