//! Finds the Lease before the first write: which of those that versions of kube-vip would use has a
//! holder.

use super::{feeds::Stop, parts};
use crate::{
    adapter::{
        Adapted,
        lease::{Decision, LeaseName, Search, Sight, decide},
    },
    cluster::lease::LeaseApi,
    metrics::Metrics,
    model::{lease::record::Record, timing::MAX_DURATION_S},
    node::{maps::Maps, pins::Pins},
};
use futures::future::join_all;
use std::{cell::Cell, net::IpAddr, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// What to do with what was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Use the chosen Lease. What stays a problem.
    Use(Vec<String>),
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

impl Unread {
    fn why(&self) -> &str {
        match self {
            Self::Forbidden(why) | Self::Failed(why) => why,
        }
    }

    /// Whether the server denies this, and has done so for as long. `since`: from when on.
    fn is_denied_for(&self, patience: Duration, since: &mut Option<Instant>) -> bool {
        if matches!(self, Self::Failed(_)) {
            // A server that is away denies nothing.
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() >= patience
    }
}

type Read = Result<Option<Record>, Unread>;

/// Pauses between reads.
#[derive(Clone, Copy)]
struct Pace {
    /// After a failure, and the longest such pause.
    retry: (Duration, Duration),
    /// Between two reads of a Lease that is watched.
    look: Duration,
    /// A second of a Lease's duration.
    second: Duration,
    /// How long the chosen Lease may be denied while another one may be read.
    denied: Duration,
}

const PACE: Pace = Pace {
    retry: (Duration::from_secs(1), Duration::from_secs(15)),
    look: Duration::from_secs(1),
    second: Duration::from_secs(1),
    denied: Duration::from_mins(2),
};

const SILENT: &str = "the API does not answer";

/// What is looked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    search: &'a Search,
    /// The Leases that this host has used.
    pinned: &'a [LeaseName],
    vips: &'a [IpAddr],
    /// The duration of a tenure here, in seconds.
    duration_s: u32,
}

impl Wanted<'_> {
    fn duration(self, pace: Pace) -> Duration {
        pace.second * self.duration_s.clamp(1, MAX_DURATION_S)
    }

    /// How long a Lease that is not the chosen one may be denied: rights may come late.
    fn patience(self, pace: Pace) -> Duration {
        2 * self.duration(pace)
    }
}

/// A Lease as it was last read.
struct Seen {
    sight: Sight,
    record: Option<Record>,
}

/// Finds the Lease. It waits for the API as long as it takes.
pub(super) async fn find(adapted: &Adapted, stop: &mut Stop) -> anyhow::Result<Found> {
    let (search, config) = (&adapted.search, &adapted.config);
    let pinned = pinned(adapted);
    if is_certain(search, &pinned) {
        return Ok(Found::Use(Vec::new()));
    }
    let api = parts::reach_api(config, &Metrics::default()).await?;
    let vips = config.addresses();
    let wanted = Wanted { search, pinned: &pinned, vips: &vips, duration_s: config.lease.duration_s };
    tokio::select! {
        decision = look(wanted, PACE, |lease| read(&api, lease)) => Ok(match decision {
            Decision::Refuse(why) => Found::Refused(why),
            Decision::Use { told, problems } => {
                for told in told {
                    tracing::info!("{told}");
                }
                for problem in &problems {
                    tracing::warn!("{problem}");
                }
                tracing::info!(lease = %search.chosen, "the Lease was found");
                Found::Use(problems)
            }
        }),
        () = stop.asked() => Ok(Found::Stopped),
    }
}

/// Says what is known of the Lease without waiting for long. `Err`: why xvip would refuse to start.
pub(super) async fn check(adapted: &Adapted) -> Result<Vec<String>, String> {
    let (search, config) = (&adapted.search, &adapted.config);
    let pinned = pinned(adapted);
    if is_certain(search, &pinned) {
        return Ok(vec![known(search, &pinned)]);
    }
    let vips = config.addresses();
    let wanted = Wanted { search, pinned: &pinned, vips: &vips, duration_s: config.lease.duration_s };
    let metrics = Metrics::default();
    match timeout(wanted.duration(PACE), parts::reach_api(config, &metrics)).await {
        Ok(Ok(api)) => look_within(wanted, PACE, |lease| read(&api, lease)).await,
        Ok(Err(error)) => Ok(vec![not_looked_at(&format!("{error:#}"))]),
        Err(_) => Ok(vec![not_looked_at(SILENT)]),
    }
}

/// What is known of the Lease without asking the API.
pub(super) fn known_here(adapted: &Adapted) -> String {
    known(&adapted.search, &pinned(adapted))
}

fn known(search: &Search, pinned: &[LeaseName]) -> String {
    let chosen = &search.chosen;
    let used: Vec<String> = pinned.iter().map(ToString::to_string).collect();
    if search.is_settled(pinned) {
        return format!("the Lease {chosen} is used: this host has used it before");
    }
    if !used.is_empty() {
        let used = used.join(", ");
        return format!("the settings mean the Lease {chosen}, and this host has used {used}");
    }
    format!("the settings mean the Lease {chosen}; the Lease was not looked at")
}

fn not_looked_at(why: &str) -> String {
    format!("the Lease was not looked at: {why}")
}

/// Whether nobody needs to be asked.
fn is_certain(search: &Search, pinned: &[LeaseName]) -> bool {
    search.is_settled(pinned) || search.candidates(pinned).len() == 1
}

/// The Leases that the maps of this host name.
fn pinned(adapted: &Adapted) -> Vec<LeaseName> {
    let pins = Pins::new(&adapted.config.pin_root, &adapted.config.instance);
    let Ok(true) = pins.try_exist() else { return Vec::new() };
    let Ok(maps) = Maps::open(&pins) else { return Vec::new() };
    let records = (0..maps.slots()).filter_map(|slot| maps.slot(slot).ok().flatten());
    records.map(|record| LeaseName { namespace: record.namespace, name: record.name }).collect()
}

fn read(api: &LeaseApi, lease: LeaseName) -> impl Future<Output = Read> + use<> {
    let api = api.of(&lease.namespace, &lease.name);
    async move {
        api.get(0).await.map_err(|error| {
            let why = error.to_string();
            if error.is_forbidden() { Unread::Forbidden(why) } else { Unread::Failed(why) }
        })
    }
}

/// Looks for three durations at most, and only if the API answers.
async fn look_within<F>(
    wanted: Wanted<'_>,
    pace: Pace,
    read: impl Fn(LeaseName) -> F,
) -> Result<Vec<String>, String>
where
    F: Future<Output = Read>,
{
    let chosen = &wanted.search.chosen;
    let duration = wanted.duration(pace);
    match timeout(duration, read(chosen.clone())).await {
        Err(_) => return Ok(vec![not_looked_at(SILENT)]),
        Ok(Err(Unread::Failed(why))) => return Ok(vec![not_looked_at(&why)]),
        Ok(_) => {}
    }
    match timeout(duration * 3 + 2 * pace.look, look(wanted, pace, read)).await {
        Err(_) => Ok(vec![not_looked_at("this takes longer than the check may wait")]),
        Ok(Decision::Refuse(why)) => Err(why),
        Ok(Decision::Use { told, problems }) => {
            let found = format!("the Lease {chosen} may be used: no other one was found in use");
            let found = if problems.is_empty() { Some(found) } else { None };
            Ok(told.into_iter().chain(problems).chain(found).collect())
        }
    }
}

/// Reads every Lease, and watches those that have a holder but are not the chosen one. Watching takes
/// long, so all are read again before the answer counts.
async fn look<F>(wanted: Wanted<'_>, pace: Pace, read: impl Fn(LeaseName) -> F) -> Decision
where
    F: Future<Output = Read>,
{
    let candidates = wanted.search.candidates(wanted.pinned);
    loop {
        let readable = Cell::new(false);
        let each = candidates.iter().map(|lease| see(wanted, lease, &readable, pace, &read));
        let seen = join_all(each).await;
        let sights: Vec<_> =
            candidates.iter().cloned().zip(seen.iter().map(|seen| seen.sight.clone())).collect();
        let decision = decide(wanted.search, wanted.pinned, &sights);
        if matches!(decision, Decision::Refuse(_)) {
            return decision;
        }
        let again = join_all(candidates.iter().map(|lease| read(lease.clone()))).await;
        let is_chosen = candidates.iter().map(|lease| *lease == wanted.search.chosen);
        let mut pairs = seen.iter().zip(&again).zip(is_chosen);
        if pairs.all(|((seen, again), is_chosen)| seen.is_still(again, is_chosen, wanted.vips)) {
            return decision;
        }
        tracing::info!("a Lease has changed, or cannot be read again: all are looked at again");
        sleep(pace.look).await;
    }
}

impl Seen {
    /// Whether a later answer leads to the same decision.
    fn is_still(&self, again: &Read, is_chosen: bool, vips: &[IpAddr]) -> bool {
        match (&self.sight, again) {
            (Sight::Forbidden, Err(Unread::Forbidden(_))) | (Sight::Missing, Ok(None)) => true,
            (Sight::Forbidden, _) | (_, Err(_)) => false,
            _ if is_chosen => true,
            (Sight::Held { of_others: true, .. }, Ok(Some(record))) => guards_others(record, vips),
            (Sight::Held { fresh: true, .. }, Ok(Some(record))) => !record.holder.is_empty(),
            (_, Ok(record)) => {
                let key = |record: &Option<Record>| {
                    record.as_ref().map(|record| (record.holder.clone(), record.renew_us))
                };
                key(record) == key(&self.record)
            }
        }
    }
}

/// Reads a Lease, and watches it if that matters.
async fn see<F>(
    wanted: Wanted<'_>,
    lease: &LeaseName,
    readable: &Cell<bool>,
    pace: Pace,
    read: &impl Fn(LeaseName) -> F,
) -> Seen
where
    F: Future<Output = Read>,
{
    let is_chosen = *lease == wanted.search.chosen;
    let record = match patiently(wanted, lease, readable, pace, read).await {
        Err(()) => return Seen { sight: Sight::Forbidden, record: None },
        Ok(record) => record,
    };
    if !is_chosen {
        readable.set(true);
    }
    let Some(first) = record else { return Seen { sight: Sight::Missing, record: None } };
    let watched = if is_chosen || guards_others(&first, wanted.vips) || first.is_unheld() {
        Ok((Some(first), false))
    } else {
        is_renewed(wanted, lease, first, pace, read).await
    };
    let Ok((last, fresh)) = watched else {
        return Seen { sight: Sight::Forbidden, record: None };
    };
    let sight = match &last {
        None => Sight::Missing,
        Some(last) => {
            let of_others = guards_others(last, wanted.vips);
            Sight::Held { holder: last.holder.clone(), fresh, of_others }
        }
    };
    Seen { sight, record: last }
}

/// Reads until a server answers. `Err` if it refuses to show the Lease for long: rights may come late.
async fn patiently<F>(
    wanted: Wanted<'_>,
    lease: &LeaseName,
    readable: &Cell<bool>,
    pace: Pace,
    read: &impl Fn(LeaseName) -> F,
) -> Result<Option<Record>, ()>
where
    F: Future<Output = Read>,
{
    let is_chosen = *lease == wanted.search.chosen;
    let patience = if is_chosen { pace.denied } else { wanted.patience(pace) };
    let (mut pause, mut denied) = (pace.retry.0, None);
    loop {
        let unread = match read(lease.clone()).await {
            Ok(record) => return Ok(record),
            Err(unread) => unread,
        };
        if unread.is_denied_for(patience, &mut denied) && (!is_chosen || readable.get()) {
            return Err(());
        }
        let why = unread.why();
        tracing::warn!(%lease, why, "the Lease cannot be read; nothing is held until it can");
        sleep(pause.min(patience / 4)).await;
        pause = (pause * 2).min(pace.retry.1);
    }
}

/// Whether a holder renews its Lease, and the Lease as it was read last. Clocks are not compared: the
/// time that the holder writes must change. It is given the whole duration, because holders renew at
/// very different paces. While the API does not answer nobody can renew, so only the time between two
/// reads that have succeeded counts. `Err`: the Lease may no longer be read.
async fn is_renewed<F>(
    wanted: Wanted<'_>,
    lease: &LeaseName,
    first: Record,
    pace: Pace,
    read: &impl Fn(LeaseName) -> F,
) -> Result<(Option<Record>, bool), ()>
where
    F: Future<Output = Read>,
{
    // A clock may run 40 % fast or slow.
    let duration = pace.second * first.duration_s.clamp(1, MAX_DURATION_S) * 14 / 10;
    let needed = duration + 2 * pace.look;
    tracing::info!(%lease, holder = first.holder, ?needed, "watching whether the holder renews");
    let (renew_us, mut last) = (first.renew_us, Some(first));
    let (mut covered, mut since, mut denied) = (Duration::ZERO, Some(Instant::now()), None);
    while covered < needed {
        sleep(pace.look).await;
        let begun = Instant::now();
        match read(lease.clone()).await {
            Ok(record) => {
                // A process that was stopped for long does not know what the API did meanwhile.
                let more = since.map_or(Duration::ZERO, |since| begun.duration_since(since));
                covered += more.min(2 * pace.look);
                since = Some(Instant::now());
                let renews = |record: &Record| !record.holder.is_empty() && record.renew_us != renew_us;
                if record.as_ref().is_some_and(renews) {
                    return Ok((record, true));
                }
                (last, denied) = (record, None);
            }
            Err(unread) => {
                since = None;
                if unread.is_denied_for(wanted.patience(pace), &mut denied) {
                    return Err(());
                }
                tracing::warn!(%lease, why = unread.why(), "no read: this time does not count");
            }
        }
    }
    Ok((last, false))
}

/// Whether an xvip holds the Lease and says that it guards none of these VIPs.
fn guards_others(record: &Record, vips: &[IpAddr]) -> bool {
    let Some(guarded) = &record.guarded else { return false };
    // Another program that takes the Lease leaves the annotation as it was.
    let is_current =
        guarded.transitions == record.transitions && Some(guarded.acquire_us) == record.acquire_us;
    let mut all = guarded.admitted.iter().chain(&guarded.claimed).chain(&guarded.inherited).peekable();
    is_current
        && record.tenure().is_some()
        && all.peek().is_some()
        && !all.any(|vip| vips.contains(vip))
}

#[cfg(test)]
mod tests;
