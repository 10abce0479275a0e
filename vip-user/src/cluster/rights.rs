//! Checks at the start whether this process has a right that it needs only now and then.

use super::lease::LeaseApi;
use std::time::Duration;
use tokio::{sync::mpsc, time::sleep};

/// The pause between two attempts. An administrator may grant the right meanwhile.
const AGAIN: Duration = Duration::from_secs(30);
/// The pause after the first refusal. A starting server refuses everything until it has read the roles.
const SOON: Duration = Duration::from_secs(2);

/// Lists the Leases until that succeeds once; then sends `None` and ends. From the second refusal on,
/// it sends the refusal as text. A VIP that is new under its Lease is published only after such a list,
/// which may be years after the start.
pub async fn may_list<T>(api: LeaseApi, tell: mpsc::Sender<T>, event: fn(Option<String>) -> T) {
    let mut refused = 0;
    loop {
        match api.list().await {
            Ok(_) => {
                let _ended = tell.send(event(None)).await;
                return;
            }
            Err(error) if error.is_forbidden() => {
                refused += 1;
                if refused > 1 && tell.send(event(Some(error.to_string()))).await.is_err() {
                    return;
                }
            }
            // Any other error says nothing about rights.
            Err(_) => {}
        }
        sleep(if refused == 1 { SOON } else { AGAIN }).await;
    }
}
