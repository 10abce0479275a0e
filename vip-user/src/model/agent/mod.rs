//! The whole node, without I/O: an event comes in, and a [`Turn`] goes out. The loop and the simulation
//! drive the same agent.
//!
//! Work that can wait for a later turn is not part of a `Turn`. The loop takes such work piece by piece
//! while the turn has time ([`next_on_host`](Agent::next_on_host), [`next_frames`](Agent::next_frames),
//! [`next_probe`](Agent::next_probe)). It then reports the outcome.

mod frames;
mod host;
mod lan;
mod wanted;
mod weigh;

pub use frames::Frames;
pub use host::Work;

use super::{
    conflicts::Conflicts,
    desired::{Links, Placement},
    effects::{Effects, Outgoing},
    facts::NodeFacts,
    fitness::Fitness,
    group::{Group, GroupSpec},
    harm::{Harm, Harms},
    health::{Ailment, Service},
    lease::{
        election::{Identity, Input, Source},
        record::Record,
    },
    news::{News, Of, Subject, Why},
    ownership::Ownership,
    policy::{ConflictPolicy, ForeignConflict},
    precedence::Precedence,
    schedule::{PROBES, QUESTIONS, Schedule},
    slots::Slots,
    time::{BootNs, Now},
    timing::Timing,
    turn::Turn,
};
use frames::Rounds;
use host::HostState;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use vip_common::{abi::Claim, mac::Mac};

/// Pause before another attempt to clear a fence that could not be cleared.
const SILENCE_RETRY: Duration = Duration::from_millis(50);
/// How long a stopping process tries to tidy up the host after the VIPs are given up. After this it
/// ends, and leaves the rest on the host.
const TIDYING: Duration = Duration::from_secs(5);

/// The choices of the operator.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The identity of this process.
    pub me: Identity,
    /// The timings of all Leases.
    pub timing: Timing,
    /// Time between announcements that refresh neighbours; zero turns them off.
    pub refresh: Duration,
    /// What to do about other stations that claim a VIP.
    pub conflict: ConflictPolicy,
    /// What to do about a station that still answers for a VIP that another program held last.
    pub foreign_conflict: ForeignConflict,
    /// Whether the kernel drops claims that contradict the Lease.
    pub guard_neighbours: bool,
    /// Where the addresses of held VIPs are put.
    pub placement: Placement,
    /// Whether the LAN is asked for an address (RFC 5227) before it is published for the first time
    /// under a Lease.
    pub asks_first: bool,
}

/// An event that the node must handle.
#[derive(Clone, Debug)]
pub enum Event {
    /// All groups that the configuration asks for. Any other group is given up.
    Wanted(Vec<GroupSpec>),
    /// The Lease of a slot was read (`None`: it does not exist).
    Seen(u32, Source, Option<Record>),
    /// Any other input to the election of a slot.
    Election(u32, Input),
    /// An attempt to silence the kernel for a slot has ended. Says whether the kernel is known to be
    /// silent.
    Silenced(u32, bool),
    /// What the API shows of this node.
    Facts(NodeFacts),
    /// Why the LAN does not answer; `None`: it does answer.
    Lan(Option<String>),
    /// What ails a service of this node; `None`: it is well.
    Health(Service, Option<Ailment>),
    /// Why this process may not list Leases; `None`: it may list them.
    MayList(Option<String>),
    /// Another station claims an address.
    Claim(Claim),
    /// Links or addresses have changed on this host.
    HostChanged,
    /// The process is to stop: all groups are given up.
    Stop,
    /// A turn ends, or a timer is due.
    Tick,
}

/// The whole node.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    /// The groups by slot.
    groups: BTreeMap<u32, Group>,
    /// Number of the last group that was begun.
    serial: u64,
    slots: Slots,
    /// The groups that are wanted, by Lease. `None` until the first list of them has arrived.
    wanted: Option<BTreeMap<String, GroupSpec>>,
    /// Slots that no group wants: the highest generation of each, and when to try again to clear its
    /// fence.
    clearing: BTreeMap<u32, (u64, BootNs)>,
    /// When a timer of each group is due.
    timers: Timers,
    links: Links,
    host: HostState,
    precedence: Precedence,
    conflicts: Conflicts,
    harms: Harms,
    /// What the API shows of this node, once it was read.
    facts: Option<NodeFacts>,
    /// Why the LAN does not answer.
    lan: Option<String>,
    /// What ails the services of this node.
    ailments: BTreeMap<Service, Ailment>,
    /// Why this process may not list Leases.
    cannot_list: Option<String>,
    /// Whether something has changed that may affect the fitness of all groups.
    weighs_all: bool,
    bursts: Rounds,
    refreshes: Rounds,
    /// Slots of the groups that have address probes to send.
    probing: BTreeSet<u32>,
    news: Vec<News>,
    /// When the process was asked to stop.
    stopping: Option<BootNs>,
}

/// When a timer of each group is due.
#[derive(Debug, Default)]
struct Timers {
    of: BTreeMap<u32, BootNs>,
    queue: BTreeSet<(BootNs, u32)>,
}

impl Timers {
    fn set(&mut self, slot: u32, at: Option<BootNs>) {
        if self.of.get(&slot).copied() == at {
            return;
        }
        if let Some(old) = self.of.remove(&slot) {
            self.queue.remove(&(old, slot));
        }
        if let Some(at) = at {
            self.of.insert(slot, at);
            self.queue.insert((at, slot));
        }
    }

    fn next(&self) -> Option<BootNs> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn due(&self, now: BootNs) -> Vec<u32> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, slot)| *slot).collect()
    }
}

impl Agent {
    /// A node that knows the slots of its maps, and nothing else yet.
    pub fn new(policy: Policy, slots: Slots) -> Self {
        Self {
            policy,
            groups: BTreeMap::new(),
            serial: 0,
            slots,
            wanted: None,
            clearing: BTreeMap::new(),
            timers: Timers::default(),
            links: Links::default(),
            host: HostState::default(),
            precedence: Precedence::default(),
            conflicts: Conflicts::default(),
            harms: Harms::default(),
            facts: None,
            lan: None,
            ailments: BTreeMap::new(),
            cannot_list: None,
            weighs_all: true,
            bursts: Rounds::bursts(),
            refreshes: Rounds::refreshes(),
            probing: BTreeSet::new(),
            news: Vec::new(),
            stopping: None,
        }
    }

    /// Handles one event and returns what must be done.
    pub fn step(&mut self, now: Now, event: Event) -> Turn {
        let mut turn = Turn::default();
        self.give_up_late_probes(now);
        // What was noticed on the host since the last step must count for the writes of this step.
        self.weigh(now, &mut turn);
        match event {
            Event::Wanted(groups) => self.want(now, groups, &mut turn),
            Event::Seen(slot, source, record) => self.seen(now, slot, source, record, &mut turn),
            Event::Election(slot, input) => self.feed(now, slot, input, &mut turn),
            Event::Silenced(slot, silent) => self.silenced(now, slot, silent, &mut turn),
            Event::Facts(facts) => {
                self.weighs_all |= self.facts.as_ref() != Some(&facts);
                self.facts = Some(facts);
            }
            Event::Lan(why) => {
                self.weighs_all |= self.lan != why;
                self.tell("LAN", Of::Node, why.clone());
                self.lan = why;
            }
            Event::Health(service, ailment) => self.hear_of(service, ailment),
            Event::MayList(why) => {
                self.weighs_all |= self.cannot_list != why;
                self.tell("rights", Of::Node, why.clone());
                self.cannot_list = why;
            }
            Event::Claim(claim) => self.claimed(now, &claim, &mut turn),
            Event::HostChanged => self.host.has_changed(now.boot),
            Event::Stop => {
                self.stopping.get_or_insert(now.boot);
                // Guards will be removed. So whatever other programs have put on this host since the
                // last look must be known.
                self.host.read_again();
                for slot in self.slots_in_use() {
                    self.feed(now, slot, Input::Leave, &mut turn);
                }
            }
            Event::Tick => self.tick(now, &mut turn),
        }
        self.weigh(now, &mut turn);
        if turn.host {
            self.host.forget_plan();
        }
        turn.news.append(&mut self.news);
        turn
    }

    /// The latest time for the next call of [`step`](Self::step) with [`Event::Tick`], and for a look
    /// at what is due. The guard has its own time: [`guard_due`](Self::guard_due).
    pub fn wake_at(&self) -> Option<BootNs> {
        let frames = [self.bursts.wake_at(), self.refreshes.wake_at()];
        let clearing = self.clearing.values().map(|(_, at)| *at).min();
        let host = self.host.due().map(|at| self.precedence.wake_at(at));
        [self.timers.next(), clearing, host].into_iter().chain(frames).flatten().min()
    }

    /// Whether the entries of this host have matched the desired state at least once.
    pub const fn is_reconciled(&self) -> bool {
        self.host.reconciled
    }

    /// The groups by slot.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(slot, group)| (*slot, group))
    }

    /// The group of a slot.
    pub fn group(&self, slot: u32) -> Option<&Group> {
        self.groups.get(&slot)
    }

    /// The nodes of the cluster by MAC address.
    pub const fn nodes(&self) -> &BTreeMap<Mac, String> {
        self.conflicts.nodes()
    }

    /// Takes the news that arose outside of a step.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// The reasons why this node could not take over now, in words.
    pub fn lacks(&self, now: BootNs) -> Vec<&'static str> {
        let unread = |group: &Group| group.election.ownership(now) == Ownership::Unknown;
        let lacks = [
            (!self.host.reconciled, "the entries of this host have not been reconciled yet"),
            (self.groups.values().any(unread), "the Lease has not been read yet"),
            (!self.is_usable(), "no answering interface is up and guarded"),
            (self.cannot_list.is_some(), "it may not list Leases: apply the Role of this version"),
            (self.stopping.is_some(), "this process is stopping"),
        ];
        lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, what)| what).collect()
    }

    /// Whether every group was given up, and the addresses are gone after their time for late traffic.
    pub fn has_stopped(&self, now: BootNs) -> bool {
        let Some(settled) = self.host.settled_at.filter(|_| self.stopping.is_some()) else {
            return false;
        };
        let gone = |group: &Group| match group.election.ownership(now) {
            Ownership::Gone { since } => since <= settled && group.silence_at.is_none(),
            _ => false,
        };
        self.groups.values().all(gone)
    }

    /// Whether all groups were given up, but the host could not be tidied up in time. This host is
    /// silent, and the addresses that are left expire. A process that waits longer would be killed.
    pub fn gives_up(&self, now: BootNs) -> bool {
        self.stopping.is_some_and(|stopping| {
            self.groups.values().all(|group| match group.election.ownership(now) {
                Ownership::Gone { since } => since.max(stopping).after(TIDYING) <= now,
                _ => false,
            })
        })
    }

    /// The fence of a group was raised, or could not be. `new` says whether this begins a time with a
    /// live fence.
    pub fn raised(&mut self, now: BootNs, slot: u32, new: bool, raised: Result<(), String>) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        group.silence_at = None;
        if new {
            group.held_since = Some(now);
        }
        for vip in &group.spec.vips {
            match &raised {
                Ok(()) => self.weighs_all |= self.harms.worked(*vip, Harm::Fence),
                Err(why) => self.harms.failed(*vip, Harm::Fence, why.clone(), now),
            }
        }
        self.weighs_all |= raised.is_err();
        self.tell("fence", Of::Group(slot), raised.err());
    }

    fn slots_in_use(&self) -> Vec<u32> {
        self.groups.keys().copied().collect()
    }

    /// Lets the election of a group take one step.
    fn feed(&mut self, now: Now, slot: u32, input: Input, turn: &mut Turn) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        let silent_since = group.election.silent_since();
        let mut effects = group.election.step(now, input);
        if effects.silence.is_some() {
            group.announce_at.clear();
        }
        if effects.announce {
            group.begin_burst(now.boot);
        }
        if asks_the_lan(&mut effects) {
            let rounds = if group.election.asks_for_all() { &QUESTIONS } else { &PROBES };
            group.probe_at = Schedule::of(now.boot, rounds);
            self.probing.insert(slot);
        }
        turn.take_in(slot, effects, silent_since);
        self.schedule_linger_end(now.boot, slot);
        self.tell_obstacles(now.boot, slot);
        self.weigh_one(now, slot, turn);
        self.set_timer(now.boot, slot);
    }

    fn set_timer(&mut self, now: BootNs, slot: u32) {
        let at = self.groups.get(&slot).and_then(|group| group.wake_at(now));
        self.timers.set(slot, at);
    }

    /// Does what is due at this time.
    fn tick(&mut self, now: Now, turn: &mut Turn) {
        // These groups ended in an earlier turn, and their news has been reported.
        self.forget_groups(now.boot);
        for slot in self.timers.due(now.boot) {
            let Some(group) = self.groups.get_mut(&slot) else { continue };
            group.damper.observe(now.boot, group.reach < Fitness::Unable, false);
            if group.silence_at.is_some_and(|at| at <= now.boot) {
                group.silence_at = Some(now.boot.after(SILENCE_RETRY));
                turn.silence.push((slot, Why::Again));
            }
            self.begin_round(now.boot, slot);
            self.feed(now, slot, Input::Tick, turn);
        }
        for (slot, (_, at)) in self.clearing.iter_mut().filter(|(_, (_, at))| *at <= now.boot) {
            *at = now.boot.after(SILENCE_RETRY);
            turn.silence.push((*slot, Why::Unwanted));
        }
        self.weighs_all |= self.harms.forget(now.boot);
        self.forget_conflicts(now.boot);
    }

    /// The outcome of an attempt to silence the kernel. Without certainty nothing is released, and the
    /// attempt is repeated.
    fn silenced(&mut self, now: Now, slot: u32, silent: bool, turn: &mut Turn) {
        if silent && let Some((generation, _)) = self.clearing.remove(&slot) {
            self.slots.give_back(slot, generation);
            return self.begin_missing(now.boot);
        }
        let Some(group) = self.groups.get_mut(&slot) else { return };
        group.silence_at = (!silent).then(|| now.boot.after(SILENCE_RETRY));
        if silent {
            return self.feed(now, slot, Input::Silenced, turn);
        }
        self.set_timer(now.boot, slot);
    }

    fn tell(&mut self, what: &'static str, of: Of, why: Option<String>) {
        self.news.push(News::Problem(Subject { what, of }, why));
    }

    /// Reports the obstacles to VIPs whose Lease this node holds.
    fn tell_obstacles(&mut self, now: BootNs, slot: u32) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        let holds = group.election.ownership(now).is_ours();
        let held_back = group.election.held_back();
        if held_back != group.held_back {
            group.held_back = held_back;
            let why = held_back.map(|why| why.to_string());
            self.news.push(News::Problem(Subject { what: "foreign holder", of: Of::Group(slot) }, why));
        }
        for (vip, why) in group.election.take_obstacles().unwrap_or_default() {
            let news = match why.filter(|_| holds) {
                Some(why) => News::Refused(slot, vip, why.to_string()),
                None => News::Problem(Subject { what: "VIP", of: Of::Vip(vip) }, None),
            };
            self.news.push(news);
        }
    }
}

/// Removes the request to ask the LAN, because probes are sent in rounds. Returns whether there was
/// one.
fn asks_the_lan(effects: &mut Effects) -> bool {
    let requests = effects.sends.len();
    effects.sends.retain(|send| *send != Outgoing::Probe);
    effects.sends.len() < requests
}

#[cfg(test)]
mod tests;
