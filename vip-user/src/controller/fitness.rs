//! How well this node could serve, from everything that is known about the host and the LAN.

use super::Controller;
use crate::{
    clock,
    model::{
        election::Input,
        fitness::Fitness,
        ownership::Ownership,
        record::{Offer, Version},
        time::BootNs,
    },
    node::dataplane::{Dataplane, HostError},
};
use std::collections::BTreeMap;

/// What a look at the host has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing yet.
    #[default]
    Never,
    /// It was as it should be.
    Good,
    /// The last look was not possible; the one before was good. What is not known is not bad.
    Blind,
    /// It has failed.
    Failed,
}

impl Look {
    /// After a look that has failed.
    pub(super) fn after(self, error: &HostError) -> Self {
        if self == Self::Good && error.is_blind() { Self::Blind } else { Self::Failed }
    }

    fn is_bad(self) -> bool {
        matches!(self, Self::Never | Self::Failed)
    }
}

/// What speaks against the host as a whole. Problems are words for people; decisions look here.
#[derive(Debug, Default)]
pub(super) struct HostState {
    /// The interfaces.
    pub(super) interfaces: Look,
    /// Entries and addresses.
    pub(super) entries: Look,
    /// No entry could be written.
    pub(super) full: bool,
}

impl HostState {
    fn fault(&self) -> Option<&'static str> {
        if self.interfaces.is_bad() {
            Some("the interfaces are not known")
        } else if self.entries.is_bad() {
            Some("the entries and addresses are not known")
        } else {
            self.full.then_some("no VIP could be published")
        }
    }
}

impl<D: Dataplane> Controller<D> {
    /// Weighs every Lease anew, and lets those elections that are touched by it go on.
    pub(super) async fn weigh(&mut self) {
        for slot in self.update_fitness() {
            Box::pin(self.step(slot, Input::Tick)).await;
        }
    }

    /// Sets the fitness of every election; returns the slots where it has changed.
    pub(super) fn update_fitness(&mut self) -> Vec<u32> {
        let now = clock::boot();
        let mut changed = Vec::new();
        let mut weak = BTreeMap::new();
        for setup in &self.setup.leases {
            let Some(leased) = self.leases.get_mut(&setup.slot) else { continue };
            let ownership = leased.election.ownership(now);
            let lacks = self.facts.as_ref().and_then(|facts| {
                setup.nodes.iter().find(|(key, value)| facts.labels.get(*key) != Some(value))
            });
            // What is not known is not bad: a candidate leaves the Lease to those who know that they
            // may hold it, and takes it if there are none. A holder goes on, also across a restart.
            let unread = self.facts.is_none()
                && !setup.nodes.is_empty()
                && match ownership {
                    Ownership::Unknown => setup.backed.is_none(),
                    Ownership::Elsewhere { .. } | Ownership::ProgramHere => true,
                    _ => false,
                };
            let holds = ownership.is_ours();
            let links = leased.damper.fitness(now, holds);
            let (harmed, harm) = self.harms.weigh(&leased.vips);
            let (fitness, why) = if let Some((key, value)) = lacks {
                (Fitness::Barred, Some(format!("this node lacks the label {key}={value}")))
            } else if let Some(why) = self.host.fault() {
                (Fitness::Unable, Some(why.into()))
            } else if links == Fitness::Unable {
                (Fitness::Unable, Some("no answering interface is up and guarded".into()))
            } else if links == Fitness::Doubtful {
                (Fitness::Doubtful, Some("the link has just come back".into()))
            } else if leased.reach == Fitness::Doubtful {
                (Fitness::Doubtful, Some("some VIPs have no interface that is up".into()))
            } else if harmed != Fitness::Able {
                (harmed, harm)
            } else if let Some(why) = &self.lan {
                (Fitness::Doubtful, Some(why.clone()))
            } else if self.cannot_list.is_some() {
                // What another version leaves behind could not be published here.
                (Fitness::Doubtful, Some("it may not list Leases".into()))
            } else if unread {
                (
                    Fitness::Doubtful,
                    Some("its Node has not been read, so its labels are not known".into()),
                )
            } else if self.facts.as_ref().is_some_and(|facts| facts.cordoned) {
                (Fitness::Doubtful, Some("this node is cordoned".into()))
            } else {
                (Fitness::Able, None)
            };
            leased.weakness.clone_from(&why);
            let lease = leased.api.full_name();
            self.setup.metrics.fitness(&lease, fitness);
            weak.insert(format!("fitness {lease}"), (fitness, why));
            if leased.election.set_fitness(fitness, leased.macs.clone()) {
                changed.push(setup.slot);
            }
        }
        for (subject, (fitness, why)) in weak {
            self.problem(&subject, why.map(|why| format!("{fitness}: {why}")));
        }
        changed
    }

    /// Shows the links to the dampers.
    pub(super) fn watch_links(&mut self, now: BootNs) {
        for leased in self.leases.values_mut() {
            let usable = leased.reach < Fitness::Unable;
            leased.damper.observe(now, usable, self.links.attached);
        }
        self.links.attached = false;
    }

    pub(super) fn offer(&self, slot: u32, base: Version, offer: Offer) {
        let Some(leased) = self.leases.get(&slot) else { return };
        tracing::info!(lease = %leased.api.full_name(), "offering to serve better than the holder does");
        let api = leased.api.clone();
        tokio::spawn(async move {
            if let Some(error) = api.offer(base, &offer).await {
                tracing::debug!(%error, "the offer was not written");
            }
        });
    }
}

#[cfg(test)]
mod tests;
