//! One writer per host and instance: an abstract unix socket in the host's network namespace. The
//! kernel frees it with the process, whatever ended that. The daemon also answers on it: `xvip
//! status` reads what only the daemon knows.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    time::Duration,
};

/// The lock, held while this lives.
#[derive(Debug)]
pub struct Lock(UnixListener);

impl Lock {
    /// Takes the lock, or `None` if another process has it.
    pub fn try_take(instance: &str) -> io::Result<Option<Self>> {
        match UnixListener::bind_addr(&address(instance)?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Some(Self(listener)))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A second handle of the listener, to answer on.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.0.try_clone()
    }
}

/// Asks a running daemon for its state; `None` if none runs or it does not answer within a second.
pub fn ask(instance: &str) -> Option<String> {
    let mut stream = UnixStream::connect_addr(&address(instance).ok()?).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.flush().ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn address(instance: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("xvip/{instance}"))
}
