//! The API servers in the order in which they are tried, and the credentials for them.

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

/// After a failure the credentials are read again, at most this often: a token, a certificate or the CA
/// may have been replaced. The new clients also open fresh connections.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// What is needed to read the credentials again.
#[derive(Clone)]
struct Source {
    config: Access,
    vips: Vec<IpAddr>,
    connect_timeout: Duration,
}

struct State {
    clients: Vec<(String, Client)>,
    /// Endpoints whose names resolve to VIPs only. They are left out if there are others.
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

/// All API servers. Clones share what they have learned about them.
#[derive(Clone)]
pub struct Endpoints {
    state: Arc<Mutex<State>>,
    source: Option<Arc<Source>>,
}

impl Endpoints {
    /// Uses these clients for ever. Their credentials are never read again.
    pub fn fixed(clients: Vec<(String, Client)>) -> Self {
        let state = State { clients, vips: Vec::new(), preferred: 0, reloaded: Instant::now() };
        Self { state: Arc::new(Mutex::new(state)), source: None }
    }

    /// Builds clients for the configured endpoints.
    pub async fn connect(
        config: &Access,
        vips: &[IpAddr],
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        client::warn_of_vips(config, vips);
        let clients = client::connect(config, vips, connect_timeout).await?;
        let source = Source { config: config.clone(), vips: vips.to_vec(), connect_timeout };
        let all = Self { source: Some(Arc::new(source)), ..Self::fixed(clients) };
        // The start must not wait for a name server.
        tokio::spawn(all.clone().leave_out_vips());
        Ok(all)
    }

    /// Finds endpoints whose names resolve to VIPs only, and leaves them out if there are others.
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

    /// The endpoint for an attempt: 0 is the one that is tried first, 1 the one after it, and so on in
    /// a circle.
    pub fn get(&self, attempt: usize) -> (String, Client) {
        let state = self.lock();
        state.clients[(state.preferred + attempt) % state.clients.len()].clone()
    }

    /// All endpoints, beginning with the one for attempt `first`.
    pub(super) fn all(&self, first: usize) -> Vec<(String, Client)> {
        let state = self.lock();
        let count = state.clients.len();
        (0..count).map(|at| state.clients[(state.preferred + first + at) % count].clone()).collect()
    }

    /// Notes that this endpoint has answered before the `slower` ones, which were asked too. If the one
    /// that is tried first is among those, this endpoint takes its place.
    pub(super) fn answered(&self, endpoint: &str, slower: &[String]) {
        let mut state = self.lock();
        let preferred = &state.clients[state.preferred % state.clients.len()].0;
        if slower.contains(preferred)
            && let Some(at) = state.clients.iter().position(|(name, _)| name == endpoint)
        {
            state.preferred = at;
        }
    }

    /// Notes that a request to this endpoint has failed; a conflict is not a failure. If the endpoint
    /// was tried first, the next one is tried first from now on.
    pub fn failed(&self, endpoint: &str) {
        let mut state = self.lock();
        let count = state.clients.len();
        if state.clients[state.preferred % count].0 == endpoint {
            state.preferred = (state.preferred + 1) % count;
        }
        drop(state);
        self.reload();
    }

    /// A server has identified this process and refused the request (403). Such a server works and
    /// keeps its place. Other credentials may have the right, so they are read again.
    pub(super) fn refused(&self) {
        self.reload();
    }

    fn reload(&self) {
        let due = self.lock().reloaded.elapsed() >= RELOAD_EVERY;
        let Some(source) = self.source.clone().filter(|_| due) else { return };
        self.lock().reloaded = Instant::now();
        let all = self.clone();
        // No caller waits for this task. A request that comes after it may see other endpoints.
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
