//! Announcements and address probes: which are due, and at which pace they are sent.

use super::Agent;
use crate::model::{
    group::Group,
    harm::{Harm, in_words},
    news::Of,
    schedule::{BURST, RETRY, Schedule},
    time::{BootNs, Now},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};
use vip_common::abi::Port;

/// The largest number of VIPs that are announced in one go.
const PIECE: usize = 128;
/// Only groups with at most this many VIPs ask known neighbours. Each pair of a VIP and a neighbour
/// costs a frame.
const MAX_ASKING: usize = 100;
/// The largest number of waiting rounds per group. A round of a large group may take longer than the
/// pause before the next one.
const MAX_ROUNDS: usize = 3;
/// The number of rounds in a burst that also ask known neighbours.
const ASKING_ROUNDS: u8 = 2;
/// Time per VIP in the rounds after a take-over: 20 000 VIPs a second.
const BURST_PACE: Duration = Duration::from_micros(50);
/// Time per VIP in the rounds that refresh neighbours: 200 VIPs a second.
const REFRESH_PACE: Duration = Duration::from_millis(5);
/// An address probe that is later than this is not sent.
const LATE_PROBE: Duration = Duration::from_millis(500);
/// So is a question that is asked before a Lease is taken from another program: its answer must come in
/// time.
const LATE_QUESTION: Duration = Duration::from_millis(200);

/// Some VIPs of one group that are announced in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The slot of the group.
    pub slot: u32,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// Whether known neighbours are asked too, with the VIP as sender.
    pub asks: bool,
}

/// Rounds of announcements that wait to be sent, all at one pace. Groups take turns.
#[derive(Debug)]
pub(super) struct Rounds {
    waiting: VecDeque<Frames>,
    /// The earliest time for the next piece.
    at: BootNs,
    /// Time per VIP.
    pace: Duration,
}

impl Rounds {
    fn at_pace(pace: Duration) -> Self {
        Self { waiting: VecDeque::new(), at: BootNs(0), pace }
    }

    /// Rounds after a take-over, of which the neighbours know nothing yet.
    pub(super) fn bursts() -> Self {
        Self::at_pace(BURST_PACE)
    }

    /// Rounds that refresh the caches of neighbours.
    pub(super) fn refreshes() -> Self {
        Self::at_pace(REFRESH_PACE)
    }

    pub(super) fn wake_at(&self) -> Option<BootNs> {
        (!self.waiting.is_empty()).then_some(self.at)
    }

    fn add(&mut self, round: Frames) {
        if self.waiting.iter().filter(|waiting| waiting.slot == round.slot).count() < MAX_ROUNDS {
            self.waiting.push_back(round);
        }
    }

    /// One more VIP of a group, which was not among those of earlier rounds.
    fn add_late(&mut self, slot: u32, vip: IpAddr) {
        let mut rounds = self.waiting.iter_mut().rev();
        match rounds.find(|round| round.slot == slot && !round.asks) {
            Some(round) => round.vips.push(vip),
            None => self.waiting.push_back(Frames { slot, vips: vec![vip], asks: false }),
        }
    }

    /// The group of this slot now has these VIPs. Others are removed from its waiting rounds.
    pub(super) fn keep(&mut self, slot: u32, vips: &BTreeSet<IpAddr>) {
        for round in self.waiting.iter_mut().filter(|round| round.slot == slot) {
            round.vips.retain(|vip| vips.contains(vip));
        }
    }

    fn forget(&mut self, slot: u32) {
        self.waiting.retain(|round| round.slot != slot);
    }

    /// Takes a piece of the next round, if it is due. The rest of the round goes to the end of the
    /// queue.
    fn next(&mut self, now: BootNs) -> Option<Frames> {
        let mut round = self.waiting.pop_front_if(|_| now >= self.at)?;
        let rest = round.vips.split_off(round.vips.len().min(PIECE));
        if !rest.is_empty() {
            let Frames { slot, asks, .. } = round;
            self.waiting.push_back(Frames { slot, vips: rest, asks });
        }
        Some(round)
    }

    fn sent(&mut self, now: BootNs, vips: usize) {
        self.at = now.after(self.pace * u32::try_from(vips).unwrap_or(u32::MAX));
    }
}

impl Group {
    /// Starts a burst of announcements of its VIPs.
    pub(super) fn begin_burst(&mut self, now: BootNs) {
        self.announce_at = Schedule::of(now, &BURST);
        self.asking_rounds = ASKING_ROUNDS;
    }
}

impl Agent {
    /// Queues a round of announcements of a group, if one is due.
    pub(super) fn begin_round(&mut self, now: BootNs, slot: u32) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        if !group.announce_at.take_due(now) || !group.serves(now) {
            return;
        }
        let refreshes = group.announce_at.left() == 0;
        if refreshes && !self.policy.refresh.is_zero() {
            group.announce_at.then(now.after(self.policy.refresh));
        }
        let asks = group.asking_rounds > 0 && group.spec.vips.len() <= MAX_ASKING;
        group.asking_rounds = group.asking_rounds.saturating_sub(1);
        let round = Frames { slot, vips: group.spec.vips.clone(), asks };
        // The last round of a burst is not urgent, so it uses the pace of a refresh.
        if refreshes && !asks {
            self.refreshes.add(round);
        } else {
            self.refreshes.forget(slot);
            self.bursts.add(round);
        }
    }

    /// Announces one VIP before all others.
    pub(super) fn announce_now(&mut self, slot: u32, vip: IpAddr) {
        self.bursts.waiting.push_front(Frames { slot, vips: vec![vip], asks: false });
    }

    /// A VIP of a group has got its entry. It is announced at once if the burst of its group has begun
    /// without it: ten thousand entries take some seconds.
    pub(super) fn published(&mut self, now: BootNs, slot: u32, vip: IpAddr) {
        let Some(group) = self.groups.get_mut(&slot).filter(|group| group.serves(now)) else { return };
        // The last round of a burst leaves at the pace of a refresh.
        let is_last = group.announce_at.left() <= 1;
        if is_last || group.announce_at.next().is_none_or(|round| round > now) {
            group.published_late = true;
            self.bursts.add_late(slot, vip);
        }
    }

    /// An interface answers from now on. Bursts that began before left out what is answered on it.
    pub(super) fn came_up_late(&mut self, now: BootNs, port: Port) {
        for group in self.groups.values_mut().filter(|group| group.serves(now)) {
            let mut vips = group.spec.vips.iter();
            let is_here = |vip: &IpAddr| self.links.of(*vip).any(|link| link.port == port);
            group.published_late |= vips.any(is_here);
        }
    }

    /// The burst begins again for groups with VIPs that were published late.
    pub(super) fn burst_again(&mut self, now: BootNs) {
        for (slot, group) in &mut self.groups {
            if std::mem::take(&mut group.published_late) && group.serves(now) {
                group.begin_burst(now);
                self.timers.set(*slot, group.wake_at(now));
            }
        }
    }

    /// The VIPs to announce next, if any are due. Bursts come before refreshes. Report the outcome with
    /// [`announced`](Self::announced).
    pub fn next_frames(&mut self, now: BootNs) -> Option<Frames> {
        loop {
            let burst = self.bursts.next(now);
            let is_burst = burst.is_some();
            let mut round = burst.or_else(|| self.refreshes.next(now))?;
            let Some(group) = self.groups.get(&round.slot).filter(|group| group.serves(now)) else {
                self.bursts.forget(round.slot);
                self.refreshes.forget(round.slot);
                continue;
            };
            let silent = |vip: &IpAddr| self.conflicts.is_yielded(*vip) || !group.election.admits(*vip);
            // The guard stops what this host does not answer for yet.
            round.vips.retain(|vip| !silent(vip) && self.is_published(now, group, *vip));
            if !round.vips.is_empty() {
                let rounds = if is_burst { &mut self.bursts } else { &mut self.refreshes };
                rounds.sent(now, round.vips.len());
                return Some(round);
            }
        }
    }

    /// The outcome of announcements: the VIPs that failed, each with the reason, or why none was sent.
    pub fn announced(
        &mut self,
        now: BootNs,
        frames: &Frames,
        sent: Result<BTreeMap<IpAddr, String>, String>,
    ) {
        let problem = match sent {
            Ok(failures) => {
                for vip in &frames.vips {
                    match failures.get(vip) {
                        Some(why) => {
                            self.harms.failed(*vip, Harm::Announcement, why.clone(), now);
                            self.weighs_all = true;
                        }
                        None => self.weighs_all |= self.harms.worked(*vip, Harm::Announcement),
                    }
                }
                named(&failures)
            }
            Err(why) => Some(why),
        };
        if problem.is_some()
            && let Some(group) = self.groups.get_mut(&frames.slot)
        {
            group.announce_at.again_by(now.after(RETRY));
            self.set_timer(now, frames.slot);
        }
        self.tell("announcement", Of::Group(frames.slot), problem);
    }

    /// The slot of a group, and its VIPs for which the LAN must be asked next. Report the outcome with
    /// [`probed`](Self::probed).
    pub fn next_probe(&mut self, now: Now) -> Option<(u32, Vec<IpAddr>)> {
        for slot in self.probing.clone() {
            let Some(group) = self.groups.get_mut(&slot) else { continue };
            if !group.probe_at.take_due(now.boot) {
                continue;
            }
            if group.probe_at.left() == 0 {
                self.probing.remove(&slot);
            }
            // Nobody is heard if the LAN is broken. The programs report a station only if the VIP has an
            // entry.
            let deaf = self.lan.is_some() || !self.host.reconciled;
            // If no interface is up, no station can hear the question.
            let up = |vip: &IpAddr| self.links.of(*vip).any(|link| link.up);
            let asked = if group.election.asks_for_all() {
                group.spec.vips.clone()
            } else {
                group.election.asking()
            };
            let (can, cannot): (Vec<IpAddr>, Vec<IpAddr>) = asked.into_iter().partition(up);
            if deaf || can.is_empty() {
                group.election.could_not_ask(now);
            }
            for vip in cannot {
                group.election.cannot_ask(now, vip);
            }
            self.set_timer(now.boot, slot);
            return Some((slot, can));
        }
        None
    }

    /// The outcome of address probes. If a question was not sent, silence is no answer.
    pub fn probed(
        &mut self,
        now: Now,
        slot: u32,
        vips: &[IpAddr],
        sent: Result<BTreeMap<IpAddr, String>, String>,
    ) {
        let unasked: Vec<IpAddr> = match &sent {
            Ok(failures) => failures.keys().copied().collect(),
            Err(_) => vips.to_vec(),
        };
        if let Some(group) = self.groups.get_mut(&slot) {
            if unasked.len() == vips.len() {
                group.election.could_not_ask(now);
            }
            for vip in unasked {
                group.election.cannot_ask(now, vip);
            }
        }
        self.set_timer(now.boot, slot);
        let problem = match sent {
            Ok(failures) => named(&failures),
            Err(why) => Some(why),
        };
        self.tell("address probe", Of::Group(slot), problem);
    }

    /// Gives up probes that are much too late, and asks again later. The time for an answer counts from
    /// when the question was due. This comes first in a turn, because the process may have been paused.
    pub(super) fn give_up_late_probes(&mut self, now: Now) {
        // This is nearly always the case.
        if self.probing.is_empty() {
            return;
        }
        for slot in self.probing.clone() {
            let Some(group) = self.groups.get_mut(&slot) else { continue };
            let late = if group.election.asks_for_all() { LATE_QUESTION } else { LATE_PROBE };
            if group.probe_at.next().is_some_and(|at| at.after(late) <= now.boot) {
                group.probe_at.clear();
                group.election.could_not_ask(now);
                for vip in group.election.asking() {
                    group.election.cannot_ask(now, vip);
                }
                self.probing.remove(&slot);
                self.set_timer(now.boot, slot);
            }
        }
    }
}

fn named(failures: &BTreeMap<IpAddr, String>) -> Option<String> {
    in_words(failures.iter().map(|(vip, why)| (*vip, why.as_str())))
}
