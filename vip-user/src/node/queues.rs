//! Frames of ours that have passed the guard and still wait in a queue of this host. A Lease is
//! released only when they have left: what comes after the release would be a second owner's.

use super::{
    announce::Announcer,
    dataplane::HostError,
    netlink::{Netlink, NetlinkError},
};
use crate::{clock, model::time::BootNs};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage, TcStats2},
};
use std::{collections::BTreeMap, time::Duration};

/// How long the loop waits in place. A queue that takes longer is looked at again later.
const LIMIT: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_millis(1);

/// A fence that was cleared: nothing has passed the guard under it since then.
#[derive(Debug)]
pub(super) struct Cleared {
    at: BootNs,
    /// The queues at the first look after that.
    queues: Option<Queues>,
}

/// By interface, handle and parent of a queueing discipline.
type Queues = BTreeMap<(i32, u32, u32), Queue>;

/// One queueing discipline, in bytes. A packet is no measure: a large one that is segmented later waits as
/// one, and is counted as many when it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Queue {
    waiting: u32,
    sent: u64,
}

impl Queue {
    /// Whether all that waited then has left.
    fn has_sent(self, then: Self) -> bool {
        self.waiting == 0 || self.sent.saturating_sub(then.sent) >= u64::from(then.waiting)
    }
}

impl Cleared {
    pub(super) fn now() -> Self {
        Self { at: clock::boot(), queues: None }
    }

    /// Waits until nothing that was announced is queued any more, and what waited in the queues of these
    /// interfaces when the fence was cleared has left. Others may keep a queue full for as long as they
    /// like. Where the queues cannot be read, nothing waits longer than `margin`.
    ///
    /// # Errors
    /// If that is not so yet.
    pub(super) async fn drained(
        &mut self,
        announcer: &Announcer,
        netlink: &Netlink,
        interfaces: &[u32],
        margin: Duration,
    ) -> Result<(), HostError> {
        let give_up = clock::boot().after(LIMIT);
        loop {
            let announced = announcer.queued().map_err(HostError::Announce)? == 0;
            if announced && self.have_sent(netlink.queues(interfaces).await.ok(), margin) {
                return Ok(());
            }
            if clock::boot() >= give_up {
                return Err(HostError::StillQueued);
            }
            tokio::time::sleep(STEP).await;
        }
    }

    fn have_sent(&mut self, queues: Option<Queues>, margin: Duration) -> bool {
        let Some(queues) = queues else { return clock::boot() >= self.at.after(margin) };
        let then = self.queues.get_or_insert_with(|| queues.clone());
        // What is in a queue that was made later is not ours.
        queues.iter().all(|(of, queue)| then.get(of).is_none_or(|then| queue.has_sent(*then)))
    }
}

impl Netlink {
    /// The queueing disciplines of these interfaces.
    async fn queues(&self, interfaces: &[u32]) -> Result<Queues, NetlinkError> {
        let pick = |found| match found {
            RouteNetlinkMessage::NewQueueDiscipline(discipline)
                if interfaces.contains(&discipline.header.index.cast_unsigned()) =>
            {
                let TcMessage { header, attributes, .. } = &discipline;
                let of = (header.index, header.handle.into(), header.parent.into());
                Some((of, queue(attributes)))
            }
            _ => None,
        };
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        Ok(self.requests.dump("read the queues", message, pick).await?.into_iter().collect())
    }
}

fn queue(attributes: &[TcAttribute]) -> Queue {
    let mut queue = Queue::default();
    for stat in attributes.iter().flat_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => &stats[..],
        _ => &[],
    }) {
        match stat {
            // Some count no bytes that wait.
            TcStats2::Queue(stats) => queue.waiting = stats.backlog.max(stats.qlen),
            TcStats2::Basic(stats) => queue.sent = stats.bytes,
            _ => {}
        }
    }
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_has_left_though_the_queue_is_still_full() {
        let queues = |waiting, sent| Some(Queues::from([((2, 1, 0), Queue { waiting, sent })]));
        let mut cleared = Cleared::now();
        let long = Duration::from_mins(1);
        assert!(!cleared.have_sent(queues(5_000, 70_000), long));
        assert!(!cleared.have_sent(queues(9_000, 74_999), long), "others go on");
        assert!(!cleared.have_sent(None, long), "the queues cannot be read");
        assert!(cleared.have_sent(queues(9_000, 75_000), long));
        assert!(cleared.have_sent(queues(0, 70_000), long), "what waited was dropped");
        let made_later = Queues::from([((2, 7, 0), Queue { waiting: 1, sent: 0 })]);
        assert!(cleared.have_sent(Some(made_later), long));
        let mut unreadable = Cleared::now();
        assert!(unreadable.have_sent(None, Duration::ZERO));
    }
}
