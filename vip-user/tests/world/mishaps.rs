//! Mishaps of a simulated world.

use super::{Happening, Ms, World, edges::Watch, identity, kernel::Kernel};
use std::{collections::BTreeSet, net::IpAddr};
use vip_user::model::{
    agent::Event,
    fitness::Fitness,
    health::{Ailment, Service},
    lease::{
        election::{AdoptedFence, Input},
        offers::Heir,
        record::Record,
        state::State,
    },
    slots::SlotState,
    time::BootNs,
    turn::Turn,
};

/// A client-go program on a node whose xvip has crashed (a rollback to kube-vip). It finds its own name
/// in the Lease, and renews a tenure that it did not begin.
#[derive(Clone, Copy)]
pub(super) struct ClientGo {
    pub(super) node: usize,
    /// It has the defaults 15/10/2. If its requests are lost, it answers until its renew deadline and
    /// its release time-outs are over.
    pub(super) answers_until: Ms,
    cut_off: bool,
}

impl ClientGo {
    const DURATION_S: u32 = 15;
    const ANSWERS_MS: Ms = 22_000;
    const RETRY_MS: Ms = 2_000;
}

impl World {
    pub(super) fn mishap(&mut self) {
        let node = self.rng.usize(0..self.nodes.len());
        let kind = self.rng.u32(0..20);
        self.outsider_is_gone();
        // While a client-go program holds the Lease, the promise covers only what client-go itself
        // waits for. So its Lease is not edited.
        let foreign = self.client_go.is_some() || self.outsider.is_some();
        let foreign = foreign && matches!(kind, 4..=9 | 12..16);
        if self.quiet || self.nodes[node].down || foreign {
            return self.plan_mishap();
        }
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
                self.written_by = None;
                self.tell_watchers();
            }
            5 => self.edit(|lease| lease.holder.clear()),
            6 => self.edit(|lease| lease.holder = "stranger".into()),
            // client-go on one of the nodes: it writes that node's name, and keeps the annotation as it
            // was.
            7 => self.edit(|lease| {
                lease.holder = format!("node{node}");
                lease.transitions += 1;
            }),
            8 => {
                let duration_s = self.rng.u32(1..20);
                self.edit(|lease| lease.duration_s = duration_s);
            }
            9 => self.backup = self.lease.clone(),
            // The link, the labels or the cordon of the node change.
            10 | 11 => {
                let fitness = [Fitness::Able, Fitness::Doubtful, Fitness::Unable, Fitness::Barred];
                let fitness = fitness[self.rng.usize(0..fitness.len())];
                self.set_fitness(node, fitness);
            }
            12 => self.roll_back(node),
            13 => {
                let process = self.nodes[node].process;
                let heir = match self.rng.usize(0..=self.nodes.len()) {
                    0 => Heir::Anyone,
                    index => Heir::Node(format!("node{}", index - 1)),
                };
                self.push(self.now, Happening::Input(node, process, Input::HandOver(heir)));
            }
            14 => {
                let fitness = [Fitness::Doubtful, Fitness::Impaired, Fitness::Unable];
                let fitness = fitness[self.rng.usize(0..fitness.len())];
                self.fall_ill(node, Some(Ailment { fitness, why: "ill".into() }));
            }
            16 | 17 => self.outsider_takes(),
            18 | 19 => self.outsider_ends(),
            _ => {
                // etcd is restored from a backup: the content is old, but versions continue.
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

    /// Changes the link, the labels or the cordon of a node so that it has this fitness.
    pub(super) fn set_fitness(&mut self, index: usize, fitness: Fitness) {
        let node = &mut self.nodes[index];
        node.facts = super::facts();
        node.facts.cordoned = fitness == Fitness::Doubtful;
        if fitness == Fitness::Barred {
            node.facts.labels.clear();
        }
        node.link_up = fitness != Fitness::Unable;
        if fitness == Fitness::Able {
            self.fall_ill(index, None);
        }
        let node = &self.nodes[index];
        if node.down {
            return;
        }
        let (process, facts) = (node.process, node.facts.clone());
        self.push(self.now, Happening::Event(index, process, Event::Facts(facts)));
        self.push(self.now, Happening::Event(index, process, Event::HostChanged));
    }

    /// At this time, the API server of a node falls ill, or is well again.
    pub fn ail(&mut self, at: Ms, index: usize, fitness: Option<Fitness>) {
        let ailment = fitness.map(|fitness| Ailment { fitness, why: "ill".into() });
        let event = Event::Health(Service::ApiServer, ailment);
        self.push(at, Happening::Event(index, self.nodes[index].process, event));
    }

    /// Whether a node answers for the VIP now.
    pub fn owns(&self, index: usize) -> bool {
        self.answers(index, self.now)
    }

    /// The API server of a node falls ill, or is well again.
    fn fall_ill(&mut self, index: usize, ailment: Option<Ailment>) {
        if !self.nodes[index].down {
            let event = Event::Health(Service::ApiServer, ailment);
            self.push(self.now, Happening::Event(index, self.nodes[index].process, event));
        }
    }

    /// The process dies on the node that wrote the Lease last, and a client-go program starts there
    /// instead.
    fn roll_back(&mut self, index: usize) {
        if self.written_by != Some(index) || self.outsider.is_some() {
            return;
        }
        let node = &mut self.nodes[index];
        node.process += 1;
        node.down = true;
        node.watch = Watch::Away;
        (node.turn, node.works) = (Turn::default(), false);
        node.waiting.clear();
        self.client_go = Some(ClientGo { node: index, answers_until: self.now, cut_off: false });
        self.client_go_renews();
        self.judge(index);
    }

    /// The program reads and writes without delay. It answers until it must assume that it has lost the
    /// Lease.
    pub(super) fn client_go_renews(&mut self) {
        let Some(mut foreign) = self.client_go else { return };
        let name = format!("node{}", foreign.node);
        let lost = self.lease.as_ref().is_none_or(|lease| lease.holder != name);
        if lost || foreign.answers_until < self.now {
            self.client_go = None;
            self.nodes[foreign.node].down = false;
            return self.restart(foreign.node, false);
        }
        foreign.cut_off |= self.quiet || self.chance(150);
        if !foreign.cut_off {
            let wall_us = self.clock(foreign.node).wall_us;
            self.edit(|lease| {
                lease.duration_s = ClientGo::DURATION_S;
                lease.renew_us = Some(wall_us);
            });
            foreign.answers_until = self.now + ClientGo::ANSWERS_MS;
        }
        self.client_go = Some(foreign);
        let last = foreign.answers_until + 1;
        let next = if foreign.cut_off { last } else { self.now + ClientGo::RETRY_MS };
        self.push(next, Happening::ClientGo);
    }

    /// The process dies and restarts. Without a reboot the kernel answers until its fence.
    pub(super) fn restart(&mut self, index: usize, reboot: bool) {
        let node = &mut self.nodes[index];
        node.process += 1;
        if reboot {
            node.boot += 1;
            node.kernel = Kernel::default();
        }
        node.wake_at = 0;
        node.again = false;
        let Kernel { tenure, deadline: until, generation, vips, .. } = &node.kernel;
        let served =
            vips.iter().filter(|(_, vip)| vip.generation != 0 && vip.generation == *generation);
        let served: BTreeSet<IpAddr> = served.map(|(ip, _)| IpAddr::from(*ip)).collect();
        let adopted = tenure.clone().filter(|_| *until > BootNs(0));
        let adopted = adopted.map(|(tenure, duration_s)| AdoptedFence {
            tenure,
            until: *until,
            duration_s,
            served,
        });
        let lease = if tenure.is_some() { "lease".into() } else { String::new() };
        let slot = SlotState { lease, generation: *generation, adopted };
        let process = node.process;
        node.begin(identity(index, process, node.boot), slot, self.knobs.weights());
        self.push(self.now, Happening::GoOn(index, process));
        self.watch_after(index, 1);
    }

    pub(super) fn plan_mishap(&mut self) {
        let at = self.now + self.rng.u64(1..2 * self.knobs.mishap_every_ms);
        self.push(at, Happening::Mishap);
        // Nodes that have left start again.
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if !node.down && matches!(node.state(), State::Left) {
                self.restart(index, false);
            }
        }
        self.look_for_the_lost();
    }
}
