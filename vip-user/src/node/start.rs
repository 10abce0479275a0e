//! Prepares a host according to the settings: first everything is checked, then it is changed.

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
use crate::model::{lease::election::AdoptedFence, slots::SlotState, time::BootNs};
use bytemuck::Zeroable as _;
use std::{collections::BTreeMap, io, net::IpAddr};
use vip_common::abi::{ABI_VERSION, Identity, Ip, Vip};

/// Why the host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pin directory cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A map operation failed.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// A program could not be loaded.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Something about the host could not be read.
    #[error("cannot {what}")]
    Host {
        /// The operation that failed.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configured VIP is an address that must not be one.
    #[error("configuration field `vips`: {vip} cannot be used: it is {what}")]
    Vip {
        /// The address.
        vip: IpAddr,
        /// What the address is already used for.
        what: String,
    },
    /// The pin directory belongs to another node, boot or network namespace.
    #[error(
        "{path} belongs to {owner}, and this is {this}; choose another `instance`, \
         or run `xvip cleanup` where it belongs"
    )]
    Identity {
        /// The path of the pin directory.
        path: String,
        /// The owner of the directory.
        owner: String,
        /// The identity of this process.
        this: String,
    },
}

/// A host that is ready, and the state in which it was found.
pub struct Started {
    /// The host.
    pub kernel: Kernel,
    /// What the maps know of each slot.
    pub slots: Vec<(u32, SlotState)>,
}

/// Loads the programs, opens the maps and reads what they know of each slot. Call it with the lock held
/// and after [`check`](super::checks::check). Programs are attached by the first
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
    // The map of VIPs was removed by hand while programs were still attached.
    let damaged = !pins.links().is_empty() && !pins.map("VIPS").exists();
    let complete = carry::identity(pins)?.is_some_and(|found| found.ready == 1);
    let programs = load(settings, pins, complete)?;
    if !complete {
        fill_from_another_version(&others, pins)?;
    }
    let mut maps = Maps::open(pins)?;
    claim_directory(&mut maps, identity)?;
    // From here on these maps are the truth. The programs of other versions continue under their own
    // fences, which no process raises any more. The first look at the interfaces replaces those
    // programs.
    for other in &others {
        carry::give_up(other)?;
        carry::move_links(other, pins)?;
    }
    let published = maps.vips()?;
    let slots = (0..maps.slots())
        .map(|slot| Ok((slot, look_at(&mut maps, settings, &published, slot, node, boot_id)?)))
        .collect::<Result<Vec<_>, MapsError>>()?;
    if damaged {
        silence_all(&mut maps, settings)?;
    }
    silence_strays(&mut maps, &published, settings, &slots)?;
    let kernel = Kernel::new(settings, maps, programs, netlink, others)
        .map_err(|source| StartError::Host { what: "announce", source })?;
    Ok(Started { kernel, slots })
}

/// The identity of this process, in the form that the pins have.
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

/// Loads the programs, and pins their maps if they are not pinned yet. A refused start leaves nothing
/// behind, but keeps what an earlier one has left.
fn load(settings: &Settings, pins: &Pins, complete: bool) -> Result<Programs, StartError> {
    if !complete && pins.links().is_empty() {
        // Either a first start was cut off, or another version has taken over from this one. The old
        // programs may still run, and without pins no process could lower their fences.
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

/// Fills new maps from those of another version, if there was one on this host.
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

/// Reads what the maps know of a slot. A tenure continues if it is of this boot and node, and the fence
/// was raised for it. Any other tenure is silenced. A slot whose group is not configured is kept,
/// because the group may be wanted later.
fn look_at(
    maps: &mut Maps,
    settings: &Settings,
    published: &BTreeMap<Ip, Vip>,
    slot: u32,
    node: &str,
    boot_id: &str,
) -> Result<SlotState, MapsError> {
    let (record, fence) = (maps.slot(slot)?, maps.fence(slot)?);
    let lease = match &record {
        Some(record) if record.namespace == settings.namespace => record.name.clone(),
        // This name differs from every Lease name of our namespace.
        Some(record) => format!("{}/{}", record.namespace, record.name),
        None => String::new(),
    };
    let generation = fence.generation.max(record.as_ref().map_or(0, |record| record.generation));
    let under_it = |(_, vip): &(&Ip, &Vip)| {
        vip.slot == slot && vip.generation != 0 && vip.generation == fence.generation
    };
    let adopted = record
        .filter(|record| fence.deadline_ns != 0 && record.tenure.note.boot_id == boot_id)
        .filter(|record| record.generation == fence.generation && record.tenure.note.holder == node)
        .map(|SlotRecord { tenure, duration_s, .. }| AdoptedFence {
            tenure,
            until: BootNs(fence.deadline_ns),
            duration_s,
            served: published.iter().filter(under_it).map(|(ip, _)| IpAddr::from(*ip)).collect(),
        });
    if adopted.is_none() && fence.deadline_ns != 0 {
        maps.set_deadline(slot, BootNs(0))?;
    }
    Ok(SlotState { lease, generation, adopted })
}

/// Adds a silent entry for each VIP. The programs are about to use the new map, and an empty map guards
/// nothing.
fn silence_all(maps: &mut Maps, settings: &Settings) -> Result<(), MapsError> {
    for vip in settings.leases.iter().flat_map(|(_, vips)| vips) {
        maps.publish(Ip::from(*vip), Vip::new(0, 0, 0, u64::MAX))?;
    }
    Ok(())
}

/// Silences the entries of VIPs that are now configured under another Lease than that of their slot.
/// This comes before any renewal, because renewing that slot's Lease would keep them alive.
fn silence_strays(
    maps: &mut Maps,
    published: &BTreeMap<Ip, Vip>,
    settings: &Settings,
    slots: &[(u32, SlotState)],
) -> Result<(), MapsError> {
    let of_slot: BTreeMap<u32, &str> =
        slots.iter().map(|(slot, state)| (*slot, state.lease.as_str())).collect();
    let configured: BTreeMap<Ip, &str> = settings
        .leases
        .iter()
        .flat_map(|(lease, vips)| vips.iter().map(move |vip| (Ip::from(*vip), lease.as_str())))
        .collect();
    for (ip, vip) in published.iter().filter(|(_, vip)| vip.generation != 0) {
        let elsewhere = configured.get(ip).is_some_and(|lease| of_slot.get(&vip.slot) != Some(lease));
        if elsewhere {
            maps.publish(*ip, Vip { generation: 0, ..*vip })?;
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

/// Stores the identity. Sets the ARP sysctls, and stores their former values with it.
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
