//! Follows the Lease. While nothing happens, candidates make no other request.

use super::{
    lease::{LeaseApi, record},
    lenient::Lenient,
    scope::{Begin, Followed, Pace, Scope, Sighted, Told},
};
use crate::model::lease::{election::Source, record::Record};
use k8s_openapi::api::coordination::v1::Lease;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};

/// How long a watch lasts before it is renewed, in seconds.
pub const WATCH_S: u32 = 60;
/// The first pause after a watch or a read has ended early.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, unless a quarter of the fence is longer. A node that reads this often makes fewer
/// requests than a holder that renews.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What following the Lease brings.
#[derive(Debug)]
pub enum Sighting {
    /// The Lease was seen; `None`: there is no Lease.
    Seen(Source, Option<Record>),
    /// The API cannot be read, for this reason.
    Unreadable(String),
}

/// Follows the Lease until the receiver is gone. `again` ends the present watch, because something
/// contradicts what it has shown. A watch lasts `watch_s` seconds, usually [`WATCH_S`]. `item` converts
/// each sighting into the item to send.
pub async fn follow<T: Send + 'static>(
    api: LeaseApi,
    watch_s: u32,
    again: Arc<Notify>,
    items: mpsc::Sender<T>,
    item: impl Fn(Sighting) -> T + Send + 'static,
) {
    let longest_pause = LONGEST_PAUSE.max(api.timeout / 4);
    // A Lease is renewed all the time, so every API server remembers its version.
    let pace = Pace { watch_s, first_pause: PAUSE, longest_pause, begin: Begin::Version };
    let scope = Scope::Named(api.name().into());
    let followed = Followed { api: api.clone(), of: LeaseApi::leases, scope, pace };
    let told = move |told: Told<Lenient<Lease>>| match told {
        Told::Seen(Sighted { source, object, .. }) => {
            let lease = object.map(|Lenient(lease)| lease);
            let seen = lease.as_ref().map(record);
            api.remember(lease);
            Some(item(Sighting::Seen(source, seen)))
        }
        Told::Broken(why) | Told::Unreadable(why) => Some(item(Sighting::Unreadable(why))),
        Told::Listed(_) => None,
    };
    followed.follow(again, items, told).await;
}
