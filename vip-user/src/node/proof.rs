//! Proof that a client of the local socket may change something. The socket shows only the user of a
//! client, and a pod on the host's network may run as root without any right on the host. So the client
//! makes a directory beside the pins, where only the host's root can, and tells its name.

use super::{host, pins::Pins};
use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::PathBuf};

/// What the names of these directories begin with.
const PREFIX: &str = "ask-";

/// A directory that proves the rights of its maker. It is removed with this value, unless the daemon
/// has done so.
#[derive(Debug)]
pub struct Proof {
    path: PathBuf,
    name: String,
}

impl Proof {
    /// Makes a directory in the lock of an instance.
    pub fn make(pins: &Pins) -> io::Result<Self> {
        let name = format!("{PREFIX}{}", uuid::Uuid::new_v4().simple());
        let path = pins.lock(host::netns_cookie()?).join(&name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, name })
    }

    /// The name to send.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        // The daemon has usually removed it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether a client has made the directory that it names. Removes it, so a name counts once.
pub fn accept(pins: &Pins, name: &str) -> bool {
    let is_name = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(true) = name.strip_prefix(PREFIX).map(is_name) else { return false };
    let Ok(netns) = host::netns_cookie() else { return false };
    fs::remove_dir(pins.lock(netns).join(name)).is_ok()
}
