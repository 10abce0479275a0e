//! The loop: the next event, one step of the model, its effects. Fence effects are executed inline
//! and first; writes are spawned and come back as events with the time that they left.

use crate::{
    cluster::{
        lease::LeaseApi,
        watch::{self, Sighting},
    },
    config::{Config, OnStop},
    model::{
        desired::{Link, VipSpec, desired},
        election::{Effect, Election, Identity, Input, Notice, Slot, Source, State, Written},
        plan::{Action, plan},
        record::LeaseWrite,
        time::BootNs,
        timing::Timing,
    },
    node::{clock, dataplane::Dataplane},
    notice::log_notice,
    state::{DaemonState, LeaseState},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch as latest};
use vip_common::abi::Claim;

/// Rounds of an announcement burst, after the fence went up.
const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Rounds of an address probe (RFC 5227 section 2.1.1).
const PROBES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];
/// A fence that could not be cleared is tried again after this.
const SILENCE_RETRY: Duration = Duration::from_millis(50);
/// A host that did not take a change is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// The Lease was seen, or could not be.
    Sighting(Sighting),
    /// A write has ended.
    Written {
        /// Its id.
        id: u64,
        /// How.
        outcome: Written,
        /// What went wrong, in words.
        problem: Option<String>,
    },
    /// Links or addresses have changed.
    HostChanged,
    /// Somebody else claims a VIP.
    Claim(Claim),
    /// SIGTERM or SIGINT.
    Stop,
    /// A deadline of the loop has come.
    Timer,
}

/// What the loop needs to know about its Lease.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The timings.
    pub timing: Timing,
    /// What a stop does.
    pub on_stop: OnStop,
    /// Between refreshing announcements; zero: none.
    pub refresh: Duration,
    /// Who we are.
    pub me: Identity,
    /// The Lease's slot in the maps.
    pub slot: u32,
    /// The highest generation that the slot has had.
    pub generation: u64,
    /// A tenure of this boot.
    pub backed: Option<Slot>,
}

impl Setup {
    /// From the configuration and what was found on the host.
    pub fn new(
        config: &Config,
        me: Identity,
        slot: u32,
        generation: u64,
        backed: Option<Slot>,
    ) -> Self {
        Self {
            vips: config.vips.clone(),
            timing: config.timing(),
            on_stop: config.on_stop,
            refresh: Duration::from_secs(config.announce.refresh_s),
            me,
            slot,
            generation,
            backed,
        }
    }
}

/// The loop's state.
pub struct Controller<D> {
    dataplane: D,
    api: LeaseApi,
    again: Arc<Notify>,
    events: mpsc::Sender<Event>,
    setup: Setup,
    elections: BTreeMap<u32, Election>,
    timings: BTreeMap<u32, Timing>,
    specs: Vec<VipSpec>,
    links: Vec<Link>,
    links_stale: bool,
    reconciled: bool,
    reconcile_at: Option<BootNs>,
    silence_at: Option<BootNs>,
    announce_at: VecDeque<BootNs>,
    probe_at: VecDeque<BootNs>,
    suspect: Option<String>,
    problems: BTreeMap<String, String>,
    stopping: bool,
    state: latest::Sender<DaemonState>,
}

impl<D: Dataplane> Controller<D> {
    /// A controller; nothing happens before [`run`](Self::run).
    pub fn new(
        dataplane: D,
        api: LeaseApi,
        events: mpsc::Sender<Event>,
        setup: Setup,
        state: latest::Sender<DaemonState>,
    ) -> Self {
        let Setup { me, timing, slot, generation, backed, vips, .. } = setup.clone();
        let election = Election::new(me, timing.clone(), generation, backed);
        Self {
            dataplane,
            api,
            again: Arc::new(Notify::new()),
            events,
            setup,
            elections: BTreeMap::from([(slot, election)]),
            timings: BTreeMap::from([(slot, timing)]),
            specs: vips.into_iter().map(|ip| VipSpec { ip, slot }).collect(),
            links: Vec::new(),
            links_stale: true,
            reconciled: false,
            reconcile_at: None,
            silence_at: None,
            announce_at: VecDeque::new(),
            probe_at: VecDeque::new(),
            suspect: None,
            problems: BTreeMap::new(),
            stopping: false,
            state,
        }
    }

    /// Runs until the Lease has been given up (or kept) after a stop. Gives the host back.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> D {
        // Entries are reconciled before the first renewal: what is not configured any more goes now.
        self.reconcile().await;
        self.follow_lease();
        loop {
            let wait = clock::boot().until(self.wake_at());
            let event = tokio::select! {
                event = inbox.recv() => event.unwrap_or(Event::Stop),
                () = tokio::time::sleep(wait) => Event::Timer,
            };
            if matches!(event, Event::Stop) && self.setup.on_stop == OnStop::Keep {
                tracing::info!(lease = %self.api.full_name(), "stopping; VIPs preserved until the fence runs out");
                return self.dataplane;
            }
            self.take_in(event).await;
            self.run_timers().await;
            self.publish_state();
            if self.stopping && self.finished() {
                return self.dataplane;
            }
        }
    }

    fn follow_lease(&self) {
        let (sender, mut receiver) = mpsc::channel(16);
        tokio::spawn(watch::follow(self.api.clone(), Arc::clone(&self.again), sender));
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(sighting) = receiver.recv().await {
                if events.send(Event::Sighting(sighting)).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn take_in(&mut self, event: Event) {
        let input = match event {
            Event::Timer => Input::Tick,
            Event::Stop => {
                self.stopping = true;
                Input::Leave
            }
            Event::HostChanged => {
                self.links_stale = true;
                self.reconcile_at = Some(clock::boot());
                return;
            }
            Event::Claim(claim) => return self.claimed(claim),
            Event::Sighting(Sighting::Unreadable(why)) => {
                self.problem("API", Some(why));
                Input::ReadFailed
            }
            Event::Sighting(Sighting::Seen(source, record)) => {
                self.problem("API", None);
                self.judge_suspect(source, record.is_none()).await;
                Input::Observed(source, record)
            }
            Event::Written { id, outcome, problem } => {
                if outcome != Written::Conflict {
                    self.problem("write", problem);
                }
                Input::Written { id, outcome }
            }
        };
        self.step(input).await;
    }

    /// One step of the election, and everything that it asks for.
    async fn step(&mut self, input: Input) {
        let slot = self.setup.slot;
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(election) = self.elections.get_mut(&slot) else { return };
            let before = std::mem::discriminant(election.state());
            let effects = election.step(clock::now(), input);
            let moved = before != std::mem::discriminant(election.state());
            let (mut writes, mut announce, mut touched) = (Vec::new(), false, moved);
            let mut lowered = true;
            for effect in effects {
                match effect {
                    Effect::RaiseFence { tenure, generation, deadline, duration_s, new } => {
                        let raised =
                            self.dataplane.raise_fence(slot, &tenure, duration_s, generation, deadline);
                        self.outcome("fence", raised);
                        self.silence_at = None;
                        announce |= new;
                        touched = true;
                    }
                    Effect::LowerFence(deadline) => {
                        let result = self.dataplane.lower_fence(slot, deadline);
                        lowered &= self.outcome("fence", result);
                    }
                    Effect::ClearFence(why) => {
                        self.announce_at.clear();
                        tracing::debug!(?why, "clearing the fence");
                        if self.silence(slot).await {
                            inputs.push_back(Input::Silenced);
                        }
                        touched = true;
                    }
                    Effect::Write(write) => writes.push(write),
                    Effect::Read => self.read(),
                    Effect::ProbeAddresses => self.probe_at = schedule(&PROBES),
                    Effect::Notice(notice) => self.notice(&notice),
                }
            }
            self.schedule_linger_end();
            // The host follows before any write leaves.
            if touched {
                self.reconcile().await;
            }
            if announce {
                // The first round is due at once: the loop runs its timers after every step.
                self.announce_at = schedule(&BURST);
            }
            for write in writes {
                // A write that shortens D leaves only after the fence was lowered, and none leaves
                // before the entries have been reconciled once.
                if lowered && self.reconciled {
                    self.write(write);
                } else {
                    let outcome = Written::Failed;
                    inputs.push_back(Input::Written { id: write.id, outcome });
                }
            }
        }
    }

    /// The address goes when it has lingered long enough.
    fn schedule_linger_end(&mut self) {
        let now = clock::boot();
        let ends = self.elections.values().filter_map(|election| match election.state() {
            State::Holding(holding) if holding.lapsed => {
                Some(holding.until.after(self.setup.timing.linger))
            }
            State::Holding(_) => None,
            _ => Some(election.linger_until()),
        });
        let end = ends.filter(|end| *end > now).min();
        self.reconcile_at = [self.reconcile_at, end].into_iter().flatten().min();
    }

    /// Clears the fence. Without the certainty of silence nothing is released; it is tried again.
    async fn silence(&mut self, slot: u32) -> bool {
        let cleared = self.dataplane.clear_fence(slot).await;
        let silent = self.outcome("fence", cleared);
        self.silence_at = (!silent).then(|| clock::boot().after(SILENCE_RETRY));
        silent
    }

    /// A quorum read beside the watch. A candidate whose watch has missed something also renews it.
    fn read(&self) {
        if self.elections.values().any(|election| matches!(election.state(), State::Waiting(_))) {
            self.again.notify_one();
        }
        let (api, events) = (self.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let sighting = match api.get(1).await {
                Ok(record) => Sighting::Seen(Source::Quorum, record),
                Err(error) => Sighting::Unreadable(error.to_string()),
            };
            let _ = events.send(Event::Sighting(sighting)).await;
        });
    }

    fn write(&self, write: LeaseWrite) {
        let (api, events) = (self.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let id = write.id;
            let (outcome, error) = api.write(write).await;
            let problem = error.map(|error| error.to_string());
            let _ = events.send(Event::Written { id, outcome, problem }).await;
        });
    }

    /// Makes the host what it should be. What fails is reported and tried again; one failure does
    /// not keep the rest from being done.
    async fn reconcile(&mut self) {
        self.reconcile_at = None;
        if self.links_stale {
            match self.dataplane.links().await {
                Ok(links) => {
                    self.links_stale = false;
                    self.use_links(links);
                }
                Err(error) => self.retry("interfaces", &error),
            }
        }
        let actual = match self.dataplane.actual().await {
            Ok(actual) => actual,
            Err(error) => return self.retry("host", &error),
        };
        self.problem("host", None);
        let now = clock::boot();
        let want = desired(now, &self.elections, &self.timings, &self.specs, &self.links);
        let (mut failed, mut entries_failed) = (false, false);
        let mut without_address = BTreeSet::new();
        for action in plan(&want, &actual) {
            // An entry must not answer for an address that this host could not take in.
            if matches!(action, Action::Publish(ip, vip) if vip.generation != 0 && without_address.contains(&ip))
            {
                continue;
            }
            if let Err(error) = self.dataplane.apply(action).await {
                failed = true;
                match action {
                    Action::AddAddr(addr, _) => drop(without_address.insert(addr.ip)),
                    Action::DelAddr(_) => {}
                    _ => entries_failed = true,
                }
                self.retry("change of the host", &error);
            }
        }
        self.reconciled |= !entries_failed;
        if !failed {
            self.problem("change of the host", None);
        }
        self.schedule_linger_end();
    }

    fn use_links(&mut self, links: Vec<Link>) {
        let came_up = |new: &Link| {
            let old = self.links.iter().find(|old| old.ifindex == new.ifindex);
            new.answer && new.up && old.is_none_or(|old| !old.up || old.mac != new.mac)
        };
        if !self.links.is_empty() && links.iter().any(came_up) && self.serving() {
            self.announce_at = schedule(&BURST);
        }
        let eligible = links.iter().any(|link| link.answer && link.up);
        for election in self.elections.values_mut() {
            election.set_eligible(eligible);
        }
        self.problem("link", (!eligible).then(|| "no answering interface is up and guarded".into()));
        self.links = links;
    }

    async fn run_timers(&mut self) {
        let now = clock::boot();
        if self.silence_at.is_some_and(|at| at <= now) && self.silence(self.setup.slot).await {
            Box::pin(self.step(Input::Silenced)).await;
        }
        if self.reconcile_at.is_some_and(|at| at <= now) {
            self.reconcile().await;
        }
        if due(&mut self.announce_at, now) && self.serving() {
            let ask = self.announce_at.len() >= BURST.len() - 2;
            let announced = self.dataplane.announce(&self.setup.vips, ask).await;
            self.outcome("announcement", announced);
            if self.announce_at.is_empty() && !self.setup.refresh.is_zero() {
                self.announce_at.push_back(now.after(self.setup.refresh));
            }
        }
        if due(&mut self.probe_at, now) {
            let probed = self.dataplane.probe(&self.setup.vips).await;
            self.outcome("address probe", probed);
        }
    }

    fn claimed(&mut self, claim: Claim) {
        if self.links.iter().any(|link| link.mac == claim.mac) {
            return;
        }
        let vip = IpAddr::from(claim.ip);
        let mac = claim.mac.map(|byte| format!("{byte:02x}")).join(":");
        tracing::debug!(%vip, %mac, ifindex = claim.ifindex, "another station claims a VIP");
        if self.waits_for_creation() && self.suspect.is_none() {
            // Most likely another node has created the Lease a moment ago: a quorum read will tell.
            self.suspect = Some(format!("{vip} is answered for by {mac}"));
            self.read();
        }
    }

    /// A claim while there still is no Lease is by somebody who is not a node of ours.
    async fn judge_suspect(&mut self, source: Source, missing: bool) {
        if source == Source::Quorum
            && let Some(claim) = self.suspect.take()
            && missing
        {
            self.problem("address in use", Some(claim));
            self.step(Input::AddressInUse).await;
        }
    }

    fn waits_for_creation(&self) -> bool {
        self.elections.values().any(
            |election| matches!(election.state(), State::Waiting(waiting) if waiting.seen.is_none()),
        )
    }

    fn serving(&self) -> bool {
        let now = clock::boot();
        self.elections
            .values()
            .any(|election| matches!(election.state(), State::Holding(holding) if now < holding.until))
    }

    /// Left, and the address has lingered long enough and is gone.
    fn finished(&self) -> bool {
        let now = clock::boot();
        let left = |election: &Election| {
            matches!(election.state(), State::Left) && election.linger_until() <= now
        };
        self.elections.values().all(left) && self.reconcile_at.is_none() && self.silence_at.is_none()
    }

    fn wake_at(&self) -> BootNs {
        let now = clock::boot();
        let elections = self.elections.values().filter_map(|election| election.wake_at(now));
        let timers = [
            self.announce_at.front().copied(),
            self.probe_at.front().copied(),
            self.reconcile_at,
            self.silence_at,
        ];
        elections.chain(timers.into_iter().flatten()).min().unwrap_or(now.after(Duration::from_mins(1)))
    }

    fn notice(&mut self, notice: &Notice) {
        if matches!(notice, Notice::TookOver(_)) {
            self.problem("address in use", None);
        }
        log_notice(notice, &self.api.full_name(), &self.setup.me.node);
    }

    fn retry(&mut self, subject: &str, error: &dyn std::error::Error) {
        self.reconcile_at = Some(clock::boot().after(RETRY));
        self.problem(subject, Some(chain(error)));
    }

    fn outcome<E: std::error::Error>(&mut self, subject: &str, result: Result<(), E>) -> bool {
        let ok = result.is_ok();
        self.problem(subject, result.err().map(|error| chain(&error)));
        ok
    }

    /// Notes a standing problem, or that it is gone; logs only the change.
    fn problem(&mut self, subject: &str, problem: Option<String>) {
        match problem {
            Some(why) => {
                if self.problems.insert(subject.into(), why.clone()).is_none() {
                    tracing::warn!(subject, %why, "problem");
                }
            }
            None => {
                if self.problems.remove(subject).is_some() {
                    tracing::info!(subject, "problem is over");
                }
            }
        }
    }

    fn publish_state(&mut self) {
        let now = clock::boot();
        let leases = self
            .elections
            .iter()
            .map(|(slot, election)| LeaseState::of(now, self.api.full_name(), *slot, election));
        let state = DaemonState {
            pid: std::process::id(),
            leases: leases.collect(),
            problems: self.problems.clone().into_iter().chain(self.dataplane.problems()).collect(),
        };
        self.state.send_replace(state);
    }
}

fn schedule(rounds: &[Duration]) -> VecDeque<BootNs> {
    let now = clock::boot();
    rounds.iter().map(|after| now.after(*after)).collect()
}

/// Takes everything that is due off a schedule.
fn due(schedule: &mut VecDeque<BootNs>, now: BootNs) -> bool {
    let waiting = schedule.len();
    schedule.retain(|at| *at > now);
    schedule.len() < waiting
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
