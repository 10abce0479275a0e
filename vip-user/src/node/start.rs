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
use crate::model::{election::AdoptedFence, slots::SlotState, time::BootNs};
use bytemuck::Zeroable as _;
use std::{collections::BTreeMap, io, net::IpAddr};
use vip_common::abi::{ABI_VERSION, Identity, Ip, Vip};

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
}

/// A host that is ready, and what was found on it.
pub struct Started {
    /// The host.
    pub kernel: Kernel,
    /// What the maps know of each slot.
    pub slots: Vec<(u32, SlotState)>,
}

/// Loads the programs, opens the maps and finds what they know of each slot. Call with the lock held
/// and after [`check`](super::checks::check). The first
/// [`Dataplane::links`](super::dataplane::Dataplane::links) attaches interfaces.
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

/// What the maps know of a slot. A tenure of this boot and node whose fence was raised for it
/// continues. Any other is silenced. A slot that the configuration does not name stays as it is: its
/// group may be wanted later.
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
        // No Lease of this namespace has such a name.
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

/// The programs that are about to run know the new map only, and an empty one guards nothing.
fn silence_all(maps: &mut Maps, settings: &Settings) -> Result<(), MapsError> {
    for vip in settings.leases.iter().flat_map(|(_, vips)| vips) {
        maps.publish(Ip::from(*vip), Vip::new(0, 0, 0, u64::MAX))?;
    }
    Ok(())
}

/// Silences entries of VIPs that the configuration puts under another Lease than the slot that they
/// name. That is done before anything is renewed: a renewal of that other Lease would keep them alive.
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
