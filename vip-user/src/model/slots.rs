//! The slots of the maps, and the Lease to which each belongs. A slot is given to a group. It is free
//! again when nothing of the group is left on this host.

use super::lease::election::AdoptedFence;
use std::collections::BTreeMap;

/// The contents of a slot in the maps at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotState {
    /// The Lease that the slot's record names; empty if it names none.
    pub lease: String,
    /// The highest generation that the slot has had. Entries of earlier generations never answer again.
    pub generation: u64,
    /// The tenure of this boot in the slot. Its fence may still be live.
    pub adopted: Option<AdoptedFence>,
}

/// All slots that belong to no group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    free: BTreeMap<u32, u64>,
    /// Slots whose Lease no group has asked for yet, by Lease.
    unclaimed: BTreeMap<String, (u32, SlotState)>,
}

impl Slots {
    /// The slots as they were found in the maps. If two slots name one Lease, the one with a live
    /// tenure is the Lease's own.
    pub fn found(states: impl IntoIterator<Item = (u32, SlotState)>) -> Self {
        let mut slots = Self::default();
        for (slot, state) in states {
            if state.lease.is_empty() {
                slots.free.insert(slot, state.generation);
                continue;
            }
            let known = slots.unclaimed.remove(&state.lease);
            let (own, twin) = match known {
                Some(known) if known.1.adopted.is_some() => (known, Some((slot, state))),
                known => ((slot, state), known),
            };
            slots.unclaimed.insert(own.1.lease.clone(), own);
            if let Some((slot, state)) = twin {
                slots.unclaimed.insert(format!("{}, slot {slot}", state.lease), (slot, state));
            }
        }
        slots
    }

    /// Whether one of these slots names the Lease.
    pub fn has(&self, lease: &str) -> bool {
        self.unclaimed.contains_key(lease)
    }

    /// Takes the slot of a Lease: its own, or a free one. `None` if all are in use.
    pub fn take(&mut self, lease: &str) -> Option<(u32, SlotState)> {
        if let Some(own) = self.unclaimed.remove(lease) {
            return Some(own);
        }
        let (slot, generation) = self.free.pop_first()?;
        Some((slot, SlotState { lease: lease.into(), generation, adopted: None }))
    }

    /// Frees a slot. Nothing of its group may be left on this host.
    pub fn give_back(&mut self, slot: u32, generation: u64) {
        self.free.insert(slot, generation);
    }

    /// Takes the slots whose Leases no group has asked for. The kernel must not answer under them any
    /// more.
    pub fn take_unclaimed(&mut self) -> Vec<(u32, SlotState)> {
        std::mem::take(&mut self.unclaimed).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lease: &str, generation: u64) -> SlotState {
        SlotState { lease: lease.into(), generation, adopted: None }
    }

    #[test]
    fn a_lease_gets_its_own_slot_and_a_new_one_a_free_slot() {
        let mut slots = Slots::found([(0, state("a", 3)), (1, state("", 7)), (2, state("b", 5))]);
        assert_eq!(slots.take("a"), Some((0, state("a", 3))));
        assert_eq!(slots.take("c"), Some((1, state("c", 7))), "the generation is kept");
        assert_eq!(slots.take("d"), None, "the slot of b is not free until b is known to be unwanted");
        assert_eq!(slots.take_unclaimed(), [(2, state("b", 5))]);
        slots.give_back(2, 6);
        assert_eq!(slots.take("d"), Some((2, state("d", 6))));
    }
}
