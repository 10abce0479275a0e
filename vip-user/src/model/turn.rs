//! What a step of an election asks for. The order of the fields of a [`Turn`] is the order of
//! execution: fences first, then the host, and only then what leaves. The loop, a simulated node and
//! the model checkers each take one [`Step`] after the other off it, and decide nothing.

use super::{
    admission::{Request, Strike},
    news::{Notice, Why},
    record::{LeaseWrite, Offer, Tenure, Version},
    time::BootNs,
};

/// What one step asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Fences are raised and lowered. What fails here keeps writes back: see
    /// [`failed_to_lower`](Self::failed_to_lower).
    pub fences: Vec<FenceChange>,
    /// The kernel becomes silent, and this node knows it: store 0, read it back, wait for a grace
    /// period and for queued frames. [`Input::Silenced`](super::election::Input::Silenced) follows.
    pub silence: Option<Why>,
    /// The host becomes what it should be.
    pub host: bool,
    /// The VIPs are announced from now on.
    pub announce: bool,
    /// What leaves for the API or the LAN.
    pub sends: Vec<Outgoing>,
    /// Changes of state that people care about.
    pub news: Vec<Notice>,
    keeps_writes_back: bool,
}

/// A change of the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceChange {
    /// Store the tenure (when `new`) and the deadline.
    Raise {
        /// The confirmed tenure.
        tenure: Tenure,
        /// Counts the tenures of this slot.
        generation: u64,
        /// Until when the kernel may answer.
        deadline: BootNs,
        /// D of the confirmed write.
        duration_s: u32,
        /// A fence where none was live: publish, then announce.
        new: bool,
    },
    /// Store an earlier deadline, before a write that shortens D leaves.
    Lower(BootNs),
}

impl FenceChange {
    /// Whether a fence goes up where none was live.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Raise { new: true, .. })
    }
}

/// Something that leaves this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Write the Lease.
    Write(LeaseWrite),
    /// Write an offer into this version of the Lease, and nothing else. The watch shows its outcome.
    Offer(Version, Offer),
    /// Create the Lease without a holder, where there is none. The watch shows its outcome. No node
    /// takes a Lease that does not exist: a creation and a deletion in between would go unseen. An
    /// existing record has a version to compare.
    Create,
    /// Read the Lease from a quorum.
    Read,
    /// List the Leases of the namespace from a quorum, under this number.
    List(u64),
    /// Strike VIPs out of another Lease.
    Strike(Strike),
    /// Ask the LAN whether addresses are in use (RFC 5227).
    Probe,
}

impl From<Request> for Outgoing {
    fn from(request: Request) -> Self {
        match request {
            Request::List(number) => Self::List(number),
            Request::Strike(strike) => Self::Strike(strike),
            Request::Probe => Self::Probe,
        }
    }
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change the fence.
    Fence(FenceChange),
    /// Silence the kernel.
    Silence(Why),
    /// Bring the host to what it should be.
    Host,
    /// Begin to announce.
    Announce,
    /// Send this.
    Send(Outgoing),
    /// The write of this id must not leave: it has failed.
    KeepBack(u64),
    /// Tell this.
    News(Notice),
}

impl Turn {
    /// Takes the next step off. No write leaves before the entries of this host have been `reconciled`
    /// once.
    pub fn next(&mut self, reconciled: bool) -> Option<Step> {
        if !self.fences.is_empty() {
            return Some(Step::Fence(self.fences.remove(0)));
        }
        if let Some(why) = self.silence.take() {
            return Some(Step::Silence(why));
        }
        if std::mem::take(&mut self.host) {
            return Some(Step::Host);
        }
        if std::mem::take(&mut self.announce) {
            return Some(Step::Announce);
        }
        if !self.sends.is_empty() {
            return Some(match self.sends.remove(0) {
                Outgoing::Write(write) if self.keeps_writes_back || !reconciled => {
                    Step::KeepBack(write.id)
                }
                send => Step::Send(send),
            });
        }
        if self.news.is_empty() { None } else { Some(Step::News(self.news.remove(0))) }
    }

    /// The fence could not be lowered. A write that shortens D must not leave before it is lowered.
    /// Give the election [`NotLowered`](super::election::Input::NotLowered) too.
    pub fn failed_to_lower(&mut self) {
        self.keeps_writes_back = true;
    }

    /// Whether no fence changes, nothing leaves, and nothing is told. Work on this host alone does not
    /// count.
    pub fn is_quiet(&self) -> bool {
        self.fences.is_empty()
            && self.silence.is_none()
            && self.sends.is_empty()
            && self.news.is_empty()
    }

    /// The writes.
    pub fn writes(&self) -> impl Iterator<Item = &LeaseWrite> {
        self.sends.iter().filter_map(|send| match send {
            Outgoing::Write(write) => Some(write),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_order() {
        let mut turn = Turn {
            news: vec![Notice::Lapsed],
            sends: vec![Outgoing::Read, Outgoing::Create],
            announce: true,
            host: true,
            silence: Some(Why::Leaving),
            fences: vec![FenceChange::Lower(BootNs(1)), FenceChange::Lower(BootNs(2))],
            keeps_writes_back: false,
        };
        let steps: Vec<Step> = std::iter::from_fn(|| turn.next(true)).collect();
        let wanted = [
            Step::Fence(FenceChange::Lower(BootNs(1))),
            Step::Fence(FenceChange::Lower(BootNs(2))),
            Step::Silence(Why::Leaving),
            Step::Host,
            Step::Announce,
            Step::Send(Outgoing::Read),
            Step::Send(Outgoing::Create),
            Step::News(Notice::Lapsed),
        ];
        assert_eq!(steps, wanted);
        assert_eq!(turn, Turn::default());
    }
}
