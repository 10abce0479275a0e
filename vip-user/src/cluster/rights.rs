//! Whether this process has the rights that it needs only now and then.

use super::lease::LeaseApi;
use std::time::Duration;
use tokio::{sync::mpsc, time::sleep};

/// Between two attempts: somebody may grant the right meanwhile.
const AGAIN: Duration = Duration::from_secs(30);
/// A server that is starting refuses everything until it has read the roles.
const SOON: Duration = Duration::from_secs(2);

/// Lists the Leases once. Tells in words that it may not, and `None` as soon as it may; then it ends. A
/// VIP that is new under its Lease is published after such a list, which may be years after the start.
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
            // What is not known is not bad.
            Err(_) => {}
        }
        sleep(if refused == 1 { SOON } else { AGAIN }).await;
    }
}
