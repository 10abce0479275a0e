//! `xvip cleanup`.

use super::Place;
use crate::{
    escape::printable,
    node::{
        cleanup, host,
        lock::{Attempt, Lock},
        netlink::Netlink,
        pins::Pins,
    },
};
use anyhow::{Context as _, bail};
use std::{
    io::{Write as _, stdout},
    process::ExitCode,
};

/// Removes everything that xvip has put on the host, and prints each thing.
pub async fn cleanup(place: &Place) -> anyhow::Result<ExitCode> {
    let pins = Pins::new(&place.pin_root, &place.instance);
    // Held to the end, so that no daemon starts meanwhile.
    let _lock = match Lock::try_take(&pins).await.context("cannot take the lock")? {
        Attempt::Taken(lock) => lock,
        Attempt::Busy(holder) => bail!(
            "an xvip daemon (instance {}) is running; stop it first ({holder} has the lock)",
            place.instance
        ),
    };
    let netlink = Netlink::patient()?;
    let done = cleanup::cleanup(&pins, &netlink).await?;
    pins.remove_lock(host::netns_cookie().context("cannot tell this network namespace")?);
    // A rollback goes on when its reader is gone.
    for line in &done {
        let _ = writeln!(stdout(), "removed {}", printable(line));
    }
    if done.is_empty() {
        let _ = writeln!(stdout(), "nothing to remove");
    }
    Ok(ExitCode::SUCCESS)
}
