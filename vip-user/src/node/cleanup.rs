//! Restores a host: fence 0, then addresses, then programs, then maps. Every step works with whatever
//! pins are left, because an administrator may have removed some by hand. Pins of other versions of the
//! instance are removed too: the fields that are read here have the same layout in all versions.

use super::{
    attach::detach,
    carry,
    netlink::{Netlink, NetlinkError},
    pins::{LinkPin, Pins, PinsError},
    raw_map::RawMap,
    sysctl::{self, SYSCTLS},
};
use std::{io, net::IpAddr};
use vip_common::abi::{HostAddr, Identity};

/// Why a cleanup could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The list of addresses could not be read.
    #[error("cannot read the list of addresses {path}")]
    Addresses {
        /// The path of the map.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A pin could not be removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// Removes everything and returns one line for each thing that was removed.
pub async fn cleanup(pins: &Pins, netlink: &Netlink) -> Result<Vec<String>, CleanupError> {
    let mut done = Vec::new();
    let versions: Vec<Pins> = pins.other_versions().into_iter().chain([pins.clone()]).collect();
    for version in &versions {
        for slot in carry::silence(version)? {
            done.push(format!("fence of slot {slot}"));
        }
    }
    for version in &versions {
        remove_addresses(version, netlink, &mut done).await?;
        restore_sysctls(version, &mut done)?;
    }
    for version in &versions {
        for pin in version.links() {
            let LinkPin { interface, kind, ifindex } = &pin;
            detach(version, &pin)?;
            done.push(format!("{} program on {interface}", kind.name()));
            if kind.is_clsact() && netlink.remove_empty_clsact(*ifindex).await {
                done.push(format!("clsact qdisc on {interface}"));
            }
        }
        for path in version.files() {
            version.remove(&path)?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            done.push(format!("map {}", name.unwrap_or_default()));
        }
        version.remove_dirs();
    }
    Ok(done)
}

/// Only the stored list distinguishes our addresses from those of other programs. If it is gone, the
/// addresses stay until their lifetime ends.
async fn remove_addresses(
    pins: &Pins,
    netlink: &Netlink,
    done: &mut Vec<String>,
) -> Result<(), CleanupError> {
    let path = pins.map("ADDRS");
    let refuse = |source| CleanupError::Addresses { path: path.display().to_string(), source };
    let Some(map) = RawMap::open(&path).map_err(refuse)? else {
        if pins.exist() {
            done.push("nothing of addresses: their list is gone, they end with their lifetime".into());
        }
        return Ok(());
    };
    for (key, _) in map.entries().map_err(refuse)? {
        let Ok(addr) = bytemuck::try_pod_read_unaligned::<HostAddr>(&key) else { continue };
        netlink.remove_address(addr).await?;
        done.push(format!("address {} on interface {}", IpAddr::from(addr.ip), addr.ifindex));
    }
    Ok(())
}

/// Restores a sysctl only if it still has the value that xvip set. If another instance runs here, it
/// needs the value too, and inherits the duty to restore it.
fn restore_sysctls(pins: &Pins, done: &mut Vec<String>) -> Result<(), CleanupError> {
    let Some(identity) = carry::identity(pins)? else { return Ok(()) };
    for heir in pins.other_instances() {
        // The same file system may hold pins of other network namespaces.
        if carry::identity(&heir)?.is_some_and(|heir| heir.netns_cookie == identity.netns_cookie) {
            return Ok(bequeath(&identity, &heir)?);
        }
    }
    let before = [identity.arp_ignore_before, identity.arp_announce_before];
    for ((name, ours), before) in SYSCTLS.into_iter().zip(before) {
        let Some(value) = before.checked_sub(1) else { continue };
        if sysctl::read(name).ok() == Some(ours) && sysctl::write(name, value).is_ok() {
            done.push(format!("our value of sysctl net.ipv4.conf.all.{name}: {value} again"));
        }
    }
    Ok(())
}

fn bequeath(identity: &Identity, heir: &Pins) -> Result<(), PinsError> {
    let Some(mut theirs) = carry::identity(heir)? else { return Ok(()) };
    if theirs.arp_ignore_before == 0 {
        theirs.arp_ignore_before = identity.arp_ignore_before;
    }
    if theirs.arp_announce_before == 0 {
        theirs.arp_announce_before = identity.arp_announce_before;
    }
    carry::set_identity(heir, &theirs)
}
