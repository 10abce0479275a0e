//! Leaving a host as it was: fence 0, then addresses, then programs, then maps.

use super::{
    maps::{Maps, MapsError},
    netlink::{Netlink, NetlinkError},
    pins::{LinkPin, Pins, PinsError},
    sysctl::{self, SYSCTLS},
};
use crate::model::time::BootNs;
use std::net::IpAddr;

/// What stood in the way.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A map.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A pin.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// What was removed, one line each.
pub async fn cleanup(pins: &Pins, netlink: &Netlink) -> Result<Vec<String>, CleanupError> {
    let mut done = Vec::new();
    if pins.exist()
        && let Ok(mut maps) = Maps::open(pins)
    {
        for slot in 0..maps.slots() {
            if maps.fence(slot)?.deadline_ns != 0 {
                maps.set_deadline(slot, BootNs(0))?;
                done.push(format!("fence of slot {slot} cleared"));
            }
        }
        maps.wait_for_programs()?;
        for addr in maps.owned_addrs()? {
            netlink.remove_address(addr).await?;
            maps.forget_addr(addr)?;
            done.push(format!("address {} on interface {}", IpAddr::from(addr.ip), addr.ifindex));
        }
        restore_sysctls(&maps, &mut done)?;
    }
    for pin in pins.links() {
        let LinkPin { interface, kind, .. } = &pin;
        done.push(format!("{} program on {interface}", kind.name()));
        pins.remove(&pins.link(&pin))?;
    }
    for name in Pins::map_names() {
        let path = pins.map(name);
        if path.exists() {
            pins.remove(&path)?;
            done.push(format!("map {name}"));
        }
    }
    pins.remove_dirs();
    Ok(done)
}

/// A sysctl goes back only if it still has the value that xvip gave it.
fn restore_sysctls(maps: &Maps, done: &mut Vec<String>) -> Result<(), CleanupError> {
    let identity = maps.identity()?;
    let before = [identity.arp_ignore_before, identity.arp_announce_before];
    for ((name, ours), before) in SYSCTLS.into_iter().zip(before) {
        let Some(value) = before.checked_sub(1) else { continue };
        if sysctl::read(name).ok() == Some(ours) && sysctl::write(name, value).is_ok() {
            done.push(format!("sysctl net.ipv4.conf.all.{name} back to {value}"));
        }
    }
    Ok(())
}
