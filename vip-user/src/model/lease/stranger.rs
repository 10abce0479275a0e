//! Leases that another program (kube-vip, any client-go program) held last. Such a program releases a
//! Lease before it stops answering, and one that was killed leaves its address on the host, whose
//! kernel answers for ever. So the LAN is asked before such a Lease is taken.

use super::record::Record;
use crate::model::time::BootNs;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};
use vip_common::{abi::CLAIM_INTERVAL_NS, mac::Mac};

/// How long the LAN is asked: the [`QUESTIONS`](crate::model::schedule::QUESTIONS), and time for an
/// answer to the last one.
pub(super) const ASK_TIME: Duration = Duration::from_millis(1_500);
/// Silence counts for this long after it was observed. A process that was paused meanwhile asks again.
const SILENCE_HOLDS: Duration = Duration::from_secs(1);
/// Pause before the LAN is asked again if a station has answered.
const ANSWERED_PAUSE: Duration = Duration::from_secs(5);
/// Pause before the LAN is asked again if the questions could not be sent.
const UNASKED_PAUSE: Duration = Duration::from_millis(500);
/// How much longer than a foreign holder's grace a station holds a Lease back that answers, but does
/// not serve.
const PROXY_GRACE: Duration = Duration::from_secs(30);
/// A kube-vip that gives up because its renewals fail first releases the Lease, then removes a label of
/// its node, and only then its address. It waits up to ten seconds for the label. (When it is stopped,
/// it removes the address while it releases.)
pub(super) const STRANGER_STOPS: Duration = Duration::from_secs(11);

/// What the LAN has said of all VIPs before the Lease was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Lan {
    /// Nothing: it is asked for each VIP under the Lease.
    #[default]
    Unasked,
    /// It was asked from `since` on, for this `time`.
    Asked { since: BootNs, time: Duration },
    /// Its answers do not count in this tenure for these VIPs, which the Lease had when it was taken.
    Overruled(BTreeSet<IpAddr>),
}

impl Lan {
    /// The LAN is asked. Answers that do not count will not count now: a write that says so may be on
    /// its way.
    pub(super) fn ask(&mut self, since: BootNs, time: Duration) {
        if !matches!(self, Self::Overruled(_)) {
            *self = Self::Asked { since, time };
        }
    }

    /// Sets for which VIPs answers do not count; `None`: they all count.
    pub(super) fn overrule(&mut self, vips: Option<BTreeSet<IpAddr>>) {
        match vips {
            Some(vips) => *self = Self::Overruled(vips),
            None if matches!(self, Self::Overruled(_)) => *self = Self::Unasked,
            None => {}
        }
    }

    /// Answers count for VIPs that the Lease loses: it may get them again later.
    pub(super) fn keep(&mut self, vips: &[IpAddr]) {
        if let Self::Overruled(of) = self {
            of.retain(|ip| vips.contains(ip));
        }
    }

    /// The questions prove nothing.
    pub(super) fn forget(&mut self) {
        if matches!(self, Self::Asked { .. }) {
            *self = Self::Unasked;
        }
    }

    /// Whether answers do not count for this VIP.
    pub(super) fn overrules(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Overruled(vips) if vips.contains(&ip))
    }
}

/// What is known of the program that held a Lease last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stranger {
    /// When this node first saw a holder that is not xvip. An earlier tenure of xvip may still have had
    /// a live fence then.
    pub(super) began: BootNs,
    /// Whether it has just emptied the Lease, as an unbroken watch showed. Its wait then ends as soon
    /// as the LAN was silent.
    pub(super) gave_up: bool,
    /// When the present questions began.
    pub(super) asked: Option<BootNs>,
    /// The LAN is not asked again before this time.
    ask_at: BootNs,
    /// The stations that answer, by VIP.
    answers: BTreeMap<IpAddr, Answer>,
}

/// A station answers for a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    at: BootNs,
    mac: Mac,
    /// Whether the last attempt to connect was accepted.
    serves: Option<bool>,
    /// When it began to answer, or last served the VIP.
    served_at: BootNs,
    visit: Visit,
}

/// How far an attempt to connect to a VIP has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Visit {
    /// It is to be made.
    Due,
    /// Its outcome is not known yet.
    Pending,
    /// It was made since the present questions began.
    Done,
}

/// Why a Lease that another program held is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    ip: IpAddr,
    mac: Mac,
    serves: Option<bool>,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, mac, serves } = self;
        write!(f, "the last holder was another program, and {mac} still answers for {ip}")?;
        let remedy = "the Lease is not taken. Remove the address from that host (`ip addr del`)";
        match serves {
            Some(false) => {
                write!(f, ", but accepts no connection: {remedy}, or wait: the answers will not count")
            }
            Some(true) => write!(f, ": {remedy}"),
            None => write!(f, " (whether it accepts connections is not known): {remedy}"),
        }
    }
}

impl Stranger {
    pub(super) fn new(began: BootNs, gave_up: bool) -> Self {
        Self { began, gave_up, asked: None, ask_at: BootNs(0), answers: BTreeMap::new() }
    }

    /// The first instant whose answers count. The programs report a station once in a second only, so
    /// an answer to the questions before also counts if it came within the last second.
    fn counts_from(&self) -> BootNs {
        BootNs(self.asked.map_or(0, |asked| asked.0.saturating_sub(CLAIM_INTERVAL_NS)))
    }

    fn answers_now(&self) -> bool {
        let from = self.counts_from();
        self.answers.values().any(|answer| answer.at >= from)
    }

    pub(super) fn ask(&mut self, now: BootNs) {
        self.asked = Some(now);
        for answer in self.answers.values_mut().filter(|answer| answer.visit == Visit::Done) {
            answer.visit = Visit::Due;
        }
    }

    /// The questions could not be sent: silence proves nothing. A node that never can ask never takes
    /// the Lease. Other nodes may hear a station that answers.
    pub(super) fn could_not_ask(&mut self, now: BootNs) {
        if self.asked.take().is_some() {
            self.ask_at = now.after(UNASKED_PAUSE);
        }
    }

    pub(super) fn heard(&mut self, now: BootNs, ip: IpAddr, mac: Mac) {
        if self.asked.is_none() {
            return;
        }
        self.gave_up = false;
        let from = self.counts_from();
        let new = Answer { at: now, mac, serves: None, served_at: now, visit: Visit::Due };
        let answer = self.answers.entry(ip).or_insert(new);
        // Only the first station of these questions is named: an attacker may send one name after the
        // other.
        if answer.at < from && answer.mac != mac {
            (answer.mac, answer.serves) = (mac, None);
        }
        answer.at = now;
    }

    /// The VIPs at which a connection is to be tried now. There is one attempt at a time for each.
    pub(super) fn visits(&mut self) -> Vec<IpAddr> {
        let from = self.counts_from();
        let due = self.answers.iter_mut();
        let due = due.filter(|(_, answer)| answer.at >= from && answer.visit == Visit::Due);
        due.map(|(ip, answer)| {
            answer.visit = Visit::Pending;
            *ip
        })
        .collect()
    }

    /// The outcome of an attempt to connect; `None`: it could not be made.
    pub(super) fn visited(&mut self, now: BootNs, ip: IpAddr, served: Option<bool>) {
        if let Some(answer) = self.answers.get_mut(&ip) {
            (answer.visit, answer.serves) = (Visit::Done, served);
            if served == Some(true) {
                answer.served_at = now;
            }
        }
    }

    /// Ends questions that lead to nothing: a station has answered, or silence was observed too long
    /// ago.
    pub(super) fn expire(&mut self, now: BootNs) {
        let Some(asked) = self.asked else { return };
        if self.answers_now() {
            let again = asked.after(ANSWERED_PAUSE);
            if now >= again {
                let from = self.counts_from();
                self.answers.retain(|_, answer| answer.at >= from);
                (self.asked, self.ask_at) = (None, again);
            }
        } else if now > asked.after(ASK_TIME + SILENCE_HOLDS) {
            self.asked = None;
            self.answers.clear();
        }
    }

    /// When the LAN is asked next, or silence is known, for a Lease that is due at `due`.
    pub(super) fn next(&self, due: BootNs) -> BootNs {
        match self.asked {
            None => BootNs(due.0.saturating_sub(ASK_TIME.as_nanos() as u64)).max(self.ask_at),
            Some(asked) if self.answers_now() => asked.after(ANSWERED_PAUSE),
            Some(asked) => asked.after(ASK_TIME).max(due),
        }
    }

    /// Whether the LAN was silent. Then earlier answers are forgotten.
    pub(super) fn is_silent(&mut self, now: BootNs) -> bool {
        let silent =
            !self.answers_now() && self.asked.is_some_and(|asked| now >= asked.after(ASK_TIME));
        if silent {
            self.answers.clear();
        }
        silent
    }

    /// When the answers no longer hold the Lease back. Stations that do not serve have the `grace` of a
    /// foreign holder, counted from `since`, and a little longer. Only what the present questions have
    /// shown counts, once all answers have had their time.
    pub(super) fn patient_until(&self, since: BootNs, grace: Duration) -> Option<BootNs> {
        let (asked, from) = (self.asked?, self.counts_from());
        let end = since.after(grace + PROXY_GRACE).max(asked.after(ASK_TIME));
        let now: Vec<&Answer> = self.answers.values().filter(|answer| answer.at >= from).collect();
        let serves_nothing =
            |answer: &&Answer| answer.serves == Some(false) && answer.visit == Visit::Done;
        let last = now.iter().map(|answer| answer.served_at).max()?;
        now.iter().all(serves_nothing).then(|| last.after(PROXY_GRACE).max(end))
    }

    /// Whether a station has answered, and the LAN was not silent since.
    pub(super) fn has_answered(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Why the Lease is held back.
    pub(super) fn held_back(&self) -> Option<HeldBack> {
        let (ip, Answer { mac, serves, .. }) = self.answers.first_key_value()?;
        Some(HeldBack { ip: *ip, mac: *mac, serves: *serves })
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
