//! The simulated world: real time, the clocks and kernels of nodes, the API, and the network between
//! them.

mod edges;
mod kernel;
pub mod knobs;
mod liveness;
mod mishaps;
mod outsider;
pub mod shape;

use edges::Watch;
use kernel::{Kernel, vip};
use knobs::Knobs;
use liveness::Asked;
use mishaps::ClientGo;
use outsider::Outsider;
use shape::Shape;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};
use vip_common::{abi::Port, mac::Mac};
use vip_user::model::{
    agent::{Agent, Event, Policy, Work},
    changes::Failed,
    desired::{Link, LinkRole, Links, Placement},
    effects::FenceChange,
    facts::NodeFacts,
    group::{Group, GroupSpec},
    lease::{
        election::{Election, Identity, Input, Source, Written},
        offers::Offer,
        record::{LeaseWrite, Record, Version},
        state::State,
    },
    policy::{ConflictPolicy, ForeignConflict},
    slots::{SlotState, Slots},
    time::{BootNs, Now},
    timing::Timing,
    turn::{Step, Turn},
};

/// A node whose timer is still due after this many turns in a row spins.
const MAX_SPINS: u32 = 20;
/// The only slot that is used.
const SLOT: u32 = 0;
/// A node that lacks this label may not hold the Lease.
const LABEL: (&str, &str) = ("role", "edge");

/// Real time in milliseconds.
type Ms = u64;

enum Happening {
    Input(usize, u64, Input),
    Event(usize, u64, Event),
    GoOn(usize, u64),
    Wake(usize, u64),
    Arrive(usize, u64, LeaseWrite),
    Ask(usize, u64, BootNs),
    /// The read that begins a watch, unless a later one was planned since then.
    Follow(usize, u64, u64),
    Offered(Version, Offer),
    Create(usize, u64),
    Mishap,
    ClientGo,
    Outsider(u64),
    Calm(u8),
}

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
struct Node {
    agent: Agent,
    /// Number of the present process. Whatever is meant for a dead process is dropped.
    process: u64,
    boot: u64,
    clock_rate: f64,
    clock_offset: f64,
    paused_until: Ms,
    wake_at: Ms,
    /// When the last event of its watch arrives.
    watched_until: Ms,
    watch: Watch,
    /// Number of the present watch.
    watches: u64,
    /// Whether the next watch must end as soon as it is open.
    again: bool,
    /// Whether its watch began while there was no Lease.
    watches_nothing: bool,
    /// Whether no process runs.
    down: bool,
    /// The steps of the last turn that have not been taken.
    turn: Turn,
    /// Whether work on the host has begun.
    works: bool,
    waiting: VecDeque<Event>,
    kernel: Kernel,
    link_up: bool,
    facts: NodeFacts,
    /// How many turns in a row ended with a timer that was due.
    spins: u32,
}

pub struct World {
    rng: fastrand::Rng,
    knobs: Knobs,
    now: Ms,
    /// Boxed, because the tree moves its values.
    queue: BTreeMap<(Ms, u64), Box<Happening>>,
    order: u64,
    nodes: Vec<Node>,
    lease: Option<Record>,
    backup: Option<Record>,
    version: u64,
    uids: u64,
    /// The node that wrote its tenure last, if nothing else has changed the Lease since.
    written_by: Option<usize>,
    client_go: Option<ClientGo>,
    outsider: Option<Outsider>,
    /// How many times it has taken the Lease.
    pub outsiders: u64,
    /// When the Lease was last changed.
    changed_at: Ms,
    /// Whether there are no faults for a while.
    quiet: bool,
    asked: Asked,
    /// Writing the trace would take most of the time, so it is on only to replay a failure.
    pub tracing: bool,
    log: VecDeque<String>,
    owned_ms: f64,
    pub takeovers: u64,
    /// Quiet times after which liveness was judged.
    pub quiet_times: u64,
    /// Those after which the heaviest node had to answer.
    pub settled_times: u64,
    /// A broken rule: two nodes answered, or another check failed.
    pub crime: Option<String>,
    pub shapes: BTreeSet<Shape>,
}

pub fn timing() -> Timing {
    Timing::of(3)
}

impl Node {
    /// Whether it has nothing to do and no input.
    fn is_idle(&self) -> bool {
        self.turn == Turn::default() && !self.works && self.waiting.is_empty()
    }

    fn election(&self) -> Option<&Election> {
        self.agent.group(SLOT).map(Group::election)
    }

    /// The state of its election.
    fn state(&self) -> &State {
        self.election().map_or(&State::Unknown, Election::state)
    }

    /// Starts a process, which first learns its groups and what the API knows of its node.
    fn begin(&mut self, me: Identity, slot: SlotState, weights: BTreeMap<String, u8>) {
        self.agent = Agent::new(policy(me), Slots::found([(SLOT, slot)]));
        (self.turn, self.works) = (Turn::default(), false);
        let nodes = BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]);
        let spec = GroupSpec { lease: "lease".into(), vips: vec![vip().into()], nodes, weights };
        self.waiting = VecDeque::from([Event::Wanted(vec![spec]), Event::Facts(self.facts.clone())]);
    }

    fn links(&self) -> Links {
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let up = self.link_up;
        let link = Link { port, bit: 0, role: LinkRole::Answer, mac: Mac([2; 6]), up, guarded: true };
        let answer = BTreeMap::from([(IpAddr::from(vip()), 1)]);
        Links { links: vec![link], answer, ..Links::default() }
    }
}

fn policy(me: Identity) -> Policy {
    Policy {
        me,
        timing: timing(),
        refresh: Duration::ZERO,
        conflict: ConflictPolicy::Report,
        foreign_conflict: ForeignConflict::Wait,
        guard_neighbours: false,
        placement: Placement::Interface,
        asks_first: false,
    }
}

/// What the API knows of a node that may hold the Lease.
fn facts() -> NodeFacts {
    let labels = BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]);
    NodeFacts { labels, cordoned: false }
}

impl World {
    pub fn new(seed: u64, knobs: Knobs) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let error = knobs.clock_error_percent as f64 / 100.0;
        let nodes = (0..knobs.nodes)
            .map(|index| {
                let share = if knobs.extreme_clocks {
                    if index % 2 == 0 { -1.0 } else { 1.0 }
                } else {
                    rng.f64() * 2.0 - 1.0
                };
                let mut node = Node {
                    agent: Agent::new(policy(identity(index, 0, 0)), Slots::default()),
                    process: 0,
                    boot: 0,
                    clock_rate: 1.0 + share * error,
                    clock_offset: rng.f64() * 1e12,
                    paused_until: 0,
                    wake_at: 0,
                    watched_until: 0,
                    watch: Watch::Away,
                    watches: 0,
                    again: false,
                    watches_nothing: false,
                    down: false,
                    turn: Turn::default(),
                    works: false,
                    waiting: VecDeque::new(),
                    kernel: Kernel::default(),
                    link_up: true,
                    facts: facts(),
                    spins: 0,
                };
                node.begin(identity(index, 0, 0), SlotState::default(), knobs.weights());
                node
            })
            .collect();
        let mut world = Self {
            rng,
            knobs,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            nodes,
            lease: None,
            backup: None,
            version: 100,
            uids: 0,
            written_by: None,
            client_go: None,
            outsider: None,
            outsiders: 0,
            changed_at: 0,
            quiet: false,
            asked: Asked::default(),
            tracing: false,
            log: VecDeque::new(),
            owned_ms: 0.0,
            takeovers: 0,
            quiet_times: 0,
            settled_times: 0,
            crime: None,
            shapes: BTreeSet::new(),
        };
        for node in 0..world.nodes.len() {
            world.push(0, Happening::GoOn(node, 0));
            world.watch_after(node, 1);
        }
        world.plan_mishap();
        world.push(liveness::QUIET_EVERY_MS, Happening::Calm(0));
        world
    }

    pub fn run_until(&mut self, end: Ms) {
        while let Some(next) = self.queue.first_entry() {
            let (at, _) = *next.key();
            if at > end || self.crime.is_some() {
                break;
            }
            let happening = next.remove();
            self.owned_ms += self.owned_between(self.now, at);
            self.now = at;
            self.happen(*happening);
        }
    }

    pub fn owned_share(&self) -> f64 {
        self.owned_ms / self.now.max(1) as f64
    }

    pub fn trace(&self) -> String {
        self.log.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Mishap => self.mishap(),
            Happening::Offered(base, offer) => {
                if self.lease.as_ref().is_some_and(|lease| lease.version == base) {
                    let by = self.written_by;
                    self.edit(|lease| lease.offer = Some(offer));
                    self.written_by = by;
                }
            }
            Happening::Create(node, process) => self.create(node, process),
            Happening::ClientGo => self.client_go_renews(),
            Happening::Outsider(renewal) => self.outsider_renews(renewal),
            Happening::Calm(step) => self.calm(step),
            Happening::Arrive(node, process, write) => self.arrive(node, process, write),
            Happening::Follow(node, process, watches) => {
                if (self.nodes[node].process, self.nodes[node].watches) == (process, watches) {
                    self.follow(node, process);
                }
            }
            Happening::Ask(node, process, began) => {
                let seen = self.lease.clone();
                self.answer(node, process, Input::Observed(Source::Quorum(began), seen));
            }
            Happening::Input(node, process, input) => {
                if self.nodes[node].process == process {
                    self.nodes[node].waiting.push_back(event(input));
                    self.go_on(node);
                }
            }
            Happening::Event(node, process, event) => {
                if self.nodes[node].process == process {
                    self.nodes[node].waiting.push_back(event);
                    self.go_on(node);
                }
            }
            Happening::Wake(node, process) => {
                if self.nodes[node].process == process && self.nodes[node].wake_at == self.now {
                    self.nodes[node].waiting.push_back(Event::Tick);
                    self.go_on(node);
                }
            }
            Happening::GoOn(node, process) => {
                if self.nodes[node].process == process {
                    self.go_on(node);
                }
            }
        }
    }

    /// Runs a process: work on the host that has begun, the steps of its last turn, and the next event.
    /// A turn ends with whatever is due. The process may be paused, or die, before any of these.
    fn go_on(&mut self, index: usize) {
        let mut ends = false;
        loop {
            let process = self.nodes[index].process;
            if self.nodes[index].paused_until > self.now {
                let at = self.nodes[index].paused_until;
                return self.push(at, Happening::GoOn(index, process));
            }
            if self.chance(self.knobs.pause) {
                self.nodes[index].paused_until = self.now + self.rng.u64(1..10_000);
                continue;
            }
            if self.nodes[index].works {
                self.work(index);
                continue;
            }
            let node = &mut self.nodes[index];
            let reconciled = node.agent.is_reconciled();
            if let Some(step) = node.turn.next(reconciled) {
                self.carry_out(index, step);
                continue;
            }
            if let Some(event) = self.nodes[index].waiting.pop_front() {
                self.step(index, event);
                ends = false;
                continue;
            }
            // A turn ends with what is due and with what was noticed on the host.
            if !std::mem::replace(&mut ends, true) {
                self.step(index, Event::Tick);
                continue;
            }
            let now = self.clock(index).boot;
            let node = &mut self.nodes[index];
            if node.agent.host_is_due(now) && !node.agent.makes_way(now) {
                node.agent.begin_on_host(now);
                (node.works, ends) = (true, false);
                continue;
            }
            while let Some(frames) = node.agent.next_frames(now) {
                node.agent.announced(now, &frames, Ok(BTreeMap::new()));
            }
            self.ask_lan(index);
            break;
        }
        let now = self.clock(index).boot;
        if let Some(at) = self.nodes[index].agent.wake_at() {
            let spins = &mut self.nodes[index].spins;
            *spins = if at <= now { *spins + 1 } else { 0 };
            if *spins > MAX_SPINS {
                self.crime = Some(format!("node {index} spins"));
            }
            let wait = (at.0.saturating_sub(now.0)) as f64 / 1e6 / self.nodes[index].clock_rate;
            let process = self.nodes[index].process;
            let at = self.now + wait.ceil() as Ms + 1;
            // There is one timer per process, as in the real loop.
            if self.nodes[index].wake_at != at {
                self.nodes[index].wake_at = at;
                self.push(at, Happening::Wake(index, process));
            }
        }
    }

    fn ask_lan(&mut self, index: usize) {
        let now = self.clock(index);
        while let Some((slot, vips)) = self.nodes[index].agent.next_probe(now) {
            if !vips.is_empty() {
                self.asked_on_lan(index);
            }
            let fails = self.chance(self.knobs.change_fails);
            let sent = if fails { Err("no".into()) } else { Ok(BTreeMap::new()) };
            self.nodes[index].agent.probed(now, slot, &vips, sent);
        }
    }

    fn step(&mut self, index: usize, event: Event) {
        let now = self.clock(index);
        self.note(|| format!("node {index} takes in {event:?}"));
        let node = &mut self.nodes[index];
        if let Some(shape) = Shape::of(now.boot, node.state(), &event) {
            self.shapes.insert(shape);
        }
        let ends = matches!(event, Event::Tick);
        node.turn = node.agent.step(now, event);
        let asks = !node.turn.is_quiet();
        if ends {
            self.judge_rest(index, asks);
        }
    }

    fn carry_out(&mut self, index: usize, step: Step) {
        self.note(|| format!("node {index} does {step:?}"));
        match step {
            Step::Fence(slot, FenceChange::Raise { tenure, generation, deadline, duration_s, new }) => {
                let kernel = &mut self.nodes[index].kernel;
                self.takeovers += u64::from(new && kernel.generation != generation);
                kernel.generation = generation;
                kernel.deadline = deadline;
                kernel.tenure = Some((tenure, duration_s));
                let now = self.clock(index).boot;
                self.nodes[index].agent.raised(now, slot, new, Ok(()));
                self.judge(index);
            }
            Step::Fence(slot, FenceChange::Lower(deadline)) if self.chance(self.knobs.refused) => {
                self.nodes[index].turn.failed_to_lower(slot);
                let not_lowered = Event::Election(slot, Input::NotLowered(deadline));
                self.nodes[index].waiting.push_front(not_lowered);
            }
            Step::Fence(_, FenceChange::Lower(deadline)) => {
                self.nodes[index].kernel.deadline = deadline;
            }
            Step::Silence(groups) => {
                self.nodes[index].kernel.deadline = BootNs(0);
                for (slot, _) in groups {
                    let silent = !self.chance(self.knobs.refused);
                    self.nodes[index].waiting.push_front(Event::Silenced(slot, silent));
                }
            }
            Step::Host => {
                let now = self.clock(index).boot;
                self.nodes[index].agent.begin_on_host(now);
                self.nodes[index].works = true;
            }
            Step::Send(_, send) => self.send(index, send),
            Step::KeepBack(slot, id) => {
                let kept_back = Input::Written { id, outcome: Written::KeptBack };
                self.nodes[index].waiting.push_front(Event::Election(slot, kept_back));
            }
            Step::Stations(..) | Step::News(_) => {}
        }
    }

    /// The next piece of work on the host.
    fn work(&mut self, index: usize) {
        let now = self.clock(index).boot;
        let Some(work) = self.nodes[index].agent.next_on_host(now) else {
            self.nodes[index].works = false;
            return;
        };
        self.note(|| format!("node {index} does {work:?}"));
        let failed = |cut_off| Failed { why: "no".into(), blind: cut_off, cut_off };
        match work {
            Work::Interfaces => {
                let fails = self.chance(self.knobs.refused);
                let node = &mut self.nodes[index];
                let looked = if fails { Err(failed(false)) } else { Ok(node.links()) };
                node.agent.looked(now, looked);
            }
            Work::Read => {
                let fails = self.chance(self.knobs.refused);
                let node = &mut self.nodes[index];
                let read = if fails { Err(failed(true)) } else { Ok(node.kernel.actual(now)) };
                node.agent.read(now, read);
            }
            Work::Change(action) => {
                let refused = self.chance(self.knobs.change_fails);
                let late = self.chance(self.knobs.change_fails);
                if !refused {
                    self.nodes[index].kernel.apply(now, action);
                    self.judge(index);
                }
                let done = if refused || late { Err(failed(late)) } else { Ok(()) };
                self.nodes[index].agent.changed(now, action, done);
            }
        }
        if self.chance(self.knobs.put_off) {
            self.nodes[index].agent.interrupt_host(now);
            self.nodes[index].works = false;
        }
    }

    /// Called when a kernel begins to answer: no other kernel may answer at this instant.
    fn judge(&mut self, index: usize) {
        if !self.answers(index, self.now) {
            return;
        }
        if self.outsider_counts() {
            self.crime = Some(format!("kube-vip and node {index} both answer at {} ms", self.now));
        }
        for other in 0..self.nodes.len() {
            if other != index && self.answers(other, self.now) {
                self.crime = Some(format!("nodes {other} and {index} both answer at {} ms", self.now));
            }
        }
    }

    fn answers(&self, index: usize, at: Ms) -> bool {
        let foreign = self.client_go.filter(|foreign| foreign.node == index);
        self.nodes[index].kernel.answers(self.clock_at(index, at as f64))
            || foreign.is_some_and(|foreign| at < foreign.answers_until)
    }

    fn owned_between(&self, from: Ms, to: Ms) -> f64 {
        let until =
            |node: &Node| (node.kernel.deadline.0 as f64 - node.clock_offset) / 1e6 / node.clock_rate;
        let last = self.nodes.iter().map(until).fold(0.0, f64::max);
        (last.min(to as f64) - from as f64).max(0.0)
    }

    fn delay(&mut self) -> Option<Ms> {
        if self.chance(self.knobs.lost) {
            return None;
        }
        let usual = self.rng.u64(self.knobs.delay_ms.clone());
        Some(if self.chance(self.knobs.late) { self.rng.u64(usual..10_000) } else { usual })
    }

    fn chance(&mut self, per_thousand: u32) -> bool {
        !self.quiet && per_thousand > 0 && self.rng.u32(0..1_000) < per_thousand
    }

    fn clock_at(&self, index: usize, ms: f64) -> f64 {
        self.nodes[index].clock_offset + ms * 1e6 * self.nodes[index].clock_rate
    }

    fn clock(&self, index: usize) -> Now {
        let boot = BootNs(self.clock_at(index, self.now as f64) as u64);
        Now { boot, wall_us: 1_700_000_000_000_000 + (self.now * 1_000) as i64 }
    }

    fn push(&mut self, at: Ms, happening: Happening) {
        self.order += 1;
        self.queue.insert((at, self.order), Box::new(happening));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if !self.tracing {
            return;
        }
        if self.log.len() >= 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{} ms: {}", self.now, line()));
    }
}

/// The agent's event for an answer of the API or a timer.
fn event(input: Input) -> Event {
    match input {
        Input::Observed(source, record) => Event::Seen(SLOT, source, record),
        Input::Leave => Event::Stop,
        Input::Tick => Event::Tick,
        input => Event::Election(SLOT, input),
    }
}

fn identity(node: usize, process: u64, boot: u64) -> Identity {
    Identity {
        node: format!("node{node}"),
        process: format!("node{node}-process{process}"),
        boot_id: format!("node{node}-boot{boot}"),
    }
}
