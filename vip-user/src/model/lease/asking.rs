//! How a candidate asks the LAN before it takes a Lease that another program held last.

use super::{
    election::Election,
    record::Record,
    state::{State, Waiting},
    stranger::{ASK_TIME, HeldBack, STRANGER_STOPS, Stranger},
};
use crate::model::{
    effects::{Effects, Outgoing},
    policy::ForeignConflict,
    time::{BootNs, Now},
};
use std::{net::IpAddr, time::Duration};
use vip_common::mac::Mac;

/// Pause before the LAN is asked again if the questions could not be sent.
const UNASKED_PAUSE: Duration = Duration::from_millis(500);
/// After its release, a stranger has this long to remove its address before the LAN is asked. One answer
/// would cost the whole wait.
const STRANGER_TIDIES: Duration = Duration::from_millis(400);
/// How much longer than a foreign holder's grace a station holds a Lease back that answers, but does
/// not serve.
const PROXY_GRACE: Duration = Duration::from_secs(30);

impl Election {
    /// What is known of the stranger that held this record last.
    pub(super) fn stranger(before: Option<&Waiting>, record: Option<&Record>) -> Option<Stranger> {
        let record = record.filter(|record| record.is_strangers())?;
        let of_same = before.filter(|before| {
            let same = |seen: &Record| seen.uid == record.uid && seen.holder == record.holder;
            record.holder.is_empty() && before.seen.as_ref().is_some_and(same)
        });
        let known = of_same.and_then(|before| before.stranger.as_deref().cloned());
        Some(known.unwrap_or_else(|| Stranger::new(false)))
    }

    /// Whether this record, the watch event right behind `before`, empties a Lease that a stranger
    /// held. Then `wait` is replaced by the time that a stranger needs to stop.
    pub(super) fn strangers_release(
        &self,
        before: &Waiting,
        record: &Record,
    ) -> Option<(Stranger, Duration)> {
        let seen = before.seen.as_ref()?;
        let held = !seen.holder.is_empty() && seen.is_strangers();
        let emptied = record.holder.is_empty() && record.uid == seen.uid && record.is_strangers();
        let wait = self.timing.wait(self.duration_of(seen)).max(STRANGER_STOPS);
        let asks = self.foreign_conflict == ForeignConflict::Wait;
        (held && emptied).then(|| (Stranger::new(asks), wait))
    }

    /// When a Lease that a stranger has just given up may be taken, if the LAN is silent.
    pub(super) fn given_up_at(&self, waiting: &Waiting) -> Option<BootNs> {
        let gave_up = waiting.stranger.as_ref().is_some_and(|stranger| stranger.gave_up);
        let asked = STRANGER_TIDIES + ASK_TIME;
        gave_up.then(|| waiting.since.after(asked.max(self.timing.renew_every * self.places())))
    }

    /// Asks the LAN if that is due. Returns whether the Lease may be taken, as far as strangers are
    /// concerned.
    pub(super) fn lan_permits(&mut self, now: Now, waiting: &mut Waiting, out: &mut Effects) -> bool {
        if self.foreign_conflict == ForeignConflict::Take {
            return true;
        }
        let due = self.due(waiting).max(waiting.not_before);
        let patience = self.patience(waiting);
        let Some(stranger) = &mut waiting.stranger else { return true };
        if let Some(ip) = stranger.visit.take() {
            out.sends.push(Outgoing::Visit(ip));
        }
        stranger.expire(now.boot);
        if stranger.answer.is_some() && now.boot >= stranger.served.after(patience) {
            return true;
        }
        if stranger.asked.is_none() && stranger.next(due) <= now.boot {
            stranger.asked = Some(now.boot);
            out.sends.push(Outgoing::Probe);
            if let Some(admission) = &mut self.admission {
                admission.probing(now.boot, ASK_TIME);
            }
        }
        let silent = stranger.is_silent(now.boot);
        if silent {
            stranger.answer = None;
        }
        silent
    }

    /// When [`lan_permits`](Self::lan_permits) has something to do, or may permit the take-over.
    pub(super) fn lan_wake(&self, waiting: &Waiting, due: BootNs) -> BootNs {
        match &waiting.stranger {
            Some(stranger) if self.foreign_conflict == ForeignConflict::Wait => {
                let overdue = stranger.answer.map(|_| stranger.served.after(self.patience(waiting)));
                let next = stranger.next(due);
                overdue.map_or(next, |overdue| next.min(overdue.max(due)))
            }
            _ => due,
        }
    }

    /// Whether the LAN's answers no longer count for the VIPs of a Lease that is being taken: a station
    /// answers, but has not served for long, or the operator wants it so.
    pub(super) fn overrules(&self, waiting: &Waiting) -> bool {
        waiting.stranger.as_ref().is_some_and(|stranger| {
            self.foreign_conflict == ForeignConflict::Take || stranger.has_answer()
        })
    }

    /// How long a station that answers, but does not serve, holds the Lease back.
    fn patience(&self, waiting: &Waiting) -> Duration {
        let duration_s = waiting.seen.as_ref().map_or(0, |seen| seen.duration_s);
        self.timing.foreign_wait(self.timing.counted(duration_s)) + PROXY_GRACE
    }

    /// A station answers for a VIP.
    pub(super) fn heard_of(&mut self, now: Now, ip: IpAddr, mac: Mac) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state {
            stranger.heard(now.boot, ip, mac);
        }
    }

    /// Whether a connection to a VIP was accepted for which a station answers.
    pub(super) fn visited(&mut self, now: Now, served: bool) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state {
            stranger.visited(now.boot, served);
        }
    }

    /// Whether the LAN is being asked for all VIPs before the Lease is taken.
    pub fn asks_for_all(&self) -> bool {
        let State::Waiting(waiting) = &self.state else { return false };
        waiting.stranger.as_ref().is_some_and(|stranger| stranger.asked.is_some())
    }

    /// None of the questions could be sent: silence proves nothing.
    pub fn could_not_ask(&mut self, now: Now) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state
            && stranger.asked.take().is_some()
        {
            stranger.ask_at = now.boot.after(UNASKED_PAUSE);
        }
    }

    /// Why the Lease is not taken although its holder has had its time.
    pub fn held_back(&self) -> Option<HeldBack> {
        let State::Waiting(waiting) = &self.state else { return None };
        waiting.stranger.as_ref()?.answer.map(HeldBack::from)
    }
}
