//! From settings to a host that is ready: everything is checked first, then changed.

use super::{
    carry, host,
    kernel::Kernel,
    maps::{Maps, MapsError, SlotRecord, string, text},
    netlink::{Netlink, NetlinkError},
    pins::{Pins, PinsError},
    programs::{AttachError, Programs},
    settings::Settings,
    sysctl::{self, SYSCTLS},
};
use crate::model::{election::Slot, time::BootNs};
use bytemuck::Zeroable as _;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::IpAddr,
};
use vip_common::abi::{ABI_VERSION, Identity, Ip, MAX_SLOTS, Vip};

/// Why the host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A map.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// A program.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Something about the host could not be read.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A VIP that must not be one.
    #[error("configuration field `vips`: {vip} cannot be used: it is {what}")]
    Vip {
        /// The address.
        vip: IpAddr,
        /// What it is already.
        what: String,
    },
    /// The pin directory belongs to somebody else.
    #[error(
        "{path} belongs to {owner}, and this is {this}; choose another `instance`, \
         or run `xvip cleanup` where it belongs"
    )]
    Identity {
        /// The pin directory.
        path: String,
        /// Whose it is.
        owner: String,
        /// Who we are.
        this: String,
    },
    /// No slot is free.
    #[error("all {0} Lease slots of the pinned maps are in use; run `xvip cleanup`")]
    NoSlot(u32),
}

/// A host that is ready, and what was found on it.
pub struct Started {
    /// The host.
    pub kernel: Kernel,
    /// What was found of each Lease of the configuration.
    pub leases: Vec<Found>,
}

/// What the maps know of a Lease.
pub struct Found {
    /// Its name.
    pub lease: String,
    /// Its slot.
    pub slot: u32,
    /// The highest generation that the slot has had.
    pub generation: u64,
    /// A tenure of this boot whose fence may still live.
    pub backed: Option<Slot>,
}

/// Loads the programs, opens the maps and finds the slot of each Lease. Call with the lock held and
/// after [`check`](super::checks::check). Interfaces are attached by the first
/// [`Dataplane::links`](super::dataplane::Dataplane::links).
pub fn start(
    settings: &Settings,
    pins: &Pins,
    netlink: Netlink,
    node: &str,
    boot_id: &str,
) -> Result<Started, StartError> {
    pins.check_allowed()?;
    let identity = identity(node, boot_id)?;
    let others = pins.other_versions();
    for found in others.iter().chain([pins]) {
        if let Some(found_identity) = carry::identity(found)? {
            check_identity(found, &identity, &found_identity)?;
        }
    }
    // Somebody has removed the map of VIPs by hand, and programs still run.
    let damaged = !pins.links().is_empty() && !pins.map("VIPS").exists();
    let complete = carry::identity(pins)?.is_some_and(|found| found.ready == 1);
    let programs = load(settings, pins, complete)?;
    if !complete {
        fill_from_another_version(&others, pins)?;
    }
    let mut maps = Maps::open(pins)?;
    claim_directory(&mut maps, identity)?;
    // From here on these maps are the truth. The other programs go on under their own fences, which
    // nobody raises any more, until the first look at the interfaces replaces them.
    for other in &others {
        carry::give_up(other)?;
        carry::move_links(other, pins)?;
    }
    let names: Vec<&str> = settings.leases.iter().map(|(lease, _)| lease.as_str()).collect();
    let slots = find_slots(&mut maps, &settings.namespace, &names)?;
    let published = maps.vips()?;
    let (mut leases, mut configured, mut names_of) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for ((lease, vips), (slot, record)) in settings.leases.iter().zip(slots) {
        if damaged {
            // The programs that are about to run know the new map only, and an empty one guards
            // nothing.
            for vip in vips {
                maps.publish(Ip::from(*vip), Vip::new(slot, 0, 0, u64::MAX))?;
            }
        }
        let (generation, backed) = adopt(&mut maps, &published, slot, record, node, boot_id)?;
        configured.extend(vips.iter().map(|vip| (Ip::from(*vip), slot)));
        names_of.insert(slot, (settings.namespace.clone(), lease.clone()));
        leases.push(Found { lease: lease.clone(), slot, generation, backed });
    }
    silence_strays(&mut maps, &configured)?;
    let kernel = Kernel::new(settings, maps, programs, netlink, others, names_of)
        .map_err(|source| StartError::Host { what: "announce", source })?;
    Ok(Started { kernel, leases })
}

/// Who this is, as the pins say it.
fn identity(node: &str, boot_id: &str) -> Result<Identity, StartError> {
    let cookie = host::netns_cookie()
        .map_err(|source| StartError::Host { what: "identify the network namespace", source })?;
    Ok(Identity {
        abi: ABI_VERSION,
        ready: 1,
        netns_cookie: cookie,
        boot_id: text(boot_id),
        node: text(node),
        ..Identity::zeroed()
    })
}

/// Loads the programs and pins their maps, where they are not yet. A refused start leaves nothing
/// behind; what an earlier one has left is kept.
fn load(settings: &Settings, pins: &Pins, complete: bool) -> Result<Programs, StartError> {
    if !complete && pins.links().is_empty() {
        // A first start that was cut off, or an upgrade away from this version: its programs may still
        // run, and nobody could lower these fences once they are not pinned.
        carry::silence(pins)?;
        pins.remove_maps()?;
    }
    let fresh = !pins.exist();
    pins.create()?;
    match Programs::load(pins, settings.kernel_log_level, settings.drops_on_loss) {
        Ok(programs) => Ok(programs),
        Err(error) => {
            if fresh {
                pins.remove_maps()?;
                pins.remove_dirs();
            }
            Err(error.into())
        }
    }
}

/// Fills new maps from those of another version, if one was here.
fn fill_from_another_version(others: &[Pins], pins: &Pins) -> Result<(), StartError> {
    for other in others {
        if carry::identity(other)?.is_some_and(|found| found.ready == 1) {
            tracing::info!(from = %other.dir().display(), "taking over from another version");
            if let Err(error) = carry::fill(other, pins) {
                pins.remove_maps()?;
                pins.remove_dirs();
                return Err(error.into());
            }
            break;
        }
    }
    Ok(())
}

/// What a slot's tenure is worth: one of this boot and node, whose fence was raised for it, goes on.
/// Any other is silenced.
fn adopt(
    maps: &mut Maps,
    published: &BTreeMap<Ip, Vip>,
    slot: u32,
    record: Option<SlotRecord>,
    node: &str,
    boot_id: &str,
) -> Result<(u64, Option<Slot>), StartError> {
    let fence = maps.fence(slot)?;
    let generation = fence.generation.max(record.as_ref().map_or(0, |record| record.generation));
    let under_it = |(_, vip): &(&Ip, &Vip)| {
        vip.slot == slot && vip.generation != 0 && vip.generation == fence.generation
    };
    let backed = record
        .filter(|record| fence.deadline_ns != 0 && record.tenure.note.boot_id == boot_id)
        .filter(|record| record.generation == fence.generation && record.tenure.note.holder == node)
        .map(|SlotRecord { tenure, duration_s, .. }| Slot {
            tenure,
            until: BootNs(fence.deadline_ns),
            duration_s,
            served: published.iter().filter(under_it).map(|(ip, _)| IpAddr::from(*ip)).collect(),
        });
    if backed.is_none() && fence.deadline_ns != 0 {
        maps.set_deadline(slot, BootNs(0))?;
    }
    Ok((generation, backed))
}

/// Silences entries that name the slot of another Lease than the configuration, or are not in it any
/// more. That is done before anything is renewed: a renewal of that other Lease would keep them alive.
fn silence_strays(maps: &mut Maps, configured: &BTreeMap<Ip, u32>) -> Result<(), StartError> {
    for (ip, vip) in maps.vips()? {
        if vip.generation != 0 && configured.get(&ip) != Some(&vip.slot) {
            maps.publish(ip, Vip { generation: 0, ..vip })?;
        }
    }
    Ok(())
}

fn check_identity(pins: &Pins, ours: &Identity, found: &Identity) -> Result<(), StartError> {
    let differs = found.netns_cookie != ours.netns_cookie
        || found.boot_id != ours.boot_id
        || found.node != ours.node;
    if found.ready == 0 || !differs {
        return Ok(());
    }
    let name = |identity: &Identity| {
        format!(
            "node {} (network namespace {}, boot {})",
            string(&identity.node),
            identity.netns_cookie,
            string(&identity.boot_id)
        )
    };
    Err(StartError::Identity {
        path: pins.dir().display().to_string(),
        owner: name(found),
        this: name(ours),
    })
}

/// Writes the identity, and the ARP sysctls with their former values beside it.
fn claim_directory(maps: &mut Maps, mut identity: Identity) -> Result<(), StartError> {
    let found = maps.identity().unwrap_or(Identity::zeroed());
    identity.arp_ignore_before = found.arp_ignore_before;
    identity.arp_announce_before = found.arp_announce_before;
    for (index, (name, wanted)) in SYSCTLS.into_iter().enumerate() {
        let Ok(value) = sysctl::read(name) else {
            tracing::warn!(sysctl = name, "cannot be read; a NIC that appears later is guarded late");
            continue;
        };
        if value >= wanted {
            continue;
        }
        let before = if index == 0 {
            &mut identity.arp_ignore_before
        } else {
            &mut identity.arp_announce_before
        };
        *before = value + 1;
        maps.set_identity(identity)?;
        if let Err(error) = sysctl::write(name, wanted) {
            tracing::warn!(
                sysctl = name, %error,
                "cannot be set (read-only /proc/sys?); set net.ipv4.conf.all.{name}={wanted} on the host"
            );
        }
    }
    Ok(maps.set_identity(identity)?)
}

/// The slots that belong to these Leases, free ones where there is none. Slots of Leases that are not
/// configured any more are silenced.
fn find_slots(
    maps: &mut Maps,
    namespace: &str,
    names: &[&str],
) -> Result<Vec<(u32, Option<SlotRecord>)>, StartError> {
    let (mut found, mut free) = (BTreeMap::new(), VecDeque::new());
    for slot in 0..maps.slots() {
        let Some(record) = maps.slot(slot)? else {
            free.push_back(slot);
            continue;
        };
        if record.namespace == namespace && names.contains(&record.name.as_str()) {
            found.insert(record.name.clone(), (slot, Some(record)));
        } else if maps.fence(slot)?.deadline_ns != 0 {
            maps.set_deadline(slot, BootNs(0))?;
        }
    }
    let mut slot_of = |name: &&str| {
        let fresh = || Some((free.pop_front()?, None));
        found.remove(*name).or_else(fresh).ok_or(StartError::NoSlot(MAX_SLOTS))
    };
    names.iter().map(&mut slot_of).collect()
}
