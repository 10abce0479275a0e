//! What must happen in the end, and what must not happen too often. At any moment, each node must have
//! an event to come. Once the faults end, every node holds the Lease or waits for it, one node answers,
//! and the API gets few requests.

use super::{Happening, Ms, Node, World};
use vip_user::model::{
    effects::Outgoing,
    fitness::Fitness,
    lease::{
        election::{Input, Source},
        state::State,
    },
};

/// How often the faults end for a while.
pub(super) const QUIET_EVERY_MS: Ms = 1_200_000;
/// By then every dead watch was noticed, every process runs, the wait for a foreign holder with a D of
/// 19 s is over, and heavier nodes have taken over, which takes a minute each.
const SETTLED_MS: Ms = 340_000;
/// How long the requests of a quiet cluster are counted.
const COUNTED_MS: Ms = 60_000;

/// Requests since the last count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    writes: u64,
    others: u64,
}

impl Asked {
    pub(super) fn count(&mut self, send: &Outgoing) {
        match send {
            Outgoing::Write(_) => self.writes += 1,
            Outgoing::Probe | Outgoing::Visit(_) => {}
            _ => self.others += 1,
        }
    }
}

impl World {
    /// The next step of a quiet time, which ends with the last step.
    pub(super) fn calm(&mut self, step: u8) {
        match step {
            0 => {
                self.quiet = true;
                self.only_a_proxy_stays();
                for node in 0..self.nodes.len() {
                    self.set_fitness(node, Fitness::Able);
                }
                self.push(self.now + SETTLED_MS, Happening::Calm(1));
            }
            1 => {
                self.asked = Asked::default();
                self.push(self.now + COUNTED_MS, Happening::Calm(2));
            }
            _ => {
                self.judge_liveness();
                self.outsider = None;
                self.quiet = false;
                self.push(self.now + QUIET_EVERY_MS, Happening::Calm(0));
            }
        }
    }

    fn judge_liveness(&mut self) {
        self.quiet_times += 1;
        for index in 0..self.nodes.len() {
            let state = self.nodes[index].state();
            if !matches!(state, State::Waiting(_) | State::Holding(_)) {
                self.crime = Some(format!("the faults are over and node {index} is lost: {state:?}"));
            }
        }
        let owners = (0..self.nodes.len()).filter(|index| self.answers(*index, self.now)).count();
        if owners != 1 {
            self.crime = Some(format!("the faults are over and {owners} nodes answer"));
        }
        let heaviest = self.nodes.len() - 1;
        let patient = |node: &Node| node.election().is_some_and(|election| election.given_up() == 0);
        let settles = self.knobs.weighted && self.nodes.iter().all(patient);
        self.settled_times += u64::from(settles);
        if settles && !self.answers(heaviest, self.now) {
            self.crime = Some("the faults are over and the heaviest node does not answer".into());
        }
        // A heavier node that waits for long may offer at any time.
        if self.knobs.weighted && !settles {
            return;
        }
        let Asked { writes, others } = self.asked;
        // The number of renewals by one holder, whose clock may be fast.
        let renewals = COUNTED_MS * 110 / 100 / super::timing().renew_every.as_millis() as Ms;
        if others > 0 || writes > renewals + 1 {
            self.crime = Some(format!("quiet, and {writes} writes and {others} other requests"));
        }
    }

    /// A due timer must be moved, or the election must do something; otherwise the loop spins.
    pub(super) fn judge_rest(&mut self, index: usize, asked: bool) {
        let now = self.clock(index).boot;
        let Some(election) = self.nodes[index].election() else { return };
        if !asked && election.wake_at(now).is_some_and(|at| at <= now) {
            self.crime = Some(format!("the timer of node {index} stays in the past: {election:?}"));
        }
    }

    /// A node that knows nothing needs a read. An open watch brings none.
    pub(super) fn look_for_the_lost(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            if node.down || *node.state() != State::Unknown || !node.is_idle() {
                continue;
            }
            let brings_on = |at: Ms, happening: &Happening| match happening {
                Happening::Follow(who, process, watches) => {
                    (*who, *process, *watches) == (index, node.process, node.watches)
                }
                Happening::Ask(who, process, _) | Happening::GoOn(who, process) => {
                    (*who, *process) == (index, node.process)
                }
                Happening::Input(
                    who,
                    process,
                    Input::ReadFailed | Input::Observed(Source::Quorum(_), _),
                ) => (*who, *process) == (index, node.process),
                Happening::Wake(who, process) => {
                    (*who, *process, at) == (index, node.process, node.wake_at)
                }
                _ => false,
            };
            if !self.queue.iter().any(|((at, _), happening)| brings_on(*at, happening)) {
                self.crime = Some(format!("node {index} knows nothing, and nothing will tell it more"));
            }
        }
    }
}
