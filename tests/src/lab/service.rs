//! A service on loopback of a node that answers health checks: an API server or a kubelet, as far as
//! such checks see them. `cluster` asks the real ones.

use crate::netns::NetNs;
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// How a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// 200.
    Good,
    /// 401, to whoever has no credentials that it knows.
    Unauthorized,
    /// 503.
    Ill,
    /// It accepts and says nothing.
    Hangs,
    /// Nothing listens.
    Refuses,
    /// The service ends.
    Ended,
}

/// A service that runs until it is dropped.
#[derive(Debug)]
pub struct Service {
    health: Arc<AtomicU8>,
}

impl Service {
    /// Starts a service on this port of the node's loopback.
    pub fn start(ns: &NetNs, port: u16, health: Health) -> Self {
        let service = Self { health: Arc::new(AtomicU8::new(health as u8)) };
        let health = Arc::clone(&service.health);
        let _served_until_dropped = ns.spawn(move || {
            serve(port, &health);
            Ok(())
        });
        service
    }

    /// From now on it answers like this.
    pub fn be(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.be(Health::Ended);
    }
}

fn serve(port: u16, health: &Arc<AtomicU8>) {
    let is = |state: Health| health.load(Ordering::Acquire) == state as u8;
    let mut listener: Option<TcpListener> = None;
    while !is(Health::Ended) {
        if is(Health::Refuses) {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        }
        match listener.as_ref().map(|listener| (listener.set_nonblocking(true), listener.accept())) {
            Some((_, Ok((stream, _)))) => {
                let health = Arc::clone(health);
                thread::spawn(move || answer(stream, &health));
            }
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Answers one connection. It is closed after an answer, so a dead service has no open connections.
fn answer(mut stream: TcpStream, health: &AtomicU8) {
    let limit = Some(Duration::from_secs(5));
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(limit));
    let mut request = [0; 4_096];
    if prepared.is_err() || !stream.read(&mut request).is_ok_and(|read| read > 0) {
        return;
    }
    let status = match health.load(Ordering::Acquire) {
        state if state == Health::Good as u8 => "200 OK",
        state if state == Health::Unauthorized as u8 => "401 Unauthorized",
        state if state == Health::Hangs as u8 => return thread::sleep(Duration::from_secs(5)),
        _ => "503 Service Unavailable",
    };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _client_may_be_gone = stream.write_all(text.as_bytes());
}
