//! Which VIPs of a Lease may be published: what the model asks for, and what people are told of it.

use super::{Controller, event::Event};
use crate::{
    clock,
    cluster::{events::Reason, lease::LeaseApi},
    model::{admission::Strike, election::Input},
    node::dataplane::Dataplane,
};
use std::net::IpAddr;
use vip_common::abi::Claim;

impl<D: Dataplane> Controller<D> {
    /// Lists the Leases of the namespace.
    pub(super) fn list(&self, slot: u32, number: u64) {
        let Some(leased) = self.leases.get(&slot) else { return };
        let (api, events) = (leased.api.clone(), self.events.clone());
        tokio::spawn(async move {
            let leases = api.list().await.map_err(|error| error.to_string());
            let _ = events.send(Event::Listed(slot, number, leases)).await;
        });
    }

    /// Strikes VIPs out of another Lease.
    pub(super) fn strike(&self, slot: u32, strike: Strike) {
        let Some(leased) = self.leases.get(&slot) else { return };
        tracing::warn!(
            lease = %strike.lease,
            admitted = ?strike.guarded.admitted,
            "another Lease guards a VIP of this one and nobody renews it; the VIP is struck out of it"
        );
        tokio::spawn(strike_out(leased.api.clone(), strike));
    }

    /// A claim of an address that this host does not answer for may be that of a living host.
    pub(super) async fn heard(&mut self, vip: IpAddr, claim: &Claim) {
        let slot = self.specs.iter().find(|spec| spec.ip == vip).map(|spec| spec.slot);
        if let Some(slot) = slot {
            self.step(slot, Input::Heard(vip, claim.mac)).await;
        }
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

    pub(super) fn tell_obstacles(&mut self, slot: u32) {
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        let lease = leased.api.full_name();
        let holds = leased.election.ownership(clock::boot()).is_ours();
        let mut told = Vec::new();
        for (vip, why) in leased.election.take_obstacles().unwrap_or_default() {
            let why = why.filter(|_| holds);
            let why = why.map(|why| format!("not answered under the Lease {lease}: {why}"));
            let subject = format!("VIP {vip}");
            if let Some(text) = why.clone().filter(|_| !self.problems.contains(&subject)) {
                let text = format!("{vip} is {text}");
                told.push((vip, text));
            }
            self.problem(&subject, why);
        }
        let Some(leased) = self.leases.get(&slot) else { return };
        for (vip, text) in told {
            self.setup.recorder.tell(leased.news(Reason::Refused, vip.to_string(), text));
        }
    }
}

async fn strike_out(api: LeaseApi, strike: Strike) {
    if let Some(error) = api.strike(&strike).await {
        tracing::warn!(%error, lease = %strike.lease, "nothing was struck out");
    }
}
