//! Leases that another program (kube-vip, any client-go program) held last. Such a program releases a
//! Lease before it stops answering, and one that was killed leaves its address on the host, whose
//! kernel answers for ever. So the LAN is asked before such a Lease is taken.

use super::record::Record;
use crate::model::time::BootNs;
use std::{fmt, net::IpAddr, time::Duration};
use vip_common::{abi::CLAIM_INTERVAL_NS, mac::Mac};

/// How long the LAN is asked: the [`QUESTIONS`](crate::model::schedule::QUESTIONS), and time for an
/// answer to the last one.
pub(super) const ASK_TIME: Duration = Duration::from_millis(1_500);
/// Silence counts for this long after it was observed. A process that was paused meanwhile asks again.
const SILENCE_HOLDS: Duration = Duration::from_secs(1);
/// Pause before the LAN is asked again if a station has answered.
const ANSWERED_PAUSE: Duration = Duration::from_secs(5);
/// kube-vip first releases the Lease, then removes a label of its node, and only then its address. It
/// waits up to ten seconds for the label.
pub(super) const STRANGER_STOPS: Duration = Duration::from_secs(11);

/// What the LAN has said of all VIPs before the Lease was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Lan {
    /// Nothing: it is asked for each VIP under the Lease.
    #[default]
    Unasked,
    /// It was asked from `since` on, for this `time`.
    Asked { since: BootNs, time: Duration },
    /// Its answers do not count in this tenure.
    Overruled,
}

/// What is known of the program that held a Lease last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stranger {
    /// Whether it has just emptied the Lease, as an unbroken watch showed. Its wait then ends as soon
    /// as the LAN was silent.
    pub(super) gave_up: bool,
    /// When the present questions began.
    pub(super) asked: Option<BootNs>,
    /// The LAN is not asked again before this time.
    pub(super) ask_at: BootNs,
    /// The last answer.
    pub(super) answer: Option<Answer>,
    /// When a station began to answer, or last served the VIP.
    pub(super) served: BootNs,
    /// An address at which a connection is to be tried.
    pub(super) visit: Option<IpAddr>,
}

/// A station has answered for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    at: BootNs,
    ip: IpAddr,
    mac: Mac,
    /// Whether a connection to the VIP was accepted since it answers.
    serves: bool,
}

/// Why a Lease that another program held is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    ip: IpAddr,
    mac: Mac,
    serves: bool,
}

impl From<Answer> for HeldBack {
    fn from(Answer { ip, mac, serves, .. }: Answer) -> Self {
        Self { ip, mac, serves }
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, mac, serves } = self;
        let but = if *serves { "" } else { ", but accepts no connection" };
        write!(
            f,
            "the last holder was another program, and {mac} still answers for {ip}{but}: the Lease is not \
             taken. Remove the address from that host (`ip addr del`)"
        )
    }
}

impl Stranger {
    pub(super) fn new(gave_up: bool) -> Self {
        let never = BootNs(0);
        Self { gave_up, asked: None, ask_at: never, answer: None, served: never, visit: None }
    }

    /// Whether a station has answered since the present questions began. The programs report a station
    /// once in a second only, so an answer just before also counts.
    pub(super) fn has_answer(&self) -> bool {
        let asked = self.asked.map_or(0, |asked| asked.0.saturating_sub(CLAIM_INTERVAL_NS));
        self.answer.is_some_and(|answer| answer.at.0 >= asked)
    }

    pub(super) fn heard(&mut self, now: BootNs, ip: IpAddr, mac: Mac) {
        if self.asked.is_none() {
            return;
        }
        let first = !self.has_answer();
        if self.answer.is_none() {
            self.served = now;
        }
        let serves = self.answer.is_some_and(|answer| answer.serves);
        self.answer = Some(Answer { at: now, ip, mac, serves });
        self.gave_up = false;
        if first {
            self.visit = Some(ip);
        }
    }

    pub(super) fn visited(&mut self, now: BootNs, served: bool) {
        if let Some(answer) = &mut self.answer {
            answer.serves = served;
            if served {
                self.served = now;
            }
        }
    }

    /// Ends questions that lead to nothing: a station has answered, or silence was observed too long
    /// ago.
    pub(super) fn expire(&mut self, now: BootNs) {
        let Some(asked) = self.asked else { return };
        if self.has_answer() {
            let again = asked.after(ANSWERED_PAUSE);
            if now >= again {
                (self.asked, self.ask_at) = (None, again);
            }
        } else if now > asked.after(ASK_TIME + SILENCE_HOLDS) {
            (self.asked, self.answer) = (None, None);
        }
    }

    /// When the LAN is asked next, or silence is known, for a Lease that is due at `due`.
    pub(super) fn next(&self, due: BootNs) -> BootNs {
        match self.asked {
            None => BootNs(due.0.saturating_sub(ASK_TIME.as_nanos() as u64)).max(self.ask_at),
            Some(asked) if self.has_answer() => asked.after(ANSWERED_PAUSE),
            Some(asked) => asked.after(ASK_TIME).max(due),
        }
    }

    pub(super) fn is_silent(&self, now: BootNs) -> bool {
        !self.has_answer() && self.asked.is_some_and(|asked| now >= asked.after(ASK_TIME))
    }
}

impl Record {
    /// Whether the last holder was another program. It holds the Lease, or has emptied it: then the
    /// annotation of an earlier tenure no longer fits.
    pub(super) fn is_strangers(&self) -> bool {
        if !self.holder.is_empty() {
            return self.tenure().is_none();
        }
        let noted = self.note.as_ref().is_some_and(|note| self.repeats(note));
        !self.is_unheld() && (!noted || !self.was_renewed_by_us())
    }
}
