//! One writer per host and instance. The lock is `flock(2)` on a directory of the BPF file system
//! that only root can open: a container and a process of the host share it, and the kernel frees it
//! with the process. Beside it an abstract unix socket is bound, as versions without this directory
//! do: they and this one exclude each other. The daemon answers on that socket (`node/socket.rs`).

use super::{
    host,
    pins::{Pins, PinsError, create_all},
    socket,
};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// How often a busy lock is tried.
const POLL: Duration = Duration::from_millis(200);

/// The lock, held while this lives.
#[derive(Debug)]
pub struct Lock {
    _directory: Option<File>,
    listener: UnixListener,
    stranger: Option<String>,
}

/// What an attempt to take the lock came to.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Lock),
    /// Another process has it; in words, who.
    Busy(String),
}

/// Why the lock can neither be taken nor waited for.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Directory {
        /// The operation.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pins cannot be written either, and that error says what helps.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Somebody without our rights made the directory first.
    #[error(
        "{path} belongs to user {uid}, who could keep every xvip from running; remove it, and mount \
         the BPF file system so that only root may write to it (mount option mode=0700)"
    )]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// There is no socket.
    #[error("cannot open the socket of the lock")]
    Socket(#[source] io::Error),
}

impl Lock {
    /// Takes the lock of the instance that has these pins; waits, visibly, while another process has
    /// it.
    pub async fn take(pins: &Pins) -> Result<Self, LockError> {
        let instance = pins.instance();
        let mut told = None;
        loop {
            match Self::try_take(pins).await? {
                Attempt::Taken(lock) => {
                    if let Some(stranger) = lock.stranger() {
                        tracing::warn!(
                            instance,
                            stranger,
                            "the name of the local socket is taken; xvip runs on"
                        );
                    }
                    return Ok(lock);
                }
                Attempt::Busy(holder) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::warn!(
                            instance, %holder,
                            "another xvip runs here; waiting for it to end"
                        );
                        told = Some(holder);
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes the lock of the instance that has these pins, unless another process has it.
    pub async fn try_take(pins: &Pins) -> Result<Attempt, LockError> {
        // Where there is no BPF file system, there are no pins to lock: `cleanup` finds that out.
        let directory = if pins.check_bpffs().is_ok() {
            let netns = host::netns_cookie().map_err(LockError::Socket)?;
            let taken = take_directory(&pins.lock(netns)).or_else(|error| {
                // A profile that lets nothing be written shows here first.
                pins.check_allowed()?;
                Err(error)
            })?;
            let Some(directory) = taken else {
                return Ok(Attempt::Busy("another xvip".into()));
            };
            // The root exists from here on: whoever owns it now stays its owner.
            pins.check_strangers()?;
            Some(directory)
        } else {
            None
        };
        let listener = socket::bind(pins.instance()).await.map_err(LockError::Socket)?;
        Ok(match listener {
            socket::Bound::Name(listener) => {
                Attempt::Taken(Self { _directory: directory, listener, stranger: None })
            }
            // Nobody without rights can have the directory, so the name alone keeps nothing waiting.
            socket::Bound::Beside(listener, stranger) if directory.is_some() => {
                Attempt::Taken(Self { _directory: directory, listener, stranger: Some(stranger) })
            }
            socket::Bound::Beside(_, holder) | socket::Bound::Busy(holder) => Attempt::Busy(holder),
        })
    }

    /// A second handle of the listener, to answer on.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Who sits on the name of the socket without any right to it, in words.
    pub fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }
}

/// Locks the directory, or nothing if another process has it.
fn take_directory(path: &Path) -> Result<Option<File>, LockError> {
    let failed = |what| move |source| LockError::Directory { what, path: path.into(), source };
    if let Some(root) = path.parent() {
        create_all(root).map_err(failed("create the parent of"))?;
    }
    // Mode 0700 from the first moment: whoever can open a directory can lock it.
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create")(error));
        }
        _ => {}
    }
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory =
        File::options().read(true).custom_flags(flags).open(path).map_err(failed("open"))?;
    let found = directory.metadata().map_err(failed("look at"))?;
    if !socket::is_trusted(found.uid()) {
        return Err(LockError::Stranger { path: path.into(), uid: found.uid() });
    }
    if found.mode() & 0o077 != 0 {
        directory.set_permissions(fs::Permissions::from_mode(0o700)).map_err(failed("close"))?;
    }
    match directory.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
    }
    // `xvip cleanup` removes the directory at its end. Whoever waited for it has locked nothing.
    let current = fs::metadata(path).is_ok_and(|now| now.ino() == found.ino());
    Ok(current.then_some(directory))
}

#[cfg(test)]
mod tests;
