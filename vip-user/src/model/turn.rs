//! What one step of the node wants done. The order of the fields of a [`Turn`] is the order of
//! execution: fences first, then the host, and only then what is sent. The loop, a simulated node and
//! the model checker take one [`Step`] after the other, and decide nothing.

use super::{
    effects::{Effects, FenceChange, Outgoing},
    news::{News, Why},
    time::BootNs,
};
use std::collections::BTreeSet;
use vip_common::mac::Mac;

/// Everything that one step of the node wants done. The numbers are slots of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Fences to raise or lower. A lowering that fails keeps writes back: see
    /// [`failed_to_lower`](Self::failed_to_lower).
    pub fences: Vec<(u32, FenceChange)>,
    /// Groups for which the kernel must be silent: store 0, read it back, wait for one grace period and
    /// for queued frames. [`Event::Silenced`](super::agent::Event::Silenced) follows.
    pub silence: Vec<(u32, Why)>,
    /// The stations that may claim the VIPs of a group.
    pub stations: Vec<(u32, Stations)>,
    /// Whether the host is to be brought into its desired state.
    pub host: bool,
    /// Requests to the API.
    pub sends: Vec<(u32, Outgoing)>,
    /// News for people.
    pub news: Vec<News>,
    not_lowered: BTreeSet<u32>,
}

/// The stations that may claim the VIPs of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stations {
    /// Their MAC addresses.
    pub macs: Vec<Mac>,
    /// Until when this is known.
    pub until: BootNs,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change the fence of a group.
    Fence(u32, FenceChange),
    /// Silence the kernel for these groups at once.
    Silence(Vec<(u32, Why)>),
    /// Write into the kernel's maps which stations may claim the VIPs of a group.
    Stations(u32, Stations),
    /// Bring the host into its desired state.
    Host,
    /// Send this for a group.
    Send(u32, Outgoing),
    /// The write with this id must not leave. Its outcome is
    /// [`KeptBack`](super::lease::election::Written::KeptBack).
    KeepBack(u32, u64),
    /// Report this.
    News(News),
}

impl Turn {
    /// What one step of the election of a group wants done.
    pub fn of(slot: u32, effects: Effects) -> Self {
        let mut turn = Self::default();
        turn.take_in(slot, effects, None);
        turn
    }

    /// Adds what the election of a group wants done. The VIPs may have been unanswered since
    /// `silent_since`.
    pub(super) fn take_in(&mut self, slot: u32, effects: Effects, silent_since: Option<BootNs>) {
        self.fences.extend(effects.fences.into_iter().map(|change| (slot, change)));
        self.silence.extend(effects.silence.map(|why| (slot, why)));
        self.host |= effects.host;
        self.sends.extend(effects.sends.into_iter().map(|send| (slot, send)));
        let told = effects.news.into_iter();
        self.news.extend(told.map(|notice| News::Leadership { slot, notice, silent_since }));
    }

    /// Takes the next step. No write leaves before the entries of this host have been `reconciled`
    /// once.
    pub fn next(&mut self, reconciled: bool) -> Option<Step> {
        if !self.fences.is_empty() {
            let (slot, change) = self.fences.remove(0);
            return Some(Step::Fence(slot, change));
        }
        if !self.silence.is_empty() {
            return Some(Step::Silence(std::mem::take(&mut self.silence)));
        }
        if !self.stations.is_empty() {
            let (slot, stations) = self.stations.remove(0);
            return Some(Step::Stations(slot, stations));
        }
        if std::mem::take(&mut self.host) {
            return Some(Step::Host);
        }
        if !self.sends.is_empty() {
            let (slot, send) = self.sends.remove(0);
            return Some(match send {
                Outgoing::Write(write) if self.not_lowered.contains(&slot) || !reconciled => {
                    Step::KeepBack(slot, write.id)
                }
                send => Step::Send(slot, send),
            });
        }
        if self.news.is_empty() { None } else { Some(Step::News(self.news.remove(0))) }
    }

    /// The fence of a group could not be lowered. A write that shortens D must not leave before the
    /// fence is lowered. Also give the election
    /// [`NotLowered`](super::lease::election::Input::NotLowered).
    pub fn failed_to_lower(&mut self, slot: u32) {
        self.not_lowered.insert(slot);
    }

    /// Whether no fence changes, nothing is sent, and no change of leadership is reported. Work on this
    /// host alone does not count.
    pub fn is_quiet(&self) -> bool {
        self.fences.is_empty()
            && self.silence.is_empty()
            && self.sends.is_empty()
            && !self.news.iter().any(|news| matches!(news, News::Leadership { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::news::Notice;

    #[test]
    fn the_fields_are_the_order() {
        let stations = Stations { macs: vec![Mac([2; 6])], until: BootNs(9) };
        let lapsed = News::Leadership { slot: 1, notice: Notice::Lapsed, silent_since: None };
        let mut turn = Turn {
            news: vec![lapsed.clone()],
            sends: vec![(1, Outgoing::Read), (2, Outgoing::Create)],
            host: true,
            stations: vec![(1, stations.clone())],
            silence: vec![(1, Why::Leaving), (2, Why::Deposed)],
            fences: vec![(1, FenceChange::Lower(BootNs(1))), (2, FenceChange::Lower(BootNs(2)))],
            not_lowered: BTreeSet::new(),
        };
        let steps: Vec<Step> = std::iter::from_fn(|| turn.next(true)).collect();
        let wanted = [
            Step::Fence(1, FenceChange::Lower(BootNs(1))),
            Step::Fence(2, FenceChange::Lower(BootNs(2))),
            Step::Silence(vec![(1, Why::Leaving), (2, Why::Deposed)]),
            Step::Stations(1, stations),
            Step::Host,
            Step::Send(1, Outgoing::Read),
            Step::Send(2, Outgoing::Create),
            Step::News(lapsed),
        ];
        assert_eq!(steps, wanted);
        assert_eq!(turn, Turn::default());
    }
}
