//! The API servers in the order in which they are tried, with the credentials for them.

use super::client::{self, ClientError};
use crate::config::ApiConfig;
use kube::Client;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// After a failure the credentials are read anew, at most this often: a token, a certificate or the CA may have been
/// exchanged. The new clients also begin with fresh connections.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// Where the credentials come from.
struct Source {
    config: ApiConfig,
    vips: Vec<IpAddr>,
    connect_timeout: Duration,
}

struct State {
    clients: Vec<(String, Client)>,
    /// Index of the endpoint that is tried first.
    preferred: usize,
    reloaded: Instant,
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
        let state = State { clients, preferred: 0, reloaded: Instant::now() };
        Self { state: Arc::new(Mutex::new(state)), source: None }
    }

    /// Clients for the configured endpoints.
    pub async fn connect(
        config: &ApiConfig,
        vips: &[IpAddr],
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        client::warn_of_vips(config, vips);
        let clients = client::connect(config, vips, connect_timeout).await?;
        let source = Source { config: config.clone(), vips: vips.to_vec(), connect_timeout };
        Ok(Self { source: Some(Arc::new(source)), ..Self::fixed(clients) })
    }

    /// The endpoint of an attempt: 0 is the one that worked last, 1 the next one, and so on.
    pub fn get(&self, attempt: usize) -> (String, Client) {
        let state = self.lock();
        state.clients[(state.preferred + attempt) % state.clients.len()].clone()
    }

    /// A request to this endpoint has failed (a conflict is no failure): others are asked first from now on.
    pub async fn failed(&self, endpoint: &str) {
        let due = {
            let mut state = self.lock();
            let count = state.clients.len();
            if state.clients[state.preferred % count].0 == endpoint {
                state.preferred = (state.preferred + 1) % count;
            }
            state.reloaded.elapsed() >= RELOAD_EVERY
        };
        let Some(source) = self.source.as_ref().filter(|_| due) else { return };
        self.lock().reloaded = Instant::now();
        match client::connect(&source.config, &source.vips, source.connect_timeout).await {
            Ok(clients) => self.lock().clients = clients,
            Err(error) => tracing::debug!(%error, "the credentials cannot be read anew"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &[&str]) -> Endpoints {
        let client = |name: &str| {
            let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
            (name.to_owned(), Client::try_from(config).unwrap())
        };
        Endpoints::fixed(names.iter().map(|name| client(name)).collect())
    }

    #[tokio::test]
    async fn another_endpoint_is_tried_first_after_a_failure() {
        let all = endpoints(&["a", "b", "c"]);
        assert_eq!((all.get(0).0, all.get(1).0, all.get(3).0), ("a".into(), "b".into(), "a".into()));
        all.failed("a").await;
        assert_eq!(all.get(0).0, "b");
        // A slow failure of one that is not asked first any more changes nothing.
        all.clone().failed("a").await;
        assert_eq!(all.get(0).0, "b");
        all.failed("b").await;
        all.failed("c").await;
        assert_eq!(all.get(0).0, "a");
    }
}
