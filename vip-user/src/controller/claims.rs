//! Claims of our VIPs by other stations.

use super::Controller;
use crate::{
    cluster::events::News,
    model::{
        election::{Input, Source, State},
        time::BootNs,
    },
    node::{clock, dataplane::Dataplane},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use vip_common::abi::{Claim, Ip};

/// A conflict is over when nothing has been heard of it for this long.
const QUIET: Duration = Duration::from_secs(30);

/// Stations that claim a VIP which this node holds, with the time of their last claim.
pub(super) type Conflicts = BTreeMap<(IpAddr, [u8; 6]), BootNs>;

impl<D: Dataplane> Controller<D> {
    pub(super) fn claimed(&mut self, claim: Claim) {
        if self.links.iter().any(|link| link.mac == claim.mac) {
            return;
        }
        let vip = IpAddr::from(claim.ip);
        let mac = claim.mac.map(|byte| format!("{byte:02x}")).join(":");
        if self.holds_for_long(claim.ip) {
            self.conflict(vip, claim.mac, &mac);
        }
        tracing::debug!(%vip, %mac, ifindex = claim.ifindex, "another station claims a VIP");
        if self.waits_for_creation() && self.suspect.is_none() {
            // Most likely another node has created the Lease a moment ago: a quorum read will tell.
            self.suspect = Some(format!("{vip} is answered for by {mac}"));
            self.read();
        }
    }

    /// A claim while there still is no Lease is by somebody who is not a node of ours.
    pub(super) async fn judge_suspect(&mut self, source: Source, missing: bool) {
        if source == Source::Quorum
            && let Some(claim) = self.suspect.take()
            && missing
        {
            self.problem("address in use", Some(claim));
            self.step(Input::AddressInUse).await;
        }
    }

    /// Within 2·D of a change of holder a claim is part of the handover, and after it no node of ours
    /// sends any.
    fn holds_for_long(&self, ip: Ip) -> bool {
        let now = clock::boot();
        let slots = self.specs.iter().filter(|spec| Ip::from(spec.ip) == ip).map(|spec| spec.slot);
        slots.filter_map(|slot| Some((self.elections.get(&slot)?, self.timings.get(&slot)?))).any(
            |(election, timing)| {
                let grace = Duration::from_secs(2 * u64::from(timing.duration_s));
                matches!(election.state(), State::Holding(holding) if now < holding.until)
                    && self.held_since.is_some_and(|since| since.after(grace) <= now)
            },
        )
    }

    fn conflict(&mut self, vip: IpAddr, station: [u8; 6], mac: &str) {
        if self.conflicts.insert((vip, station), clock::boot()).is_some() {
            return;
        }
        let text = format!("{vip} is also claimed by {mac}, which is not a node of xvip");
        self.setup.metrics.conflict(vip);
        let (reason, subject) = ("Conflict", vip.to_string());
        self.setup.recorder.tell(News { reason, warning: true, subject, text: text.clone() });
        self.problem(&format!("conflict {vip}"), Some(text));
    }

    pub(super) fn forget_conflicts(&mut self, now: BootNs) {
        let over = |at: &BootNs| at.after(QUIET) <= now;
        let quiet: Vec<IpAddr> =
            self.conflicts.iter().filter(|(_, at)| over(at)).map(|((vip, _), _)| *vip).collect();
        self.conflicts.retain(|_, at| !over(at));
        for vip in quiet {
            if !self.conflicts.keys().any(|(other, _)| *other == vip) {
                self.problem(&format!("conflict {vip}"), None);
            }
        }
    }

    fn waits_for_creation(&self) -> bool {
        self.elections.values().any(
            |election| matches!(election.state(), State::Waiting(waiting) if waiting.seen.is_none()),
        )
    }
}
