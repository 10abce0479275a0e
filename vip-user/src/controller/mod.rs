//! The loop: takes the next event, lets the agent make one step, and carries out the resulting `Turn`.
//! Fences are changed inline and first; requests are spawned and come back as events. The loop decides
//! nothing.

pub mod event;
mod handover;
mod problems;
mod report;
mod requests;
mod watchdog;
mod work;

pub use event::{Event, GroupId, Setup};

use crate::{
    clock,
    cluster::{rights, watch::Sighting},
    model::{
        agent::{self, Agent},
        lease::election::{Input, Written},
        policy::OnStop,
        slots::Slots,
        turn::Step,
    },
    node::dataplane::Dataplane,
    state::DaemonState,
};
use problems::Problems;
use requests::Requests;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, watch as latest};
use watchdog::Watchdog;

/// How many events are taken in before the host is looked at. The queue holds no more.
const AT_ONCE: usize = 256;

/// The loop's state.
pub struct Controller<D> {
    dataplane: D,
    agent: Agent,
    /// The requests of each group, by slot.
    requests: BTreeMap<u32, Requests>,
    events: mpsc::Sender<Event>,
    setup: Setup,
    problems: Problems,
    watchdog: Watchdog,
    state: latest::Sender<DaemonState>,
}

impl<D: Dataplane> Controller<D> {
    /// Builds a controller. Nothing happens before [`run`](Self::run).
    pub fn new(
        dataplane: D,
        events: mpsc::Sender<Event>,
        setup: Setup,
        state: latest::Sender<DaemonState>,
    ) -> Self {
        Self {
            dataplane,
            agent: Agent::new(setup.policy.clone(), Slots::found(setup.slots.clone())),
            requests: BTreeMap::new(),
            events,
            problems: Problems::default(),
            watchdog: Watchdog::new(&setup.policy.timing, setup.metrics.clone()),
            setup,
            state,
        }
    }

    /// Runs until, after a stop, the Leases have been released or kept. Returns the host.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> D {
        if let Err(error) = self.watchdog.observe(self.state.clone()) {
            tracing::warn!(%error, "no thread watches the loop");
        }
        self.watchdog.turn();
        // Entries are reconciled before the first renewal, so entries that are no longer configured go
        // now.
        self.carry_out(agent::Event::Wanted(self.setup.groups.clone())).await;
        self.publish_state();
        let (api, events) = (self.setup.api.clone(), self.events.clone());
        tokio::spawn(rights::may_list(api, events, Event::MayList));
        loop {
            let events = self.next_events(&mut inbox).await;
            self.watchdog.turn();
            if self.setup.on_stop == OnStop::Keep && matches!(events.first(), Some(Event::Stop)) {
                tracing::info!("stopping; VIPs preserved until the fence runs out");
                return self.dataplane;
            }
            for event in events {
                self.take_in(event).await;
            }
            self.carry_out(agent::Event::Tick).await;
            self.work_on_host_if_due().await;
            // What the look at the host has shown may concern elections.
            self.carry_out(agent::Event::Tick).await;
            self.speak().await;
            self.publish_state();
            let now = clock::boot();
            if self.agent.has_stopped(now) {
                return self.dataplane;
            }
            if self.agent.gives_up(now) {
                tracing::warn!("stopping; what could not be removed ends with its lifetime");
                return self.dataplane;
            }
        }
    }

    /// Waits for the next event and takes all that have arrived by then, so that one look at the host
    /// serves them all. A stop comes first: it must not wait behind the events of a busy host.
    async fn next_events(&mut self, inbox: &mut mpsc::Receiver<Event>) -> Vec<Event> {
        // Without this, turns that are due at once would let nothing else run on this thread.
        tokio::task::yield_now().await;
        let guard = self.agent.guard_due();
        let due = self.agent.wake_at().map_or(guard, |due| due.min(guard));
        self.watchdog.waits(due);
        let first = tokio::select! {
            // A turn that is due must not wait for a host on which something changes all the time.
            biased;
            () = tokio::time::sleep(clock::boot().until(due)) => None,
            event = inbox.recv() => Some(event.unwrap_or(Event::Stop)),
        };
        let mut events = Vec::from_iter(first);
        while events.len() < AT_ONCE
            && let Ok(event) = inbox.try_recv()
        {
            events.push(event);
        }
        events.sort_by_key(|event| !matches!(event, Event::Stop));
        events
    }

    async fn take_in(&mut self, event: Event) {
        let event = match event {
            Event::Wanted(groups) => agent::Event::Wanted(groups),
            Event::Stop => agent::Event::Stop,
            Event::HostChanged => agent::Event::HostChanged,
            Event::Node(Ok(facts)) => {
                self.problem("Node", None);
                agent::Event::Facts(facts)
            }
            // The last known facts are kept, because nothing better is known.
            Event::Node(Err(why)) => return self.problem("Node", Some(why)),
            Event::Lan(problem) => agent::Event::Lan(problem),
            Event::Health(service, ailment) => agent::Event::Health(service, ailment),
            Event::HandOver { wish, answer } => {
                let reply = self.hand_over(wish).await;
                // A client that has left does not matter.
                let _ = answer.send(reply);
                return;
            }
            Event::MayList(forbidden) => agent::Event::MayList(forbidden),
            Event::Claim(claim) => {
                let (mac, ifindex) = (vip_common::mac::Mac(claim.mac), claim.ifindex);
                tracing::debug!(ip = ?claim.ip, %mac, ifindex, "another station claims an address");
                agent::Event::Claim(claim)
            }
            Event::Problem(subject, problem) => return self.problem(subject, problem),
            Event::Created(group, problem) => {
                if self.is_current(group) {
                    self.problem_of("write", group.slot, problem);
                }
                return;
            }
            Event::Visited(group, ip, served) => {
                if !self.is_current(group) {
                    return;
                }
                agent::Event::Election(group.slot, Input::Visited(ip, served))
            }
            Event::Listed(group, number, leases) => {
                if !self.is_current(group) {
                    return;
                }
                agent::Event::Election(group.slot, Input::Listed(number, leases))
            }
            Event::Sighting(group, sighting) => {
                if !self.is_current(group) {
                    return;
                }
                match sighting {
                    Sighting::Unreadable(why) => {
                        self.problem_of("API", group.slot, Some(why));
                        agent::Event::Election(group.slot, Input::ReadFailed)
                    }
                    Sighting::Seen(source, record) => {
                        self.problem_of("API", group.slot, None);
                        agent::Event::Seen(group.slot, source, record)
                    }
                }
            }
            Event::Written { group, id, outcome, problem } => {
                if !self.is_current(group) {
                    return;
                }
                if outcome != Written::Conflict {
                    self.problem_of("write", group.slot, problem);
                }
                agent::Event::Election(group.slot, Input::Written { id, outcome })
            }
        };
        self.carry_out(event).await;
    }

    /// Makes one step of the agent and does all that it asks for, in the order of its
    /// [`Turn`](crate::model::turn::Turn).
    async fn carry_out(&mut self, event: agent::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut turn = self.agent.step(clock::now(), event);
            self.follow_groups();
            let mut at = clock::boot();
            while let Some(step) = turn.next(self.agent.is_reconciled()) {
                match step {
                    Step::Fence(slot, change) => {
                        if let Some(deadline) = self.change_fence(slot, &change) {
                            turn.failed_to_lower(slot);
                            let input = Input::NotLowered(deadline);
                            events.push_back(agent::Event::Election(slot, input));
                        }
                        at = clock::boot();
                    }
                    Step::Silence(groups) => events.extend(self.silence(&groups).await),
                    Step::Stations(slot, stations) => self.set_stations(slot, &stations),
                    Step::Host => self.work_on_host().await,
                    Step::Send(slot, send) => {
                        let group = self.agent.group(slot);
                        let candidate = group.is_some_and(|group| group.is_candidate(clock::boot()));
                        if let Some(requests) = self.requests.get(&slot) {
                            requests.send(send, candidate);
                        }
                    }
                    Step::KeepBack(slot, id) => {
                        let input = Input::Written { id, outcome: Written::KeptBack };
                        events.push_back(agent::Event::Election(slot, input));
                    }
                    Step::News(news) => self.tell(news, at),
                }
            }
            for news in self.agent.take_news() {
                self.tell(news, clock::boot());
            }
        }
    }
}
