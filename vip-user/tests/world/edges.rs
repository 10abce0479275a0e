//! The API of a simulated world and the paths to it. It does what `cluster/lease.rs`,
//! `cluster/watch.rs` and the requests of `controller/mod.rs` do, and no more: only an election or
//! its watch causes requests.

use super::{Happening, Ms, World};
use vip_user::model::{
    effects::Outgoing,
    lease::{
        election::{Input, Source, Written},
        record::{LeaseWrite, Record, Version},
        state::State,
    },
};

/// A request without an answer after this time has failed.
const TIMEOUT_MS: Ms = 2_650;
/// Pause before a watch that has ended is restarted.
const BACKOFF_MS: Ms = 100;

/// The state of a node's watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Events arrive.
    Open,
    /// No event arrives any more, but the node has not noticed.
    Dead,
    /// It is closed: the node pauses, or reads before the next watch.
    Away,
}

impl World {
    /// Sends an effect of a process.
    pub(super) fn send(&mut self, index: usize, send: Outgoing) {
        let process = self.nodes[index].process;
        self.asked.count(&send);
        match send {
            Outgoing::Write(write) => {
                if self.chance(self.knobs.twice) {
                    let again = Happening::Arrive(index, process, write.clone());
                    self.push(self.now + self.knobs.delay_ms.end, again);
                }
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Arrive(index, process, write));
                } else {
                    let id = write.id;
                    let failed = Input::Written { id, outcome: Written::Failed };
                    self.push(self.now + TIMEOUT_MS, Happening::Input(index, process, failed));
                }
            }
            Outgoing::Read => {
                // A candidate also begins its watch again.
                if matches!(self.nodes[index].state(), State::Waiting(_)) {
                    self.notify(index);
                }
                match self.delay() {
                    Some(delay) => {
                        let began = self.clock(index).boot;
                        self.push(self.now + delay, Happening::Ask(index, process, began));
                    }
                    None => self.read_fails(index, TIMEOUT_MS),
                }
            }
            Outgoing::Offer(base, offer) => {
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Offered(base, offer));
                }
            }
            Outgoing::Create => {
                if let Some(delay) = self.delay() {
                    self.push(self.now + delay, Happening::Create(index, process));
                }
            }
            // There is only one Lease, and no host on the LAN.
            Outgoing::List(_) | Outgoing::Strike(_) | Outgoing::Probe => {}
            Outgoing::Visit(ip) => {
                let served = Input::Visited(ip, Some(self.outsider_serves()));
                self.push(self.now + 50, Happening::Input(index, process, served));
            }
        }
    }

    pub(super) fn arrive(&mut self, node: usize, process: u64, write: LeaseWrite) {
        let current = self.lease.as_ref().map(|lease| lease.version.clone());
        let outcome = if write.base == current {
            let (fresh, version) = self.fresh_lease();
            let uid = self.lease.as_ref().map_or(fresh, |lease| lease.uid.clone());
            let record = write.stored(uid, version);
            self.lease = Some(record.clone());
            self.written_by = (!write.release).then_some(node);
            self.tell_watchers();
            Written::Stored(record)
        } else {
            Written::Conflict
        };
        self.answer(node, process, Input::Written { id: write.id, outcome });
    }

    /// Creates a Lease without a holder. The creator sees its Lease, or the one of a faster node.
    pub(super) fn create(&mut self, node: usize, process: u64) {
        if self.lease.is_some() {
            if self.nodes[node].process == process {
                self.notify(node);
            }
            return;
        }
        let (uid, version) = self.fresh_lease();
        let created = Record::unheld(uid, version, super::timing().duration_s);
        self.lease = Some(created.clone());
        self.written_by = None;
        self.tell_watchers();
        if let Some(delay) = self.delay() {
            let began = self.clock(node).boot;
            let seen = Input::Observed(Source::Quorum(began), Some(created));
            self.push(self.now + delay, Happening::Input(node, process, seen));
        }
    }

    /// A new uid, and the next version.
    fn fresh_lease(&mut self) -> (String, u64) {
        self.uids += 1;
        self.version += 1;
        (format!("uid-{}", self.uids), self.version)
    }

    /// Sends an answer back. A lost answer shows as a failure after the time limit.
    pub(super) fn answer(&mut self, node: usize, process: u64, input: Input) {
        match (self.delay(), input) {
            (Some(delay), input) => {
                self.push(self.now + delay, Happening::Input(node, process, input));
            }
            (None, Input::Written { id, .. }) => {
                let failed = Input::Written { id, outcome: Written::Failed };
                self.push(self.now + TIMEOUT_MS, Happening::Input(node, process, failed));
            }
            (None, _) => self.read_fails(node, TIMEOUT_MS),
        }
    }

    fn read_fails(&mut self, node: usize, after: Ms) {
        let process = self.nodes[node].process;
        self.push(self.now + after, Happening::Input(node, process, Input::ReadFailed));
    }

    /// Ends the present watch. If it is not open yet, it ends as soon as it opens.
    fn notify(&mut self, node: usize) {
        if self.nodes[node].watch == Watch::Away {
            self.nodes[node].again = true;
        } else {
            self.watch_after(node, BACKOFF_MS);
        }
    }

    /// The present watch has ended. After a delay, a read begins another.
    pub(super) fn watch_after(&mut self, node: usize, after: Ms) {
        self.nodes[node].watch = Watch::Away;
        self.follow_at(node, after);
    }

    fn follow_at(&mut self, node: usize, after: Ms) {
        self.nodes[node].watches += 1;
        let (process, watches) = (self.nodes[node].process, self.nodes[node].watches);
        self.push(self.now + after, Happening::Follow(node, process, watches));
    }

    /// A quorum read, and a watch from its version: events come after its answer.
    pub(super) fn follow(&mut self, node: usize, process: u64) {
        let Some(delay) = self.delay() else {
            self.read_fails(node, TIMEOUT_MS);
            let pause = self.rng.u64(2 * BACKOFF_MS..2_000);
            return self.watch_after(node, TIMEOUT_MS + pause);
        };
        let began = self.clock(node).boot;
        let seen = Input::Observed(Source::Quorum(began), self.lease.clone());
        let at = self.after_earlier(node, delay);
        self.push(at, Happening::Input(node, process, seen));
        self.nodes[node].watch = Watch::Open;
        self.nodes[node].watches_nothing = self.lease.is_none();
        if std::mem::take(&mut self.nodes[node].again) {
            self.watch_after(node, at - self.now + BACKOFF_MS);
        }
    }

    /// The arrival time of an event. Events of a watch arrive in order, even if they are late.
    fn after_earlier(&mut self, node: usize, delay: Ms) -> Ms {
        let at = self.nodes[node].watched_until.max(self.now + delay);
        self.nodes[node].watched_until = at;
        at
    }

    /// Sends an event to every watch, perhaps late. If it is lost, the watch is dead: no event
    /// comes until the node notices and a read begins another watch. The same happens after a
    /// deletion, and if the read had found no Lease.
    pub(super) fn tell_watchers(&mut self) {
        self.changed_at = self.now;
        for node in (0..self.nodes.len())
            .filter(|node| self.nodes[*node].watch == Watch::Open)
            .collect::<Vec<_>>()
        {
            let process = self.nodes[node].process;
            let lease = self.lease.clone().filter(|_| !self.nodes[node].watches_nothing);
            match (self.delay(), lease) {
                (Some(delay), Some(lease)) => {
                    let at = self.after_earlier(node, delay);
                    let seen = Input::Observed(Source::Watch, Some(lease));
                    self.push(at, Happening::Input(node, process, seen));
                }
                (Some(delay), None) => self.watch_after(node, delay + BACKOFF_MS),
                (None, _) => {
                    let unnoticed = self.rng.u64(100..60_000);
                    self.nodes[node].watch = Watch::Dead;
                    self.read_fails(node, unnoticed);
                    self.follow_at(node, unnoticed + 2 * BACKOFF_MS);
                }
            }
        }
    }

    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(lease) = &mut self.lease {
            change(lease);
            self.version += 1;
            lease.version = Version(self.version.to_string());
            self.written_by = None;
            self.tell_watchers();
        }
    }
}
