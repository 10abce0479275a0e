//! The loop: the next event, one step of the model, and what its `Turn` asks for. Fences are changed
//! inline and first; requests are spawned and come back as events.

mod admission;
mod claims;
pub mod event;
mod fitness;
mod harm;
mod host;
mod leased;
mod namesake;
mod precedence;
mod problems;
mod reconcile;
mod report;
mod schedule;
mod watchdog;

pub use event::{Event, LeaseSetup, Setup};

use crate::{
    clock,
    cluster::{
        node::NodeFacts,
        rights,
        watch::{self, Sighting},
    },
    model::{
        desired::{Links, VipSpec},
        election::{Input, Source, Written},
        ownership::Ownership,
        policy::OnStop,
        record::LeaseWrite,
        time::BootNs,
        turn::{FenceChange, Outgoing, Step},
    },
    node::dataplane::{Dataplane, HostError},
    sources::chain,
    state::DaemonState,
};
use claims::Conflicts;
use fitness::HostState;
use harm::{Harm, Harms};
use leased::Leased;
use precedence::Precedence;
use problems::Problems;
use reconcile::PutOff;
use schedule::{BURST, PROBES, Schedule};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch as latest};
use watchdog::Watchdog;

/// A fence that could not be cleared is tried again after this.
const SILENCE_RETRY: Duration = Duration::from_millis(50);

/// Events that are taken in before the host is looked at; as many as wait at most.
const AT_ONCE: usize = 256;

/// A host that does not let itself be tidied up for this long after the VIPs are given up is left as it
/// is.
const TIDYING: Duration = Duration::from_secs(5);

/// The loop's state.
pub struct Controller<D> {
    dataplane: D,
    events: mpsc::Sender<Event>,
    setup: Setup,
    /// By slot.
    leases: BTreeMap<u32, Leased>,
    specs: Vec<VipSpec>,
    links: Links,
    links_stale: bool,
    reconciled: bool,
    /// When the host was last brought to what it should be, with nothing left over.
    settled_at: Option<BootNs>,
    reconcile_at: Option<BootNs>,
    inspect_at: BootNs,
    precedence: Precedence,
    conflicts: Conflicts,
    /// This node, once the API has shown it.
    facts: Option<NodeFacts>,
    /// Why the LAN seems to be away.
    lan: Option<String>,
    /// Why it may not list Leases.
    cannot_list: Option<String>,
    problems: Problems,
    harms: Harms,
    host: HostState,
    put_off: PutOff,
    watchdog: Watchdog,
    /// When a stop was asked for.
    stopping: Option<BootNs>,
    state: latest::Sender<DaemonState>,
}

impl<D: Dataplane> Controller<D> {
    /// A controller; nothing happens before [`run`](Self::run).
    pub fn new(
        dataplane: D,
        events: mpsc::Sender<Event>,
        setup: Setup,
        state: latest::Sender<DaemonState>,
    ) -> Self {
        let spec = |lease: &LeaseSetup| {
            let slot = lease.slot;
            let of = move |ip| VipSpec { ip, slot, answer: 0, yielded: false, admitted: false };
            lease.vips.clone().into_iter().map(of)
        };
        let specs = setup.leases.iter().flat_map(spec).collect();
        let leased = |lease: LeaseSetup| {
            (lease.slot, Leased::new(lease, setup.me.clone(), setup.timing.clone()))
        };
        Self {
            dataplane,
            events,
            leases: setup.leases.clone().into_iter().map(leased).collect(),
            specs,
            links: Links::default(),
            links_stale: true,
            reconciled: false,
            settled_at: None,
            reconcile_at: None,
            inspect_at: BootNs(0),
            precedence: Precedence::default(),
            conflicts: Conflicts::default(),
            facts: None,
            lan: None,
            cannot_list: None,
            problems: Problems::default(),
            harms: Harms::default(),
            host: HostState::default(),
            put_off: PutOff::default(),
            watchdog: Watchdog::new(&setup.timing, setup.metrics.clone()),
            stopping: None,
            state,
            setup,
        }
    }

    /// Runs until the Leases have been given up (or kept) after a stop. Gives the host back.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> D {
        if let Err(error) = self.watchdog.observe(self.state.clone()) {
            tracing::warn!(%error, "no thread watches the loop");
        }
        self.watchdog.turn();
        // Entries are reconciled before the first renewal: what is not configured any more goes now.
        self.reconcile().await;
        self.publish_state();
        self.follow_leases();
        loop {
            let events = self.next_events(&mut inbox).await;
            self.watchdog.turn();
            self.give_up_late_probes();
            if self.setup.on_stop == OnStop::Keep && matches!(events.first(), Some(Event::Stop)) {
                tracing::info!("stopping; VIPs preserved until the fence runs out");
                return self.dataplane;
            }
            for event in events {
                self.take_in(event).await;
            }
            self.run_timers().await;
            self.publish_state();
            if self.stopping.is_some_and(|since| self.finished() || self.gives_up(since)) {
                return self.dataplane;
            }
        }
    }

    /// Waits for the next event; everything that has happened by then is taken in before the host is
    /// looked at once. A stop comes first: it must not wait behind what happens on a busy host.
    async fn next_events(&mut self, inbox: &mut mpsc::Receiver<Event>) -> Vec<Event> {
        // A turn that is due at once would let nothing else run on this thread.
        tokio::task::yield_now().await;
        let due = self.wake_at();
        self.watchdog.waits(due);
        let first = tokio::select! {
            // What is due does not wait behind a host on which something changes all the time.
            biased;
            () = tokio::time::sleep(clock::boot().until(due)) => Event::Timer,
            event = inbox.recv() => event.unwrap_or(Event::Stop),
        };
        let mut events = vec![first];
        while events.len() < AT_ONCE
            && let Ok(event) = inbox.try_recv()
        {
            events.push(event);
        }
        events.sort_by_key(|event| !matches!(event, Event::Stop));
        events
    }

    fn follow_leases(&self) {
        if let Some(leased) = self.leases.values().next() {
            let (api, events) = (leased.api.clone(), self.events.clone());
            tokio::spawn(rights::may_list(api, events, Event::MayList));
        }
        for (slot, leased) in &self.leases {
            let (slot, api, again) = (*slot, leased.api.clone(), Arc::clone(&leased.again));
            let event = move |sighting| Event::Sighting(slot, sighting);
            tokio::spawn(watch::follow(api, watch::WATCH_S, again, self.events.clone(), event));
        }
    }

    async fn take_in(&mut self, event: Event) {
        let (slot, input) = match event {
            Event::Timer => return self.step_all(&Input::Tick).await,
            Event::Stop => {
                self.stopping.get_or_insert(clock::boot());
                return self.step_all(&Input::Leave).await;
            }
            Event::HostChanged => {
                self.links_stale = true;
                self.reconcile_at = Some(clock::boot());
                return;
            }
            Event::Node(Ok(facts)) => {
                self.problem("Node", None);
                self.facts = Some(facts);
                return self.weigh().await;
            }
            // What was known of it is still the best that is known.
            Event::Node(Err(why)) => return self.problem("Node", Some(why)),
            Event::Lan(problem) => {
                self.problem("LAN", problem.clone());
                self.lan = problem;
                return self.weigh().await;
            }
            Event::MayList(forbidden) => {
                self.problem("rights", forbidden.clone());
                self.cannot_list = forbidden;
                return self.weigh().await;
            }
            Event::Listed(slot, number, leases) => (slot, Input::Listed(number, leases)),
            Event::Claim(claim) => return self.claimed(claim).await,
            Event::Created(slot, problem) => return self.problem_of("write", slot, problem),
            Event::Problem(subject, problem) => return self.problem(subject, problem),
            Event::Sighting(slot, Sighting::Unreadable(why)) => {
                self.problem_of("API", slot, Some(why));
                (slot, Input::ReadFailed)
            }
            Event::Sighting(slot, Sighting::Seen(source, record)) => {
                self.problem_of("API", slot, None);
                self.look_for_namesake(slot, record.as_ref());
                self.conflicts.learn(record.as_ref());
                self.step(slot, Input::Observed(source, record.clone())).await;
                return self.guard_neighbours(slot, record.as_ref());
            }
            Event::Written { slot, id, outcome, problem } => {
                if outcome != Written::Conflict {
                    self.problem_of("write", slot, problem);
                }
                (slot, Input::Written { id, outcome })
            }
        };
        self.step(slot, input).await;
    }

    async fn step_all(&mut self, input: &Input) {
        let slots: Vec<u32> = self.leases.keys().copied().collect();
        for slot in slots {
            self.step(slot, input.clone()).await;
        }
    }

    /// One step of an election, and everything that it asks for, in the order of its
    /// [`Turn`](crate::model::turn::Turn).
    async fn step(&mut self, slot: u32, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(leased) = self.leases.get_mut(&slot) else { return };
            let silent_since = leased.election.silent_since();
            let mut turn = leased.election.step(clock::now(), input);
            let mut at = clock::boot();
            while let Some(step) = turn.next(self.reconciled) {
                match step {
                    Step::Fence(change) => {
                        if let Some(deadline) = self.change_fence(slot, &change) {
                            turn.failed_to_lower();
                            inputs.push_back(Input::NotLowered(deadline));
                        }
                        at = clock::boot();
                    }
                    Step::Silence(why) => {
                        tracing::debug!(?why, "clearing the fence");
                        if self.silence(slot).await {
                            inputs.push_back(Input::Silenced);
                        }
                    }
                    Step::Host => self.reconcile().await,
                    Step::Announce => self.begin_to_announce(slot),
                    Step::Send(send) => self.send(slot, send),
                    Step::KeepBack(id) => {
                        inputs.push_back(Input::Written { id, outcome: Written::Failed });
                    }
                    Step::News(notice) => self.notice(slot, &notice, silent_since, at),
                }
            }
            self.schedule_linger_end();
            self.tell_obstacles(slot);
        }
    }

    /// The first round is due at once: the loop runs its timers after every step.
    fn begin_to_announce(&mut self, slot: u32) {
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.announce_at = Schedule::of(&BURST);
        }
    }

    fn send(&mut self, slot: u32, send: Outgoing) {
        match send {
            Outgoing::Write(write) => self.write(slot, write),
            Outgoing::Offer(base, offer) => self.offer(slot, base, offer),
            Outgoing::Create => self.create(slot),
            Outgoing::Read => {
                self.renew_watch(slot);
                self.read(slot);
            }
            Outgoing::List(number) => self.list(slot, number),
            Outgoing::Strike(strike) => self.strike(slot, strike),
            Outgoing::Probe => {
                if let Some(leased) = self.leases.get_mut(&slot) {
                    leased.probe_at = Schedule::of(&PROBES);
                }
            }
        }
    }

    /// A candidate whose watch has missed something begins a new one.
    fn renew_watch(&self, slot: u32) {
        if let Some(leased) = self.leases.get(&slot)
            && leased.is_candidate()
        {
            leased.again.notify_one();
        }
    }

    /// Returns to what the fence could not be lowered. One that could not be raised keeps nothing back.
    fn change_fence(&mut self, slot: u32, change: &FenceChange) -> Option<BootNs> {
        match change {
            FenceChange::Raise { tenure, generation, deadline, duration_s, new } => {
                self.raise(slot, *new, |host| {
                    host.raise_fence(slot, tenure, *duration_s, *generation, *deadline)
                });
                None
            }
            FenceChange::Lower(deadline) => {
                let dataplane = &mut self.dataplane;
                let lower = || dataplane.lower_fence(slot, *deadline);
                let result = self.watchdog.call(watchdog::Step::Fence, lower);
                (!self.outcome("fence", slot, result)).then_some(*deadline)
            }
        }
    }

    /// Raises a fence; `new` if it begins a tenure.
    fn raise(&mut self, slot: u32, new: bool, raise: impl FnOnce(&mut D) -> Result<(), HostError>) {
        let dataplane = &mut self.dataplane;
        let raised = self.watchdog.call(watchdog::Step::Fence, || raise(dataplane));
        let now = clock::boot();
        for spec in self.specs.iter().filter(|spec| spec.slot == slot) {
            match &raised {
                Ok(()) => self.harms.worked(spec.ip, Harm::Fence),
                Err(error) => self.harms.failed(spec.ip, Harm::Fence, chain(error), now),
            }
        }
        self.outcome("fence", slot, raised);
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.silence_at = None;
            if new {
                leased.held_since = Some(now);
            }
        }
    }

    /// Clears the fence. Without the certainty of silence nothing is released; it is tried again.
    async fn silence(&mut self, slot: u32) -> bool {
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.announce_at.clear();
        }
        let clear = self.dataplane.clear_fence(slot);
        let cleared = self.watchdog.run(watchdog::Step::Silence, clear).await.flatten();
        let silent = self.outcome("fence", slot, cleared);
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.silence_at = (!silent).then(|| clock::boot().after(SILENCE_RETRY));
        }
        silent
    }

    /// A quorum read beside the watch.
    fn read(&self, slot: u32) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (api, events) = (leased.api.clone(), self.events.clone());
        let began = clock::boot();
        tokio::spawn(async move {
            let sighting = match api.get(1).await {
                Ok(record) => Sighting::Seen(Source::Quorum(began), record),
                Err(error) => Sighting::Unreadable(error.to_string()),
            };
            let _ = events.send(Event::Sighting(slot, sighting)).await;
        });
    }

    /// Creates the Lease without a holder.
    fn create(&self, slot: u32) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (api, events) = (leased.api.clone(), self.events.clone());
        let (again, duration_s) = (Arc::clone(&leased.again), self.setup.timing.duration_s);
        let began = clock::boot();
        tokio::spawn(async move {
            let created = api.create(duration_s).await;
            let problem = created.as_ref().err().map(ToString::to_string);
            let _ = events.send(Event::Created(slot, problem)).await;
            match created {
                Ok(Some(record)) => {
                    let seen = Sighting::Seen(Source::Quorum(began), Some(record));
                    let _ = events.send(Event::Sighting(slot, seen)).await;
                }
                // Somebody else has: a watch that lags may not show it yet, a read does.
                Ok(None) => again.notify_one(),
                Err(_) => {}
            }
        });
    }

    fn write(&self, slot: u32, write: LeaseWrite) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (api, events) = (leased.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let id = write.id;
            let (outcome, error) = api.write(write).await;
            let problem = error.map(|error| error.to_string());
            let _ = events.send(Event::Written { slot, id, outcome, problem }).await;
        });
    }

    /// Left, and the addresses have lingered long enough and are gone.
    fn finished(&self) -> bool {
        let Some(settled) = self.settled_at else { return false };
        let gone = |leased: &Leased| match leased.election.ownership(clock::boot()) {
            Ownership::Gone { since } => since <= settled,
            _ => false,
        };
        self.leases.values().all(|leased| gone(leased) && leased.silence_at.is_none())
    }

    /// Left, and the host does not let itself be tidied up. Nobody answers any more, and what is left
    /// on the host ends with its lifetime; a process that does not end would be killed.
    fn gives_up(&self, stopping: BootNs) -> bool {
        let now = clock::boot();
        let gives_up = self.leases.values().all(|leased| match leased.election.ownership(now) {
            Ownership::Gone { since } => since.max(stopping).after(TIDYING) <= now,
            _ => false,
        });
        if gives_up {
            tracing::warn!("stopping; what could not be removed ends with its lifetime");
        }
        gives_up
    }

    fn wake_at(&self) -> BootNs {
        let now = clock::boot();
        let leases = self.leases.values().filter_map(|leased| leased.wake_at(now));
        let host = self.precedence.wake_at(self.host_due());
        leases.min().unwrap_or(host).min(host)
    }
}
