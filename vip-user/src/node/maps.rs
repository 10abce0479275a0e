//! Reads and writes the pinned maps. Fences are read back after every write.

use super::{pins::Pins, raw_map::RawMap};
use crate::model::{
    lease::record::{Tenure, TenureNote},
    time::BootNs,
};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray};
use bytemuck::Zeroable as _;
use std::{collections::BTreeMap, io};
use vip_common::{
    abi::{FAST_IFINDEX, Fence, Holder, HostAddr, Identity, Iface, Ip, Port, TenureRecord, Vip},
    counter::Counter,
};

/// A map operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// A pinned map could not be opened.
    #[error("cannot open pinned map {name}")]
    Open {
        /// The name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: MapError,
    },
    /// A map could not be read or written.
    #[error("cannot {what} map {name}")]
    Access {
        /// The operation, such as `read` or `write`.
        what: &'static str,
        /// The name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: MapError,
    },
    /// The entries could not be listed.
    #[error("cannot list the entries of map {name}")]
    List {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A map did not hold a value that had just been written.
    #[error("map {name} does not hold what was written to slot {slot}")]
    ReadBack {
        /// The name of the map.
        name: &'static str,
        /// The slot.
        slot: u32,
    },
}

type Result<T> = std::result::Result<T, MapsError>;

/// The Lease that a slot belongs to, as it is stored beside its tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// The tenure that the fence was raised for.
    pub tenure: Tenure,
    /// D of its last confirmed write, in seconds.
    pub duration_s: u32,
    /// The number of the tenure in this slot.
    pub generation: u64,
}

/// The maps of one instance.
pub struct Maps {
    vips: HashMap<MapData, Ip, Vip>,
    fences: Array<MapData, Fence>,
    ifaces: HashMap<MapData, Port, Iface>,
    ifaces_by_index: Array<MapData, Iface>,
    holders: Array<MapData, Holder>,
    counters: PerCpuArray<MapData, u64>,
    tenures: Array<MapData, TenureRecord>,
    identity: Array<MapData, Identity>,
    addrs: HashMap<MapData, HostAddr, u32>,
    grace: ArrayOfMaps<MapData, Array<MapData, u32>>,
    /// `VIPS` and `ADDRS` once more, to list them: they may have ten thousand entries.
    all_vips: RawMap,
    all_addrs: RawMap,
}

impl Maps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        fn typed<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T> {
            MapData::from_pin(pins.map(name))
                .and_then(Map::from_map_data)
                .and_then(T::try_from)
                .map_err(|source| MapsError::Open { name, source })
        }
        fn listed(pins: &Pins, name: &'static str) -> Result<RawMap> {
            let map =
                RawMap::open(&pins.map(name)).and_then(|map| map.ok_or(io::ErrorKind::NotFound.into()));
            map.map_err(|source| MapsError::List { name, source })
        }
        Ok(Self {
            vips: typed(pins, "VIPS")?,
            fences: typed(pins, "FENCES")?,
            ifaces: typed(pins, "IFACES")?,
            ifaces_by_index: typed(pins, "IFACES_BY_INDEX")?,
            holders: typed(pins, "HOLDERS")?,
            counters: typed(pins, "COUNTERS")?,
            tenures: typed(pins, "TENURES")?,
            identity: typed(pins, "IDENTITY")?,
            addrs: typed(pins, "ADDRS")?,
            grace: typed(pins, "GRACE")?,
            all_vips: listed(pins, "VIPS")?,
            all_addrs: listed(pins, "ADDRS")?,
        })
    }

    /// All entries of `VIPS`.
    pub fn vips(&self) -> Result<BTreeMap<Ip, Vip>> {
        let entries = self.all_vips.typed();
        let entries = entries.map_err(|source| MapsError::List { name: "VIPS", source })?;
        Ok(entries.into_iter().collect())
    }

    /// Writes an entry of `VIPS` and reads it back.
    pub fn publish(&mut self, ip: Ip, vip: Vip) -> Result<()> {
        self.vips.insert(ip, vip, 0).map_err(access("write", "VIPS"))?;
        let stored = self.vips.get(&ip, 0).map_err(access("read back", "VIPS"))?;
        if stored == vip { Ok(()) } else { Err(MapsError::ReadBack { name: "VIPS", slot: vip.slot }) }
    }

    /// Removes an entry of `VIPS`.
    pub fn withdraw(&mut self, ip: Ip) -> Result<()> {
        absent_is_fine(self.vips.remove(&ip)).map_err(access("write", "VIPS"))
    }

    /// All entries of `IFACES`.
    pub fn ifaces(&self) -> Result<BTreeMap<Port, Iface>> {
        self.ifaces.iter().collect::<std::result::Result<_, _>>().map_err(access("read", "IFACES"))
    }

    /// Writes an entry of `IFACES`, and of the array that repeats it for small indices.
    pub fn set_iface(&mut self, port: Port, iface: Iface) -> Result<()> {
        self.ifaces.insert(port, iface, 0).map_err(access("write", "IFACES"))?;
        self.set_iface_by_index(port, iface)
    }

    /// Removes an entry of `IFACES`.
    pub fn remove_iface(&mut self, port: Port) -> Result<()> {
        self.set_iface_by_index(port, Iface::zeroed())?;
        absent_is_fine(self.ifaces.remove(&port)).map_err(access("write", "IFACES"))
    }

    fn set_iface_by_index(&mut self, port: Port, iface: Iface) -> Result<()> {
        if port.outer_vid != 0 || port.ifindex >= FAST_IFINDEX {
            return Ok(());
        }
        let stored = self.ifaces_by_index.set(port.ifindex, iface, 0);
        stored.map_err(access("write", "IFACES_BY_INDEX"))
    }

    /// Stores which stations may claim the VIPs of a slot.
    pub fn set_holder(&mut self, slot: u32, holder: Holder) -> Result<()> {
        self.holders.set(slot, holder, 0).map_err(access("write", "HOLDERS"))
    }

    /// The addresses and multicast groups that xvip has recorded as its own.
    pub fn owned_addrs(&self) -> Result<Vec<HostAddr>> {
        let entries = self.all_addrs.typed::<HostAddr, u32>();
        let entries = entries.map_err(|source| MapsError::List { name: "ADDRS", source })?;
        Ok(entries.into_iter().map(|(addr, _)| addr).collect())
    }

    /// Records an address as ours, before it is added.
    pub fn note_addr(&mut self, addr: HostAddr) -> Result<()> {
        self.addrs.insert(addr, 1, 0).map_err(access("write", "ADDRS"))
    }

    /// Removes the record of an address, after the address was removed.
    pub fn forget_addr(&mut self, addr: HostAddr) -> Result<()> {
        absent_is_fine(self.addrs.remove(&addr)).map_err(access("write", "ADDRS"))
    }

    /// Every counter, summed over all CPUs.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let values = self.counters.get(&(*counter as u32), 0);
                let values = values.map_err(access("read", "COUNTERS"))?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }

    /// The identity of the pin directory.
    pub fn identity(&self) -> Result<Identity> {
        self.identity.get(&0, 0).map_err(access("read", "IDENTITY"))
    }

    /// Stores the identity of the pin directory.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        self.identity.set(0, identity, 0).map_err(access("write", "IDENTITY"))
    }

    /// The fence of a slot.
    pub fn fence(&self, slot: u32) -> Result<Fence> {
        self.fences.get(&slot, 0).map_err(access("read", "FENCES"))
    }

    /// The Lease and tenure of a slot, if it has ever had one.
    pub fn slot(&self, slot: u32) -> Result<Option<SlotRecord>> {
        let raw = self.tenures.get(&slot, 0).map_err(access("read", "TENURES"))?;
        Ok((raw.generation != 0).then(|| decode(&raw)))
    }

    /// The number of slots.
    pub fn slots(&self) -> u32 {
        self.tenures.len()
    }

    /// Begins a tenure: stores and reads back the record and the generation while the fence is 0. So no
    /// entry of an earlier tenure can answer under the new fence.
    pub fn begin_tenure(&mut self, slot: u32, record: &SlotRecord) -> Result<()> {
        let generation = self.fence(slot)?.generation;
        self.store_fence(slot, Fence::new(0, generation))?;
        self.store_record(slot, record)?;
        self.store_fence(slot, Fence::new(0, record.generation))
    }

    /// Stores the record of a slot for a tenure that continues.
    pub fn store_record(&mut self, slot: u32, record: &SlotRecord) -> Result<()> {
        let raw = encode(record);
        self.tenures.set(slot, raw, 0).map_err(access("write", "TENURES"))?;
        let stored = self.tenures.get(&slot, 0).map_err(access("read back", "TENURES"))?;
        if stored == raw { Ok(()) } else { Err(MapsError::ReadBack { name: "TENURES", slot }) }
    }

    /// Stores a deadline, and keeps the generation of the slot.
    pub fn set_deadline(&mut self, slot: u32, deadline: BootNs) -> Result<()> {
        let generation = self.fence(slot)?.generation;
        self.store_fence(slot, Fence::new(deadline.0, generation))
    }

    /// Waits until no program runs that has read an older value of any map. An update of a map of maps
    /// makes the syscall wait for an RCU grace period (`maybe_wait_bpf_programs`).
    pub fn wait_for_programs(&mut self) -> Result<()> {
        let inner = Array::<MapData, u32>::create(1, 0).map_err(access("create", "GRACE inner"))?;
        self.grace.set(0, &inner, 0).map_err(access("write", "GRACE"))
    }

    fn store_fence(&mut self, slot: u32, fence: Fence) -> Result<()> {
        self.fences.set(slot, fence, 0).map_err(access("write", "FENCES"))?;
        if self.fence(slot)? == fence {
            Ok(())
        } else {
            Err(MapsError::ReadBack { name: "FENCES", slot })
        }
    }
}

fn access(what: &'static str, name: &'static str) -> impl Fn(MapError) -> MapsError {
    move |source| MapsError::Access { what, name, source }
}

fn absent_is_fine(result: std::result::Result<(), MapError>) -> std::result::Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

fn encode(record: &SlotRecord) -> TenureRecord {
    let SlotRecord { namespace, name, tenure: Tenure { uid, note }, duration_s, generation } = record;
    TenureRecord {
        generation: *generation,
        transitions: note.transitions,
        acquire_us: note.acquire_us,
        duration_s: *duration_s,
        namespace: text(namespace),
        name: text(name),
        uid: text(uid),
        process: text(&note.process),
        boot_id: text(&note.boot_id),
        holder: text(&note.holder),
        ..TenureRecord::zeroed()
    }
}

fn decode(raw: &TenureRecord) -> SlotRecord {
    SlotRecord {
        namespace: string(&raw.namespace),
        name: string(&raw.name),
        tenure: Tenure {
            uid: string(&raw.uid),
            note: TenureNote {
                holder: string(&raw.holder),
                transitions: raw.transitions,
                acquire_us: raw.acquire_us,
                process: string(&raw.process),
                boot_id: string(&raw.boot_id),
            },
        },
        duration_s: raw.duration_s,
        generation: raw.generation,
    }
}

/// Zero-terminated text. Text that is too long is cut off, which makes the record match nothing.
pub(crate) fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from;
    }
    bytes
}

/// The text up to the first zero.
pub(crate) fn string(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
