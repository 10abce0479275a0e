//! The loop: the next event, one step of the model, its effects. Fence effects are executed inline
//! and first; writes are spawned and come back as events with the time that they left.

mod claims;
pub mod event;
mod host;
mod report;

pub use event::{Event, Setup};

use crate::{
    cluster::{
        lease::LeaseApi,
        watch::{self, Sighting},
    },
    config::OnStop,
    model::{
        desired::{Link, VipSpec},
        election::{Effect, Election, Input, Source, State, Written},
        record::LeaseWrite,
        time::BootNs,
        timing::Timing,
    },
    node::{clock, dataplane::Dataplane},
    state::DaemonState,
};
use claims::Conflicts;
use host::{BURST, PROBES, Schedule};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch as latest};

/// A fence that could not be cleared is tried again after this.
const SILENCE_RETRY: Duration = Duration::from_millis(50);

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
    /// When the host was last brought to what it should be, with nothing left over.
    settled_at: Option<BootNs>,
    reconcile_at: Option<BootNs>,
    silence_at: Option<BootNs>,
    inspect_at: BootNs,
    announce_at: Schedule,
    probe_at: Schedule,
    suspect: Option<String>,
    conflicts: Conflicts,
    held_since: Option<BootNs>,
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
            settled_at: None,
            reconcile_at: None,
            silence_at: None,
            inspect_at: BootNs(0),
            announce_at: Schedule::default(),
            probe_at: Schedule::default(),
            suspect: None,
            conflicts: Conflicts::default(),
            held_since: None,
            problems: BTreeMap::new(),
            stopping: false,
            state,
        }
    }

    /// Runs until the Lease has been given up (or kept) after a stop. Gives the host back.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> D {
        // Entries are reconciled before the first renewal: what is not configured any more goes now.
        self.reconcile().await;
        self.publish_state();
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
            let before = election.state().clone();
            let effects = election.step(clock::now(), input);
            let moved = std::mem::discriminant(&before) != std::mem::discriminant(election.state());
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
                        if new {
                            self.held_since = Some(clock::boot());
                        }
                        touched |= new;
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
                    Effect::ProbeAddresses => self.probe_at = Schedule::of(&PROBES),
                    Effect::Notice(notice) => self.notice(&notice, &before),
                }
            }
            self.schedule_linger_end();
            // The host follows before any write leaves.
            if touched {
                self.reconcile().await;
            }
            if announce {
                // The first round is due at once: the loop runs its timers after every step.
                self.announce_at = Schedule::of(&BURST);
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

    fn serving(&self) -> bool {
        let now = clock::boot();
        self.elections
            .values()
            .any(|election| matches!(election.state(), State::Holding(holding) if now < holding.until))
    }

    /// Left, and the address has lingered long enough and is gone.
    fn finished(&self) -> bool {
        let Some(settled) = self.settled_at else { return false };
        let left = |election: &Election| {
            matches!(election.state(), State::Left) && election.linger_until() <= settled
        };
        self.elections.values().all(left) && self.silence_at.is_none()
    }

    fn wake_at(&self) -> BootNs {
        let now = clock::boot();
        let elections = self.elections.values().filter_map(|election| election.wake_at(now));
        let timers = [
            self.announce_at.next(),
            self.probe_at.next(),
            self.reconcile_at,
            self.silence_at,
            Some(self.inspect_at),
        ];
        elections.chain(timers.into_iter().flatten()).min().unwrap_or(self.inspect_at)
    }
}
