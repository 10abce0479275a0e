//! The real election of two or three nodes with one Lease, under a model checker. It tries every order
//! of what can happen in a short time, while the simulation draws events at random.

use stateright::{Model, Property};
use std::collections::BTreeSet;
use vip_user::model::{
    effects::{FenceChange, Outgoing},
    fitness::Fitness,
    lease::election::{AdoptedFence, Election, Identity, Input, Source, Written},
    lease::offers::Offer,
    lease::record::{LeaseWrite, Record, Tenure, Version},
    lease::state::State,
    time::{BootNs, Now},
    timing::Timing,
    turn::{self, Step},
};

/// Real time in microseconds.
type Us = u64;

/// The start time of every read that nothing has overtaken: all earlier and later starts are alike.
const JUST_BEGUN: BootNs = BootNs(u64::MAX);
const OVERTAKEN: BootNs = BootNs(0);
/// The clocks of the hosts at the start, in nanoseconds.
const EPOCH: u64 = 1_000_000_000_000;

/// The nodes and what may happen to them.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub timing: Vec<Timing>,
    /// How fast their clocks run, in percent of real time.
    pub rate: Vec<u64>,
    /// How long a frame may stay queued after the check.
    pub queued: Us,
    /// The time at which the search ends.
    pub horizon: Us,
    /// How far time advances in one step while nothing is due.
    pub step: Us,
    /// A node with this many messages in flight does nothing until one has arrived.
    pub messages: usize,
    /// A mishap that may happen once, at any moment.
    pub mishap: Option<Mishap>,
    pub beginning: Beginning,
}

/// How the world begins. Node 0 has taken the Lease in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It holds the Lease, the others follow, and no message is in flight.
    Held,
    /// It has released the Lease and the last node has taken it; the others have missed both. The
    /// release was answered; [`Mishap::Restore`] restores it.
    Released,
    /// The same, but the answer was lost, and [`Mishap::Restore`] restores the content before the
    /// release.
    ReleaseLost,
    /// The Lease was deleted, and node 0's request to create it with its tenure is late. The last
    /// node has found no Lease, and holds one by now.
    CreateLate,
    /// The same, and node 0 has to stop.
    CreateLateLeaving,
    /// It gives way to another node, but could not release the Lease, and the time for that is
    /// nearly over.
    GivingWay,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// The Lease is deleted.
    Delete,
    /// Its holder is cleared by hand.
    Blank,
    /// Its content at the start is restored (etcd from a snapshot).
    Restore,
    /// D is edited by hand.
    Edit(u32),
    /// A node has to stop.
    Leave(usize),
    /// A process dies and another starts on the same boot.
    Restart(usize),
    /// A watch breaks off, and its pending events are lost.
    Break(usize),
    /// An answer is lost, which shows as a failure.
    Fail(usize),
    /// A read fails.
    FailRead(usize),
    /// The process of node 0 dies, and a client-go program under the same name renews its tenure. It
    /// answers for a while.
    RollBack,
}

/// What can be the next thing to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Time advances to the next instant at which something is due.
    Time,
    /// A message arrives, after any delay.
    Arrive(usize),
    /// The next event of a node's watch arrives.
    Event(usize),
    /// A node's watch begins again with a read.
    Reopen(usize),
    /// A node's timer, which may be late, like every process.
    Tick(usize),
    /// A mishap.
    Mishap(Mishap),
}

/// A message in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Write(LeaseWrite),
    Create(u32),
    Read(BootNs),
    Input(Input),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    election: Election,
    process: u8,
    /// State of the kernel, which survives the process.
    fence: BootNs,
    tenure: Option<(Tenure, u32)>,
    /// Messages in flight to or from this node; they arrive in any order.
    messages: Vec<Message>,
    /// Pending events of its watch, in order.
    stream: Vec<Input>,
    /// Whether the watch is open. If not, a read must come before the next watch.
    open: bool,
    /// Whether its process has ended.
    down: bool,
}

/// The whole state at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    now: Us,
    began: Us,
    nodes: Vec<Node>,
    lease: Option<Record>,
    first: Option<Record>,
    version: u64,
    uids: u64,
    mishap_over: bool,
    /// Until when a client-go program on node 0 answers.
    foreign_until: Us,
    /// A timer was due, and the election neither moved it nor did anything: the process spins.
    spins: bool,
    /// Whether a node other than the first has raised a fence. This shows that the model can do
    /// something.
    pub moved: bool,
}

impl Bounds {
    fn clock(&self, node: usize, now: Us) -> Now {
        Now {
            boot: BootNs(EPOCH + now * self.rate[node] * 10),
            wall_us: 1_700_000_000_000_000 + now as i64,
        }
    }

    /// Whether a claim of the node can be on the wire: its fence is live, or was when the frame was
    /// queued.
    fn speaks(&self, world: &World, node: usize) -> bool {
        if node == 0 && world.now < world.foreign_until {
            return true;
        }
        let then = world.now.saturating_sub(self.queued);
        self.clock(node, then).boot < world.nodes[node].fence
    }

    /// The real time at which a node's clock shows `at`, rounded up.
    fn real(&self, node: usize, at: BootNs) -> Us {
        at.0.saturating_sub(EPOCH).div_ceil(self.rate[node] * 10)
    }

    fn step(&self, world: &mut World, index: usize, input: Input) {
        let now = self.clock(index, world.now);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let node = &mut world.nodes[index];
            let evidence_at = node.election.evidence_at();
            let effects = node.election.step(now, input);
            if node.election.evidence_at() != evidence_at {
                node.overtake_reads();
            }
            let mut turn = turn::Turn::of(0, effects);
            let due = node.election.wake_at(now.boot).is_some_and(|at| at <= now.boot);
            world.spins |= due && turn.is_quiet();
            while let Some(step) = turn.next(true) {
                match step {
                    Step::Fence(_, FenceChange::Raise { tenure, deadline, duration_s, new, .. }) => {
                        node.fence = deadline;
                        node.tenure = Some((tenure, duration_s));
                        world.moved |= new && index > 0;
                    }
                    Step::Fence(_, FenceChange::Lower(deadline)) => node.fence = deadline,
                    Step::Silence(_) => {
                        node.fence = BootNs(0);
                        inputs.push(Input::Silenced);
                    }
                    Step::Send(_, Outgoing::Write(write)) => node.messages.push(Message::Write(write)),
                    Step::Send(_, Outgoing::Read) => node.messages.push(Message::Read(JUST_BEGUN)),
                    Step::Send(_, Outgoing::Create) => {
                        let create = Message::Create(self.timing[index].duration_s);
                        node.messages.push(create);
                    }
                    Step::KeepBack(_, id) => {
                        inputs.push(Input::Written { id, outcome: Written::KeptBack });
                    }
                    Step::Host | Step::Stations(..) | Step::News(_) | Step::Send(..) => {}
                }
            }
        }
    }

    fn arrive(&self, world: &mut World, index: usize, message: usize) {
        match world.nodes[index].messages.remove(message) {
            Message::Input(_) if world.nodes[index].down => {}
            Message::Input(input) => self.step(world, index, input),
            Message::Read(began) => {
                let seen = Input::Observed(Source::Quorum(began), world.lease.clone());
                world.nodes[index].messages.push(Message::Input(seen));
            }
            Message::Create(duration_s) => {
                if world.lease.is_none() {
                    world.uids += 1;
                    world.version += 1;
                    let uid = world.uids.to_string();
                    world.lease = Some(Record::unheld(uid, world.version, duration_s));
                    world.tell(None);
                }
            }
            Message::Write(write) => {
                let outcome = world.store(&write, index);
                let written = Input::Written { id: write.id, outcome };
                world.nodes[index].messages.push(Message::Input(written));
            }
        }
    }

    fn befall(&self, world: &mut World, mishap: Mishap) -> Option<()> {
        world.mishap_over = true;
        match mishap {
            Mishap::Delete => {
                world.lease.take()?;
                world.tell(None);
            }
            Mishap::Blank => world.edit(|lease| lease.holder.clear())?,
            Mishap::Edit(duration_s) => world.edit(|lease| lease.duration_s = duration_s)?,
            Mishap::Restore => {
                let old = world.first.clone()?;
                world.edit(|lease| *lease = Record { version: lease.version.clone(), ..old })?;
            }
            Mishap::Leave(node) => self.step(world, node, Input::Leave),
            Mishap::Restart(index) => {
                let timing = self.timing[index].clone();
                let node = &mut world.nodes[index];
                node.process += 1;
                let adopted = node.tenure.clone().filter(|_| node.fence > BootNs(0));
                let slot = |(tenure, duration_s)| AdoptedFence {
                    tenure,
                    until: node.fence,
                    duration_s,
                    served: BTreeSet::new(),
                };
                let adopted = adopted.map(slot);
                let generation = node.election.generation();
                node.election =
                    Election::new(identity(index, node.process), timing, generation, adopted);
                // Requests on their way may still be stored. Their answers reach no process.
                node.messages
                    .retain(|message| matches!(message, Message::Write(_) | Message::Create(_)));
                node.stream.clear();
                node.open = false;
            }
            Mishap::Break(index) => {
                world.nodes[index].stream.clear();
                world.nodes[index].open = false;
            }
            Mishap::Fail(index) => {
                let messages = &mut world.nodes[index].messages;
                let answer = messages.iter_mut().find_map(|message| match message {
                    Message::Input(Input::Written { outcome, .. }) => Some(outcome),
                    _ => None,
                })?;
                *answer = Written::Failed;
            }
            Mishap::FailRead(index) => {
                let messages = &mut world.nodes[index].messages;
                let read = messages.iter_mut().find(|message| {
                    matches!(message, Message::Read(_) | Message::Input(Input::Observed(..)))
                })?;
                *read = Message::Input(Input::ReadFailed);
            }
            Mishap::RollBack => {
                if world.lease.as_ref()?.tenure()?.note.holder != "0" {
                    return None;
                }
                let node = &mut world.nodes[0];
                node.down = true;
                node.messages
                    .retain(|message| matches!(message, Message::Write(_) | Message::Create(_)));
                node.stream.clear();
                node.open = false;
                world.edit(|lease| lease.renew_us = lease.renew_us.map(|renew_us| renew_us + 1))?;
                world.foreign_until = world.now + 1_200_000 * u64::from(self.timing[0].duration_s);
            }
        }
        Some(())
    }

    /// The next instant at which something is due.
    fn next_instant(&self, world: &World) -> Us {
        let due = (0..world.nodes.len()).flat_map(|index| {
            let node = &world.nodes[index];
            let wake = node.election.wake_at(self.clock(index, world.now).boot);
            [wake, Some(node.fence)].into_iter().flatten().map(move |at| self.real(index, at))
        });
        let due = due.filter(|at| *at > world.now).min().unwrap_or(Us::MAX);
        due.min(world.now + self.step)
    }

    fn beginning(&self) -> World {
        let node = |index: usize| Node {
            election: Election::new(identity(index, 0), self.timing[index].clone(), 0, None),
            process: 0,
            fence: BootNs(0),
            tenure: None,
            messages: Vec::new(),
            stream: Vec::new(),
            open: false,
            down: false,
        };
        let mut world = World {
            now: 0,
            began: 0,
            nodes: (0..self.timing.len()).map(node).collect(),
            lease: Some(Record::unheld("0".into(), 100, self.timing[0].duration_s)),
            first: None,
            version: 100,
            uids: 0,
            mishap_over: false,
            foreign_until: 0,
            spins: false,
            moved: false,
        };
        let seen = Input::Observed(Source::Quorum(JUST_BEGUN), world.lease.clone());
        self.step(&mut world, 0, seen);
        loop {
            self.step(&mut world, 0, Input::Tick);
            self.deliver(&mut world, 0);
            if world.nodes[0].fence > BootNs(0) {
                break;
            }
            world.now = self.next_instant(&world);
        }
        let seen = Input::Observed(Source::Quorum(JUST_BEGUN), world.lease.clone());
        for index in 1..world.nodes.len() {
            self.step(&mut world, index, seen.clone());
        }
        for node in &mut world.nodes {
            node.open = true;
        }
        world.first.clone_from(&world.lease);
        match self.beginning {
            Beginning::Held => {}
            Beginning::Released | Beginning::ReleaseLost => self.hand_over(&mut world),
            Beginning::CreateLate | Beginning::CreateLateLeaving => self.take_anew(&mut world),
            Beginning::GivingWay => self.give_way(&mut world),
        }
        world.began = world.now;
        world
    }

    fn hand_over(&self, world: &mut World) {
        let lost = self.beginning == Beginning::ReleaseLost;
        let taker = world.nodes.len() - 1;
        world.nodes[..taker].iter_mut().for_each(|node| node.open = false);
        self.step(world, 0, Input::Leave);
        if lost {
            self.arrive(world, 0, 0);
            assert!(self.befall(world, Mishap::Fail(0)).is_some());
            self.arrive(world, 0, 0);
            world.mishap_over = false;
        } else {
            self.deliver(world, 0);
            world.first.clone_from(&world.lease);
        }
        let release = world.nodes[taker].stream.remove(0);
        self.step(world, taker, release);
        self.deliver(world, taker);
        assert!(world.moved && self.speaks(world, taker) && !self.speaks(world, 0));
        world.moved = lost;
    }

    fn take_anew(&self, world: &mut World) {
        let taker = world.nodes.len() - 1;
        assert!(self.befall(world, Mishap::Delete).is_some());
        world.mishap_over = false;
        let nothing = Input::Observed(Source::Quorum(JUST_BEGUN), None);
        self.step(world, 0, nothing.clone());
        if self.beginning == Beginning::CreateLateLeaving {
            self.step(world, 0, Input::Leave);
        }
        self.step(world, taker, nothing);
        self.arrive(world, taker, 0);
        let created = Input::Observed(Source::Quorum(JUST_BEGUN), world.lease.clone());
        self.step(world, taker, created);
        world.nodes[taker].open = true;
        while !self.speaks(world, taker) {
            world.now = self.next_instant(world);
            self.step(world, taker, Input::Tick);
            self.deliver(world, taker);
        }
        assert!(!self.speaks(world, 0), "its fence has run out");
    }

    fn give_way(&self, world: &mut World) {
        let Some(tenure) = world.lease.as_ref().and_then(Record::tenure) else { return };
        let (transitions, acquire_us) = (tenure.note.transitions, tenure.note.acquire_us);
        let offer =
            Offer { node: "1".into(), fitness: Fitness::Able, weight: 0, transitions, acquire_us };
        world.nodes[0].election.set_fitness(Fitness::Impaired, Vec::new());
        assert!(world.edit(|lease| lease.offer = Some(offer)).is_some());
        let event = world.nodes[0].stream.remove(0);
        self.step(world, 0, event);
        assert!(matches!(world.nodes[0].election.state(), State::Leaving(_)));
        // Messages that it has sent since then never arrive.
        world.nodes[0].messages.clear();
        let until = self.clock(0, world.now).boot.after(self.timing[0].wait(self.timing[0].duration_s));
        world.now = self.real(0, until) - 1;
    }

    /// Whether a node knows nothing and never will: its watch is open but brings no read.
    fn is_lost(&self, world: &World, node: &Node, index: usize) -> bool {
        let reads = |message: &Message| {
            matches!(
                message,
                Message::Read(_)
                    | Message::Input(Input::ReadFailed | Input::Observed(Source::Quorum(_), _))
            )
        };
        let watched = |event: &Input| matches!(event, Input::Observed(Source::Quorum(_), _));
        *node.election.state() == State::Unknown
            && node.open
            && !node.stream.iter().any(watched)
            && !node.messages.iter().any(reads)
            && node.election.wake_at(self.clock(index, world.now).boot).is_none()
    }

    /// All messages in flight to or from a node arrive.
    fn deliver(&self, world: &mut World, index: usize) {
        while !world.nodes[index].messages.is_empty() {
            self.arrive(world, index, 0);
        }
    }
}

impl World {
    fn store(&mut self, write: &LeaseWrite, by: usize) -> Written {
        let current = self.lease.as_ref().map(|lease| lease.version.clone());
        if write.base != current {
            return Written::Conflict;
        }
        self.uids += u64::from(self.lease.is_none());
        self.version += 1;
        let uid = self.lease.as_ref().map_or_else(|| self.uids.to_string(), |lease| lease.uid.clone());
        let record = write.stored(uid, self.version);
        self.lease = Some(record.clone());
        self.tell(Some(by));
        Written::Stored(record)
    }

    fn edit(&mut self, change: impl FnOnce(&mut Record)) -> Option<()> {
        let lease = self.lease.as_mut()?;
        change(lease);
        self.version += 1;
        lease.version = Version(self.version.to_string());
        self.tell(None);
        Some(())
    }

    /// Adds an event to each watch but that of the writer, whose answer has the same content. A
    /// watch that is more than two events behind breaks off.
    fn tell(&mut self, but: Option<usize>) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if !node.open || but == Some(index) {
                continue;
            }
            match &self.lease {
                Some(lease) if node.stream.len() < 2 => {
                    node.stream.push(Input::Observed(Source::Watch, Some(lease.clone())));
                }
                Some(_) => {
                    node.stream.clear();
                    node.open = false;
                }
                // A deletion ends the watch.
                None => node.open = false,
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
            if node.down {
                let own = 0..node.messages.len();
                turns.extend(own.map(|message| Turn::Arrive(index * 100 + message)));
                continue;
            }
            turns.extend((0..node.messages.len()).map(|message| Turn::Arrive(index * 100 + message)));
            if !node.stream.is_empty() {
                turns.push(Turn::Event(index));
            } else if !node.open && !matches!(node.election.state(), State::Left) {
                turns.push(Turn::Reopen(index));
            }
            let now = self.clock(index, world.now).boot;
            if node.messages.len() < self.messages
                && node.election.wake_at(now).is_some_and(|at| at <= now)
            {
                turns.push(Turn::Tick(index));
            }
        }
        if !world.mishap_over {
            turns.extend(self.mishap.map(Turn::Mishap));
        }
    }

    fn next_state(&self, world: &World, turn: Turn) -> Option<World> {
        let mut next = world.clone();
        match turn {
            Turn::Time => next.now = self.next_instant(world),
            Turn::Arrive(which) => self.arrive(&mut next, which / 100, which % 100),
            Turn::Event(node) => {
                let event = next.nodes[node].stream.remove(0);
                self.step(&mut next, node, event);
            }
            Turn::Reopen(node) => {
                let seen = Input::Observed(Source::Quorum(JUST_BEGUN), next.lease.clone());
                next.nodes[node].stream.push(seen);
                next.nodes[node].open = true;
            }
            Turn::Tick(node) => self.step(&mut next, node, Input::Tick),
            Turn::Mishap(mishap) => self.befall(&mut next, mishap)?,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one owner", |bounds: &Self, world: &World| {
                (0..world.nodes.len()).filter(|node| bounds.speaks(world, *node)).count() < 2
            }),
            Property::always("nobody is lost", |bounds: &Self, world: &World| {
                let mut nodes = world.nodes.iter().enumerate();
                !nodes.any(|(index, node)| bounds.is_lost(world, node, index))
            }),
            Property::always("no timer spins", |_: &Self, world: &World| !world.spins),
            Property::sometimes("another node takes over", |_: &Self, world: &World| world.moved),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.now <= world.began + self.horizon
    }
}

impl Node {
    /// Evidence has arrived, so it overtakes all reads in flight.
    fn overtake_reads(&mut self) {
        let messages = self.messages.iter_mut().filter_map(|message| match message {
            Message::Read(began) | Message::Input(Input::Observed(Source::Quorum(began), _)) => {
                Some(began)
            }
            _ => None,
        });
        let watched = self.stream.iter_mut().filter_map(|event| match event {
            Input::Observed(Source::Quorum(began), _) => Some(began),
            _ => None,
        });
        messages.chain(watched).for_each(|began| *began = OVERTAKEN);
    }
}

fn identity(node: usize, process: u8) -> Identity {
    Identity { node: node.to_string(), process: format!("{node}-{process}"), boot_id: node.to_string() }
}
