//! Limits how many clients may ask the daemon at a time.

use crate::controller::Event;
use std::collections::VecDeque;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, yield_now},
};

/// Sends the loop a problem, or its end (`None`).
pub(crate) async fn tell(events: &mpsc::Sender<Event>, subject: &'static str, why: Option<String>) {
    // If the loop has ended, the problem does not matter.
    let _ = events.send(Event::Problem(subject, why)).await;
}

/// A bounded number of connections. One more connection closes the oldest, so idle connections
/// cannot keep others out.
#[derive(Debug)]
pub(crate) struct Guests {
    places: usize,
    present: VecDeque<AbortHandle>,
}

impl Guests {
    /// Allows `places` connections at a time.
    pub(crate) fn new(places: usize) -> Self {
        Self { places, present: VecDeque::new() }
    }

    /// Serves one more connection. Call it within a runtime. It returns once the connection has had
    /// a turn. Otherwise a flood would close every connection unserved.
    pub(crate) async fn admit<T: Send + 'static>(
        &mut self,
        guest: impl Future<Output = T> + Send + 'static,
    ) {
        self.present.retain(|present| !present.is_finished());
        if self.present.len() >= self.places
            && let Some(oldest) = self.present.pop_front()
        {
            oldest.abort();
        }
        self.present.push_back(tokio::spawn(guest).abort_handle());
        yield_now().await;
    }
}

#[cfg(test)]
mod tests;
