//! `xvip migrate finish`.

use super::{
    args::{self, seconds},
    gather::{self, Found, Request},
    leftovers, show,
};
use crate::{
    cluster::lease::LeaseApi,
    migrate::{
        facts::{LeaseFact, Problem},
        finish::{foreign, quiet_s, refusals},
    },
    model::timing,
};
use std::{process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two reads of the Lease.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At most this part of the reads may fail.
const MOST_FAILED: u32 = 5;

/// Exit code 0: done, or listed. 1: something stands against it.
pub(super) async fn finish(args: &args::Finish) -> anyhow::Result<ExitCode> {
    let request = Request { common: &args.common, node: None, image: None, goes_on: None };
    let mut found = gather::gather(request).await?;
    let mut problems = refusals(&found.facts, &args.without);
    problems.dedup();
    if show::problems(&problems) {
        return Ok(ExitCode::FAILURE);
    }
    let api = found.api.clone().map_err(|why| anyhow::anyhow!("{why}"))?;
    let api = &api;
    if let Some(problem) = watch(api, &found).await {
        show::problems(&[problem]);
        return Ok(ExitCode::FAILURE);
    }
    // The watch took time: a kube-vip may have started meanwhile.
    let image = found.state.as_ref().map(|state| state.image.clone());
    gather::cluster(&mut found.facts, &found.api, image.as_deref()).await;
    if show::problems(&refusals(&found.facts, &args.without)) {
        return Ok(ExitCode::FAILURE);
    }
    let leftovers = leftovers::find(&args.common, api, &found.facts).await?;
    for leftover in &leftovers {
        if !args.yes || !leftover.is_removed() {
            show::say(&format!("found {leftover}"));
            continue;
        }
        show::say(&format!("removing {leftover}"));
        leftovers::remove((&args.common, &found.facts), api, leftover).await?;
    }
    let vips: Vec<_> = found.facts.vips.iter().flatten().map(|vip| vip.vip).collect();
    let mut well = true;
    for vip in gather::addresses(&vips, &args.common, &found.facts).await? {
        well &= vip.owners == 1;
        show::say(&format!("vip {}: {} answers", vip.vip, vip.stations.join(", ")));
    }
    if leftovers.is_empty() {
        show::say("kube-vip has left nothing on this host and in the cluster");
    } else if !args.yes {
        show::say("nothing was removed: add --yes");
    }
    show::say("addresses and tables were looked for on this host only: run this on each node");
    Ok(ExitCode::from(u8::from(!well)))
}

/// Watches the Lease. Returns what stands against removing anything.
async fn watch(api: &LeaseApi, found: &Found) -> Option<Problem> {
    let lease = found.facts.known_lease()?;
    let settings = found.facts.manifests.iter().chain(&found.facts.template);
    let settings = settings.map(|manifest| manifest.duration_s);
    // Anybody may have written a D into the Lease that lasts for years.
    let longest = settings.chain([lease.duration_s]).max().unwrap_or_default();
    let time = quiet_s(longest.min(timing::MAX_DURATION_S));
    show::say(&format!("watching the Lease {} for {time} s", lease.name));
    let end = Instant::now() + seconds(time);
    let mut failed = 0;
    while Instant::now() < end {
        sleep(LOOK_EVERY).await;
        let mut facts = found.facts.clone();
        facts.lease = match api.get(0).await {
            Err(error) => {
                failed += 1;
                if failed > MOST_FAILED {
                    return Some(Problem::new(error.to_string(), "the Lease", "run this again"));
                }
                continue;
            }
            Ok(None) => Ok(None),
            // A release between two nodes of xvip has no holder for a moment.
            Ok(Some(record)) if record.holder.is_empty() && record.released.is_some() => continue,
            Ok(Some(record)) => Ok(Some(LeaseFact {
                ours: record.tenure().is_some(),
                holder: record.holder,
                ..lease.clone()
            })),
        };
        if let Some(problem) = foreign(&facts) {
            return Some(problem);
        }
    }
    None
}
