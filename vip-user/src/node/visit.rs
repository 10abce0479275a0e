//! Whether the station that answers for a VIP also serves it.

use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take. A retransmission of the first segment fits in.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Whether a connection to this address is accepted. This host does not hold the VIP, so its own
/// neighbour cache leads to the station that answers.
pub async fn is_served(address: SocketAddr) -> bool {
    matches!(timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn only_a_port_that_accepts_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_served(address).await);
        drop(listener);
        assert!(!is_served(address).await);
    }
}
