//! The whole node, without I/O: what happens comes in, a [`Turn`] goes out. The loop and the simulation
//! drive the same agent.
//!
//! Work that can wait for the next turn is not in a `Turn`. The loop takes it off the agent piece by
//! piece while the turn has time ([`next_on_host`](Agent::next_on_host),
//! [`next_frames`](Agent::next_frames), [`next_probe`](Agent::next_probe)), and reports the outcome.

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
    election::{Identity, Input, Source},
    facts::NodeFacts,
    fitness::Fitness,
    group::{Group, GroupSpec},
    harm::{Harm, Harms},
    news::{News, Of, Subject, Why},
    ownership::Ownership,
    policy::ConflictPolicy,
    precedence::Precedence,
    record::Record,
    schedule::{PROBES, Schedule},
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
use vip_common::abi::Claim;

/// A fence that could not be cleared is tried again after this.
const SILENCE_RETRY: Duration = Duration::from_millis(50);
/// A host that does not let itself be tidied up for this long after the VIPs are given up is left as it
/// is.
const TIDYING: Duration = Duration::from_secs(5);

/// What the operator has chosen.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who this is.
    pub me: Identity,
    /// The timings of every Lease.
    pub timing: Timing,
    /// Between refreshing announcements; zero: none.
    pub refresh: Duration,
    /// What is done about other stations that claim a VIP.
    pub conflict: ConflictPolicy,
    /// The kernel drops claims that contradict the Lease.
    pub guard_neighbours: bool,
    /// Where held VIPs are put.
    pub placement: Placement,
    /// The LAN is asked for an address before it is published under a Lease for the first time (RFC
    /// 5227).
    pub asks_first: bool,
}

/// What happens to the node.
#[derive(Clone, Debug)]
pub enum Event {
    /// All groups that are wanted, and no others.
    Wanted(Vec<GroupSpec>),
    /// The Lease of a slot was read (`None`: it does not exist).
    Seen(u32, Source, Option<Record>),
    /// Something else happens to the election of a slot.
    Election(u32, Input),
    /// The kernel was to be silenced for a slot: whether it is known to be silent.
    Silenced(u32, bool),
    /// This node as the API shows it.
    Facts(NodeFacts),
    /// Why the LAN does not answer; `None`: it does.
    Lan(Option<String>),
    /// Why this process may not list Leases; `None`: it may.
    MayList(Option<String>),
    /// Another station claims an address.
    Claim(Claim),
    /// Links or addresses have changed.
    HostChanged,
    /// Everything is given up.
    Stop,
    /// A turn ends, or something is due.
    Tick,
}

/// The whole node.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    /// By slot.
    groups: BTreeMap<u32, Group>,
    /// Counts the groups.
    serial: u64,
    slots: Slots,
    /// What is wanted by name, once that is known.
    wanted: Option<BTreeMap<String, GroupSpec>>,
    /// Slots that nobody wants: the highest generation of each, and when its fence is cleared again.
    clearing: BTreeMap<u32, (u64, BootNs)>,
    /// When each group has something to do.
    timers: Timers,
    links: Links,
    host: HostState,
    precedence: Precedence,
    conflicts: Conflicts,
    harms: Harms,
    /// This node, once the API has shown it.
    facts: Option<NodeFacts>,
    /// Why the LAN seems to be away.
    lan: Option<String>,
    /// Why it may not list Leases.
    cannot_list: Option<String>,
    /// Something has changed that speaks for or against the whole node.
    weighs_all: bool,
    bursts: Rounds,
    refreshes: Rounds,
    /// Groups with address probes to send.
    probing: BTreeSet<u32>,
    news: Vec<News>,
    /// When a stop was asked for.
    stopping: Option<BootNs>,
}

/// When each group has something to do.
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
    /// A node that knows which slots there are, and nothing else yet.
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
            cannot_list: None,
            weighs_all: true,
            bursts: Rounds::bursts(),
            refreshes: Rounds::refreshes(),
            probing: BTreeSet::new(),
            news: Vec::new(),
            stopping: None,
        }
    }

    /// Takes one event in and says what is to be done.
    pub fn step(&mut self, now: Now, event: Event) -> Turn {
        let mut turn = Turn::default();
        self.give_up_late_probes(now);
        // What was seen on the host since the last step counts for what is written now.
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
            Event::MayList(why) => {
                self.weighs_all |= self.cannot_list != why;
                self.tell("rights", Of::Node, why.clone());
                self.cannot_list = why;
            }
            Event::Claim(claim) => self.claimed(now, &claim, &mut turn),
            Event::HostChanged => self.host.has_changed(now.boot),
            Event::Stop => {
                self.stopping.get_or_insert(now.boot);
                // Guards go: what others have put on this host since the last look counts.
                self.host.read_again();
                for slot in self.slots_in_use() {
                    self.feed(now, slot, Input::Leave, &mut turn);
                }
            }
            Event::Tick => self.tick(now, &mut turn),
        }
        self.weigh(now, &mut turn);
        turn.news.append(&mut self.news);
        turn
    }

    /// When to call [`step`](Self::step) with [`Event::Tick`], and to look what is due, at the latest.
    /// The guard has a time of its own: [`guard_due`](Self::guard_due).
    pub fn wake_at(&self) -> Option<BootNs> {
        let frames = [self.bursts.wake_at(), self.refreshes.wake_at()];
        let clearing = self.clearing.values().map(|(_, at)| *at).min();
        let host = self.host.due().map(|at| self.precedence.wake_at(at));
        [self.timers.next(), clearing, host].into_iter().chain(frames).flatten().min()
    }

    /// Whether the entries of this host have been what they should be once.
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
    pub const fn nodes(&self) -> &BTreeMap<[u8; 6], String> {
        self.conflicts.nodes()
    }

    /// What was noticed outside of a step.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// What this node lacks before it could take over, in words.
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

    /// Left, and the addresses have lingered long enough and are gone.
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

    /// Left, and the host does not let itself be tidied up. Nobody answers any more, and what is left
    /// on the host ends with its lifetime; a process that does not end would be killed.
    pub fn gives_up(&self, now: BootNs) -> bool {
        self.stopping.is_some_and(|stopping| {
            self.groups.values().all(|group| match group.election.ownership(now) {
                Ownership::Gone { since } => since.max(stopping).after(TIDYING) <= now,
                _ => false,
            })
        })
    }

    /// The fence of a group was raised, or could not be; `new` if that begins a tenure.
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

    /// One step of the election of a group.
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
            group.probe_at = Schedule::of(now.boot, &PROBES);
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

    /// What is due.
    fn tick(&mut self, now: Now, turn: &mut Turn) {
        // What has ended in an earlier turn: its news has been told.
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

    /// Without the certainty of silence nothing is released; it is tried again.
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

    /// What stands in the way of VIPs whose Lease this node holds.
    fn tell_obstacles(&mut self, now: BootNs, slot: u32) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        let holds = group.election.ownership(now).is_ours();
        for (vip, why) in group.election.take_obstacles().unwrap_or_default() {
            let news = match why.filter(|_| holds) {
                Some(why) => News::Refused(slot, vip, why.to_string()),
                None => News::Problem(Subject { what: "VIP", of: Of::Vip(vip) }, None),
            };
            self.news.push(news);
        }
    }
}

/// Takes the request to ask the LAN out: that is done by rounds.
fn asks_the_lan(effects: &mut Effects) -> bool {
    let requests = effects.sends.len();
    effects.sends.retain(|send| *send != Outgoing::Probe);
    effects.sends.len() < requests
}

#[cfg(test)]
mod tests;
