//! The daemon's socket on its host: an abstract unix name in the network namespace, which a container
//! shares with its host without any mount. Any process can bind such a name first, so each side asks
//! the kernel whose process the other one is.

use crate::state::DaemonState;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixStream, unix::UCred},
    time::{sleep, timeout},
};

/// The time limit for all that one question needs.
const LIMIT: Duration = Duration::from_secs(1);
/// The pause before the next attempt to connect to a socket whose queue is full.
const FULL_RETRY: Duration = Duration::from_millis(10);
/// The longest answer that is read. Even a state with many Leases and problems is far shorter.
const LONGEST: u64 = 4 << 20;
/// How many bytes of a stranger's command line are shown.
const LONGEST_COMMAND: u64 = 200;
/// How many names beside the usual one are tried.
const MOST_NAMES: usize = 256;

/// The result of binding: a listener, or the process that is in the way.
#[derive(Debug)]
pub enum Bound {
    /// A listener on the usual name.
    Name(UnixListener),
    /// A listener on another name. The usual one is held by a process without rights, described by the
    /// text.
    Beside(UnixListener, String),
    /// The name is held by root, or the kernel does not say by whom. The text describes the holder.
    Busy(String),
}

/// Why a daemon's state is not known.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No process has the name.
    #[error("no xvip daemon runs")]
    Nobody,
    /// The process that has the name is not trusted.
    #[error("the socket's name is held by {0}, which is not believed, and no other daemon answers")]
    Stranger(String),
    /// More clients wait to be accepted than the kernel queues.
    #[error("too many others ask the xvip daemon")]
    Full,
    /// No complete answer came.
    #[error("the xvip daemon does not answer ({0})")]
    Silent(String),
}

/// Whether a process of this user may be xvip: root, or the user that runs this process.
pub fn is_trusted(uid: u32) -> bool {
    // SAFETY: the call has no preconditions and cannot fail.
    uid == 0 || uid == unsafe { libc::geteuid() }
}

/// Listens on the name of an instance, or on another name if a stranger holds that one.
pub async fn bind(instance: &str) -> io::Result<Bound> {
    match listen(&name(instance)) {
        Ok(listener) => return Ok(Bound::Name(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error),
    }
    let peer = timeout(LIMIT, peer(&name(instance))).await.ok().flatten();
    // A stranger need not accept our connection, so the kernel's own list comes first.
    let usual = name(instance);
    let listed = unix_sockets(|name, _| name == usual.as_bytes());
    let is_told = listed.is_ok();
    let listed = listed.unwrap_or_default().get(usual.as_bytes()).copied();
    let of = peer.and_then(|peer| peer.pid()).map(process).unwrap_or_default();
    let stranger = match listed.or(peer.map(|peer| peer.uid())) {
        Some(uid) if is_trusted(uid) => return Ok(Bound::Busy(format!("another xvip{of}"))),
        Some(uid) => format!("user {uid}{of}"),
        None if !is_told => {
            return Ok(Bound::Busy(
                "a process that cannot be looked at (this kernel lacks unix_diag)".into(),
            ));
        }
        // Every xvip listens on its name. A connection, which the kernel does not list, may also hold
        // the name, or the holder may have just ended.
        None => "a process that does not listen".into(),
    };
    let own = format!("{usual}/{}", uuid::Uuid::new_v4().simple());
    Ok(Bound::Beside(listen(&own)?, stranger))
}

async fn peer(name: &str) -> Option<UCred> {
    UnixStream::connect(format!("\0{name}")).await.and_then(|stream| stream.peer_cred()).ok()
}

/// Binds the usual name, which succeeds once the process that held it has ended.
pub fn bind_again(instance: &str) -> Option<UnixListener> {
    listen(&name(instance)).ok()
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn name(instance: &str) -> String {
    format!("xvip/{instance}")
}

/// Asks the running daemon of an instance for its state. This takes at most a second.
pub async fn ask(instance: &str) -> Result<DaemonState, AskError> {
    talk(instance, "").await
}

/// Sends a request to the running daemon of an instance, and returns the answer. Without a request the
/// answer is the state. This takes at most a second.
pub async fn talk<T: DeserializeOwned>(instance: &str, request: &str) -> Result<T, AskError> {
    let late = || AskError::Silent(format!("within {} s", LIMIT.as_secs()));
    let answered = timeout(LIMIT, async {
        loop {
            match ask_all(instance, request).await {
                Err(AskError::Full) => sleep(FULL_RETRY).await,
                answered => return answered,
            }
        }
    });
    answered.await.unwrap_or_else(|_| Err(late()))
}

async fn ask_all<T: DeserializeOwned>(instance: &str, request: &str) -> Result<T, AskError> {
    let mut why = match ask_one(&name(instance), request).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    // A stranger may have the usual name. The daemon then has a name beside it.
    for name in names_beside(instance) {
        match ask_one(&name, request).await {
            Ok(answer) => return Ok(answer),
            Err(AskError::Nobody) => {}
            Err(AskError::Stranger(_)) if matches!(why, AskError::Silent(_) | AskError::Full) => {}
            Err(error) => why = error,
        }
    }
    Err(why)
}

async fn ask_one<T: DeserializeOwned>(name: &str, request: &str) -> Result<T, AskError> {
    let silent = |error: io::Error| AskError::Silent(error.to_string());
    let mut stream = match UnixStream::connect(format!("\0{name}")).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(AskError::Nobody),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(AskError::Full),
        Err(error) => return Err(silent(error)),
    };
    // The kernel noted these when the other side began to listen.
    let peer = stream.peer_cred().map_err(silent)?;
    if !is_trusted(peer.uid()) {
        let of = peer.pid().map(process).unwrap_or_default();
        return Err(AskError::Stranger(format!("user {}{of}", peer.uid())));
    }
    // The daemon need not wait for more. It may have answered already, and have closed the connection.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut text = Vec::new();
    stream.take(LONGEST).read_to_end(&mut text).await.map_err(silent)?;
    serde_json::from_slice(&text).map_err(|error| AskError::Silent(error.to_string()))
}

/// The names that begin like a daemon's other name. Any user may bind any number of such names, so only
/// the names of trusted users are kept.
fn names_beside(instance: &str) -> Vec<String> {
    let begin = format!("{}/", name(instance));
    let listed = unix_sockets(|name, uid| is_trusted(uid) && name.starts_with(begin.as_bytes()));
    let names = listed.unwrap_or_default().into_keys().take(MOST_NAMES);
    names.filter_map(|name| String::from_utf8(name).ok()).collect()
}

/// Describes a process, as far as this one can see it.
fn process(pid: i32) -> String {
    // 0 means a process of another PID namespace.
    if pid <= 0 {
        return String::new();
    }
    // A stranger's command line may have any length.
    let mut command = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) {
        let _unread_is_empty = file.take(LONGEST_COMMAND).read_to_end(&mut command);
    }
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    if command.is_empty() { format!(", pid {pid}") } else { format!(", pid {pid} ({command})") }
}

/// The abstract stream names, and the owner of each in this user namespace. `SO_PEERCRED` shows the
/// owner too, but only if the listener has room for one more connection. Only names that `keep` accepts
/// are returned.
fn unix_sockets(keep: impl Fn(&[u8], u32) -> bool) -> io::Result<BTreeMap<Vec<u8>, u32>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // The answer is complete when the send call returns, so reading must not wait for more.
    socket.set_non_blocking(true)?;
    socket.send_to(&diag::request(), &SocketAddr::new(0, 0), 0)?;
    let mut owners = BTreeMap::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let done = diag::read(&datagram, &mut owners)? == diag::Dump::Done;
        owners.retain(|name: &Vec<u8>, uid: &mut u32| keep(name, *uid));
        if done {
            return Ok(owners);
        }
    }
}

/// `unix_diag` (sock_diag(7)); `UNIX_DIAG_UID` came with Linux 5.3.
mod diag {
    use std::{collections::BTreeMap, io};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const SHOW_NAME_AND_UID: u32 = 0x01 | 0x40;
    const NAME: u16 = 0;
    const UID: u16 = 7;
    const CLOSE: u32 = 7;
    const LISTEN: u32 = 10;

    /// Whether more datagrams of the answer follow.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Dump {
        More,
        Done,
    }

    /// Asks for every unix socket that is not a connection. A connection that waits to be accepted
    /// carries the listener's name too, and belongs to root until it is accepted.
    pub(super) fn request() -> Vec<u8> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let mut bytes = Vec::with_capacity(40);
        bytes.extend(40_u32.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
        bytes.extend((1_u32 << CLOSE | 1 << LISTEN).to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(SHOW_NAME_AND_UID.to_ne_bytes());
        bytes.extend([0xff; 8]);
        bytes
    }

    /// Reads one datagram of the answer.
    pub(super) fn read(datagram: &[u8], owners: &mut BTreeMap<Vec<u8>, u32>) -> io::Result<Dump> {
        let mut rest = datagram;
        while let Some((length, kind)) = header(rest) {
            let message = &rest[16..length];
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(Dump::Done),
                libc::NLMSG_ERROR => return Err(io::Error::other("sock_diag refuses to answer")),
                _ => socket(message, owners),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Dump::More)
    }

    /// The length and type of the message at the beginning of `bytes`.
    fn header(bytes: &[u8]) -> Option<(usize, u16)> {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        (16..=bytes.len()).contains(&length).then_some((length, kind))
    }

    fn socket(message: &[u8], owners: &mut BTreeMap<Vec<u8>, u32>) {
        let (mut name, mut uid) = (None, None);
        // Only stream sockets count, because each type of socket has its own names.
        let is_stream = message.get(1).is_some_and(|kind| i32::from(*kind) == libc::SOCK_STREAM);
        let mut rest = message.get(16..).unwrap_or_default();
        while is_stream && let Some((length, kind)) = attribute(rest) {
            let value = &rest[4..length];
            match kind {
                NAME => name = value.strip_prefix(&[0]).map(<[u8]>::to_vec),
                UID => uid = value.try_into().ok().map(u32::from_ne_bytes),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if let (Some(name), Some(uid)) = (name, uid) {
            owners.insert(name, uid);
        }
    }

    /// The length and type of the attribute at the beginning of `bytes`.
    fn attribute(bytes: &[u8]) -> Option<(usize, u16)> {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        (4..=bytes.len()).contains(&length).then_some((length, kind))
    }
}

#[cfg(test)]
mod tests;
