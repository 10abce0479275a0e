//! What a candidate reads in a Lease about where the VIPs should be.

use super::{
    offers::{Better, Heir, Offer, Preference, Suits},
    record::Record,
};
use crate::model::fitness::Fitness;

impl Record {
    /// Whether the holder says that it is [`Fitness::Impaired`].
    pub fn says_impaired(&self) -> bool {
        self.stated().is_some_and(|preference| preference.impaired)
    }

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

    /// Whether the Lease was given up for node `node`.
    pub fn is_reserved_for(&self, node: &str) -> bool {
        matches!(self.heir(), Some(Heir::Node(heir)) if heir == node)
    }

    /// Why node `node` suits better than the holder; `None`: it does not.
    pub fn invites(&self, node: &str, own: Suits) -> Option<Better> {
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
            Some(Better::Wished)
        } else if own.fitness < holder.fitness {
            let doubtful = holder.fitness == Fitness::Doubtful;
            Some(if doubtful { Better::Surer } else { Better::Fitter })
        } else {
            own.outweighs(holder).then_some(Better::Heavier)
        }
    }

    /// The offer of node `node`, unless one that is as good already stands.
    pub fn offer_by(&self, node: &str, own: Suits) -> Option<Offer> {
        let tenure = self.tenure()?;
        let wished = self.is_reserved_for(node);
        let as_good = |offer: &Offer| {
            let theirs = Suits { fitness: offer.fitness, weight: offer.weight };
            let better = own.fitness < theirs.fitness || own.outweighs(theirs);
            offer.node == node || (!wished && !better)
        };
        if self.offer.as_ref().is_some_and(|offer| tenure.is_addressed_by(offer) && as_good(offer)) {
            return None;
        }
        let (transitions, acquire_us) = (tenure.note.transitions, tenure.note.acquire_us);
        let Suits { fitness, weight } = own;
        // Older versions of xvip cannot read an offer that says `impaired`.
        let fitness = if fitness == Fitness::Impaired { Fitness::Doubtful } else { fitness };
        Some(Offer { node: node.into(), fitness, weight, transitions, acquire_us })
    }
}
