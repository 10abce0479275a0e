//! One writer per host and instance. The lock is `flock(2)` on a directory of the BPF file system that
//! only root can open. A container and a process of the host share it, and the kernel frees it with the
//! process. An abstract unix socket is bound as well, because versions without this directory use it as
//! their lock. The daemon answers on that socket (`node/socket.rs`).

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

/// How long to wait before a busy lock is tried again.
const POLL: Duration = Duration::from_millis(200);

/// The lock. It is held while this value lives.
#[derive(Debug)]
pub struct Lock {
    _directory: Option<File>,
    listener: UnixListener,
    stranger: Option<String>,
}

/// The result of an attempt to take the lock.
#[derive(Debug)]
pub enum Attempt {
    /// This process has the lock.
    Taken(Lock),
    /// Another process has it; the text describes that process.
    Busy(String),
}

/// Why the lock can neither be taken nor waited for.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Directory {
        /// The operation that failed.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The pins cannot be written either, and their error says what helps.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A process of a user without rights made the directory first.
    #[error(
        "{path} belongs to user {uid}, who could keep every xvip from running; remove it, and mount \
         the BPF file system so that only root may write to it (mount option mode=0700)"
    )]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// The user that owns it.
        uid: u32,
    },
    /// The socket could not be opened.
    #[error("cannot open the socket of the lock")]
    Socket(#[source] io::Error),
}

impl Lock {
    /// Takes the lock of the instance that has these pins. While another process has it, this waits and
    /// logs that it does.
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
        // Without a BPF file system there are no pins to lock; `cleanup` finds that out itself.
        let directory = if pins.check_bpffs().is_ok() {
            let netns = host::netns_cookie().map_err(LockError::Socket)?;
            let taken = take_directory(&pins.lock(netns)).or_else(|error| {
                // If a security profile forbids all writing, that shows here first.
                pins.check_allowed()?;
                Err(error)
            })?;
            let Some(directory) = taken else {
                return Ok(Attempt::Busy("another xvip".into()));
            };
            pins.sweep_lock(netns);
            // The root exists from here on, so its owner cannot change any more.
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
            // A process without rights cannot have the directory, so the name alone must not keep this
            // one waiting.
            socket::Bound::Beside(listener, stranger) if directory.is_some() => {
                Attempt::Taken(Self { _directory: directory, listener, stranger: Some(stranger) })
            }
            socket::Bound::Beside(_, holder) | socket::Bound::Busy(holder) => Attempt::Busy(holder),
        })
    }

    /// A second handle of the listener, on which the daemon answers.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The process that holds the socket's name without any right to it, described in words.
    pub fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }
}

/// Locks the directory; `None` if another process has locked it.
fn take_directory(path: &Path) -> Result<Option<File>, LockError> {
    let failed = |what| move |source| LockError::Directory { what, path: path.into(), source };
    if let Some(root) = path.parent() {
        create_all(root).map_err(failed("create the parent of"))?;
    }
    // The mode is 0700 from the start, because a process that can open a directory can lock it.
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
    // `xvip cleanup` removes the directory at its end. A process that was waiting for it then holds the
    // lock of a directory that is gone.
    let current = fs::metadata(path).is_ok_and(|now| now.ino() == found.ino());
    Ok(current.then_some(directory))
}

#[cfg(test)]
mod tests;
