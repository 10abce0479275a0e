//! Whether the station that answers for a VIP also serves it.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

/// How long a connection may take. A retransmission of the first segment fits in.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How many connections are tried at once. A Lease may have thousands of VIPs.
static AT_ONCE: Semaphore = Semaphore::const_new(16);

/// Whether a connection to this address is accepted. The neighbour cache of this host leads to the
/// station that answers. `None`: nothing can be said, because this host has the address itself, or has
/// no socket or route.
pub async fn is_served(address: SocketAddr) -> Option<bool> {
    let _permit = AT_ONCE.acquire().await.ok()?;
    if is_here(address).ok()? {
        return None;
    }
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Some(true),
        Err(_late) => Some(false),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::TimedOut => Some(false),
            _ => None,
        },
    }
}

/// Whether the address is one of this host. The kernel then chooses it as the source as well. No packet
/// is sent.
fn is_here(address: SocketAddr) -> std::io::Result<bool> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_address_of_this_host_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(is_here(address).unwrap());
        assert_eq!(is_served(address).await, None);
        // RFC 5737: nobody answers there, if a route leads there at all.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        assert!(!is_here(elsewhere).unwrap_or(false));
        assert_ne!(is_served(elsewhere).await, Some(true));
    }
}
