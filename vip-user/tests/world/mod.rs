//! The simulated world: real time, node clocks, kernels, the API and the network between.

mod edges;
mod kernel;
pub mod knobs;
mod liveness;
mod mishaps;
pub mod shape;

use edges::Watch;
use kernel::{Kernel, vip};
use knobs::Knobs;
use liveness::Asked;
use mishaps::ClientGo;
use shape::Shape;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};
use vip_common::abi::Port;
use vip_user::model::{
    desired::{Link, LinkRole, Placement, VipSpec, desired},
    election::{Election, Identity, Input, Source, Written},
    plan::{Action, plan},
    record::{LeaseWrite, Offer, Record, Version},
    time::{BootNs, Now},
    timing::Timing,
    turn::{FenceChange, Step, Turn},
};

/// Probability, per thousand, that lowering a fence fails, or the first look at the host.
const FAILS: u32 = 250;

/// Real time in milliseconds.
type Ms = u64;

enum Happening {
    Input(usize, u64, Input),
    GoOn(usize, u64),
    Wake(usize, u64),
    Arrive(usize, u64, LeaseWrite),
    Ask(usize, u64, BootNs),
    /// The read that begins a watch, unless a later one was planned since.
    Follow(usize, u64, u64),
    Offered(Version, Offer),
    Create(usize, u64),
    Mishap,
    ClientGo,
    Calm(u8),
}

struct Node {
    election: Election,
    /// Counts processes: messages for a dead one are discarded.
    process: u64,
    boot: u64,
    clock_rate: f64,
    clock_offset: f64,
    paused_until: Ms,
    wake_at: Ms,
    /// When the last event of its watch arrives.
    watched_until: Ms,
    watch: Watch,
    /// Counts the watches.
    watches: u64,
    /// Whether the next watch must end as soon as it is open.
    again: bool,
    /// Whether its watch began while there was no Lease.
    watches_nothing: bool,
    /// Whether no process runs.
    down: bool,
    /// The rest of the last turn.
    turn: Turn,
    /// The rest of the last plan.
    actions: VecDeque<Action>,
    host: Host,
    waiting: VecDeque<Input>,
    kernel: Kernel,
}

/// Whether the host must be reconciled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    /// It was never reconciled.
    New,
    /// Reconciling failed, and never succeeded before.
    Failed,
    /// A timer is due.
    Due,
    Done,
}

impl Host {
    fn is_reconciled(self) -> bool {
        matches!(self, Self::Due | Self::Done)
    }
}

pub struct World {
    rng: fastrand::Rng,
    knobs: Knobs,
    now: Ms,
    /// Boxed: the tree moves its values.
    queue: BTreeMap<(Ms, u64), Box<Happening>>,
    order: u64,
    nodes: Vec<Node>,
    lease: Option<Record>,
    backup: Option<Record>,
    version: u64,
    uids: u64,
    /// The node whose tenure the last write was, if no other program has changed the Lease since.
    written_by: Option<usize>,
    client_go: Option<ClientGo>,
    /// Whether there are no faults for a while.
    quiet: bool,
    asked: Asked,
    /// Writing the trace would take most of the time, so it is on only to replay a failure.
    pub tracing: bool,
    log: VecDeque<String>,
    owned_ms: f64,
    pub takeovers: u64,
    /// Quiet times after which the world was judged.
    pub quiet_times: u64,
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
        self.turn == Turn::default() && self.actions.is_empty() && self.waiting.is_empty()
    }

    /// Starts a process.
    fn begin(&mut self) {
        (self.turn, self.host) = (Turn::default(), Host::New);
        self.actions.clear();
        self.waiting.clear();
    }
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
                Node {
                    election: Election::new(identity(index, 0, 0), timing(), 0, None),
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
                    actions: VecDeque::new(),
                    host: Host::New,
                    waiting: VecDeque::new(),
                    kernel: Kernel::default(),
                }
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
            quiet: false,
            asked: Asked::default(),
            tracing: false,
            log: VecDeque::new(),
            owned_ms: 0.0,
            takeovers: 0,
            quiet_times: 0,
            crime: None,
            shapes: BTreeSet::new(),
        };
        for node in 0..world.nodes.len() {
            world.watch_after(node, 1);
        }
        world.plan_mishap();
        world.push(liveness::QUIET_EVERY_MS, Happening::Calm(0));
        world
    }

    pub fn run_until(&mut self, end: Ms) {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > end || self.crime.is_some() {
                break;
            }
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
                    self.nodes[node].waiting.push_back(input);
                    self.go_on(node);
                }
            }
            Happening::Wake(node, process) => {
                if self.nodes[node].process == process && self.nodes[node].wake_at == self.now {
                    self.nodes[node].waiting.push_back(Input::Tick);
                    let host = &mut self.nodes[node].host;
                    *host = if host.is_reconciled() { Host::Due } else { Host::New };
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

    /// A process runs: the effects of its last step in order, then the host if that is due, then
    /// the next input. It may stall or die before any of them.
    fn go_on(&mut self, index: usize) {
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
            let node = &mut self.nodes[index];
            if let Some(action) = node.actions.pop_front() {
                self.apply(index, action);
                continue;
            }
            let reconciled = node.host.is_reconciled();
            if let Some(step) = node.turn.next(reconciled) {
                self.carry_out(index, step);
                continue;
            }
            if matches!(node.host, Host::New | Host::Due) {
                self.reconcile(index);
                continue;
            }
            let Some(input) = self.nodes[index].waiting.pop_front() else { break };
            let now = self.clock(index);
            self.note(|| format!("node {index} takes in {input:?}"));
            let node = &mut self.nodes[index];
            self.shapes.insert(Shape::of(now.boot, node.election.state(), &input));
            node.turn = node.election.step(now, input);
            let asks = !node.turn.is_quiet();
            self.judge_rest(index, asks);
        }
        let now = self.clock(index).boot;
        if let Some(at) = self.nodes[index].election.wake_at(now) {
            let wait = (at.0.saturating_sub(now.0)) as f64 / 1e6 / self.nodes[index].clock_rate;
            let process = self.nodes[index].process;
            let at = self.now + wait.ceil() as Ms + 1;
            // One timer per process, as in the real loop.
            if self.nodes[index].wake_at != at {
                self.nodes[index].wake_at = at;
                self.push(at, Happening::Wake(index, process));
            }
        }
    }

    fn carry_out(&mut self, index: usize, step: Step) {
        self.note(|| format!("node {index} does {step:?}"));
        match step {
            Step::Fence(FenceChange::Raise { tenure, generation, deadline, duration_s, new }) => {
                let kernel = &mut self.nodes[index].kernel;
                self.takeovers += u64::from(new && kernel.generation != generation);
                kernel.generation = generation;
                kernel.deadline = deadline;
                kernel.tenure = Some((tenure, duration_s));
                self.judge(index);
            }
            Step::Fence(FenceChange::Lower(deadline)) if self.chance(FAILS) => {
                self.nodes[index].turn.failed_to_lower();
                self.nodes[index].waiting.push_front(Input::NotLowered(deadline));
            }
            Step::Fence(FenceChange::Lower(deadline)) => self.nodes[index].kernel.deadline = deadline,
            Step::Silence(_) => {
                self.nodes[index].kernel.deadline = BootNs(0);
                self.nodes[index].waiting.push_front(Input::Silenced);
            }
            Step::Host => self.reconcile(index),
            Step::Send(send) => self.send(index, send),
            Step::KeepBack(id) => {
                let failed = Input::Written { id, outcome: Written::Failed };
                self.nodes[index].waiting.push_front(failed);
            }
            Step::Announce | Step::News(_) => {}
        }
    }

    /// Plans the changes of the host. The process then carries out the actions one by one.
    fn reconcile(&mut self, index: usize) {
        if !self.nodes[index].host.is_reconciled() && self.chance(FAILS) {
            self.nodes[index].host = Host::Failed;
            return;
        }
        let now = self.clock(index).boot;
        let node = &mut self.nodes[index];
        let owners = BTreeMap::from([(0, node.election.ownership(now))]);
        let ip = IpAddr::from(vip());
        let specs = [VipSpec { ip, slot: 0, answer: 1, yielded: false, admitted: true }];
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let links =
            [Link { port, bit: 0, role: LinkRole::Answer, mac: [2; 6], up: true, guarded: true }];
        let want = desired(now, &owners, &timing(), &specs, &links, Placement::Interface);
        let plan = plan(&want, &node.kernel.actual(now)).into_iter();
        node.actions = plan.filter(|action| !matches!(action, Action::SetIface(..))).collect();
        node.host = Host::Done;
    }

    fn apply(&mut self, index: usize, action: Action) {
        self.note(|| format!("node {index} does {action:?}"));
        let now = self.clock(index).boot;
        self.nodes[index].kernel.apply(now, action);
        self.judge(index);
    }

    /// Called when a kernel begins to answer: no other kernel may answer at this instant.
    fn judge(&mut self, index: usize) {
        if !self.answers(index, self.now) {
            return;
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

fn identity(node: usize, process: u64, boot: u64) -> Identity {
    Identity {
        node: format!("node{node}"),
        process: format!("node{node}-process{process}"),
        boot_id: format!("node{node}-boot{boot}"),
    }
}
