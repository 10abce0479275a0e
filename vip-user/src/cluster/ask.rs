//! Requests whose answer is needed soon go to more than one API server, and the first answer counts. A
//! server that hangs then costs a fraction of the fence, not all of it.

use super::lease::{LeaseApi, LeaseError, is_forbidden};
use futures::{StreamExt as _, stream::FuturesUnordered};
use kube::Client;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The next endpoint is asked after this part of the limit. The limit is the length of a fence.
const FRACTION: u32 = 10;
/// The shortest wait before the next endpoint is asked: a server that is a little slow is not asked
/// twice.
const LEAST: Duration = Duration::from_millis(100);

/// How long an endpoint may take before the next one is asked too.
pub(super) fn patience(limit: Duration) -> Duration {
    (limit / FRACTION).max(LEAST)
}

impl LeaseApi {
    /// Asks one endpoint. The next one is asked too if there is no answer after a part of the limit, or
    /// at once after a failure. The first answer counts. If the endpoint that is tried first was asked
    /// and was slower, the one that answered takes its place.
    ///
    /// `first` is the index of the first endpoint to ask, in the order of preference. A single endpoint
    /// is also asked over a second connection, because the first connection may be dead.
    pub(super) async fn ask<T, F>(
        &self,
        verb: &'static str,
        first: usize,
        request: impl Fn(Client) -> F,
    ) -> Result<(String, T), LeaseError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let order = self.endpoints.all(first);
        let begun = Instant::now();
        let end = begun + self.timeout;
        let ask_next = |at: usize| {
            let (endpoint, client) = order[at % order.len()].clone();
            let (begun, answer) = (Instant::now(), request(client));
            async move { (endpoint, begun, answer.await) }
        };
        let mut waiting: Vec<String> = vec![order[0].0.clone()];
        let mut open = FuturesUnordered::from_iter([ask_next(0)]);
        let mut asked = 1;
        loop {
            let more = asked < order.len().max(2);
            let patient = if more { (Instant::now() + patience(self.timeout)).min(end) } else { end };
            match timeout_at(patient, open.next()).await {
                Ok(Some((endpoint, begun, Ok(answer)))) => {
                    self.metrics.request(verb, "ok", begun.elapsed());
                    waiting.retain(|other| *other != endpoint);
                    self.endpoints.answered(&endpoint, &waiting);
                    return Ok((endpoint, answer));
                }
                Ok(Some((endpoint, begun, Err(error)))) => {
                    self.metrics.request(verb, "error", begun.elapsed());
                    if is_forbidden(&error) {
                        self.endpoints.refused();
                    } else {
                        self.endpoints.failed(&endpoint);
                    }
                    waiting.retain(|other| *other != endpoint);
                    if asked >= order.len() && open.is_empty() {
                        return Err(LeaseError::of(endpoint, verb, &error));
                    }
                    if asked >= order.len() {
                        continue;
                    }
                }
                Err(_) if more && Instant::now() < end => {}
                Ok(None) | Err(_) => {
                    self.metrics.request(verb, "timeout", begun.elapsed());
                    for endpoint in &waiting {
                        self.endpoints.failed(endpoint);
                    }
                    return Err(self.timed_out(verb, &order[0].0));
                }
            }
            if more {
                waiting.push(order[asked % order.len()].0.clone());
                open.push(ask_next(asked));
                asked += 1;
            }
        }
    }
}
