//! Following the Lease. Candidates make no other request while nothing happens.

use super::{
    lease::{LeaseApi, record},
    lenient::Lenient,
    scope::{Begin, Followed, Pace, Scope, Sighted, Told},
};
use crate::model::{election::Source, record::Record};
use k8s_openapi::api::coordination::v1::Lease;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};

/// A watch is renewed after this long. Seconds.
pub const WATCH_S: u32 = 60;
/// The first pause after a watch or a read has ended before its time.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest one, or a quarter of the fence: whoever reads so often asks for less than a holder that
/// renews.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What following the Lease brings.
#[derive(Debug)]
pub enum Sighting {
    /// The Lease, or that there is none.
    Seen(Source, Option<Record>),
    /// The API cannot be read; in words.
    Unreadable(String),
}

/// Follows the Lease until the receiver is gone. `again` ends the present watch: something
/// contradicts what it has shown. A watch lasts `watch_s` seconds, usually [`WATCH_S`]. `item` makes
/// what is sent of each sighting.
pub async fn follow<T: Send + 'static>(
    api: LeaseApi,
    watch_s: u32,
    again: Arc<Notify>,
    items: mpsc::Sender<T>,
    item: impl Fn(Sighting) -> T + Send + 'static,
) {
    let longest_pause = LONGEST_PAUSE.max(api.timeout / 4);
    // It is renewed all the time: its version is one that every API server remembers.
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
