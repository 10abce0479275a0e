//! Other Leases that name VIPs of ours, and when their holders can no longer answer.

use super::{
    naming::{Guarded, Mark, Names},
    record::{Record, Version},
};
use crate::model::{time::BootNs, timing::Timing};
use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};
use vip_common::mac::Mac;

/// The other Leases that name VIPs, or do not say what they guard, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rivals(BTreeMap<String, Other>);

/// Another Lease that names VIPs, or does not say what it guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Other {
    record: Record,
    /// When this version was first seen.
    since: BootNs,
    /// How long this version must stay unchanged before its holder can no longer answer.
    wait: Duration,
    /// Whether the Lease has disappeared. Its holder may still answer.
    gone: bool,
}

/// Why a VIP is not published under a Lease that this node holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// Another Lease names it.
    Lease {
        /// Its name.
        lease: String,
        /// Its last holder.
        holder: String,
    },
    /// Another Lease names it, no node renews that Lease, and the VIP could not be struck out of it.
    LeftBehind {
        /// Its name.
        lease: String,
        /// Its last holder.
        holder: String,
    },
    /// Another Lease is held by a version of xvip that does not say what it guards.
    Silent {
        /// Its name.
        lease: String,
        /// Its last holder.
        holder: String,
    },
    /// Another station, with this MAC address, answers for it.
    InUse(Mac),
    /// The Leases could not be listed. The text is the API's error.
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
                write!(f, "{mac} answers for it")
            }
            Self::Unlisted(why) => write!(f, "the Leases cannot be listed: {why}"),
        }
    }
}

/// A change of another Lease's annotation, by CAS on its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Strike {
    /// The name of the Lease.
    pub lease: String,
    /// The version that must still be current.
    pub base: Version,
    /// What the annotation says afterwards.
    pub guarded: Guarded,
}

impl Rivals {
    /// Notes what the Leases of the namespace say now. `own` is the name of our own Lease.
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
                // The Lease was deleted by hand. Its holder may still answer, and write the Lease
                // again.
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

    /// The obstacles to a VIP. Adds the strikes that follow. If the VIP is `inherited`, Leases that
    /// do not say what they guard are no obstacle.
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

    /// When the next holder of these Leases can no longer answer, if it does not renew.
    pub(super) fn next_end(&self, now: BootNs) -> Option<BootNs> {
        let ends = self.0.values().map(|other| other.since.after(other.wait));
        ends.filter(|end| *end > now).min()
    }
}

/// What the other Leases mean for one VIP.
#[derive(Debug, Default)]
pub(super) struct Against {
    /// The strongest obstacle among Leases whose holders may still answer.
    pub(super) strongest: Option<(Rank, Obstacle)>,
    /// A Lease that names the VIP, but whose holder can no longer answer. The VIP is struck out of it.
    pub(super) dead: Option<Obstacle>,
    /// Whether Leases that do not say what they guard were passed over.
    pub(super) passed_over: bool,
}

/// How strongly another Lease opposes the admission of one of our VIPs, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It claims the VIP too, but its name comes later than ours: its holder gives way.
    LaterClaim,
    /// It claims the VIP too, and its name comes first: this node gives way.
    EarlierClaim,
    /// It does not say what it guards.
    Unknown,
    /// Its holder answers for the VIP.
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

    /// The node that holds the Lease, or held it last.
    fn holder(&self) -> String {
        let note = self.record.note.as_ref().map(|note| note.holder.clone());
        note.unwrap_or_else(|| self.record.holder.clone())
    }

    /// Strikes the VIP out of this version. Its holder, if there was one, can no longer answer.
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

/// How long a version must stay unchanged before VIPs may be struck out of it: twice the wait of that
/// Lease's own candidates, so that they can take it first. If the Lease was released: their wait once.
fn wait_for(record: &Record, timing: &Timing) -> Duration {
    let wait = timing.wait(timing.counted(record.duration_s));
    let released = record.holder.is_empty() && record.released.is_some();
    if released { wait } else { wait * 2 }
}
