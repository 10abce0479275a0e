//! Who may ask the daemon something, and how many at a time.

use crate::controller::Event;
use std::collections::VecDeque;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, yield_now},
};

/// Tells the loop of a problem, or that it is over.
pub(crate) async fn tell(events: &mpsc::Sender<Event>, subject: &'static str, why: Option<String>) {
    // A loop that has ended needs to know nothing any more.
    let _ = events.send(Event::Problem(subject, why)).await;
}

/// A bounded number of connections. When one more comes, the one that has been here longest must
/// leave: those that only sit there keep nobody else out.
#[derive(Debug)]
pub(crate) struct Guests {
    places: usize,
    present: VecDeque<AbortHandle>,
}

impl Guests {
    /// For so many at a time.
    pub(crate) fn new(places: usize) -> Self {
        Self { places, present: VecDeque::new() }
    }

    /// Serves one more. Call within a runtime. It returns when the guest has had a turn: a flood of
    /// connections would else push everybody out unserved.
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
