//! The world of two Leases.

use stateright::{Chooser, Model, Property};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use vip_user::model::{
    effects::{FenceChange, Outgoing},
    lease::{
        admission::Strike,
        election::{AdoptedFence, Election, Identity, Input, Source, Written},
        record::{LeaseWrite, Record, Tenure, TenureNote, Version},
        state::State,
    },
    time::{BootNs, Now},
    timing::Timing,
    turn::{self, Step},
};

/// Real time in microseconds.
type Us = u64;

/// The clocks of the hosts at the start, in nanoseconds.
const EPOCH: u64 = 1_000_000_000_000;
/// The start time of the read with which a watch begins: no earlier evidence overtakes it.
const JUST_BEGUN: BootNs = BootNs(u64::MAX);
const LEASES: [&str; 2] = ["a", "b"];
/// The Lease in each node's configuration: the holder of A, the holder of B, a candidate of A.
const TOLD: [usize; 3] = [0, 1, 0];

/// The nodes and what may happen to them.
#[derive(Clone, Debug)]
pub struct Bounds {
    rate: [u64; 3],
    horizon: Us,
    /// How far time advances in one step of the model checker.
    step: Us,
    beginning: Beginning,
    before: Before,
    /// This process may die once, and restart on the same boot.
    restart: Option<usize>,
    /// This node has stalled: it does nothing any more.
    still: Option<usize>,
}

/// How the world begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Both Leases exist for a while and are free. Both are about to be taken for the first time.
    BothNew,
    /// Lease A serves the VIP. Lease B is about to be taken for the first time.
    OneServes,
}

/// The last holder of the Leases that are about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Nobody,
    /// A program that is not xvip.
    Stranger,
    /// A version of xvip that does not write what it guards.
    OldVersion,
}

/// What can be the next thing to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Time advances to the next instant at which something is due.
    Time,
    /// The message of a node with this index arrives; 0 is the oldest.
    Arrive(usize, usize),
    /// The next event of a node's watch arrives.
    Event(usize),
    /// A node's timer, which may be late.
    Tick(usize),
    /// The process of this node dies and restarts.
    Restart(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Write(LeaseWrite),
    Read(BootNs),
    List(u64),
    Strike(Strike),
    Input(Input),
    Listed(u64, Vec<(String, Record)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    election: Election,
    process: u8,
    /// State of the kernel, which survives the process.
    fence: BootNs,
    fence_generation: u64,
    entry: u64,
    tenure: Option<(Tenure, u32)>,
    messages: Vec<Message>,
    stream: Vec<Input>,
    /// Whether the watch is open. If not, a read comes before the next watch.
    open: bool,
    still: bool,
}

/// The whole state at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    now: Us,
    began: Us,
    nodes: Vec<Node>,
    leases: [Record; 2],
    version: u64,
    restarted: bool,
    other_serves: bool,
}

fn vip() -> IpAddr {
    IpAddr::from([192, 0, 2, 10])
}

fn timing() -> Timing {
    Timing { renew_every: Duration::from_millis(600), ..Timing::of(1) }
}

fn election(node: usize, process: u8, generation: u64, adopted: Option<AdoptedFence>) -> Election {
    let me = Identity {
        node: node.to_string(),
        process: format!("{node}-{process}"),
        boot_id: node.to_string(),
    };
    let mut election = Election::new(me, timing(), generation, adopted);
    election.admit_only(LEASES[TOLD[node]], &[vip()], Duration::ZERO);
    election
}

impl Bounds {
    pub fn of(beginning: Beginning, rate: [u64; 3], still: usize, restart: Option<usize>) -> Self {
        // With a restart, more time would mean many millions of states.
        let (step, steps) = match beginning {
            Beginning::BothNew if restart.is_some() => (450_000, 1),
            Beginning::BothNew => (450_000, 2),
            Beginning::OneServes => (450_000, 20),
        };
        Self {
            rate,
            horizon: steps * step,
            step,
            beginning,
            restart,
            still: Some(still),
            before: Before::Nobody,
        }
    }

    /// Whether it has too many states to search all.
    pub fn is_wide(&self) -> bool {
        self.beginning == Beginning::OneServes
    }

    /// Gives the Leases that are about to be taken a last holder, which no longer acts.
    pub fn after(self, before: Before) -> Self {
        // The LAN is asked first, for 1.5 seconds.
        let asked = if before == Before::Stranger { 1_600_000 } else { 0 };
        Self { before, horizon: self.horizon + asked, ..self }
    }

    /// A Lease before it is taken.
    fn lease(&self, lease: usize) -> Record {
        let record = Record::unheld(lease.to_string(), 100 + lease as u64, 1);
        let (holder, transitions, acquire_us) = ("gone".to_owned(), 3, 1_600_000_000_000_000);
        let (process, boot_id) = (holder.clone(), holder.clone());
        let note = TenureNote { holder: holder.clone(), transitions, acquire_us, process, boot_id };
        let renew_us = Some(acquire_us);
        match self.before {
            Before::Nobody => record,
            Before::Stranger => {
                Record { holder, transitions, acquire_us: renew_us, renew_us, ..record }
            }
            Before::OldVersion => Record {
                holder,
                transitions,
                acquire_us: renew_us,
                renew_us,
                note: Some(note),
                ..record
            },
        }
    }

    fn clock(&self, node: usize, now: Us) -> Now {
        Now {
            boot: BootNs(EPOCH + now * self.rate[node] * 10),
            wall_us: 1_700_000_000_000_000 + now as i64,
        }
    }

    fn speaks(&self, world: &World, index: usize) -> bool {
        let node = &world.nodes[index];
        let live = self.clock(index, world.now).boot < node.fence;
        live && node.entry != 0 && node.entry == node.fence_generation
    }

    fn real(&self, node: usize, at: BootNs) -> Us {
        at.0.saturating_sub(EPOCH).div_ceil(self.rate[node] * 10)
    }

    /// Carries out one turn of a node in its order.
    fn take_in(&self, world: &mut World, index: usize, input: Input) {
        let now = self.clock(index, world.now);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let node = &mut world.nodes[index];
            let mut turn = turn::Turn::of(0, node.election.step(now, input));
            while let Some(step) = turn.next(true) {
                match step {
                    Step::Fence(
                        _,
                        FenceChange::Raise { tenure, deadline, duration_s, generation, .. },
                    ) => {
                        (node.fence, node.fence_generation) = (deadline, generation);
                        node.tenure = Some((tenure, duration_s));
                    }
                    Step::Fence(_, FenceChange::Lower(deadline)) => node.fence = deadline,
                    Step::Silence(_) => {
                        node.fence = BootNs(0);
                        inputs.push(Input::Silenced);
                    }
                    Step::Host => node.reconcile(),
                    Step::Send(_, send) => node.messages.extend(message(send, now)),
                    Step::KeepBack(_, id) => {
                        inputs.push(Input::Written { id, outcome: Written::KeptBack });
                    }
                    Step::Stations(..) | Step::News(_) => {}
                }
            }
            world.other_serves |= index == 1 && self.speaks(world, 1);
        }
    }

    fn arrive(&self, world: &mut World, index: usize, message: usize) {
        let lease = TOLD[index];
        match world.nodes[index].messages.remove(message) {
            Message::Input(input) => self.take_in(world, index, input),
            Message::Read(began) => {
                let seen = Input::Observed(Source::Quorum(began), Some(world.leases[lease].clone()));
                let node = &mut world.nodes[index];
                if node.open {
                    node.messages.push(Message::Input(seen));
                } else {
                    node.stream.push(seen);
                    node.open = true;
                }
            }
            Message::List(number) => {
                let named = |(name, record): (&str, &Record)| (name.to_owned(), record.clone());
                let all = LEASES.into_iter().zip(&world.leases).map(named).collect();
                world.nodes[index].messages.push(Message::Listed(number, all));
            }
            Message::Listed(number, leases) => {
                self.take_in(world, index, Input::Listed(number, Ok(leases)));
            }
            Message::Strike(strike) => world.strike(&strike),
            Message::Write(write) => {
                let outcome = world.store(&write, index);
                let written = Input::Written { id: write.id, outcome };
                world.nodes[index].messages.push(Message::Input(written));
            }
        }
    }

    fn restart(world: &mut World, index: usize) {
        world.restarted = true;
        let node = &mut world.nodes[index];
        node.process += 1;
        let slot = node.tenure.clone().filter(|_| node.fence > BootNs(0));
        let served = BTreeSet::from_iter(node.election.admits(vip()).then(vip));
        let slot = slot.map(|(tenure, duration_s)| AdoptedFence {
            tenure,
            until: node.fence,
            duration_s,
            served,
        });
        node.election = election(index, node.process, node.election.generation(), slot);
        // Requests in flight may still be stored, but no process receives the answers.
        node.messages.retain(|message| matches!(message, Message::Write(_) | Message::Strike(_)));
        node.stream.clear();
        node.open = false;
        node.messages.push(Message::Read(JUST_BEGUN));
    }

    /// The next instant at which something is due.
    fn next_instant(&self, world: &World) -> Us {
        let due = (0..world.nodes.len()).flat_map(|index| {
            let node = &world.nodes[index];
            let wake = node.election.wake_at(self.clock(index, world.now).boot);
            [wake, Some(node.fence)].into_iter().flatten().map(move |at| self.real(index, at))
        });
        due.filter(|at| *at > world.now).min().unwrap_or(world.now + 500_000).min(world.now + 500_000)
    }

    fn beginning(&self) -> World {
        let node = |index: usize| Node {
            election: election(index, 0, 0, None),
            process: 0,
            fence: BootNs(0),
            fence_generation: 0,
            entry: 0,
            tenure: None,
            messages: Vec::new(),
            stream: Vec::new(),
            open: true,
            still: false,
        };
        let mut world = World {
            now: 0,
            began: 0,
            nodes: (0..3).map(node).collect(),
            leases: [0, 1].map(|lease| Record::unheld(lease.to_string(), 100 + lease, 1)),
            version: 102,
            restarted: false,
            other_serves: false,
        };
        if self.beginning == Beginning::OneServes {
            self.watch(&mut world, 0);
            while !self.speaks(&world, 0) {
                self.turn(&mut world, 0);
            }
            world.leases[1] = self.lease(1);
        } else {
            world.leases = [0, 1].map(|lease| self.lease(lease as usize));
        }
        for index in 0..world.nodes.len() {
            if index != 0 || self.beginning != Beginning::OneServes {
                self.watch(&mut world, index);
            }
        }
        // By now every node has waited long enough for the last holder; only a live holder renews.
        let waited = if self.before == Before::Nobody { 4_500_000 } else { 15_000_000 };
        let unheld = world.now + waited;
        while world.now < unheld {
            world.now = self.next_instant(&world).min(unheld);
            if self.beginning == Beginning::OneServes {
                for index in [0, 2] {
                    self.prompt(&mut world, index);
                }
            }
        }
        world.began = world.now;
        for (index, node) in world.nodes.iter_mut().enumerate() {
            node.still = self.still == Some(index);
            if node.still {
                node.stream.clear();
                node.messages.clear();
            }
        }
        world
    }

    fn watch(&self, world: &mut World, index: usize) {
        let seen = Input::Observed(Source::Quorum(JUST_BEGUN), Some(world.leases[TOLD[index]].clone()));
        self.take_in(world, index, seen);
    }

    /// Everything that is due for a node happens.
    fn prompt(&self, world: &mut World, index: usize) {
        self.take_in(world, index, Input::Tick);
        for _ in 0..20 {
            if !world.nodes[index].stream.is_empty() {
                let event = world.nodes[index].stream.remove(0);
                self.take_in(world, index, event);
            } else if !world.nodes[index].messages.is_empty() {
                self.arrive(world, index, 0);
            }
        }
    }

    fn turn(&self, world: &mut World, index: usize) {
        world.now = self.next_instant(world);
        self.prompt(world, index);
    }

    /// Runs the world without delays for the time `long`. Returns whether the VIP is answered at
    /// the end. One node may be switched off. `only_b`: no node is a candidate of Lease A any more.
    pub fn promptly(&self, silent: Option<usize>, only_b: bool, long: Us) -> bool {
        let mut world = self.beginning();
        let end = world.now + long;
        while world.now < end {
            world.now = self.next_instant(&world);
            for (index, told) in TOLD.iter().enumerate().take(world.nodes.len()) {
                if Some(index) != silent && !world.nodes[index].still && !(only_b && *told == 0) {
                    self.prompt(&mut world, index);
                }
            }
            let owners = (0..world.nodes.len()).filter(|index| self.speaks(&world, *index)).count();
            assert!(owners < 2, "two owners");
        }
        (0..world.nodes.len()).any(|index| self.speaks(&world, index))
    }
}

/// The message of an effect, if it matters here.
fn message(send: Outgoing, now: Now) -> Option<Message> {
    match send {
        Outgoing::Write(write) => Some(Message::Write(write)),
        Outgoing::Read => Some(Message::Read(now.boot)),
        Outgoing::List(number) => Some(Message::List(number)),
        Outgoing::Strike(strike) => Some(Message::Strike(strike)),
        Outgoing::Create | Outgoing::Offer(..) | Outgoing::Probe | Outgoing::Visit(_) => None,
    }
}

impl Node {
    fn reconcile(&mut self) {
        let holds = matches!(self.election.state(), State::Holding(_));
        let serves = holds && self.election.admits(vip());
        match self.election.state() {
            State::Unknown => {}
            _ if serves => self.entry = self.election.generation(),
            _ => self.entry = 0,
        }
    }
}

impl World {
    fn store(&mut self, write: &LeaseWrite, by: usize) -> Written {
        let lease = &self.leases[TOLD[by]];
        if write.base.as_ref() != Some(&lease.version) {
            return Written::Conflict;
        }
        self.version += 1;
        let record = write.stored(lease.uid.clone(), self.version);
        self.leases[TOLD[by]] = record.clone();
        self.tell(TOLD[by], Some(by));
        Written::Stored(record)
    }

    fn strike(&mut self, strike: &Strike) {
        let index = usize::from(strike.lease == LEASES[1]);
        if self.leases[index].version != strike.base {
            return;
        }
        self.version += 1;
        self.leases[index].version = Version(self.version.to_string());
        self.leases[index].guarded = Some(strike.guarded.clone());
        self.tell(index, None);
    }

    /// Adds an event to each watch but that of the writer, whose answer has the same content. A
    /// watch that is more than two events behind breaks off.
    fn tell(&mut self, lease: usize, but: Option<usize>) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if but == Some(index) || TOLD[index] != lease || !node.open || node.still {
                continue;
            }
            if node.stream.len() < 2 {
                node.stream.push(Input::Observed(Source::Watch, Some(self.leases[lease].clone())));
            } else {
                node.stream.clear();
                node.open = false;
                node.messages.push(Message::Read(JUST_BEGUN));
            }
        }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Turn;

    fn init_states(&self) -> Vec<World> {
        vec![self.beginning()]
    }

    fn actions(&self, world: &World, turns: &mut Vec<Turn>) {
        turns.push(Turn::Time);
        for (index, node) in world.nodes.iter().enumerate() {
            if self.still == Some(index) {
                continue;
            }
            turns.extend((0..node.messages.len()).map(|message| Turn::Arrive(index, message)));
            if !node.stream.is_empty() {
                turns.push(Turn::Event(index));
            }
            let now = self.clock(index, world.now).boot;
            let due = node.election.wake_at(now).is_some_and(|at| at <= now);
            if due && node.messages.is_empty() {
                turns.push(Turn::Tick(index));
            }
        }
        turns.extend(self.restart.filter(|_| !world.restarted).map(Turn::Restart));
    }

    fn next_state(&self, world: &World, turn: Turn) -> Option<World> {
        let mut next = world.clone();
        match turn {
            // `exhaustive` checks the arithmetic of the fence; here only the order matters.
            Turn::Time => next.now += self.step,
            Turn::Arrive(index, message) => self.arrive(&mut next, index, message),
            Turn::Event(index) => {
                let event = next.nodes[index].stream.remove(0);
                self.take_in(&mut next, index, event);
            }
            Turn::Tick(index) => self.take_in(&mut next, index, Input::Tick),
            Turn::Restart(index) => Self::restart(&mut next, index),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one owner", |bounds: &Self, world: &World| {
                (0..world.nodes.len()).filter(|node| bounds.speaks(world, *node)).count() < 2
            }),
            Property::sometimes("the other Lease serves", |_: &Self, world: &World| world.other_serves),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.now <= world.began + self.horizon
    }
}

/// Random walks. Time advances once in a while. Now and then a node stalls for some turns, or the
/// oldest message of each node does not arrive.
#[derive(Clone)]
pub struct Walk;

pub struct Walker {
    lots: fastrand::Rng,
    idle: usize,
    held_up: bool,
}

impl Chooser<Bounds> for Walk {
    type State = Walker;

    fn new_state(&self, seed: u64) -> Walker {
        Walker { lots: fastrand::Rng::with_seed(seed), idle: TOLD.len(), held_up: false }
    }

    fn choose_initial_state(&self, walker: &mut Walker, worlds: &[World]) -> usize {
        walker.lots.usize(..worlds.len())
    }

    fn choose_action(&self, walker: &mut Walker, _world: &World, turns: &[Turn]) -> usize {
        let lots = &mut walker.lots;
        if lots.u8(..60) == 0 {
            walker.idle = lots.usize(..=TOLD.len());
        }
        if lots.u8(..60) == 0 {
            walker.held_up = !walker.held_up;
        }
        let waits = |turn: &Turn| match turn {
            Turn::Time => false,
            Turn::Arrive(_, 0) if walker.held_up => true,
            Turn::Arrive(node, _) | Turn::Event(node) | Turn::Tick(node) | Turn::Restart(node) => {
                *node == walker.idle
            }
        };
        let rest: Vec<usize> = (1..turns.len()).filter(|turn| !waits(&turns[*turn])).collect();
        // `Turn::Time` comes first.
        if rest.is_empty() || lots.u8(..8) == 0 { 0 } else { rest[lots.usize(..rest.len())] }
    }
}
