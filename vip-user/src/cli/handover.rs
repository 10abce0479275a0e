//! `xvip handover`: moves VIPs to another node without a gap, as a planned stop does.

use super::{Place, print_json};
use crate::{
    escape::printable,
    handover::{Reply, Wish},
    node::{pins::Pins, proof::Proof, socket},
    state::DaemonState,
};
use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use std::{
    io::{Write as _, stdout},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long the outcome is awaited after the wish has ended: the API may be slow.
const SLOW_API: Duration = Duration::from_secs(10);
/// Between two looks at the daemon's state.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to hand over.
#[derive(Debug, Args)]
pub struct Handover {
    /// The node that should have the VIPs. Default: any that can serve as well.
    #[arg(long)]
    pub to: Option<String>,
    /// The Lease (`name` or `namespace/name`). Default: all that this node holds.
    #[arg(long)]
    pub lease: Option<String>,
    /// Which instance.
    #[command(flatten)]
    pub place: Place,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: super::Output,
}

/// The outcome for one Lease.
#[derive(Debug, Serialize)]
struct Outcome {
    lease: String,
    /// Who holds it now; `null`: this node.
    holder: Option<String>,
    /// Until another node was seen to hold it, in milliseconds.
    after_ms: Option<u64>,
}

/// Exit code 0: other nodes hold all the Leases. 1: this node has kept one, or holds none.
pub async fn handover(args: &Handover) -> anyhow::Result<ExitCode> {
    let instance = &args.place.instance;
    let pins = Pins::new(&args.place.pin_root, instance);
    let own = "cannot write beside the pins: root of the host that runs the xvip daemon is needed, \
               and the daemon must run";
    let proof = Proof::make(&pins).context(own)?;
    let wish = Wish { proof: proof.name().into(), lease: args.lease.clone(), to: args.to.clone() };
    let begun = Instant::now();
    let (leases, lasts) = match socket::talk(instance, &serde_json::to_string(&wish)?).await? {
        Reply::Offered { leases, lasts_ms } => (leases, Duration::from_millis(lasts_ms)),
        Reply::Refused(why) => bail!("{}", printable(&why)),
    };
    let outcomes = outcomes(instance, (begun, lasts + SLOW_API), leases).await?;
    match args.output {
        super::Output::Json => print_json(&outcomes)?,
        super::Output::Table => outcomes.iter().for_each(|outcome| say(outcome, args.to.as_deref())),
    }
    let kept = outcomes.iter().any(|outcome| outcome.holder.is_none());
    Ok(ExitCode::from(u8::from(kept)))
}

fn say(Outcome { lease, holder, after_ms }: &Outcome, to: Option<&str>) {
    let line = match holder {
        Some(holder) => format!("{lease}: {holder} holds it, after {} ms", after_ms.unwrap_or(0)),
        None => format!("{lease}: this node keeps it; {} has not taken it", to.unwrap_or("no node")),
    };
    // A rollback goes on when its reader is gone.
    let _ = writeln!(stdout(), "{}", printable(&line));
}

/// Waits until other nodes hold the Leases, or this node keeps them.
async fn outcomes(
    instance: &str,
    (begun, patience): (Instant, Duration),
    leases: Vec<String>,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for lease in leases {
        outcomes.push(Outcome { lease, holder: None, after_ms: None });
    }
    while begun.elapsed() < patience && outcomes.iter().any(|outcome| outcome.holder.is_none()) {
        sleep(LOOK_EVERY).await;
        let state: DaemonState = socket::ask(instance).await?;
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.holder.is_none()) {
            let found = state.leases.iter().find(|lease| lease.lease == outcome.lease);
            let Some(found) = found.filter(|found| found.state == "waiting") else { continue };
            if let Some(holder) = found.holder.as_ref().filter(|holder| !holder.is_empty()) {
                outcome.holder = Some(holder.clone());
                outcome.after_ms = Some(begun.elapsed().as_millis() as u64);
            }
        }
    }
    Ok(outcomes)
}
