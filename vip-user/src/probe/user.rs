//! Connects as a user does: a TCP connection, or one HTTP request.

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// What a user would request.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The TCP port.
    pub port: u16,
    /// The path of the HTTP request; `None`: only a connection.
    pub path: Option<String>,
}

impl Wish {
    /// Whether the VIP serves within `limit`. With a path, every HTTP status below 500 counts,
    /// because the service is there.
    pub async fn is_served(&self, vip: IpAddr, limit: Duration) -> bool {
        timeout(limit, self.try_once(vip)).await.is_ok_and(|served| served.unwrap_or(false))
    }

    async fn try_once(&self, vip: IpAddr) -> anyhow::Result<bool> {
        let address = SocketAddr::new(vip, self.port);
        let stream = TcpStream::connect(address).await?;
        let Some(path) = &self.path else { return Ok(true) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path.as_str())
            .header(header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let status = sender.send_request(request).await.map(|response| response.status());
        connection.abort();
        Ok(status?.as_u16() < 500)
    }
}
