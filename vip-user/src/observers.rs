//! Serves the admin port and the local socket. A separate thread with few descriptors does so, so that
//! clients cannot delay or starve the loop that raises the fence. The thread has the usual priority: it
//! shares short locks with the loop, and a thread that seldom runs would hold them for long.

use crate::{
    admin::{Admin, HealthPort},
    controller::Event,
    escape,
    guests::{Guests, tell},
    handover::{Reply, Wish},
    node::{lock::Lock, pins::Pins, proof, socket},
    state::DaemonState,
};
use anyhow::Context as _;
use std::{io, os::unix::net::UnixListener, thread, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

/// Clients of the local socket that are served at a time.
const ASKERS: usize = 8;
/// Between two clients of the local socket.
const BETWEEN_ASKERS: Duration = Duration::from_millis(1);
/// How long a client may take to read its answer.
const ASKER_LIMIT: Duration = Duration::from_secs(2);
/// How long a client may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_millis(100);
/// The longest request that is read.
const LONGEST_REQUEST: u64 = 4_096;
/// Time between attempts to get the usual name from another process, and after a failed accept.
const RETRY: Duration = Duration::from_secs(2);

/// The inputs of the thread.
#[derive(Debug)]
pub struct Observers {
    /// The local socket.
    pub listener: UnixListener,
    /// The process that holds the socket's usual name, if another one does.
    pub stranger: Option<String>,
    /// The pins of the instance.
    pub pins: Pins,
    /// The state of the loop.
    pub latest: watch::Receiver<DaemonState>,
    /// The admin port, if one is configured.
    pub admin: Option<Admin>,
    /// The port for health alone, if one is configured.
    pub health: Option<HealthPort>,
    /// The channel on which problems are reported.
    pub events: mpsc::Sender<Event>,
}

impl Observers {
    /// Takes the socket of the held lock.
    pub fn new(
        lock: &Lock,
        pins: &Pins,
        latest: watch::Receiver<DaemonState>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: lock.listener()?,
            stranger: lock.stranger().map(str::to_owned),
            pins: pins.clone(),
            latest,
            admin: None,
            health: None,
            events,
        })
    }

    /// Starts the thread, which runs until the process ends.
    pub fn start(self) -> anyhow::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime of the observers")?;
        let serve = move || runtime.block_on(self.serve());
        thread::Builder::new()
            .name("observers".into())
            .spawn(serve)
            .context("cannot start a thread")?;
        Ok(())
    }

    async fn serve(mut self) {
        let (admin, health) = (self.admin.take(), self.health.take());
        let events = self.events.clone();
        let serve_admin = async move {
            if let Some(admin) = admin {
                admin.serve(&events).await;
            }
        };
        let events = self.events.clone();
        let serve_health = async move {
            if let Some(health) = health {
                health.serve(&events).await;
            }
        };
        tokio::join!(serve_admin, serve_health, self.serve_socket());
    }

    async fn serve_socket(self) {
        let Self { listener, stranger, pins, latest, events, .. } = self;
        let mut listener = listener;
        let desk = Desk { pins, latest, events };
        if let Some(stranger) = stranger {
            tell(&desk.events, "local socket", Some(format!("its name is held by {stranger}"))).await;
            let again = async {
                loop {
                    sleep(RETRY).await;
                    if let Some(usual) = socket::bind_again(desk.pins.instance()) {
                        return usual;
                    }
                }
            };
            listener = tokio::select! {
                usual = again => usual,
                () = answer(listener, &desk) => return,
            };
            tell(&desk.events, "local socket", None).await;
        }
        answer(listener, &desk).await;
    }
}

/// What is needed to answer a client of the local socket.
#[derive(Clone, Debug)]
struct Desk {
    pins: Pins,
    latest: watch::Receiver<DaemonState>,
    events: mpsc::Sender<Event>,
}

/// Answers each client that connects.
async fn answer(listener: UnixListener, desk: &Desk) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "the local socket cannot be served"),
    };
    let mut askers = Guests::new(ASKERS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                askers.admit(timeout(ASKER_LIMIT, desk.clone().serve(stream))).await;
                // This thread shares its share of the processor with the loop.
                sleep(BETWEEN_ASKERS).await;
            }
            // Out of descriptors or memory: accept again later.
            Err(_) => sleep(RETRY).await,
        }
    }
}

impl Desk {
    /// Sends the daemon's state as JSON, or the reply to what a trusted client asks for.
    async fn serve(self, mut stream: UnixStream) {
        // Taken before anything is waited for: the state when the client came.
        let state = self.latest.borrow().clone();
        let request = request(&mut stream).await;
        let text = if request.is_empty() {
            serde_json::to_string(&state)
        } else {
            serde_json::to_string(&self.reply(&request).await)
        };
        // A client that has left does not matter.
        let _ = stream.write_all(escape::json(&text.unwrap_or_default()).as_bytes()).await;
    }

    async fn reply(&self, request: &str) -> Reply {
        let wish: Wish = match serde_json::from_str(request) {
            Ok(wish) => wish,
            Err(error) => return Reply::Refused(format!("the request cannot be read: {error}")),
        };
        if !proof::accept(&self.pins, &wish.proof) {
            return Reply::Refused("only root of this host may ask for this".into());
        }
        let (answer, reply) = oneshot::channel();
        if self.events.send(Event::HandOver { wish, answer }).await.is_err() {
            return Reply::Refused("this xvip is stopping".into());
        }
        reply.await.unwrap_or_else(|_| Reply::Refused("this xvip is stopping".into()))
    }
}

/// What a trusted client sends before it waits for the answer. Older versions send nothing, and do not
/// say so.
async fn request(stream: &mut UnixStream) -> String {
    if !stream.peer_cred().is_ok_and(|peer| socket::is_trusted(peer.uid())) {
        return String::new();
    }
    let mut text = String::new();
    let mut limited = stream.take(LONGEST_REQUEST);
    let read = limited.read_to_string(&mut text);
    match timeout(REQUEST_LIMIT, read).await {
        Ok(Ok(_)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
