//! What a candidate reads in a Lease about where the VIPs should be.

use super::{
    offers::{BETTER_FOR, Heir, Offer, Preference, Suits, WEIGHT_AFTER},
    record::Record,
};
use crate::model::fitness::Fitness;
use std::time::Duration;

impl Record {
    /// What the last holder says about where the VIPs should be.
    fn stated(&self) -> Option<&Preference> {
        self.preference.as_ref().filter(|preference| {
            preference.transitions == self.transitions && Some(preference.acquire_us) == self.acquire_us
        })
    }

    /// Who should have the Lease next, if the last holder says so.
    pub fn heir(&self) -> Option<&Heir> {
        self.stated().and_then(|preference| preference.heir.as_ref())
    }

    /// Whether another node than `node` should have the Lease next.
    pub fn is_reserved_from(&self, node: &str) -> bool {
        matches!(self.heir(), Some(Heir::Node(heir)) if heir != node)
    }

    /// How long node `node` must suit better than the holder before it offers; `None`: it suits no
    /// better.
    pub fn invites(&self, node: &str, own: Suits) -> Option<Duration> {
        self.tenure()?;
        let weight = self.stated().map_or(0, |preference| preference.weight);
        let holder = Suits { fitness: self.fitness, weight };
        if own.fitness >= Fitness::Unable {
            return None;
        }
        let wished = match self.heir() {
            Some(Heir::Node(heir)) => heir == node,
            Some(Heir::Anyone) => own.fitness <= holder.fitness,
            None => false,
        };
        if wished {
            Some(Duration::ZERO)
        } else if own.fitness < holder.fitness {
            Some(if holder.fitness == Fitness::Doubtful { BETTER_FOR } else { Duration::ZERO })
        } else {
            own.outweighs(holder).then_some(WEIGHT_AFTER)
        }
    }

    /// The offer of node `node`, unless one that is as good already stands.
    pub fn offer_by(&self, node: &str, own: Suits) -> Option<Offer> {
        let tenure = self.tenure()?;
        let wished = matches!(self.heir(), Some(Heir::Node(heir)) if heir == node);
        let as_good = |offer: &Offer| {
            offer.node == node
                || (!wished && offer.fitness <= own.fitness && offer.weight >= own.weight)
        };
        if self.offer.as_ref().is_some_and(|offer| tenure.is_addressed_by(offer) && as_good(offer)) {
            return None;
        }
        let (transitions, acquire_us) = (tenure.note.transitions, tenure.note.acquire_us);
        let Suits { fitness, weight } = own;
        Some(Offer { node: node.into(), fitness, weight, transitions, acquire_us })
    }
}
