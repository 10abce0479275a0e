//! `xvip cleanup`.

use super::Place;
use crate::node::{cleanup, lock::Lock, netlink::Netlink, pins::Pins};
use anyhow::{Context as _, bail};
use std::process::ExitCode;

/// Removes everything and prints what it was.
pub async fn cleanup(place: &Place) -> anyhow::Result<ExitCode> {
    // Held to the end, so that no daemon starts in between.
    let Some(_lock) = Lock::try_take(&place.instance).context("cannot take the lock")? else {
        bail!("an xvip daemon (instance {}) is running; stop it first", place.instance);
    };
    let pins = Pins::new(&place.pin_root, &place.instance);
    let netlink = Netlink::open()?;
    let done = cleanup::cleanup(&pins, &netlink).await?;
    for line in &done {
        println!("removed {line}");
    }
    if done.is_empty() {
        println!("nothing to remove");
    }
    Ok(ExitCode::SUCCESS)
}
