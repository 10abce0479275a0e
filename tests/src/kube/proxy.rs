//! A TCP proxy in front of the API server that misbehaves on demand, for all clients or for one.

use crate::netns::NetNs;
use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// They work.
    #[default]
    Open,
    /// Bytes are held back until this ends, as if a router dropped every packet; then TCP delivers
    /// them.
    BlackHole,
    /// Existing and new connections are reset.
    Reset,
    /// Existing connections are reset, and nothing listens. Only for all clients.
    Refuse,
    /// Bytes from clients arrive this much later.
    Delay(Duration),
}

/// The behaviour for all clients, and exceptions for single clients.
#[derive(Clone, Debug, Default)]
struct Ways {
    all: Way,
    of: BTreeMap<IpAddr, Way>,
}

impl Ways {
    fn of(&self, client: IpAddr) -> Way {
        self.of.get(&client).copied().unwrap_or(self.all)
    }
}

/// The proxy; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    ways: watch::Sender<Ways>,
    stop: Arc<tokio::sync::Notify>,
}

impl Proxy {
    /// Listens inside a namespace and forwards to an address there.
    ///
    /// # Errors
    /// If nothing can listen there.
    pub fn start(ns: &NetNs, listen: SocketAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let (ways, watched) = watch::channel(Ways::default());
        let stop = Arc::new(tokio::sync::Notify::new());
        let (stopped, (ready, started)) = (Arc::clone(&stop), std_mpsc::channel());
        let thread = ns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = bind(listen)?;
                let _ = ready.send(());
                tokio::select! {
                    served = serve(listener, listen, target, watched) => served,
                    () = stopped.notified() => Ok(()),
                }
            })
        });
        if started.recv().is_err() {
            let failed = thread.join().map_err(|_| anyhow::anyhow!("the proxy panicked"))?;
            failed.with_context(|| format!("the proxy cannot listen on {listen}"))?;
        }
        Ok(Self { ways, stop })
    }

    /// Sets what happens to the connections of all clients from now on.
    pub fn set(&self, way: Way) {
        self.ways.send_modify(|ways| ways.all = way);
    }

    /// Sets what happens to the connections of one client; `None`: the same as for all clients.
    pub fn set_for(&self, client: IpAddr, way: Option<Way>) {
        self.ways.send_modify(|ways| {
            match way {
                Some(way) => ways.of.insert(client, way),
                None => ways.of.remove(&client),
            };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Rebinding while old connections linger needs `SO_REUSEADDR`. On Unix tokio's `bind` sets it too;
/// here it is explicit.
fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(128)
}

async fn serve(
    mut listener: TcpListener,
    listen: SocketAddr,
    target: SocketAddr,
    mut ways: watch::Receiver<Ways>,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let refuses = |ways: &Ways| ways.all == Way::Refuse;
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted?),
            _ = ways.wait_for(refuses) => None,
        };
        while connections.try_join_next().is_some() {}
        let Some((client, from)) = accepted else {
            drop(listener);
            // Nothing listens until this ends.
            let _ = ways.wait_for(|ways| !refuses(ways)).await;
            listener = bind(listen)?;
            continue;
        };
        connections.spawn(carry(client, from.ip(), target, ways.clone()));
    }
}

/// Carries one connection until it ends or is reset.
async fn carry(client: TcpStream, from: IpAddr, target: SocketAddr, mut ways: watch::Receiver<Ways>) {
    // From now on dropping the connection resets it.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let cut = |ways: &Ways| matches!(ways.of(from), Way::Reset | Way::Refuse);
    if cut(&ways.borrow()) {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (requests, answers) = (ways.clone(), ways.clone());
    tokio::select! {
        () = copy(from_client, to_server, from, requests, true) => {}
        () = copy(from_server, to_client, from, answers, false) => {}
        _ = ways.wait_for(cut) => {}
    }
}

/// Copies one direction. Bytes are forwarded when they are due and the proxy lets them pass.
async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    client: IpAddr,
    ways: watch::Receiver<Ways>,
    is_request: bool,
) {
    let (sender, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let delay = match ways.borrow().of(client) {
                Way::Delay(delay) if is_request => delay,
                _ => Duration::ZERO,
            };
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let mut open = ways.clone();
    let writing = async {
        while let Some((due, bytes)) = queue.recv().await {
            tokio::time::sleep_until(due).await;
            if open.wait_for(|ways| ways.of(client) != Way::BlackHole).await.is_err() {
                return;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
