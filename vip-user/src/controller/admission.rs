//! Which VIPs of a Lease may be published: what the model asks for, and what people are told of it.

use super::{
    Controller,
    event::Event,
    host::{BURST, PROBES, Schedule},
};
use crate::{
    cluster::{events::News, lease::LeaseApi},
    model::{
        admission::{Request, Strike},
        election::{Input, State},
        record::Record,
    },
    node::{clock, dataplane::Dataplane},
};
use std::net::IpAddr;
use vip_common::abi::Claim;

impl<D: Dataplane> Controller<D> {
    /// Carries out what the admission of a Lease has asked for in the last step, in which others
    /// were `admitted` or not.
    pub(super) fn admit(&mut self, slot: u32, admitted: bool) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        if admitted && leased.serves(clock::boot()) {
            leased.announce_at = Schedule::of(&BURST);
        }
        for request in leased.election.take_requests() {
            match request {
                Request::Probe => leased.probe_at = Schedule::of(&PROBES),
                Request::List(number) => {
                    let (api, events) = (leased.api.clone(), self.events.clone());
                    tokio::spawn(async move {
                        let leases = api.list().await.map_err(|error| error.to_string());
                        let _ = events.send(Event::Listed(slot, number, leases)).await;
                    });
                }
                Request::Strike(strike) => {
                    tracing::warn!(
                        lease = %strike.lease,
                        admitted = ?strike.guarded.admitted,
                        "another Lease guards a VIP of this one and nobody renews it; the VIP is struck out of it"
                    );
                    tokio::spawn(strike_out(leased.api.clone(), strike));
                }
            }
        }
        self.tell_obstacles(slot);
    }

    /// The Leases of the namespace have been listed for the admission of a slot.
    pub(super) async fn listed(
        &mut self,
        slot: u32,
        number: u64,
        leases: Result<Vec<(String, Record)>, String>,
    ) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        let before = leased.election.admission_changes();
        leased.election.listed(clock::now(), number, leases);
        // A VIP that another Lease guards by right is silent before anything is written.
        if leased.election.admission_changes() != before {
            self.reconcile().await;
        }
        self.step(slot, Input::Tick).await;
    }

    /// A claim of an address that this host does not answer for may be that of a living host.
    pub(super) async fn heard(&mut self, vip: IpAddr, claim: &Claim) {
        let slot = self.specs.iter().find(|spec| spec.ip == vip).map(|spec| spec.slot);
        let Some((slot, leased)) = slot.and_then(|slot| Some((slot, self.leases.get_mut(&slot)?)))
        else {
            return;
        };
        leased.election.heard(clock::now(), vip, claim.mac);
        self.step(slot, Input::Tick).await;
    }

    /// The VIPs that the LAN is to be asked for. Without an interface that is up nobody can hear
    /// the question.
    pub(super) fn asked_vips(&mut self, slot: u32) -> Vec<IpAddr> {
        let Some(leased) = self.leases.get_mut(&slot) else { return Vec::new() };
        let up = |vip: &IpAddr| self.links.of(*vip).any(|link| link.up);
        let asking = leased.election.asking();
        let (can, cannot): (Vec<IpAddr>, Vec<IpAddr>) = asking.into_iter().partition(up);
        for vip in cannot {
            leased.election.cannot_ask(clock::now(), vip);
        }
        can
    }

    fn tell_obstacles(&mut self, slot: u32) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        let lease = leased.api.full_name();
        let holds = matches!(leased.election.state(), State::Holding(_));
        for (vip, why) in leased.election.take_obstacles().unwrap_or_default() {
            let why = why.filter(|_| holds);
            let why = why.map(|why| format!("not answered under the Lease {lease}: {why}"));
            let subject = format!("VIP {vip}");
            if let Some(text) = why.clone().filter(|_| !self.problems.contains(&subject)) {
                let text = format!("{vip} is {text}");
                let reason = "Refused";
                let news = News { reason, warning: true, subject: vip.to_string(), text };
                self.setup.recorder.tell(news);
            }
            self.problem(&subject, why);
        }
    }
}

async fn strike_out(api: LeaseApi, strike: Strike) {
    if let Some(error) = api.strike(&strike).await {
        tracing::warn!(%error, lease = %strike.lease, "nothing was struck out");
    }
}
