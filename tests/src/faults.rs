//! The five faults of the demo, each injected into the owner while the judge listens and clients
//! probe.

use crate::{
    judge::{Claim, Judge, two_owner_ms},
    lab::{ASKER_MAC, Lab, eventually},
    probes::{Probe, Series},
};
use std::{thread::sleep, time::Duration};
use vip_user::{model::timing::Timing, node::clock};

/// What happens to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGTERM.
    PlannedStop,
    /// SIGKILL, not started again.
    Kill,
    /// SIGSTOP for twice the lease, then SIGCONT.
    Freeze,
    /// The cable is pulled.
    LinkDown,
    /// The API vanishes for the owner only: its frames go nowhere, no resets.
    ApiCut,
}

impl Fault {
    /// All faults in the order of the demo.
    pub const ALL: [Self; 5] =
        [Self::PlannedStop, Self::Kill, Self::Freeze, Self::LinkDown, Self::ApiCut];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlannedStop => "planned stop",
            Self::Kill => "SIGKILL, not restarted",
            Self::Freeze => "SIGSTOP 2·D, SIGCONT",
            Self::LinkDown => "link down",
            Self::ApiCut => "API cut off from owner",
        }
    }

    /// How long nobody may answer, as a formula and in milliseconds. The slack is for one API
    /// commit, one announcement and a machine that is busy with the whole lab.
    pub fn bound(self, timing: &Timing) -> (&'static str, f64) {
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        let (hold, wait) = (timing.hold(timing.duration_s), timing.wait(timing.duration_s));
        match self {
            Self::PlannedStop => ("slack", SLACK_MS),
            // The kernel goes on answering until the fence: only the gap to the taker is dark.
            Self::Kill | Self::Freeze | Self::ApiCut => {
                ("2·ρ·D + margin + slack", ms(wait) - ms(hold) + SLACK_MS)
            }
            Self::LinkDown => ("D·(1+ρ) + slack", ms(wait) + SLACK_MS),
        }
    }
}

/// Part of every bound: one API commit, one announcement, and a machine busy with the whole lab.
pub const SLACK_MS: f64 = 500.0;
/// How long everything is watched before the fault.
const BEFORE: Duration = Duration::from_millis(700);
/// How long it is watched after the take-over must have happened.
const AFTER: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// Longest time without an answer to ARP or NS, ms.
    pub dark_asked_ms: f64,
    /// Longest time without an echo, ms.
    pub dark_felt_ms: f64,
    /// Echoes lost and sent.
    pub echoes: (usize, usize),
    /// For how long two nodes claimed a VIP, ms.
    pub two_owner_ms: f64,
    /// The owner before and after.
    pub owners: (String, String),
    /// From the fault to the first answer of the new owner, ms.
    pub after_ms: f64,
    /// The bound of the dark times.
    pub bound: (&'static str, f64),
    /// Claims that the judge has seen.
    pub claims: usize,
}

impl Outcome {
    /// Whether the promise was kept.
    pub fn kept(&self) -> bool {
        self.two_owner_ms == 0.0
            && self.claims > 0
            && self.owners.0 != self.owners.1
            && self.dark_asked_ms <= self.bound.1
            && self.dark_felt_ms <= self.bound.1
    }
}

/// What the listeners have recorded around one fault.
#[derive(Debug)]
pub struct Recording {
    /// All claims.
    pub claims: Vec<Claim>,
    /// Questions and answers.
    pub asked: Series,
    /// Echoes.
    pub echoes: Series,
}

/// Listens and probes while `work` runs.
///
/// # Errors
/// Those of the work and of the listeners.
pub fn watched(
    lab: &mut Lab,
    work: impl FnOnce(&mut Lab) -> anyhow::Result<()>,
) -> anyhow::Result<Recording> {
    let vips = Lab::vips();
    let judge = Judge::listen(&lab.bridge, lab.ports(), &vips);
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    let questions = Probe::ask(&lab.asker, ASKER_MAC, [192, 0, 2, 200], v6, &vips);
    let pings = Probe::echo(&lab.user, &vips);
    let outcome = work(lab);
    let (asked, echoes) = (questions.finish()?, pings.finish()?);
    let claims = judge.finish()?;
    outcome?;
    Ok(Recording { claims, asked, echoes })
}

/// Injects one fault into the present owner, watches, and heals it.
///
/// # Errors
/// If the lab does not do what it should: no owner, no follower afterwards.
pub fn inject(lab: &mut Lab, timing: &Timing, fault: Fault) -> anyhow::Result<Outcome> {
    let owner = lab.wait_for_owner(Duration::from_secs(15))?;
    let wait = timing.wait(timing.duration_s);
    let (mut at, mut end) = (0, 0);
    let recording = watched(lab, |lab| {
        sleep(BEFORE);
        at = clock::boot().0;
        break_owner(lab, owner, fault)?;
        match fault {
            Fault::PlannedStop => sleep(AFTER),
            Fault::Freeze => {
                sleep(Duration::from_secs(2 * u64::from(timing.duration_s)));
                lab.nodes[owner].signal(libc::SIGCONT);
                sleep(AFTER);
            }
            _ => sleep(wait + AFTER),
        }
        end = clock::boot().0;
        Ok(())
    })?;
    let old = lab.nodes[owner].mac;
    let first_other = recording.asked.first_other(at, old);
    let by_mac = |mac: [u8; 6]| lab.nodes.iter().position(|node| node.mac == mac);
    let new = first_other.and_then(|(_, mac)| by_mac(mac)).unwrap_or(owner);
    let outcome = Outcome {
        fault,
        dark_asked_ms: recording.asked.dark_ms(at, end),
        dark_felt_ms: recording.echoes.dark_ms(at, end),
        echoes: recording.echoes.unanswered(at, end),
        two_owner_ms: two_owner_ms(&recording.claims),
        owners: (lab.nodes[owner].name.clone(), lab.nodes[new].name.clone()),
        after_ms: first_other.map_or(f64::NAN, |(first, _)| first.saturating_sub(at) as f64 / 1e6),
        bound: fault.bound(timing),
        claims: recording.claims.len(),
    };
    heal(lab, owner, fault)?;
    Ok(outcome)
}

fn break_owner(lab: &mut Lab, owner: usize, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::PlannedStop => lab.nodes[owner].signal(libc::SIGTERM),
        Fault::Kill => lab.nodes[owner].kill(),
        Fault::Freeze => lab.nodes[owner].signal(libc::SIGSTOP),
        Fault::LinkDown => lab.bridge.ip(&format!("link set n{} down", owner + 1)).map(drop)?,
        Fault::ApiCut => {
            let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
            lab.nodes[owner].ns.ip(nowhere).map(drop)?;
        }
    }
    Ok(())
}

fn heal(lab: &mut Lab, owner: usize, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::PlannedStop => {
            let node = &mut lab.nodes[owner];
            let ended = eventually(Duration::from_secs(10), || node.has_ended());
            anyhow::ensure!(ended, "xvip did not end after SIGTERM:\n{}", node.log());
            node.start()?;
        }
        Fault::Kill => lab.nodes[owner].start()?,
        Fault::Freeze => {}
        Fault::LinkDown => lab.bridge.ip(&format!("link set n{} up", owner + 1)).map(drop)?,
        Fault::ApiCut => lab.nodes[owner].ns.ip("neigh del 192.0.2.100 dev eth0").map(drop)?,
    }
    let node = &lab.nodes[owner];
    let follows = eventually(Duration::from_secs(15), || {
        node.status().is_ok_and(|status| status["daemon"]["leases"][0]["state"] == "waiting")
    });
    anyhow::ensure!(follows, "{} does not follow after {}:\n{}", node.name, fault.name(), node.log());
    Ok(())
}
