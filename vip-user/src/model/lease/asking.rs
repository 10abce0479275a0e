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

/// After its release, a stranger has this long to remove its address before the LAN is asked. One
/// answer ends the short wait, and the long one takes 11 s.
const STRANGER_TIDIES: Duration = Duration::from_millis(400);

impl Election {
    /// What is known of the stranger that held this record last. Whatever it gave up earlier may have
    /// been held by xvip since.
    pub(super) fn stranger(
        now: Now,
        before: Option<&Waiting>,
        record: Option<&Record>,
    ) -> Option<Stranger> {
        record.filter(|record| record.is_strangers())?;
        let known = before.and_then(|before| before.stranger.as_deref());
        Some(Stranger::new(known.map_or(now.boot, |known| known.began), false))
    }

    /// Whether this record, the watch event right behind `before`, empties a Lease that a stranger
    /// held. Then `wait` is replaced by the time that a stranger needs to stop.
    pub(super) fn strangers_release(
        &self,
        before: &Waiting,
        record: &Record,
    ) -> Option<(Stranger, Duration)> {
        let (seen, known) = (before.seen.as_ref()?, before.stranger.as_ref()?);
        let held = !seen.holder.is_empty() && seen.is_strangers();
        let emptied = record.holder.is_empty() && record.uid == seen.uid && record.is_strangers();
        let wait = self.timing.wait(self.duration_of(seen)).max(STRANGER_STOPS);
        let asks = self.foreign_conflict == ForeignConflict::Wait;
        (held && emptied).then(|| (Stranger::new(known.began, asks), wait))
    }

    /// When a Lease that a stranger has just given up may be taken, if the LAN is silent.
    pub(super) fn given_up_at(&self, waiting: &Waiting) -> Option<BootNs> {
        let stranger = waiting.stranger.as_ref().filter(|stranger| stranger.gave_up)?;
        let places = self.timing.renew_every * self.places();
        let ended = stranger.began.after(self.timing.wait(self.timing.duration_s));
        Some(waiting.since.after(STRANGER_TIDIES + ASK_TIME + places).max(ended))
    }

    /// Asks the LAN if that is due. Returns whether the Lease may be taken, as far as strangers are
    /// concerned.
    pub(super) fn lan_permits(&mut self, now: Now, waiting: &mut Waiting, out: &mut Effects) -> bool {
        if self.foreign_conflict == ForeignConflict::Take {
            return true;
        }
        let due = self.due(waiting).max(waiting.not_before);
        let patient_until = self.patient_until(waiting);
        let Some(stranger) = &mut waiting.stranger else { return true };
        out.sends.extend(stranger.visits().into_iter().map(Outgoing::Visit));
        stranger.expire(now.boot);
        if stranger.asked.is_none() && stranger.next(due) <= now.boot {
            stranger.ask(now.boot);
            out.sends.push(Outgoing::Probe);
            if let Some(admission) = &mut self.admission {
                admission.probing(now.boot, ASK_TIME);
            }
        }
        let silent = stranger.is_silent(now.boot);
        silent || patient_until.is_some_and(|until| now.boot >= until)
    }

    /// When [`lan_permits`](Self::lan_permits) has something to do, or may permit the take-over.
    pub(super) fn lan_wake(&self, waiting: &Waiting, due: BootNs) -> BootNs {
        match &waiting.stranger {
            Some(stranger) if self.foreign_conflict == ForeignConflict::Wait => {
                let next = stranger.next(due);
                self.patient_until(waiting).map_or(next, |until| next.min(until.max(due)))
            }
            _ => due,
        }
    }

    /// Whether the LAN's answers no longer count for the VIPs of a Lease that is being taken: a station
    /// answers, but has not served for long, or the operator wants it so.
    pub(super) fn overrules(&self, waiting: &Waiting) -> bool {
        waiting.stranger.as_ref().is_some_and(|stranger| {
            self.foreign_conflict == ForeignConflict::Take || stranger.has_answered()
        })
    }

    fn patient_until(&self, waiting: &Waiting) -> Option<BootNs> {
        let (stranger, seen) = (waiting.stranger.as_ref()?, waiting.seen.as_ref()?);
        stranger.patient_until(waiting.since, self.timing.foreign_wait(self.duration_of(seen)))
    }

    /// A station answers for a VIP.
    pub(super) fn heard_of(&mut self, now: Now, ip: IpAddr, mac: Mac) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state {
            stranger.heard(now.boot, ip, mac);
        }
    }

    /// Whether a connection to a VIP was accepted for which a station answers.
    pub(super) fn visited(&mut self, now: Now, ip: IpAddr, served: Option<bool>) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state {
            stranger.visited(now.boot, ip, served);
        }
    }

    /// Whether the LAN is being asked for all VIPs before the Lease is taken.
    pub fn asks_for_all(&self) -> bool {
        let State::Waiting(waiting) = &self.state else { return false };
        waiting.stranger.as_ref().is_some_and(|stranger| stranger.asked.is_some())
    }

    /// Silence proves nothing: no question was sent, or no answer could be heard.
    pub fn could_not_ask(&mut self, now: Now) {
        if let State::Waiting(Waiting { stranger: Some(stranger), .. }) = &mut self.state {
            stranger.could_not_ask(now.boot);
        }
    }

    /// Why the Lease is not taken although its holder has had its time.
    pub fn held_back(&self) -> Option<HeldBack> {
        let State::Waiting(waiting) = &self.state else { return None };
        waiting.stranger.as_ref()?.held_back()
    }
}
