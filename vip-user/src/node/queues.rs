//! Frames of ours that have passed the guard and still wait in a queue of this host. A Lease is
//! released only when they have left: what comes after the release would be a second owner's.

use super::{
    announce::Announcer,
    clock,
    dataplane::HostError,
    netlink::{Netlink, NetlinkError},
};
use crate::model::time::BootNs;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage, TcStats2},
};
use std::time::Duration;

/// How long the loop waits in place. A queue that takes longer is looked at again later.
const LIMIT: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_millis(1);

/// Waits until nothing that was announced is queued any more, and the queues of these interfaces have
/// been empty once, or `overdue` has come: no frame waits longer than that.
///
/// # Errors
/// If that is not so yet.
pub(super) async fn drained(
    announcer: &Announcer,
    netlink: &Netlink,
    interfaces: &[u32],
    overdue: BootNs,
) -> Result<(), HostError> {
    let give_up = clock::boot().after(LIMIT);
    while announcer.queued().map_err(HostError::Announce)? > 0
        || (clock::boot() < overdue && netlink.queued(interfaces).await.unwrap_or(true))
    {
        if clock::boot() >= give_up {
            return Err(HostError::StillQueued);
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(())
}

impl Netlink {
    /// Whether a frame waits in a queueing discipline of these interfaces.
    async fn queued(&self, interfaces: &[u32]) -> Result<bool, NetlinkError> {
        let waits = |attribute: &TcAttribute| match attribute {
            TcAttribute::Stats2(stats) => {
                stats.iter().any(|stat| matches!(stat, TcStats2::Queue(queue) if queue.qlen > 0))
            }
            _ => false,
        };
        let pick = |found| match found {
            RouteNetlinkMessage::NewQueueDiscipline(discipline)
                if interfaces.contains(&discipline.header.index.cast_unsigned())
                    && discipline.attributes.iter().any(waits) =>
            {
                Some(())
            }
            _ => None,
        };
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        Ok(!self.requests.dump("read the queues", message, pick).await?.is_empty())
    }
}
