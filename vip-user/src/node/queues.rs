//! Our frames that have passed the guard and still wait in a queue of this host. A Lease is released
//! only after they have left: a frame that leaves after the release would be a second owner's.

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

/// How long one call waits. A queue that takes longer is looked at again later.
const LIMIT: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_millis(1);
/// A queue that does not move is waited for no longer than this, or than the margin if that is longer.
/// Another process may have filled it.
const LONGEST: Duration = Duration::from_secs(1);

/// A cleared fence. Since then no frame has passed the guard under it.
#[derive(Debug)]
pub(super) struct Cleared {
    at: BootNs,
    /// The queues at the first look after that, without those that have been empty since.
    queues: Option<Queues>,
}

/// Queues by interface, handle and parent of the queueing discipline.
type Queues = BTreeMap<(i32, u32, u32), Queue>;

/// One queueing discipline, in bytes. Packets cannot be compared: a large packet that is segmented
/// later waits as one, but counts as many when it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Queue {
    waiting: u32,
    sent: u64,
}

impl Queue {
    /// Whether as many bytes have left as were waiting at `then`.
    fn has_sent(self, then: Self) -> bool {
        self.sent.saturating_sub(then.sent) >= u64::from(then.waiting)
    }
}

impl Cleared {
    pub(super) fn now() -> Self {
        Self { at: clock::boot(), queues: None }
    }

    fn have_sent(&mut self, now: BootNs, queues: Option<&Queues>, margin: Duration) -> bool {
        let over = now >= self.at.after(margin);
        let Some(queues) = queues else { return over };
        let then = self.queues.get_or_insert_with(|| queues.clone());
        // A queue that was created later, or has been empty since, holds none of our frames.
        then.retain(|of, _| queues.get(of).is_some_and(|queue| queue.waiting > 0));
        let mut ours = then.iter().filter_map(|(of, then)| Some((queues.get(of)?, then)));
        // If a queue is not a FIFO, bytes prove nothing about one frame. So they count only after the
        // margin.
        then.is_empty()
            || (over && ours.all(|(queue, then)| queue.has_sent(*then)))
            || now >= self.at.after(margin.max(LONGEST))
    }
}

/// Waits until no announcement is queued any more, and each queue of these interfaces has been empty
/// once. Other programs may keep a queue full. Then this waits for `margin`, and until as many bytes
/// have left as were waiting when the fence was cleared. Slots that are done are removed from `slots`.
///
/// # Errors
/// If some slots are left after a while.
pub(super) async fn drain(
    slots: &mut BTreeMap<u32, &mut Cleared>,
    announcer: &Announcer,
    netlink: &Netlink,
    interfaces: &[u32],
    margin: Duration,
) -> Result<(), HostError> {
    let give_up = clock::boot().after(LIMIT);
    loop {
        if announcer.queued().map_err(HostError::Announce)? == 0 {
            // A kernel that is busy says nothing; then the margin decides.
            let queues = tokio::time::timeout(LIMIT, netlink.queues(interfaces)).await;
            let queues = queues.ok().and_then(Result::ok);
            let now = clock::boot();
            slots.retain(|_, cleared| !cleared.have_sent(now, queues.as_ref(), margin));
        }
        if slots.is_empty() {
            return Ok(());
        }
        if clock::boot() >= give_up {
            return Err(HostError::StillQueued);
        }
        tokio::time::sleep(STEP).await;
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
            // Some disciplines do not count the waiting bytes.
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

    const MARGIN: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> BootNs {
        BootNs(ms * 1_000_000)
    }

    fn cleared() -> Cleared {
        Cleared { at: at(0), queues: None }
    }

    fn queues(waiting: u32, sent: u64) -> Queues {
        Queues::from([((2, 1, 0), Queue { waiting, sent })])
    }

    #[test]
    fn what_waited_has_left_though_the_queue_is_still_full() {
        let mut cleared = cleared();
        assert!(!cleared.have_sent(at(0), Some(&queues(5_000, 70_000)), MARGIN));
        assert!(!cleared.have_sent(at(10), Some(&queues(9_000, 80_000)), MARGIN), "no FIFO, perhaps");
        assert!(!cleared.have_sent(at(49), None, MARGIN), "the queues cannot be read");
        assert!(cleared.have_sent(at(50), None, MARGIN));
        assert!(!cleared.have_sent(at(60), Some(&queues(9_000, 74_999)), MARGIN), "others go on");
        assert!(cleared.have_sent(at(60), Some(&queues(9_000, 75_000)), MARGIN));
        let made_later = Queues::from([((2, 7, 0), Queue { waiting: 1, sent: 0 })]);
        assert!(cleared.have_sent(at(60), Some(&made_later), MARGIN));
    }

    /// Two busy interfaces are seldom idle at the same instant.
    #[test]
    fn each_queue_has_to_be_empty_once() {
        let two = |first, second| {
            let queue = |waiting| Queue { waiting, sent: 0 };
            Queues::from([((2, 1, 0), queue(first)), ((3, 1, 0), queue(second))])
        };
        let mut cleared = cleared();
        assert!(!cleared.have_sent(at(0), Some(&two(5, 5)), MARGIN));
        assert!(!cleared.have_sent(at(1), Some(&two(0, 5)), MARGIN));
        assert!(cleared.have_sent(at(2), Some(&two(5, 0)), MARGIN));
    }

    #[test]
    fn an_empty_queue_is_waited_for_no_longer() {
        let mut cleared = cleared();
        assert!(!cleared.have_sent(at(0), Some(&queues(5_000, 70_000)), MARGIN));
        assert!(cleared.have_sent(at(1), Some(&queues(0, 70_000)), MARGIN));
    }

    /// A process without rights can fill the lowest of several queues, and keep it from being served.
    #[test]
    fn a_queue_that_stands_still_holds_no_release_back_for_long() {
        let full = queues(5_000, 70_000);
        let full = || Some(&full);
        let mut usual = cleared();
        assert!(!usual.have_sent(at(0), full(), MARGIN) && !usual.have_sent(at(999), full(), MARGIN));
        assert!(usual.have_sent(at(1_000), full(), MARGIN));
        let mut patient = cleared();
        assert!(!patient.have_sent(at(2_999), full(), 60 * MARGIN));
        assert!(patient.have_sent(at(3_000), full(), 60 * MARGIN));
    }
}
