//! What the kernel tells everybody: links, addresses, filters, routes. Each message is a hint to look
//! again, and not the truth, so nothing is lost with a message that found no room, and nothing piles up
//! while nobody reads: the socket's buffer is the only queue.

use super::{
    netlink::Netlink,
    requests::{NetlinkError, Result},
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

/// Bytes of messages that the kernel keeps (`SO_RCVBUF`; it may allow less).
const BUFFER: libc::c_int = 1 << 20;
/// Of a message only the head is read.
const HEAD: usize = 64;
/// Kinds of messages: `NLMSG_OVERRUN`, `RTM_NEWLINK`, and behind those of addresses and of neighbours
/// and rules.
const OVERRUN: u16 = 4;
const LINK: u16 = 16;
const ROUTE: u16 = 24;
const QDISC: u16 = 36;
/// Messages that are read without a pause.
const AT_ONCE: usize = 1_024;
/// Interfaces that are remembered one by one; with more, all are looked at.
const MAX_TOUCHED: usize = 1_024;
/// A socket that failed is opened again after this.
const REOPEN: Duration = Duration::from_millis(200);
/// After a look, the next one waits this long, and longer while changes keep coming: one look serves
/// them all.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(160)];

/// What has changed since the last look, shared between the reader and the one who looks.
#[derive(Clone, Debug, Default)]
pub struct Touched(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    again: Notify,
}

#[derive(Debug, Default)]
struct State {
    touched: Interfaces,
    /// A look was asked for and has not begun.
    asked: bool,
    /// Something was told since the last look began; of routes nothing else is kept.
    changed: bool,
    trouble: Option<String>,
}

/// Interfaces of which the kernel has told something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    some: BTreeSet<u32>,
    all: bool,
}

impl Interfaces {
    /// Whether an interface is among them.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.all || self.some.contains(&ifindex)
    }

    /// Takes in the head of a message. Those of links, addresses, queueing disciplines and filters have
    /// the index of the interface at the same place (`ifinfomsg`, `ifaddrmsg`, `tcmsg`).
    fn take(&mut self, message: &[u8]) {
        let Some(kind) = message.get(4..6).and_then(|bytes| bytes.try_into().ok()) else { return };
        let ifindex = message.get(20..24).and_then(|bytes| bytes.try_into().ok());
        match (u16::from_ne_bytes(kind), ifindex) {
            (OVERRUN, _) => self.all = true,
            (LINK..ROUTE | QDISC.., Some(_)) if self.some.len() >= MAX_TOUCHED => self.all = true,
            (LINK..ROUTE | QDISC.., Some(bytes)) => drop(self.some.insert(u32::from_ne_bytes(bytes))),
            _ => {}
        }
    }
}

impl Touched {
    /// Begins a look: what changes from now on asks for another.
    pub fn begin(&self) -> Begun<'_> {
        let mut state = self.lock();
        (state.asked, state.changed) = (false, false);
        Begun { interfaces: std::mem::take(&mut state.touched), touched: self, done: false }
    }

    /// Whether something has changed since the last look began.
    pub fn has_changed(&self) -> bool {
        self.lock().changed
    }

    /// Everything is to be looked at.
    fn all(&self) {
        self.lock().touched.all = true;
    }

    /// The question for a look has arrived: what changes from now on asks again.
    pub fn heard(&self) {
        self.lock().asked = false;
    }

    /// Asks for another look.
    pub fn again(&self) {
        self.0.again.notify_one();
    }

    /// What is wrong with the reader, in words.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Whether a look must be asked for; not while one is asked for already.
    fn ask(&self) -> bool {
        !std::mem::replace(&mut self.lock().asked, true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that has begun. Where it does not come to its end, the next one looks at everything.
#[derive(Debug)]
pub struct Begun<'a> {
    interfaces: Interfaces,
    touched: &'a Touched,
    done: bool,
}

impl Begun<'_> {
    /// What has changed before.
    pub const fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Ends it.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.touched.all();
        }
    }
}

/// The subscription.
pub struct Changes {
    socket: TokioSocket,
    groups: Vec<MulticastGroup>,
    touched: Touched,
    buffer: Vec<u8>,
}

impl Changes {
    /// Subscribes to changes of links, addresses and filters; of routes too where the choice of
    /// interfaces depends on them (a CNI changes routes all the time).
    pub fn open(netlink: &Netlink, routes: bool) -> Result<Self> {
        let mut groups = vec![
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Tc,
        ];
        if routes {
            groups.extend([MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route]);
        }
        let socket = subscribe(&groups).map_err(NetlinkError::Socket)?;
        let buffer = Vec::with_capacity(HEAD);
        Ok(Self { socket, groups, touched: netlink.touched.clone(), buffer })
    }

    /// Asks for a look whenever something has changed. Ends with the receiver.
    pub async fn tell(mut self, looks: mpsc::Sender<()>) {
        loop {
            self.wait().await;
            let mut pause = PAUSES[0];
            loop {
                if self.touched.ask() && looks.send(()).await.is_err() {
                    return;
                }
                // What comes in the pause waits in the socket's buffer, which has a bound.
                sleep(pause).await;
                if !self.drain().await {
                    break;
                }
                pause = (pause * 2).min(PAUSES[1]);
            }
        }
    }

    /// Waits until something has changed, or another look is asked for.
    async fn wait(&mut self) {
        let Self { socket, buffer, touched, .. } = self;
        buffer.clear();
        let read = tokio::select! {
            read = poll_fn(|context| socket.poll_recv(context, buffer)) => read,
            () = touched.0.again.notified() => return,
        };
        self.take(read).await;
    }

    /// Reads what has come. Says whether anything has.
    async fn drain(&mut self) -> bool {
        for count in 0..AT_ONCE {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return count > 0,
                read => self.take(read.map(drop)).await,
            }
        }
        true
    }

    async fn take(&mut self, read: io::Result<()>) {
        self.touched.lock().changed = true;
        match read {
            Ok(()) => self.touched.lock().touched.take(&self.buffer),
            // The buffer was full, and messages are lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.touched.all(),
            Err(error) => self.reopen(&error).await,
        }
    }

    /// Subscribes again. What has changed meanwhile was not told.
    async fn reopen(&mut self, error: &io::Error) {
        let trouble = format!("changes of interfaces are not heard of: {error}");
        tracing::warn!(%error, "the subscription to changes of interfaces has ended; opening another");
        self.touched.lock().trouble = Some(trouble);
        loop {
            sleep(REOPEN).await;
            if let Ok(socket) = subscribe(&self.groups) {
                self.socket = socket;
                break;
            }
        }
        let mut state = self.touched.lock();
        state.trouble = None;
        (state.touched.all, state.changed) = (true, true);
    }
}

fn subscribe(groups: &[MulticastGroup]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_ref().set_rx_buf_sz(BUFFER)?;
    // All of them are below 32, and groups by number come without a mask.
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
