//! Taking over what another version of xvip has pinned, newer or older. New maps are filled first, then
//! the links move and their programs are replaced one by one, then the old maps go silent and are
//! removed. An empty map behind a new program would open the guard.
//!
//! This works in both directions because layouts only grow at their end: what the other version does
//! not know is cut off or zero.

use super::{
    bpf::RawMap,
    pins::{Pins, PinsError},
};
use std::fs;
use vip_common::abi::Identity;

/// Maps whose content goes on. Counters begin anew, and what was rate-limited is told again.
const CARRIED: [&str; 6] = ["VIPS", "FENCES", "IFACES", "IFACES_BY_INDEX", "TENURES", "ADDRS"];

/// Fills the fresh maps of `new` from those of `old`, entry by entry. Both fences of a slot end at the
/// same instant, so whichever program looks at them decides alike.
pub fn fill(old: &Pins, new: &Pins) -> Result<(), PinsError> {
    for name in CARRIED.into_iter().chain(["IDENTITY"]) {
        let (Some(from), Some(to)) = (open(old, name)?, open(new, name)?) else { continue };
        let entries = from.entries().map_err(failed("read", old, name))?;
        for (key, value) in entries.iter().filter(|(_, value)| value.iter().any(|byte| *byte != 0)) {
            to.store(key, value).map_err(failed("fill", new, name))?;
        }
    }
    Ok(())
}

/// The identity that is stored in this directory, if any.
pub fn identity(pins: &Pins) -> Result<Option<Identity>, PinsError> {
    let Some(map) = open(pins, "IDENTITY")? else { return Ok(None) };
    let entries = map.entries().map_err(failed("read", pins, "IDENTITY"))?;
    let value = entries.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    let mut bytes = [0; size_of::<Identity>()];
    for (to, from) in bytes.iter_mut().zip(value) {
        *to = from;
    }
    Ok(Some(bytemuck::cast(bytes)))
}

/// Marks a directory as given up: its content must never be taken over again.
pub fn give_up(pins: &Pins) -> Result<(), PinsError> {
    match identity(pins)? {
        Some(identity) => set_identity(pins, &Identity { ready: 0, ..identity }),
        None => Ok(()),
    }
}

/// Writes the identity.
pub fn set_identity(pins: &Pins, identity: &Identity) -> Result<(), PinsError> {
    let Some(map) = open(pins, "IDENTITY")? else { return Ok(()) };
    let entries = map.entries().map_err(failed("read", pins, "IDENTITY"))?;
    // What another version keeps behind our fields stays as it is.
    let mut value = entries.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    for (to, from) in value.iter_mut().zip(bytemuck::bytes_of(identity)) {
        *to = *from;
    }
    map.store(&[0; 4], &value).map_err(failed("write", pins, "IDENTITY"))
}

/// Moves the pinned links, with the programs that they have.
pub fn move_links(old: &Pins, new: &Pins) -> Result<(), PinsError> {
    for pin in old.links() {
        let (from, to) = (old.link(&pin), new.link(&pin));
        fs::rename(&from, &to).map_err(|source| PinsError::Io { what: "move", path: from, source })?;
    }
    Ok(())
}

/// Lowers every fence to zero, each whatever becomes of the others. Returns the slots that had one.
pub fn silence(pins: &Pins) -> Result<Vec<u32>, PinsError> {
    let Some(map) = open(pins, "FENCES")? else { return Ok(Vec::new()) };
    let failed = failed("clear", pins, "FENCES");
    let (mut slots, mut refused) = (Vec::new(), None);
    for (key, mut value) in map.entries().map_err(&failed)? {
        // The deadline comes first in every version.
        let Some(deadline) = value.first_chunk_mut::<8>() else { continue };
        if *deadline != [0; 8] {
            *deadline = [0; 8];
            match map.store(&key, &value) {
                Ok(()) => slots.push(key.try_into().map_or(u32::MAX, u32::from_ne_bytes)),
                Err(error) => refused = refused.or(Some(failed(error))),
            }
        }
    }
    refused.map_or(Ok(slots), Err)
}

/// Ends another version's directory: silent first, then gone.
pub fn retire(old: &Pins) -> Result<(), PinsError> {
    silence(old)?;
    for path in old.files() {
        old.remove(&path)?;
    }
    old.remove_dirs();
    Ok(())
}

fn open(pins: &Pins, name: &str) -> Result<Option<RawMap>, PinsError> {
    RawMap::open(&pins.map(name)).map_err(failed("open", pins, name))
}

fn failed(what: &'static str, pins: &Pins, name: &str) -> impl Fn(std::io::Error) -> PinsError + use<> {
    let path = pins.map(name);
    move |source| PinsError::Io { what, path: path.clone(), source }
}
