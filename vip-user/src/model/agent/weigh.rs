//! Computes how well this node could serve, from what is known about the host and the LAN.

use super::Agent;
use crate::model::{
    changes::{BLIND_FOR, Failed},
    fitness::Fitness,
    group::Group,
    health::{Ailment, Service},
    lease::election::Input,
    news::{News, Of},
    ownership::Ownership,
    time::{BootNs, Now},
    turn::Turn,
};
use std::net::IpAddr;

/// The outcome of the last look at the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// There was no look yet.
    #[default]
    Never,
    /// The host could be examined.
    Good,
    /// The host could not be examined since then, at so many attempts. Unknown does not mean bad:
    /// others may keep the kernel busy for seconds.
    Blind { since: BootNs, looks: u32 },
    /// The look has failed, or was impossible for too long.
    Failed,
}

impl Look {
    /// The outcome after a look that has failed.
    pub(super) fn after(self, failed: &Failed, now: BootNs) -> Self {
        match self {
            Self::Good if failed.blind => Self::Blind { since: now, looks: 1 },
            Self::Blind { since, looks } if failed.blind && now < since.after(BLIND_FOR) => {
                Self::Blind { since, looks: looks + 1 }
            }
            _ => Self::Failed,
        }
    }

    /// Whether the outcome speaks against this node. `served` says that this host has all that it needs
    /// to serve: then a change can wait.
    pub(super) fn is_bad(self, served: bool) -> bool {
        match self {
            Self::Never | Self::Failed => true,
            Self::Good => false,
            Self::Blind { looks, .. } => !served && looks > 1,
        }
    }
}

impl Agent {
    /// Computes the fitness of every group again, if something may have changed that affects all of
    /// them.
    pub(super) fn weigh(&mut self, now: Now, turn: &mut Turn) {
        if !std::mem::take(&mut self.weighs_all) {
            return;
        }
        for slot in self.slots_in_use() {
            self.weigh_one(now, slot, turn);
        }
    }

    /// Computes the fitness of one group again. If it has changed, the election takes a step.
    pub(super) fn weigh_one(&mut self, now: Now, slot: u32, turn: &mut Turn) {
        let Some(group) = self.groups.get(&slot) else { return };
        let (fitness, why) = self.fitness(now.boot, group);
        let Some(group) = self.groups.get_mut(&slot) else { return };
        let is_told = group.told == Some(fitness) && group.weakness == why;
        group.told = Some(fitness);
        group.weakness.clone_from(&why);
        let changed = group.election.set_fitness(fitness, group.macs.clone());
        if !is_told {
            self.news.push(News::Fitness(slot, fitness));
            self.tell("fitness", Of::Group(slot), why.map(|why| format!("{fitness}: {why}")));
        }
        if changed {
            self.feed(now, slot, Input::Tick, turn);
        }
    }

    /// Notes what ails a service of this node.
    pub(super) fn hear_of(&mut self, service: Service, ailment: Option<Ailment>) {
        self.weighs_all |= self.ailments.get(&service) != ailment.as_ref();
        let what = match service {
            Service::ApiServer => "API server",
            Service::Kubelet => "kubelet",
        };
        self.tell(what, Of::Node, ailment.as_ref().map(|ailment| ailment.why.clone()));
        match ailment {
            Some(ailment) => self.ailments.insert(service, ailment),
            None => self.ailments.remove(&service),
        };
    }

    fn fitness(&self, now: BootNs, group: &Group) -> (Fitness, Option<String>) {
        let ownership = group.election.ownership(now);
        let nodes = &group.spec.nodes;
        let lacks = self
            .facts
            .as_ref()
            .and_then(|facts| nodes.iter().find(|(key, value)| facts.labels.get(*key) != Some(value)));
        if let Some((key, value)) = lacks {
            return (Fitness::Barred, Some(format!("this node lacks the label {key}={value}")));
        }
        if let Some(why) = self.host.fault(|| self.is_served(now, group)) {
            return (Fitness::Unable, Some(why.into()));
        }
        let links = group.damper.fitness(now, ownership.is_ours());
        if links == Fitness::Unable {
            return (Fitness::Unable, Some("no answering interface is up and guarded".into()));
        }
        let (harmed, harm) = self.harms.weigh(&group.spec.vips);
        if harmed == Fitness::Unable {
            return (harmed, harm);
        }
        let ill = |least: Fitness| {
            let ailing = self.ailments.values().find(|ailment| ailment.fitness >= least);
            ailing.map(|ailment| ailment.why.clone())
        };
        if let Some(why) = ill(Fitness::Unable) {
            return (Fitness::Unable, Some(why));
        }
        if links == Fitness::Impaired {
            return (links, Some("the link has just come back".into()));
        }
        if group.reach == Fitness::Impaired {
            return (Fitness::Impaired, Some("some VIPs have no interface that is up".into()));
        }
        if harmed == Fitness::Impaired {
            return (harmed, harm);
        }
        let cordoned = self.facts.as_ref().is_some_and(|facts| facts.cordoned);
        let doubts = [
            self.lan.clone(),
            ill(Fitness::Doubtful),
            // If another version left a Lease behind, this node could not publish its VIPs.
            self.cannot_list.is_some().then(|| "it may not list Leases".to_owned()),
            self.waits_for_its_node(ownership, group)
                .then(|| "its Node has not been read, so its labels are not known".to_owned()),
            cordoned.then(|| "this node is cordoned".to_owned()),
        ];
        match doubts.into_iter().flatten().next() {
            Some(doubt) => (Fitness::Doubtful, Some(doubt)),
            None => (Fitness::Able, None),
        }
    }

    /// Whether this node waits for its `Node` object, because the group depends on labels. Unknown does
    /// not mean bad. Such a candidate leaves the Lease to nodes that know their labels, and takes it if
    /// there are none. A holder keeps the Lease, even across a restart.
    fn waits_for_its_node(&self, ownership: Ownership, group: &Group) -> bool {
        let waits = match ownership {
            Ownership::Unknown => !group.adopted,
            Ownership::Elsewhere { .. } | Ownership::ProgramHere => true,
            _ => false,
        };
        waits && self.facts.is_none() && !group.spec.nodes.is_empty()
    }

    /// Whether this node owns the group, and answers for every VIP that it should answer for.
    fn is_served(&self, now: BootNs, group: &Group) -> bool {
        let silent = |vip: &IpAddr| !group.election.admits(*vip) || self.is_yielded(*vip);
        let vips = &group.spec.vips;
        vips.iter().all(|vip| silent(vip) || self.is_published(now, group, *vip))
            && group.election.ownership(now).is_ours()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_was_not_possible_says_nothing_for_a_while() {
        let failed = |blind| Failed { why: "no".into(), blind, cut_off: blind };
        let at = |ms: u64| BootNs(ms * 1_000_000);
        let once = Look::Good.after(&failed(true), at(0));
        assert!(!once.is_bad(false));
        let twice = once.after(&failed(true), at(1_000));
        assert!(twice.is_bad(false) && !twice.is_bad(true), "a host that serves can wait");
        assert!(twice.after(&failed(true), at(5_000)).is_bad(true), "it may be anything by now");
        assert!(twice.after(&failed(false), at(1_000)).is_bad(true));
        assert!(Look::Never.after(&failed(true), at(0)).is_bad(true), "there was no good look before");
        assert!(Look::Good.after(&failed(false), at(0)).is_bad(true));
    }
}
