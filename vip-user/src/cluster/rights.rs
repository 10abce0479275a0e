//! Whether this process has the rights that it needs only now and then.

use super::lease::LeaseApi;
use std::time::Duration;
use tokio::{sync::mpsc, time::sleep};

/// Between two attempts: somebody may grant the right meanwhile.
const AGAIN: Duration = Duration::from_secs(30);

/// Lists the Leases once. Tells in words that it may not, and `None` as soon as it may; then it ends.
/// A VIP that is new under its Lease is published after such a list, which may be years after the start.
pub async fn may_list<T>(api: LeaseApi, tell: mpsc::Sender<T>, event: fn(Option<String>) -> T) {
    loop {
        let forbidden = match api.list().await {
            Ok(_) => None,
            Err(error) if error.is_forbidden() => Some(error.to_string()),
            // What is not known is not bad.
            Err(_) => {
                sleep(AGAIN).await;
                continue;
            }
        };
        let over = forbidden.is_none();
        if tell.send(event(forbidden)).await.is_err() || over {
            return;
        }
        sleep(AGAIN).await;
    }
}
