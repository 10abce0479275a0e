//! Serves the admin port and the local socket. A separate thread with few descriptors does so, so that
//! clients cannot delay or starve the loop that raises the fence. The thread has the usual priority: it
//! shares short locks with the loop, and a thread that seldom runs would hold them for long.

use crate::{
    admin::Admin,
    controller::Event,
    escape,
    guests::{Guests, tell},
    node::{lock::Lock, socket},
    state::DaemonState,
};
use anyhow::Context as _;
use std::{io, os::unix::net::UnixListener, thread, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    runtime,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// Clients of the local socket that are served at a time.
const ASKERS: usize = 8;
/// Between two clients of the local socket.
const BETWEEN_ASKERS: Duration = Duration::from_millis(1);
/// How long a client may take to read its answer.
const ASKER_LIMIT: Duration = Duration::from_secs(2);
/// Time between attempts to get the usual name from another process, and after a failed accept.
const RETRY: Duration = Duration::from_secs(2);

/// The inputs of the thread.
#[derive(Debug)]
pub struct Observers {
    /// The local socket.
    pub listener: UnixListener,
    /// The process that holds the socket's usual name, if another one does.
    pub stranger: Option<String>,
    /// The name of the instance.
    pub instance: String,
    /// The state of the loop.
    pub latest: watch::Receiver<DaemonState>,
    /// The admin port, if one is configured.
    pub admin: Option<Admin>,
    /// The channel on which problems are reported.
    pub events: mpsc::Sender<Event>,
}

impl Observers {
    /// Takes the socket of the held lock.
    pub fn new(
        lock: &Lock,
        instance: &str,
        latest: watch::Receiver<DaemonState>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: lock.listener()?,
            stranger: lock.stranger().map(str::to_owned),
            instance: instance.into(),
            latest,
            admin: None,
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
        let admin = self.admin.take();
        let events = self.events.clone();
        let serve_admin = async move {
            if let Some(admin) = admin {
                admin.serve(&events).await;
            }
        };
        tokio::join!(serve_admin, self.serve_socket());
    }

    async fn serve_socket(self) {
        let Self { listener, stranger, instance, latest, events, .. } = self;
        let mut listener = listener;
        if let Some(stranger) = stranger {
            tell(&events, "local socket", Some(format!("its name is held by {stranger}"))).await;
            let again = async {
                loop {
                    sleep(RETRY).await;
                    if let Some(usual) = socket::bind_again(&instance) {
                        return usual;
                    }
                }
            };
            listener = tokio::select! {
                usual = again => usual,
                () = answer(listener, &latest) => return,
            };
            tell(&events, "local socket", None).await;
        }
        answer(listener, &latest).await;
    }
}

/// Sends the daemon's state, as JSON, to each client that connects.
async fn answer(listener: UnixListener, latest: &watch::Receiver<DaemonState>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "the local socket cannot be served"),
    };
    let mut askers = Guests::new(ASKERS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = latest.borrow().clone();
                askers.admit(timeout(ASKER_LIMIT, write(stream, state))).await;
                // This thread shares its share of the processor with the loop.
                sleep(BETWEEN_ASKERS).await;
            }
            // Out of descriptors or memory: accept again later.
            Err(_) => sleep(RETRY).await,
        }
    }
}

async fn write(mut stream: UnixStream, state: DaemonState) {
    let text = escape::json(&serde_json::to_string(&state).unwrap_or_default());
    // A client that has left does not matter.
    let _ = stream.write_all(text.as_bytes()).await;
}

#[cfg(test)]
mod tests;
