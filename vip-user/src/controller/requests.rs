//! The requests of each group. They are spawned, and their results come back as events.

use super::{
    Controller,
    event::{Event, GroupId},
};
use crate::{
    clock,
    cluster::{
        lease::LeaseApi,
        watch::{self, Sighting},
    },
    model::{
        effects::Outgoing,
        lease::{
            admission::Strike,
            election::Source,
            offers::Offer,
            record::{LeaseWrite, Version},
        },
    },
    node::{dataplane::Dataplane, visit},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};

/// The requests of one group to the API.
pub(super) struct Requests {
    pub(super) id: GroupId,
    pub(super) api: LeaseApi,
    duration_s: u32,
    /// A port of the service behind the VIPs.
    port: u16,
    /// Ends the present watch, and so starts a new one.
    again: Arc<Notify>,
    events: mpsc::Sender<Event>,
    watch: AbortHandle,
}

impl Drop for Requests {
    /// A request in flight may still be stored. Its result is ignored, because its group is no longer
    /// known.
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Requests {
    /// Follows the Lease of a group from now on.
    pub(super) fn follow(
        id: GroupId,
        api: LeaseApi,
        (duration_s, port): (u32, u16),
        events: mpsc::Sender<Event>,
    ) -> Self {
        let again = Arc::new(Notify::new());
        let event = move |sighting| Event::Sighting(id, sighting);
        let (lease, ends) = (api.clone(), Arc::clone(&again));
        let follow = watch::follow(lease, watch::WATCH_S, ends, events.clone(), event);
        let watch = tokio::spawn(follow).abort_handle();
        Self { id, api, duration_s, port, again, events, watch }
    }

    /// Sends a request. A candidate that has to read may have missed something, so it also begins a new
    /// watch.
    pub(super) fn send(&self, send: Outgoing, candidate: bool) {
        match send {
            Outgoing::Write(write) => self.write(write),
            Outgoing::Offer(base, offer) => self.offer(base, offer),
            Outgoing::Create => self.create(),
            Outgoing::Read => {
                if candidate {
                    self.again.notify_one();
                }
                self.read();
            }
            Outgoing::List(number) => self.list(number),
            Outgoing::Strike(strike) => self.strike(strike),
            Outgoing::Visit(ip) => self.visit(ip),
            // Probes are frames, which `speak` sends.
            Outgoing::Probe => {}
        }
    }

    /// Makes a quorum read beside the watch.
    fn read(&self) {
        let (id, api, events) = (self.id, self.api.clone(), self.events.clone());
        let began = clock::boot();
        tokio::spawn(async move {
            let sighting = match api.get(1).await {
                Ok(record) => Sighting::Seen(Source::Quorum(began), record),
                Err(error) => Sighting::Unreadable(error.to_string()),
            };
            let _ = events.send(Event::Sighting(id, sighting)).await;
        });
    }

    /// Creates the Lease without a holder.
    fn create(&self) {
        let (id, api, events) = (self.id, self.api.clone(), self.events.clone());
        let (again, duration_s) = (Arc::clone(&self.again), self.duration_s);
        let began = clock::boot();
        tokio::spawn(async move {
            let created = api.create(duration_s).await;
            let problem = created.as_ref().err().map(ToString::to_string);
            let _ = events.send(Event::Created(id, problem)).await;
            match created {
                Ok(Some(record)) => {
                    let seen = Sighting::Seen(Source::Quorum(began), Some(record));
                    let _ = events.send(Event::Sighting(id, seen)).await;
                }
                // Another node has created it. A watch that lags may not show that yet, but a read
                // does.
                Ok(None) => again.notify_one(),
                Err(_) => {}
            }
        });
    }

    fn write(&self, write: LeaseWrite) {
        let (group, api, events) = (self.id, self.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let id = write.id;
            let (outcome, error) = api.write(write).await;
            let problem = error.map(|error| error.to_string());
            let _ = events.send(Event::Written { group, id, outcome, problem }).await;
        });
    }

    fn offer(&self, base: Version, offer: Offer) {
        let lease = self.api.full_name();
        tracing::info!(%lease, "offering to serve better than the holder does");
        let api = self.api.clone();
        tokio::spawn(async move {
            if let Some(error) = api.offer(base, &offer).await {
                tracing::debug!(%error, "the offer was not written");
            }
        });
    }

    /// Lists the Leases of the namespace.
    fn list(&self, number: u64) {
        let (id, api, events) = (self.id, self.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let leases = api.list().await.map_err(|error| error.to_string());
            let _ = events.send(Event::Listed(id, number, leases)).await;
        });
    }

    /// Tries to connect to a VIP for which another station answers.
    fn visit(&self, ip: IpAddr) {
        let (id, events, address) = (self.id, self.events.clone(), SocketAddr::new(ip, self.port));
        tokio::spawn(async move {
            let served = visit::is_served(address).await;
            let _ = events.send(Event::Visited(id, ip, served)).await;
        });
    }

    /// Strikes VIPs out of another Lease.
    fn strike(&self, strike: Strike) {
        tracing::warn!(
            lease = %strike.lease,
            admitted = ?strike.guarded.admitted,
            "another Lease guards a VIP of this one and nobody renews it; the VIP is struck out of it"
        );
        let api = self.api.clone();
        tokio::spawn(async move {
            if let Some(error) = api.strike(&strike).await {
                tracing::warn!(%error, lease = %strike.lease, "nothing was struck out");
            }
        });
    }
}

impl<D: Dataplane> Controller<D> {
    /// Whether the group of an event still exists.
    pub(super) fn is_current(&self, group: GroupId) -> bool {
        self.requests.get(&group.slot).is_some_and(|requests| requests.id == group)
    }

    /// Starts to follow the Leases of new groups, and stops to follow those of groups that have gone.
    pub(super) fn follow_groups(&mut self) {
        let agent = &self.agent;
        let is_there = |slot: u32, requests: &Requests| {
            agent.group(slot).is_some_and(|group| group.serial() == requests.id.serial)
        };
        let gone: Vec<u32> = self
            .requests
            .iter()
            .filter(|(slot, requests)| !is_there(**slot, requests))
            .map(|(slot, _)| *slot)
            .collect();
        for requests in gone.into_iter().filter_map(|slot| self.requests.remove(&slot)) {
            self.problems.remove_of(&requests.api.full_name());
        }
        if self.requests.len() == self.agent.groups().count() {
            return;
        }
        for (slot, group) in self.agent.groups() {
            if self.requests.contains_key(&slot) {
                continue;
            }
            let id = GroupId { slot, serial: group.serial() };
            let api = self.setup.api.named(group.lease());
            let settings = (self.setup.policy.timing.duration_s, self.setup.port);
            self.requests.insert(slot, Requests::follow(id, api, settings, self.events.clone()));
        }
    }
}
