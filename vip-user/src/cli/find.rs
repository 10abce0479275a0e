//! Finds the Lease before the first write: which of those that versions of kube-vip would use has a
//! holder.

use super::{feeds::Stop, parts};
use crate::{
    adapter::{
        Adapted,
        lease::{Decision, LeaseName, Search, Sight, decide},
    },
    metrics::Metrics,
    model::{lease::record::Record, timing::MAX_DURATION_S},
    node::{maps::Maps, pins::Pins},
};
use std::{net::IpAddr, time::Duration};
use tokio::time::{Instant, sleep};

/// What to do with what was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Use this Lease.
    Use(LeaseName),
    /// Do not start. Why.
    Refused(String),
    /// SIGTERM came first.
    Stopped,
}

/// Why a Lease could not be read.
#[derive(Debug)]
enum Unread {
    /// This user may not read it.
    Forbidden(String),
    /// No server answers. It may be asked again.
    Failed(String),
}

/// Pauses between reads.
#[derive(Clone, Copy)]
struct Pace {
    /// After a failure, and the longest such pause.
    retry: (Duration, Duration),
    /// Between two reads of a Lease that is watched.
    look: Duration,
    /// A second of a Lease's duration.
    second: Duration,
}

const PACE: Pace = Pace {
    retry: (Duration::from_secs(1), Duration::from_secs(15)),
    look: Duration::from_secs(1),
    second: Duration::from_secs(1),
};

/// Finds the Lease. It waits for the API as long as it takes.
pub(super) async fn find(adapted: &Adapted, stop: &mut Stop) -> anyhow::Result<Found> {
    let (search, config) = (&adapted.search, &adapted.config);
    let pins = Pins::new(&config.pin_root, &config.instance);
    if let Some(lease) = search.pinned(&named(&pins)) {
        if *lease != search.chosen {
            tracing::warn!(used = %lease, meant = %search.chosen, "the Lease that this host has used is kept");
        }
        return Ok(Found::Use(lease.clone()));
    }
    if search.others.is_empty() {
        return Ok(Found::Use(search.chosen.clone()));
    }
    let api = parts::reach_api(config, &Metrics::default()).await?;
    let read = |lease: LeaseName| {
        let api = api.of(&lease.namespace, &lease.name);
        async move {
            api.get(0).await.map_err(|error| {
                let why = error.to_string();
                if error.is_forbidden() { Unread::Forbidden(why) } else { Unread::Failed(why) }
            })
        }
    };
    let vips = config.addresses();
    tokio::select! {
        decision = look(search, &vips, PACE, read) => Ok(match decision {
            Decision::Refuse(why) => Found::Refused(why),
            Decision::Use(told) => {
                for told in told {
                    tracing::warn!("{told}");
                }
                tracing::info!(lease = %search.chosen, "the Lease was found");
                Found::Use(search.chosen.clone())
            }
        }),
        () = stop.asked() => Ok(Found::Stopped),
    }
}

/// The Leases that the maps of this host name.
fn named(pins: &Pins) -> Vec<LeaseName> {
    let Ok(true) = pins.try_exist() else { return Vec::new() };
    let Ok(maps) = Maps::open(pins) else { return Vec::new() };
    let records = (0..maps.slots()).filter_map(|slot| maps.slot(slot).ok().flatten());
    records.map(|record| LeaseName { namespace: record.namespace, name: record.name }).collect()
}

/// Reads every Lease, and watches those that have a holder but are not the chosen one.
async fn look<F>(
    search: &Search,
    vips: &[IpAddr],
    pace: Pace,
    read: impl Fn(LeaseName) -> F,
) -> Decision
where
    F: Future<Output = Result<Option<Record>, Unread>>,
{
    let mut seen = Vec::new();
    for lease in std::iter::once(&search.chosen).chain(&search.others) {
        let is_chosen = *lease == search.chosen;
        let sight = match patiently(lease, is_chosen, pace, &read).await {
            Err(()) => Sight::Forbidden,
            Ok(None) => Sight::Missing,
            Ok(Some(record)) => {
                let of_others = guards_others(&record, vips);
                let watched = !is_chosen && !of_others && !record.holder.is_empty();
                let fresh = watched && is_renewed(lease, &record, pace, &read).await;
                Sight::Held { holder: record.holder, fresh, of_others }
            }
        };
        seen.push((lease.clone(), sight));
    }
    decide(&search.chosen, &seen)
}

/// Reads until a server answers. `Err` if it refuses to show a Lease that is not the chosen one.
async fn patiently<F>(
    lease: &LeaseName,
    is_chosen: bool,
    pace: Pace,
    read: &impl Fn(LeaseName) -> F,
) -> Result<Option<Record>, ()>
where
    F: Future<Output = Result<Option<Record>, Unread>>,
{
    let mut pause = pace.retry.0;
    loop {
        let why = match read(lease.clone()).await {
            Ok(record) => return Ok(record),
            Err(Unread::Forbidden(_)) if !is_chosen => return Err(()),
            Err(Unread::Forbidden(why) | Unread::Failed(why)) => why,
        };
        tracing::warn!(%lease, error = why, "the Lease cannot be read; nothing is held until it can");
        sleep(pause).await;
        pause = (pause * 2).min(pace.retry.1);
    }
}

/// Whether a holder renews its Lease. Clocks are not compared: the time that the holder writes must
/// change. It is given the whole duration, because holders renew at very different paces.
async fn is_renewed<F>(
    lease: &LeaseName,
    first: &Record,
    pace: Pace,
    read: &impl Fn(LeaseName) -> F,
) -> bool
where
    F: Future<Output = Result<Option<Record>, Unread>>,
{
    // A clock may run 40 % fast or slow.
    let duration = pace.second * first.duration_s.clamp(1, MAX_DURATION_S) * 14 / 10;
    tracing::info!(%lease, holder = first.holder, ?duration, "watching whether the holder renews");
    let end = Instant::now() + duration + 2 * pace.look;
    while Instant::now() < end {
        sleep(pace.look).await;
        match read(lease.clone()).await {
            Ok(Some(record)) if record.holder.is_empty() => {}
            Ok(Some(record)) if record.renew_us != first.renew_us => return true,
            _ => {}
        }
    }
    false
}

/// Whether an xvip holds the Lease and says that it guards none of these VIPs.
fn guards_others(record: &Record, vips: &[IpAddr]) -> bool {
    let Some(guarded) = &record.guarded else { return false };
    // Another program that takes the Lease leaves the annotation as it was.
    let is_current =
        guarded.transitions == record.transitions && Some(guarded.acquire_us) == record.acquire_us;
    let mut all = guarded.admitted.iter().chain(&guarded.claimed).chain(&guarded.inherited).peekable();
    is_current && all.peek().is_some() && !all.any(|vip| vips.contains(vip))
}

#[cfg(test)]
mod tests;
