//! Other Leases that name VIPs of ours, and when their holders are over.

use super::{
    naming::{Guarded, Mark, Names},
    record::{Record, Version},
    time::BootNs,
    timing::{MAX_DURATION_S, Timing},
};
use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};
use vip_common::mac::Mac;

/// All of them, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rivals(BTreeMap<String, Other>);

/// Another Lease that names one of our VIPs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Other {
    record: Record,
    /// When this version was first seen.
    since: BootNs,
    /// How long a holder of it may have to be waited for.
    wait: Duration,
    /// It has disappeared. Its holder may still answer.
    gone: bool,
}

/// Why a VIP is not published under a Lease that this node holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// Another Lease names it.
    Lease {
        /// Its name.
        lease: String,
        /// Who holds it.
        holder: String,
    },
    /// Another Lease names it, nobody renews that one, and it could not be struck out of it.
    LeftBehind {
        /// Its name.
        lease: String,
        /// Who held it.
        holder: String,
    },
    /// A version of xvip that does not say what it guards holds another Lease.
    Silent {
        /// Its name.
        lease: String,
        /// Who holds it.
        holder: String,
    },
    /// Another station answers for it.
    InUse([u8; 6]),
    /// The Leases could not be listed, in the words of the API.
    Unlisted(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease { lease, holder } => {
                write!(f, "the Lease {lease:?}, last held by {holder:?}, guards it as well")
            }
            Self::LeftBehind { lease, holder } => write!(
                f,
                "the Lease {lease:?}, which {holder:?} has left behind, names it and cannot be changed; \
                 delete it if no node uses it any more"
            ),
            Self::Silent { lease, holder } => write!(
                f,
                "the Lease {lease:?} is held by a version of xvip, on {holder:?}, that does not say what it guards"
            ),
            Self::InUse(mac) => {
                write!(f, "{} answers for it", Mac(*mac))
            }
            Self::Unlisted(why) => write!(f, "the Leases cannot be listed: {why}"),
        }
    }
}

/// A change of another Lease's annotation, by its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Strike {
    /// The Lease.
    pub lease: String,
    /// The version that must still be current.
    pub base: Version,
    /// What the annotation says afterwards.
    pub guarded: Guarded,
}

impl Rivals {
    /// Takes in what the Leases of the namespace say now.
    pub(super) fn learn(
        &mut self,
        own: &str,
        now: BootNs,
        timing: &Timing,
        leases: Vec<(String, Record)>,
    ) {
        let mut listed: BTreeMap<String, Record> = leases.into_iter().collect();
        listed.remove(own);
        listed.retain(|_, record| record.names() != Names::Nothing);
        let mut others = BTreeMap::new();
        for (name, old) in std::mem::take(&mut self.0) {
            if let Some(record) = listed.remove(&name) {
                let wait = old.wait.max(wait_for(&record, timing));
                let unchanged = !old.gone && record.version == old.record.version;
                let since = if unchanged { old.since } else { now };
                others.insert(name, Other { record, since, wait, gone: false });
            } else {
                // Deleted by hand: who holds it may still answer, and write it again.
                let since = if old.gone { old.since } else { now };
                if now < since.after(old.wait) {
                    others.insert(name, Other { since, gone: true, ..old });
                }
            }
        }
        for (name, record) in listed {
            let wait = wait_for(&record, timing);
            others.insert(name, Other { record, since: now, wait, gone: false });
        }
        self.0 = others;
    }

    /// What stands against a VIP, and the strikes that follow. `inherited`: Leases that do not say what
    /// they guard are no obstacle.
    pub(super) fn against(
        &self,
        now: BootNs,
        ip: IpAddr,
        own: &str,
        inherited: bool,
        strikes: &mut BTreeMap<String, Strike>,
    ) -> Against {
        let mut found = Against::default();
        for (name, other) in &self.0 {
            let Some((rank, obstacle)) = other.stands_against(ip, name, own) else { continue };
            if inherited && rank == Rank::Unknown {
                found.passed_over = true;
                continue;
            }
            if !other.gone && now >= other.since.after(other.wait) {
                found.dead = Some(Obstacle::LeftBehind { lease: name.clone(), holder: other.holder() });
                other.strike(ip, name, strikes);
            } else if found.strongest.as_ref().is_none_or(|(highest, _)| rank > *highest) {
                found.strongest = Some((rank, obstacle));
            }
        }
        found
    }

    /// When the next of their holders is over, if nobody renews.
    pub(super) fn next_end(&self, now: BootNs) -> Option<BootNs> {
        let ends = self.0.values().map(|other| other.since.after(other.wait));
        ends.filter(|end| *end > now).min()
    }
}

/// What the other Leases mean for one VIP.
#[derive(Debug, Default)]
pub(super) struct Against {
    /// What stands most strongly against it.
    pub(super) strongest: Option<(Rank, Obstacle)>,
    /// A Lease that names it and whose holder is over: it is struck out of that.
    pub(super) dead: Option<Obstacle>,
    /// Leases that do not say what they guard were no obstacle.
    pub(super) passed_over: bool,
}

/// How strongly another Lease stands against one of our VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It claims it too, and its name comes later: it gives way.
    LaterClaim,
    /// It claims it too, and its name comes first.
    EarlierClaim,
    /// It does not say what it guards.
    Unknown,
    /// Its holder answers for it.
    Admitted,
}

impl Other {
    fn stands_against(&self, ip: IpAddr, name: &str, own: &str) -> Option<(Rank, Obstacle)> {
        let (lease, holder) = (name.to_owned(), self.holder());
        match self.record.names() {
            Names::Nothing => None,
            Names::Unknown => Some((Rank::Unknown, Obstacle::Silent { lease, holder })),
            Names::Listed(guarded) => {
                let rank = match guarded.mark(ip)? {
                    Mark::Admitted => Rank::Admitted,
                    _ if name < own => Rank::EarlierClaim,
                    _ => Rank::LaterClaim,
                };
                Some((rank, Obstacle::Lease { lease, holder }))
            }
        }
    }

    /// Who holds it, or has held it last.
    fn holder(&self) -> String {
        let note = self.record.note.as_ref().map(|note| note.holder.clone());
        note.unwrap_or_else(|| self.record.holder.clone())
    }

    /// Its holder, if there ever was one, cannot answer any more: the VIP is struck out of this
    /// version.
    fn strike(&self, ip: IpAddr, name: &str, strikes: &mut BTreeMap<String, Strike>) {
        let Record { version, transitions, acquire_us, .. } = &self.record;
        let strike = strikes.entry(name.into()).or_insert_with(|| Strike {
            lease: name.into(),
            base: version.clone(),
            guarded: match self.record.names() {
                Names::Listed(guarded) => guarded.clone(),
                _ => Guarded {
                    transitions: *transitions,
                    acquire_us: acquire_us.unwrap_or_default(),
                    ..Guarded::default()
                },
            },
        });
        strike.guarded.admitted.remove(&ip);
        strike.guarded.claimed.remove(&ip);
        strike.guarded.inherited.remove(&ip);
    }
}

/// How long a version must stand before its holder is over. Candidates of that Lease go first: they
/// wait half as long.
fn wait_for(record: &Record, timing: &Timing) -> Duration {
    let longest = MAX_DURATION_S.max(timing.duration_s);
    let wait = timing.wait(record.duration_s.clamp(timing.duration_s, longest));
    let released = record.holder.is_empty() && record.released.is_some();
    if released { wait } else { wait * 2 }
}
