//! The messages that the kernel sends to all subscribers: links, addresses, filters, routes. Each
//! message is only a hint to look again, so a lost message loses nothing. While nothing reads them,
//! messages do not pile up: the socket's buffer is the only queue.

use super::{
    netlink::Netlink,
    requests::{NetlinkError, Result},
    touched::Touched,
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use std::{future::poll_fn, io, time::Duration};
use tokio::{sync::mpsc, time::sleep};

/// The size of the socket's buffer in bytes (`SO_RCVBUF`; the kernel may allow less).
const BUFFER: libc::c_int = 1 << 20;
/// Only this many bytes of a message are read.
const HEAD: usize = 64;
/// How many messages are read without a pause.
const AT_ONCE: usize = 1_024;
/// The pause before a failed socket is opened again.
const REOPEN: Duration = Duration::from_millis(200);
/// The first and the longest pause before the next look. Pauses grow while changes keep coming, so that
/// one look serves many of them.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(160)];

/// A subscription to changes on this host.
pub struct Changes {
    socket: TokioSocket,
    groups: Vec<MulticastGroup>,
    touched: Touched,
    buffer: Vec<u8>,
}

impl Changes {
    /// Subscribes to changes of links, addresses and filters. Routes are included only if the choice of
    /// interfaces depends on them, because a CNI changes routes all the time.
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

    /// Asks for a look whenever something has changed, until the receiver is gone.
    pub async fn tell(mut self, looks: mpsc::Sender<()>) {
        loop {
            self.wait().await;
            let mut pause = PAUSES[0];
            loop {
                if self.touched.ask() && looks.send(()).await.is_err() {
                    return;
                }
                // Messages that arrive during the pause wait in the socket's buffer, which is bounded.
                sleep(pause).await;
                if !self.drain().await {
                    break;
                }
                pause = (pause * 2).min(PAUSES[1]);
            }
        }
    }

    /// Waits for a change, or for a request to look again.
    async fn wait(&mut self) {
        loop {
            let Self { socket, buffer, touched, .. } = self;
            buffer.clear();
            let read = tokio::select! {
                read = poll_fn(|context| socket.poll_recv(context, buffer)) => read,
                () = touched.asked_again() => return,
            };
            if self.take(read).await {
                return;
            }
        }
    }

    /// Reads what has come. Says whether any of it asks for a look.
    async fn drain(&mut self) -> bool {
        let mut any = false;
        for _ in 0..AT_ONCE {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                read => any |= self.take(read.map(drop)).await,
            }
        }
        any
    }

    /// Takes in what was read. Says whether it asks for a look.
    async fn take(&mut self, read: io::Result<()>) -> bool {
        if read.is_ok() && self.touched.is_no_news(&self.buffer) {
            return false;
        }
        self.touched.changed();
        match read {
            Ok(()) => self.touched.take(&self.buffer),
            // The buffer was full, so messages are lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.touched.all(),
            Err(error) => self.reopen(&error).await,
        }
        true
    }

    /// Subscribes again. Changes in the meantime were not reported.
    async fn reopen(&mut self, error: &io::Error) {
        let trouble = format!("changes of interfaces are not heard of: {error}");
        tracing::warn!(%error, "the subscription to changes of interfaces has ended; opening another");
        self.touched.lost(trouble);
        loop {
            sleep(REOPEN).await;
            if let Ok(socket) = subscribe(&self.groups) {
                self.socket = socket;
                break;
            }
        }
        self.touched.found();
    }
}

fn subscribe(groups: &[MulticastGroup]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_ref().set_rx_buf_sz(BUFFER)?;
    // The groups are numbers, and the address has a mask. All of them are below 32, so they fit.
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
    Ok(socket)
}
