//! Takes over what another version of xvip has pinned, whether newer or older. First the new maps are
//! filled. Then the links move and their programs are replaced one by one. Then the old maps go silent
//! and are removed. An empty map behind a new program would open the guard.
//!
//! This works in both directions because layouts only grow at their end. Fields that the other version
//! does not know are cut off or zero.

use super::{
    pins::{Pins, PinsError},
    raw_map::RawMap,
};
use std::fs;
use vip_common::abi::Identity;

/// The maps whose content is copied. Counters start again at 0, and rate limits for claims are
/// forgotten.
const CARRIED: [&str; 6] = ["VIPS", "FENCES", "IFACES", "IFACES_BY_INDEX", "TENURES", "ADDRS"];

/// Fills the fresh maps of `new` from those of `old`, entry by entry. Both fences of a slot end at the
/// same instant, so old and new programs decide alike.
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

/// The identity that is stored in this directory, if there is one.
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

/// Marks a directory as given up, so that its content is never taken over again.
pub fn give_up(pins: &Pins) -> Result<(), PinsError> {
    match identity(pins)? {
        Some(identity) => set_identity(pins, &Identity { ready: 0, ..identity }),
        None => Ok(()),
    }
}

/// Stores an identity in this directory, if it has the map.
pub fn set_identity(pins: &Pins, identity: &Identity) -> Result<(), PinsError> {
    let Some(map) = open(pins, "IDENTITY")? else { return Ok(()) };
    let entries = map.entries().map_err(failed("read", pins, "IDENTITY"))?;
    // Fields that another version keeps behind ours are not changed.
    let mut value = entries.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    for (to, from) in value.iter_mut().zip(bytemuck::bytes_of(identity)) {
        *to = *from;
    }
    map.store(&[0; 4], &value).map_err(failed("write", pins, "IDENTITY"))
}

/// Moves the pinned links, with their present programs.
pub fn move_links(old: &Pins, new: &Pins) -> Result<(), PinsError> {
    for pin in old.links() {
        let (from, to) = (old.link(&pin), new.link(&pin));
        fs::rename(&from, &to).map_err(|source| PinsError::Io { what: "move", path: from, source })?;
    }
    Ok(())
}

/// Lowers every fence to zero, even if some cannot be lowered. Returns the slots that had a fence.
pub fn silence(pins: &Pins) -> Result<Vec<u32>, PinsError> {
    let Some(map) = open(pins, "FENCES")? else { return Ok(Vec::new()) };
    let failed = failed("clear", pins, "FENCES");
    let (mut slots, mut refused) = (Vec::new(), None);
    for (key, mut value) in map.entries().map_err(&failed)? {
        // In every version the deadline is the first field.
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

/// Ends another version's directory: silences its fences, then removes it.
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
