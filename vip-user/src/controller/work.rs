//! The work of the loop on the host, within the time limits of a turn.

use super::{
    Controller,
    watchdog::{Activity, slice_is_over},
};
use crate::{
    clock,
    model::{
        agent::{Event, Work},
        changes::Failed,
        effects::FenceChange,
        group::Group,
        news::Why,
        plan::Action,
        time::BootNs,
        turn::Stations,
    },
    node::dataplane::{Dataplane, Failures, Fencing, HostError},
    notice::log_cleaned_up,
    sources::chain,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

impl<D: Dataplane> Controller<D> {
    /// Changes a fence. If it could not be lowered, returns the deadline that it should have had. A
    /// fence that could not be raised holds nothing back.
    pub(super) fn change_fence(&mut self, slot: u32, change: &FenceChange) -> Option<BootNs> {
        let dataplane = &mut self.dataplane;
        match change {
            FenceChange::Raise { tenure, generation, deadline, duration_s, new } => {
                let lease = self.agent.group(slot).map_or("", |group| group.lease());
                let (duration_s, generation) = (*duration_s, *generation);
                let fencing = Fencing { slot, lease, tenure, duration_s, generation };
                let raise = || dataplane.raise_fence(&fencing, *deadline);
                let raised = self.watchdog.call(Activity::Fence, raise);
                let raised = raised.map_err(|error| chain(&error));
                self.agent.raised(clock::boot(), slot, *new, raised);
                None
            }
            FenceChange::Lower(deadline) => {
                let lower = || dataplane.lower_fence(slot, *deadline);
                let lowered = self.watchdog.call(Activity::Fence, lower);
                let failed = lowered.is_err();
                self.problem_of("fence", slot, lowered.err().map(|error| chain(&error)));
                failed.then_some(*deadline)
            }
        }
    }

    /// Silences all these groups at once. Returns for each whether it is silent.
    pub(super) async fn silence(&mut self, groups: &[(u32, Why)]) -> Vec<Event> {
        tracing::debug!(?groups, "clearing fences");
        let slots: Vec<u32> = groups.iter().map(|(slot, _)| *slot).collect();
        let silence = self.dataplane.silence(&slots);
        let silenced = self.watchdog.run(Activity::Silence, silence).await;
        let mut events = Vec::new();
        for slot in slots {
            let why = match &silenced {
                Ok(failures) => failures.get(&slot).map(|error| chain(error)),
                Err(error) => Some(chain(error)),
            };
            events.push(Event::Silenced(slot, why.is_none()));
            self.problem_of("fence", slot, why);
        }
        events
    }

    /// Tells the kernel which stations may claim the VIPs of a group.
    pub(super) fn set_stations(&mut self, slot: u32, stations: &Stations) {
        let told = self.dataplane.set_holder(slot, &stations.macs, stations.until);
        self.problem_of("neighbour guard", slot, told.err().map(|error| chain(&error)));
    }

    /// Checks the guard and works on the host, if that is due and no election has to come first.
    pub(super) async fn work_on_host_if_due(&mut self) {
        let now = clock::boot();
        if self.agent.makes_way(now) {
            return;
        }
        if self.agent.guard_due() <= now && self.watchdog.has_time() {
            let looked =
                self.watchdog.run(Activity::Guard, self.dataplane.is_guarded()).await.flatten();
            self.agent.inspected(clock::boot(), looked.map_err(|error| chain(&error)));
        }
        if self.agent.host_is_due(clock::boot()) {
            self.work_on_host().await;
        }
    }

    /// Brings the host to its wanted state, as far as the time of a turn allows but by at least one
    /// change. If no time is left, or a step was cut off, this waits for the next turn.
    pub(super) async fn work_on_host(&mut self) {
        let now = clock::boot();
        let began = self.watchdog.begins_on_host(now);
        if !self.watchdog.has_time() || (began < now && self.watchdog.is_used_up(began)) {
            return self.agent.put_host_off(now);
        }
        self.agent.begin_on_host(now);
        let mut removed = BTreeSet::new();
        while let Some(work) = self.agent.next_on_host(clock::boot()) {
            match work {
                Work::Interfaces => {
                    let looked = self.watchdog.run(Activity::Interfaces, self.dataplane.links()).await;
                    self.agent.foretell(self.dataplane.refused());
                    self.agent.looked(clock::boot(), looked.flatten().map_err(failed));
                }
                Work::Read => {
                    let read = self.watchdog.run(Activity::Read, self.dataplane.actual()).await;
                    self.agent.foretell(self.dataplane.refused());
                    self.agent.read(clock::boot(), read.flatten().map_err(failed));
                }
                Work::Change(action) => {
                    let change = self.dataplane.apply(action);
                    let changed = self.watchdog.run(Activity::Change, change).await.flatten();
                    if let (Action::DelAddr(addr), Ok(())) = (action, &changed) {
                        removed.insert(IpAddr::from(addr.ip));
                    }
                    self.agent.changed(clock::boot(), action, changed.map_err(failed));
                    tokio::task::yield_now().await;
                }
            }
            if self.watchdog.is_used_up(began) {
                self.agent.interrupt_host(clock::boot());
                break;
            }
        }
        self.tell_removed(&removed);
    }

    /// Logs which VIPs of other nodes were served until now. An address that only gets its route again
    /// is ours.
    fn tell_removed(&self, removed: &BTreeSet<IpAddr>) {
        let now = clock::boot();
        let elsewhere = |(_, group): &(u32, &Group)| !group.election().ownership(now).is_ours();
        for (slot, group) in self.agent.groups().filter(elsewhere).filter(|_| !removed.is_empty()) {
            let vips = group.vips().iter().filter(|vip| removed.contains(vip));
            let vips: Vec<IpAddr> = vips.copied().collect();
            if let Some(lease) = self.lease_of(slot).filter(|_| !vips.is_empty()) {
                log_cleaned_up(&vips, &lease);
            }
        }
    }

    /// Sends the announcements and address probes that are due. Those for which this turn has no time
    /// stay due.
    pub(super) async fn speak(&mut self) {
        let began = clock::boot();
        while !slice_is_over(began)
            && let Some(frames) = self.agent.next_frames(clock::boot())
        {
            let announce = self.dataplane.announce(&frames.vips, frames.asks);
            let sent = self.watchdog.run(Activity::Announce, announce).await;
            self.agent.announced(clock::boot(), &frames, in_words(sent));
        }
        while !slice_is_over(began)
            && let Some((slot, vips)) = self.agent.next_probe(clock::now())
        {
            let probed = self.watchdog.run(Activity::Probe, self.dataplane.probe(&vips)).await;
            self.agent.probed(clock::now(), slot, &vips, in_words(probed));
        }
    }
}

fn failed(error: HostError) -> Failed {
    Failed {
        why: chain(&error),
        blind: error.is_blind(),
        cut_off: matches!(error, HostError::CutOff { .. }),
    }
}

fn in_words(sent: Result<Failures, HostError>) -> Result<BTreeMap<IpAddr, String>, String> {
    let words = |failures: Failures| failures.iter().map(|(vip, why)| (*vip, chain(why))).collect();
    sent.map(words).map_err(|error| chain(&error))
}
