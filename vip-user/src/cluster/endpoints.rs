//! The API servers in the order in which they are tried, with the credentials for them.

use super::{
    client::{self, Access},
    client_error::ClientError,
};
use kube::Client;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// After a failure the credentials are read anew, at most this often: a token, a certificate or the CA
/// may have been exchanged. The new clients also begin with fresh connections.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// Where the credentials come from.
#[derive(Clone)]
struct Source {
    config: Access,
    vips: Vec<IpAddr>,
    connect_timeout: Duration,
}

struct State {
    clients: Vec<(String, Client)>,
    /// Endpoints whose names mean a VIP; they are not asked if there are others.
    vips: Vec<String>,
    /// Index of the endpoint that is tried first.
    preferred: usize,
    reloaded: Instant,
}

impl State {
    fn leave_out(&mut self) {
        let is_vip = |name: &String| self.vips.contains(name);
        if self.clients.iter().any(|(name, _)| !is_vip(name)) {
            self.clients.retain(|(name, _)| !self.vips.contains(name));
        }
    }
}

/// All API servers. Clones share what they have learned.
#[derive(Clone)]
pub struct Endpoints {
    state: Arc<Mutex<State>>,
    source: Option<Arc<Source>>,
}

impl Endpoints {
    /// These clients for ever.
    pub fn fixed(clients: Vec<(String, Client)>) -> Self {
        let state = State { clients, vips: Vec::new(), preferred: 0, reloaded: Instant::now() };
        Self { state: Arc::new(Mutex::new(state)), source: None }
    }

    /// Clients for the configured endpoints.
    pub async fn connect(
        config: &Access,
        vips: &[IpAddr],
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        client::warn_of_vips(config, vips);
        let clients = client::connect(config, vips, connect_timeout).await?;
        let source = Source { config: config.clone(), vips: vips.to_vec(), connect_timeout };
        let all = Self { source: Some(Arc::new(source)), ..Self::fixed(clients) };
        // The start does not wait for a name server.
        tokio::spawn(all.clone().leave_out_vips());
        Ok(all)
    }

    /// Finds endpoints whose names mean a VIP, and leaves them out if there are others.
    async fn leave_out_vips(self) {
        let Some(source) = &self.source else { return };
        let vips = client::named_vips(&source.config, &source.vips).await;
        let mut state = self.lock();
        for endpoint in vips.iter().filter(|name| !state.vips.contains(*name)) {
            tracing::warn!(%endpoint, "the name of this API endpoint means a VIP of this configuration, which \
                xvip itself would have to bring up: it is asked only if there is no other");
        }
        state.vips = vips;
        state.leave_out();
    }

    /// The endpoint of an attempt: 0 is the one that worked last, 1 the next one, and so on.
    pub fn get(&self, attempt: usize) -> (String, Client) {
        let state = self.lock();
        state.clients[(state.preferred + attempt) % state.clients.len()].clone()
    }

    /// All endpoints, beginning with that of attempt `first`.
    pub(super) fn all(&self, first: usize) -> Vec<(String, Client)> {
        let state = self.lock();
        let count = state.clients.len();
        (0..count).map(|at| state.clients[(state.preferred + first + at) % count].clone()).collect()
    }

    /// This endpoint has answered while `slower` ones, asked before it, had not: if one of them was
    /// asked first until now, this one is.
    pub(super) fn answered(&self, endpoint: &str, slower: &[String]) {
        let mut state = self.lock();
        let preferred = &state.clients[state.preferred % state.clients.len()].0;
        if slower.contains(preferred)
            && let Some(at) = state.clients.iter().position(|(name, _)| name == endpoint)
        {
            state.preferred = at;
        }
    }

    /// A request to this endpoint has failed (a conflict is no failure): others are asked first from
    /// now on.
    pub fn failed(&self, endpoint: &str) {
        let mut state = self.lock();
        let count = state.clients.len();
        if state.clients[state.preferred % count].0 == endpoint {
            state.preferred = (state.preferred + 1) % count;
        }
        drop(state);
        self.reload();
    }

    /// A server knows who asks, and that it has no right (403). That server is well; the right may come
    /// with other credentials.
    pub(super) fn refused(&self) {
        self.reload();
    }

    fn reload(&self) {
        let due = self.lock().reloaded.elapsed() >= RELOAD_EVERY;
        let Some(source) = self.source.clone().filter(|_| due) else { return };
        self.lock().reloaded = Instant::now();
        let all = self.clone();
        // Nobody waits for it, and whoever asks next may have other endpoints.
        tokio::spawn(async move {
            let Source { config, vips, connect_timeout } = Source::clone(&source);
            match client::connect_aside(config, vips, connect_timeout).await {
                Ok(clients) => {
                    let mut state = all.lock();
                    state.clients = clients;
                    state.leave_out();
                }
                Err(error) => tracing::debug!(%error, "the credentials cannot be read again"),
            }
            all.leave_out_vips().await;
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
