//! The VIPs that the kernel answers for at one instant, according to the pinned maps.

use super::maps::{Maps, MapsError};
use crate::clock;
use std::collections::BTreeMap;
use vip_common::{
    abi::{Fence, Iface, Port, Vip},
    env::Fences,
    standing::{Standing, standing},
};

/// The fences and interfaces in the maps at the instant of reading.
#[derive(Debug)]
pub struct Answers {
    fences: Vec<Fence>,
    ifaces: BTreeMap<Port, Iface>,
    now_ns: u64,
}

impl Answers {
    /// Reads the maps.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn read(maps: &Maps) -> Result<Self, MapsError> {
        let fences = (0..maps.slots()).map(|slot| maps.fence(slot));
        let fences = fences.collect::<Result<_, _>>()?;
        Ok(Self { fences, ifaces: maps.ifaces()?, now_ns: clock::boot().0 })
    }

    /// The first interface on which the kernel answers for this entry, if there is one.
    pub fn on(&self, entry: &Vip) -> Option<(&Port, &Iface)> {
        self.ifaces.iter().find(|(_, iface)| standing(self, entry, iface) == Standing::Owner)
    }
}

impl Fences for Answers {
    fn fence(&self, slot: u32) -> Option<Fence> {
        self.fences.get(usize::try_from(slot).ok()?).copied()
    }

    fn now(&self) -> u64 {
        self.now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_answered_for_where_its_fence_is_live_and_an_interface_up() {
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let iface = Iface { mac: [2; 6], bit: 1, up: 1, known: 1, alias: 0, _reserved: [0; 6] };
        let entry = Vip::new(0, 3, 0b10, 0b10);
        let answers = |fence: Fence, iface: Iface, entry: &Vip| {
            let read =
                Answers { fences: vec![fence], ifaces: BTreeMap::from([(port, iface)]), now_ns: 100 };
            read.on(entry).is_some()
        };
        assert!(answers(Fence::new(101, 3), iface, &entry));
        assert!(!answers(Fence::new(100, 3), iface, &entry), "the fence ran out");
        assert!(!answers(Fence::new(101, 4), iface, &entry), "another tenure");
        assert!(!answers(Fence::new(101, 3), Iface { up: 0, ..iface }, &entry), "the link is down");
        assert!(!answers(Fence::new(101, 3), Iface { bit: 0, ..iface }, &entry), "another interface");
        assert!(!answers(Fence::new(101, 0), iface, &Vip::new(0, 0, 0b10, 0b10)), "the silent entry");
        assert!(!answers(Fence::new(101, 3), iface, &Vip::new(9, 3, 0b10, 0b10)), "no such slot");
    }
}
