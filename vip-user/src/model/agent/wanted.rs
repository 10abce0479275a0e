//! Groups begin and end.

use super::{Agent, SILENCE_RETRY};
use crate::model::{
    desired::Links,
    fitness::Fitness,
    group::{Group, GroupSpec},
    lease::election::Input,
    news::{Of, Why},
    ownership::Ownership,
    slots::SlotState,
    time::{BootNs, Now},
    turn::Turn,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

impl Agent {
    /// Handles the list of wanted groups. A new group gets a slot; one that is no longer listed is
    /// given up. Slots that no group has claimed since the start are silenced only now.
    pub(super) fn want(&mut self, now: Now, specs: Vec<GroupSpec>, turn: &mut Turn) {
        let specs: BTreeMap<String, GroupSpec> =
            specs.into_iter().map(|spec| (spec.lease.clone(), spec)).collect();
        for slot in self.slots_in_use() {
            let Some(group) = self.groups.get_mut(&slot) else { continue };
            match specs.get(&group.spec.lease) {
                Some(spec) if group.wanted => {
                    if group.spec.vips != spec.vips {
                        let vips: BTreeSet<IpAddr> = spec.vips.iter().copied().collect();
                        self.bursts.keep(slot, &vips);
                        self.refreshes.keep(slot, &vips);
                    }
                    group.change(spec.clone(), &self.policy.me.node, &self.links);
                    group.damper.observe(now.boot, group.reach < Fitness::Unable, false);
                    self.set_timer(now.boot, slot);
                }
                // The group is being given up. A new one begins when it has ended.
                Some(_) => {}
                None => self.give_up(now, slot, turn),
            }
        }
        // A Lease first gets the slot that it had. Only then are the other slots free.
        for spec in
            specs.values().filter(|spec| self.slots.has(&spec.lease)).cloned().collect::<Vec<_>>()
        {
            self.begin(now.boot, spec);
        }
        for (slot, SlotState { generation, adopted, .. }) in self.slots.take_unclaimed() {
            if adopted.is_none() {
                self.slots.give_back(slot, generation);
                continue;
            }
            self.clearing.insert(slot, (generation, now.boot.after(SILENCE_RETRY)));
            turn.silence.push((slot, Why::Unwanted));
        }
        self.wanted = Some(specs);
        self.begin_missing(now.boot);
        self.weighs_all = true;
        self.host.has_changed(now.boot);
        turn.host = true;
    }

    /// Begins the wanted groups that do not exist. Some found no free slot earlier, and others were
    /// still being given up.
    pub(super) fn begin_missing(&mut self, now: BootNs) {
        // A node that is stopping begins no group.
        let Some(wanted) = self.wanted.as_ref().filter(|_| self.stopping.is_none()) else { return };
        let there: BTreeSet<&str> = self.groups.values().map(Group::lease).collect();
        let missing: Vec<GroupSpec> =
            wanted.values().filter(|spec| !there.contains(spec.lease.as_str())).cloned().collect();
        let mut without: Vec<String> = Vec::new();
        for spec in missing {
            let lease = spec.lease.clone();
            if !self.begin(now, spec) {
                without.push(lease);
            }
        }
        let why = "all slots of the pinned maps are in use; not served";
        let problem = (!without.is_empty()).then(|| format!("{why}: {}", without.join(", ")));
        self.tell("slots", Of::Node, problem);
    }

    /// Begins a group. Returns whether there was a slot for it.
    fn begin(&mut self, now: BootNs, spec: GroupSpec) -> bool {
        let Some((slot, SlotState { generation, adopted, .. })) = self.slots.take(&spec.lease) else {
            return false;
        };
        let (me, timing) = (self.policy.me.clone(), self.policy.timing.clone());
        self.serial += 1;
        let (serial, asks_first) = (self.serial, self.policy.asks_first);
        let mut group = Group::new(spec, serial, me, timing, (generation, adopted), asks_first);
        group.election.on_foreign_conflict(self.policy.foreign_conflict);
        group.use_links(&self.links);
        group.damper.observe(now, group.reach < Fitness::Unable, false);
        self.groups.insert(slot, group);
        self.set_timer(now, slot);
        self.weighs_all = true;
        self.host.read_again();
        self.host.is_due(now);
        true
    }

    fn give_up(&mut self, now: Now, slot: u32, turn: &mut Turn) {
        let Some(group) = self.groups.get_mut(&slot) else { return };
        if std::mem::take(&mut group.wanted) {
            self.host.read_again();
            self.feed(now, slot, Input::Leave, turn);
        }
    }

    /// Forgets unwanted groups under which this host no longer answers: neither a fence nor an entry is
    /// left. Their slots are then free.
    pub(super) fn forget_groups(&mut self, now: BootNs) {
        if self.groups.values().all(|group| group.wanted) {
            return;
        }
        let Some(known) = self.host.known() else { return };
        let is_gone = |slot: u32, group: &Group| {
            let gone = match group.election.ownership(now) {
                Ownership::Gone { since } => since <= now,
                _ => false,
            };
            let answers = |vip: &vip_common::abi::Vip| vip.slot == slot && vip.generation != 0;
            gone && !group.wanted && group.silence_at.is_none() && !known.vips.values().any(answers)
        };
        let gone: BTreeSet<u32> = self
            .groups
            .iter()
            .filter(|(slot, group)| is_gone(**slot, group))
            .map(|(slot, _)| *slot)
            .collect();
        if gone.is_empty() {
            return;
        }
        for slot in gone {
            if let Some(group) = self.groups.remove(&slot) {
                self.timers.set(slot, None);
                self.probing.remove(&slot);
                for vip in &group.spec.vips {
                    self.tell("VIP", Of::Vip(*vip), None);
                    self.tell("conflict", Of::Vip(*vip), None);
                }
                self.slots.give_back(slot, group.election.generation());
            }
        }
        self.begin_missing(now);
    }
}

impl Group {
    /// Changes the VIPs of the group, the nodes that may hold its Lease, or their weights.
    fn change(&mut self, spec: GroupSpec, node: &str, links: &Links) {
        self.election.set_weight(spec.weight_of(node));
        if self.spec.vips != spec.vips {
            self.election.want(&spec.vips);
        }
        self.spec = spec;
        self.use_links(links);
    }
}
