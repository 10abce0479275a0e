//! The simulated world: real time, node clocks, kernels, the API and the network between.

mod kernel;
pub mod knobs;
pub mod shape;

use kernel::{Kernel, vip};
use knobs::Knobs;
use shape::Shape;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};
use vip_common::abi::Port;
use vip_user::model::{
    desired::{Link, LinkRole, Placement, VipSpec, desired},
    election::{Effect, Election, Identity, Input, Slot, Source, State, Written},
    fitness::{Fitness, Offer},
    plan::{Action, plan},
    record::{LeaseWrite, Record, Version},
    time::{BootNs, Now},
    timing::Timing,
};

/// Real time in milliseconds.
type Ms = u64;

enum Happening {
    Input(usize, u64, Input),
    Effect(usize, u64),
    Wake(usize, u64),
    Arrive(usize, u64, LeaseWrite),
    Ask(usize, u64),
    Follow(usize, u64),
    Offered(Version, Offer),
    Created,
    Mishap,
}

struct Node {
    election: Election,
    /// Counts processes: what was meant for a dead one is thrown away.
    process: u64,
    boot: u64,
    clock_rate: f64,
    clock_offset: f64,
    paused_until: Ms,
    wake_at: Ms,
    /// When the last event of its watch arrives.
    watched_until: Ms,
    /// Its watch began where there was no Lease.
    watches_nothing: bool,
    todo: VecDeque<Todo>,
    waiting: VecDeque<Input>,
    kernel: Kernel,
}

/// What a process has yet to do; it may die or stand still before each.
enum Todo {
    Effect(Effect),
    Reconcile,
    Apply(Action),
}

pub struct World {
    rng: fastrand::Rng,
    knobs: Knobs,
    now: Ms,
    /// Boxed, for a tree moves what lies in it about.
    queue: BTreeMap<(Ms, u64), Box<Happening>>,
    order: u64,
    nodes: Vec<Node>,
    lease: Option<Record>,
    backup: Option<Record>,
    version: u64,
    uids: u64,
    watchers: BTreeSet<usize>,
    /// Writing the trace takes most of the time: it is on only to replay a failure.
    pub tracing: bool,
    log: VecDeque<String>,
    owned_ms: f64,
    pub takeovers: u64,
    pub two_owners: Option<String>,
    pub shapes: BTreeSet<Shape>,
}

pub fn timing() -> Timing {
    Timing::of(3)
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
                    watches_nothing: false,
                    todo: VecDeque::from([Todo::Reconcile]),
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
            watchers: BTreeSet::new(),
            tracing: false,
            log: VecDeque::new(),
            owned_ms: 0.0,
            takeovers: 0,
            two_owners: None,
            shapes: BTreeSet::new(),
        };
        for node in 0..world.nodes.len() {
            world.watch_anew(node, 1);
        }
        world.plan_mishap();
        world
    }

    pub fn run_until(&mut self, end: Ms) {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > end || self.two_owners.is_some() {
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
                    self.edit(|lease| lease.offer = Some(offer));
                }
            }
            Happening::Created => {
                if self.lease.is_none() {
                    let (uid, version) = self.fresh_lease();
                    self.lease = Some(Record::unheld(uid, version, timing().duration_s));
                    self.tell_watchers();
                }
            }
            Happening::Arrive(node, process, write) => self.arrive(node, process, write),
            Happening::Follow(node, process) => {
                if self.nodes[node].process == process {
                    self.follow(node, process);
                }
            }
            Happening::Ask(node, process) => {
                let seen = self.lease.clone();
                self.answer(node, process, Input::Observed(Source::Quorum, seen));
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
                    self.go_on(node);
                }
            }
            Happening::Effect(node, process) => {
                if self.nodes[node].process == process {
                    self.go_on(node);
                }
            }
        }
    }

    /// A process runs: effects of the last step one by one, then the next input. It may stand still
    /// before any of them.
    fn go_on(&mut self, index: usize) {
        loop {
            let process = self.nodes[index].process;
            if self.nodes[index].paused_until > self.now {
                let at = self.nodes[index].paused_until;
                return self.push(at, Happening::Effect(index, process));
            }
            if self.chance(self.knobs.pause) {
                self.nodes[index].paused_until = self.now + self.rng.u64(1..10_000);
                continue;
            }
            if let Some(todo) = self.nodes[index].todo.pop_front() {
                match todo {
                    Todo::Effect(effect) => self.execute(index, effect),
                    Todo::Reconcile => self.reconcile(index),
                    Todo::Apply(action) => self.apply(index, action),
                }
                continue;
            }
            let Some(input) = self.nodes[index].waiting.pop_front() else { break };
            let now = self.clock(index);
            self.note(|| format!("node {index} takes in {input:?}"));
            let node = &mut self.nodes[index];
            self.shapes.insert(Shape::of(now.boot, node.election.state(), &input));
            let effects = node.election.step(now, input);
            // As the loop does it: fences first, then the host, and only then what leaves.
            let (writes, rest): (Vec<Effect>, Vec<Effect>) =
                effects.into_iter().partition(|effect| matches!(effect, Effect::Write(_)));
            node.todo.extend(rest.into_iter().map(Todo::Effect));
            node.todo.push_back(Todo::Reconcile);
            node.todo.extend(writes.into_iter().map(Todo::Effect));
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

    fn execute(&mut self, index: usize, effect: Effect) {
        self.note(|| format!("node {index} does {effect:?}"));
        let process = self.nodes[index].process;
        match effect {
            Effect::RaiseFence { tenure, generation, deadline, duration_s, new } => {
                let kernel = &mut self.nodes[index].kernel;
                self.takeovers += u64::from(new && kernel.generation != generation);
                kernel.generation = generation;
                kernel.deadline = deadline;
                kernel.tenure = Some((tenure, duration_s));
                self.judge(index);
            }
            Effect::LowerFence(deadline) => self.nodes[index].kernel.deadline = deadline,
            Effect::ClearFence(_) => {
                self.nodes[index].kernel.deadline = BootNs(0);
                self.nodes[index].waiting.push_front(Input::Silenced);
            }
            Effect::Write(write) => {
                if self.chance(self.knobs.twice) {
                    let again = Happening::Arrive(index, process, write.clone());
                    self.push(self.now + self.knobs.delay_ms.end, again);
                }
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Arrive(index, process, write));
                } else {
                    let id = write.id;
                    let failed = Input::Written { id, outcome: Written::Failed };
                    self.push(self.now + 2_650, Happening::Input(index, process, failed));
                }
            }
            Effect::Read => self.ask(index),
            Effect::Offer(base, offer) => {
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Offered(base, offer));
                }
            }
            Effect::Create => {
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Created);
                }
            }
            Effect::ProbeAddresses | Effect::Notice(_) => {}
        }
    }

    /// What `controller` does after every step that may have changed something.
    fn reconcile(&mut self, index: usize) {
        let now = self.clock(index).boot;
        let node = &mut self.nodes[index];
        let elections = BTreeMap::from([(0, &node.election)]);
        let specs = [VipSpec { ip: IpAddr::from(vip()), slot: 0, answer: 1, yielded: false }];
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let links =
            [Link { port, bit: 0, role: LinkRole::Answer, mac: [2; 6], up: true, guarded: true }];
        let want = desired(now, &elections, &timing(), &specs, &links, Placement::Interface);
        for action in plan(&want, &node.kernel.actual(now)).into_iter().rev() {
            if !matches!(action, Action::SetIface(..)) {
                node.todo.push_front(Todo::Apply(action));
            }
        }
    }

    fn apply(&mut self, index: usize, action: Action) {
        self.note(|| format!("node {index} does {action:?}"));
        let now = self.clock(index).boot;
        self.nodes[index].kernel.apply(now, action);
        self.judge(index);
    }

    /// The instant that counts: a kernel begins to answer. No other may still.
    fn judge(&mut self, index: usize) {
        if !self.answers(index, self.now) {
            return;
        }
        for other in 0..self.nodes.len() {
            if other != index && self.answers(other, self.now) {
                self.two_owners =
                    Some(format!("nodes {other} and {index} both answer at {} ms", self.now));
            }
        }
    }

    fn answers(&self, index: usize, at: Ms) -> bool {
        self.nodes[index].kernel.answers(self.clock_at(index, at as f64))
    }

    fn owned_between(&self, from: Ms, to: Ms) -> f64 {
        let until =
            |node: &Node| (node.kernel.deadline.0 as f64 - node.clock_offset) / 1e6 / node.clock_rate;
        let last = self.nodes.iter().map(until).fold(0.0, f64::max);
        (last.min(to as f64) - from as f64).max(0.0)
    }

    fn arrive(&mut self, node: usize, process: u64, write: LeaseWrite) {
        let current = self.lease.as_ref().map(|lease| lease.version.clone());
        let outcome = if write.base == current {
            let (fresh, version) = self.fresh_lease();
            let uid = self.lease.as_ref().map_or(fresh, |lease| lease.uid.clone());
            let record = write.stored(uid, version);
            self.lease = Some(record.clone());
            self.tell_watchers();
            Written::Stored(record)
        } else {
            Written::Conflict
        };
        self.answer(node, process, Input::Written { id: write.id, outcome });
    }

    /// A uid that no Lease has had, and the next version.
    fn fresh_lease(&mut self) -> (String, u64) {
        self.uids += 1;
        self.version += 1;
        (format!("uid-{}", self.uids), self.version)
    }

    /// An answer on its way back; one that is lost shows as a failure after the time limit.
    fn answer(&mut self, node: usize, process: u64, input: Input) {
        match (self.delay(), input) {
            (Some(delay), input) => {
                self.push(self.now + delay, Happening::Input(node, process, input));
            }
            (None, Input::Written { id, .. }) => {
                let failed = Input::Written { id, outcome: Written::Failed };
                self.push(self.now + 2_650, Happening::Input(node, process, failed));
            }
            (None, _) => {
                self.push(self.now + 2_650, Happening::Input(node, process, Input::ReadFailed));
                self.push(self.now + 2_700, Happening::Ask(node, process));
            }
        }
    }

    /// A read beside the watch. A candidate also begins its watch anew, as `controller` does.
    fn ask(&mut self, node: usize) {
        let process = self.nodes[node].process;
        let delay = self.delay().unwrap_or(3_000);
        self.push(self.now + delay, Happening::Ask(node, process));
        if matches!(self.nodes[node].election.state(), State::Waiting(_)) {
            self.watch_anew(node, delay);
        }
    }

    /// The present watch ends; after a while a read begins another.
    fn watch_anew(&mut self, node: usize, after: Ms) {
        self.watchers.remove(&node);
        let process = self.nodes[node].process;
        self.push(self.now + after, Happening::Follow(node, process));
    }

    /// A quorum read, and a watch from its version: events come after its answer.
    fn follow(&mut self, node: usize, process: u64) {
        if let Some(delay) = self.delay() {
            self.watchers.insert(node);
            let seen = Input::Observed(Source::Quorum, self.lease.clone());
            let at = self.after_earlier(node, delay);
            self.push(at, Happening::Input(node, process, seen));
            self.nodes[node].watches_nothing = self.lease.is_none();
        } else {
            self.push(self.now + 2_650, Happening::Input(node, process, Input::ReadFailed));
            self.watch_anew(node, 2_700);
        }
    }

    /// What a watch brings comes in its order, however late.
    fn after_earlier(&mut self, node: usize, delay: Ms) -> Ms {
        let at = self.nodes[node].watched_until.max(self.now + delay);
        self.nodes[node].watched_until = at;
        at
    }

    /// An event for everyone who watches, late perhaps. Where it is lost the watch has broken: nothing comes until a read
    /// has begun another. So it is after a deletion, and where the read had found nothing.
    fn tell_watchers(&mut self) {
        for node in self.watchers.clone() {
            let process = self.nodes[node].process;
            let lease = self.lease.clone().filter(|_| !self.nodes[node].watches_nothing);
            match (self.delay(), lease) {
                (Some(delay), Some(lease)) => {
                    let at = self.after_earlier(node, delay);
                    let seen = Input::Observed(Source::Watch, Some(lease));
                    self.push(at, Happening::Input(node, process, seen));
                }
                (Some(delay), None) => self.watch_anew(node, delay + 100),
                (None, _) => {
                    let unnoticed = self.rng.u64(100..60_000);
                    self.watch_anew(node, unnoticed);
                }
            }
        }
    }

    fn mishap(&mut self) {
        let node = self.rng.usize(0..self.nodes.len());
        let kind = self.rng.u32(0..13);
        self.note(|| format!("mishap {kind} (node {node})"));
        match kind {
            0 | 1 => self.restart(node, false),
            2 => self.restart(node, true),
            3 => {
                let process = self.nodes[node].process;
                self.push(self.now, Happening::Input(node, process, Input::Leave));
            }
            4 => {
                self.lease = None;
                self.tell_watchers();
            }
            5 => self.edit(|lease| lease.holder.clear()),
            6 => self.edit(|lease| lease.holder = "stranger".into()),
            // client-go on one of the nodes: the name is ours, the annotation is left standing.
            7 => self.edit(|lease| {
                lease.holder = format!("node{node}");
                lease.transitions += 1;
            }),
            8 => {
                let duration_s = self.rng.u32(1..20);
                self.edit(|lease| lease.duration_s = duration_s);
            }
            9 => self.backup = self.lease.clone(),
            // A link fails or comes back, seen at the next tick.
            10 | 11 => {
                let fitness = [Fitness::Able, Fitness::Doubtful, Fitness::Unable, Fitness::Barred];
                let fitness = fitness[self.rng.usize(0..fitness.len())];
                self.nodes[node].election.set_fitness(fitness, Vec::new());
                let process = self.nodes[node].process;
                self.push(self.now, Happening::Input(node, process, Input::Tick));
            }
            _ => {
                // etcd comes back from a backup: the content goes back, versions go on.
                if let Some(old) = self.backup.clone() {
                    self.edit(|lease| {
                        let version = lease.version.clone();
                        *lease = Record { version, ..old };
                    });
                }
            }
        }
        let long = self.nodes[node].paused_until.max(self.now + self.rng.u64(0..30_000));
        if self.chance(300) {
            self.nodes[node].paused_until = long;
        }
        self.plan_mishap();
    }

    fn edit(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(lease) = &mut self.lease {
            change(lease);
            self.version += 1;
            lease.version = Version(self.version.to_string());
            self.tell_watchers();
        }
    }

    /// The process dies and another starts. Without a reboot the kernel goes on until its fence.
    fn restart(&mut self, index: usize, reboot: bool) {
        let node = &mut self.nodes[index];
        node.process += 1;
        if reboot {
            node.boot += 1;
            node.kernel = Kernel::default();
        }
        node.wake_at = 0;
        node.todo = VecDeque::from([Todo::Reconcile]);
        node.waiting.clear();
        let Kernel { tenure, deadline: until, generation, .. } = &node.kernel;
        let backed = tenure.clone().filter(|_| *until > BootNs(0));
        let backed = backed.map(|(tenure, duration_s)| Slot { tenure, until: *until, duration_s });
        let me = identity(index, node.process, node.boot);
        node.election = Election::new(me, timing(), *generation, backed);
        self.watch_anew(index, 1);
    }

    fn plan_mishap(&mut self) {
        let at = self.now + self.rng.u64(1..2 * self.knobs.mishap_every_ms);
        self.push(at, Happening::Mishap);
        // Those who have left come back.
        for index in 0..self.nodes.len() {
            if matches!(self.nodes[index].election.state(), State::Left) {
                self.restart(index, false);
            }
        }
    }

    fn delay(&mut self) -> Option<Ms> {
        if self.chance(self.knobs.lost) {
            return None;
        }
        let usual = self.rng.u64(self.knobs.delay_ms.clone());
        Some(if self.chance(self.knobs.late) { self.rng.u64(usual..10_000) } else { usual })
    }

    fn chance(&mut self, per_thousand: u32) -> bool {
        per_thousand > 0 && self.rng.u32(0..1_000) < per_thousand
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
