//! The loop: the next event, one step of the model, its effects. Fence effects are executed inline
//! and first; writes are spawned and come back as events with the time that they left.

mod admission;
mod claims;
pub mod event;
mod fitness;
mod host;
mod leased;
mod report;

pub use event::{Event, LeaseSetup, Setup};

use crate::{
    cluster::{
        node::NodeFacts,
        watch::{self, Sighting},
    },
    config::OnStop,
    model::{
        desired::{Links, VipSpec},
        election::{Effect, Input, Source, State, Written},
        record::LeaseWrite,
        time::BootNs,
    },
    node::{clock, dataplane::Dataplane},
    state::DaemonState,
};
use claims::Conflicts;
use host::{BURST, PROBES, Schedule};
use leased::Leased;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch as latest};

/// A fence that could not be cleared is tried again after this.
const SILENCE_RETRY: Duration = Duration::from_millis(50);

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
    conflicts: Conflicts,
    /// This node, once the API has shown it.
    facts: Option<NodeFacts>,
    /// Why the LAN seems to be away.
    lan: Option<String>,
    problems: BTreeMap<String, String>,
    stopping: bool,
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
            let of = move |ip| VipSpec { ip, slot, answer: 0, yielded: false };
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
            conflicts: Conflicts::default(),
            facts: None,
            lan: None,
            problems: BTreeMap::new(),
            stopping: false,
            state,
            setup,
        }
    }

    /// Runs until the Leases have been given up (or kept) after a stop. Gives the host back.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> D {
        // Entries are reconciled before the first renewal: what is not configured any more goes now.
        self.reconcile().await;
        self.publish_state();
        self.follow_leases();
        loop {
            let wait = clock::boot().until(self.wake_at());
            let event = tokio::select! {
                event = inbox.recv() => event.unwrap_or(Event::Stop),
                () = tokio::time::sleep(wait) => Event::Timer,
            };
            if matches!(event, Event::Stop) && self.setup.on_stop == OnStop::Keep {
                tracing::info!("stopping; VIPs preserved until the fence runs out");
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

    fn follow_leases(&self) {
        for (slot, leased) in &self.leases {
            let (sender, mut receiver) = mpsc::channel(16);
            let again = Arc::clone(&leased.again);
            tokio::spawn(watch::follow(leased.api.clone(), watch::WATCH_S, again, sender));
            let (slot, events) = (*slot, self.events.clone());
            tokio::spawn(async move {
                while let Some(sighting) = receiver.recv().await {
                    if events.send(Event::Sighting(slot, sighting)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    async fn take_in(&mut self, event: Event) {
        let (slot, input) = match event {
            Event::Timer => return self.step_all(&Input::Tick).await,
            Event::Stop => {
                self.stopping = true;
                return self.step_all(&Input::Leave).await;
            }
            Event::HostChanged => {
                self.links_stale = true;
                self.reconcile_at = Some(clock::boot());
                return;
            }
            Event::Node(facts) => {
                self.facts = Some(facts);
                return self.weigh().await;
            }
            Event::Lan(problem) => {
                self.problem("LAN", problem.clone());
                self.lan = problem;
                return self.weigh().await;
            }
            Event::Listed(slot, number, leases) => return self.listed(slot, number, leases).await,
            Event::Claim(claim) => return self.claimed(claim).await,
            Event::Created(problem) => return self.problem("write", problem),
            Event::Sighting(slot, Sighting::Unreadable(why)) => {
                self.problem("API", Some(why));
                (slot, Input::ReadFailed)
            }
            Event::Sighting(slot, Sighting::Seen(source, record)) => {
                self.problem("API", None);
                self.conflicts.learn(record.as_ref());
                self.step(slot, Input::Observed(source, record.clone())).await;
                return self.guard_neighbours(slot, record.as_ref());
            }
            Event::Written { slot, id, outcome, problem } => {
                if outcome != Written::Conflict {
                    self.problem("write", problem);
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

    /// One step of an election, and everything that it asks for.
    async fn step(&mut self, slot: u32, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(leased) = self.leases.get_mut(&slot) else { return };
            let before = leased.election.state().clone();
            let admissions = leased.election.admissions();
            let effects = leased.election.step(clock::now(), input);
            let after = leased.election.state();
            let moved = std::mem::discriminant(&before) != std::mem::discriminant(after);
            let admitted = admissions != leased.election.admissions();
            let (mut writes, mut announce, mut touched) = (Vec::new(), false, moved || admitted);
            let mut lowered = true;
            for effect in effects {
                match effect {
                    Effect::RaiseFence { tenure, generation, deadline, duration_s, new } => {
                        let raised =
                            self.dataplane.raise_fence(slot, &tenure, duration_s, generation, deadline);
                        self.outcome("fence", raised);
                        if let Some(leased) = self.leases.get_mut(&slot) {
                            leased.silence_at = None;
                            if new {
                                leased.held_since = Some(clock::boot());
                            }
                        }
                        announce |= new;
                        touched |= new;
                    }
                    Effect::LowerFence(deadline) => {
                        let result = self.dataplane.lower_fence(slot, deadline);
                        lowered &= self.outcome("fence", result);
                    }
                    Effect::ClearFence(why) => {
                        tracing::debug!(?why, "clearing the fence");
                        if self.silence(slot).await {
                            inputs.push_back(Input::Silenced);
                        }
                        touched = true;
                    }
                    Effect::Write(write) => writes.push(write),
                    Effect::Offer(base, offer) => self.offer(slot, base, offer),
                    Effect::Create => self.create(slot),
                    Effect::Read => {
                        // A candidate whose watch has missed something also renews it.
                        if let Some(leased) = self.leases.get(&slot)
                            && matches!(leased.election.state(), State::Waiting(_))
                        {
                            leased.again.notify_one();
                        }
                        self.read(slot);
                    }
                    Effect::ProbeAddresses => {
                        if let Some(leased) = self.leases.get_mut(&slot) {
                            leased.probe_at = Schedule::of(&PROBES);
                        }
                    }
                    Effect::Notice(notice) => self.notice(slot, &notice, &before),
                }
            }
            self.schedule_linger_end();
            // The host follows before any write leaves.
            if touched {
                self.reconcile().await;
            }
            if announce && let Some(leased) = self.leases.get_mut(&slot) {
                // The first round is due at once: the loop runs its timers after every step.
                leased.announce_at = Schedule::of(&BURST);
            }
            self.admit(slot, admitted);
            for write in writes {
                // A write that shortens D leaves only after the fence was lowered, and none leaves
                // before the entries have been reconciled once.
                if lowered && self.reconciled {
                    self.write(slot, write);
                } else {
                    let outcome = Written::Failed;
                    inputs.push_back(Input::Written { id: write.id, outcome });
                }
            }
        }
    }

    /// Clears the fence. Without the certainty of silence nothing is released; it is tried again.
    async fn silence(&mut self, slot: u32) -> bool {
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.announce_at.clear();
        }
        let cleared = self.dataplane.clear_fence(slot).await;
        let silent = self.outcome("fence", cleared);
        if let Some(leased) = self.leases.get_mut(&slot) {
            leased.silence_at = (!silent).then(|| clock::boot().after(SILENCE_RETRY));
        }
        silent
    }

    /// A quorum read beside the watch.
    fn read(&self, slot: u32) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (api, events) = (leased.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let sighting = match api.get(1).await {
                Ok(record) => Sighting::Seen(Source::Quorum, record),
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
        tokio::spawn(async move {
            let created = api.create(duration_s).await;
            let problem = created.as_ref().err().map(ToString::to_string);
            let _ = events.send(Event::Created(problem)).await;
            match created {
                Ok(Some(record)) => {
                    let seen = Sighting::Seen(Source::Quorum, Some(record));
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
        self.leases.values().all(|leased| {
            let election = &leased.election;
            matches!(election.state(), State::Left)
                && election.linger_until() <= settled
                && leased.silence_at.is_none()
        })
    }

    fn wake_at(&self) -> BootNs {
        let now = clock::boot();
        let leases = self.leases.values().filter_map(|leased| leased.wake_at(now));
        leases.chain(self.reconcile_at).min().unwrap_or(self.inspect_at).min(self.inspect_at)
    }
}
