//! The faults of the demo, each injected into the owner or the API while the judge listens and
//! clients probe.

use crate::{
    cgroup::Cgroup,
    judge::{Claim, Judge, spans, two_owner_ms_between},
    lab::{ASKER_MAC, Lab, eventually},
    probes::{Probe, Series},
    stalls::{StallWatch, Stalls},
    standin::Outage,
};
use anyhow::Context as _;
use std::{thread::sleep, time::Duration};
use vip_user::{clock, model::timing::Timing};

/// A fault of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGTERM.
    PlannedStop,
    /// SIGKILL, without restart.
    Kill,
    /// SIGSTOP for twice the lease, then SIGCONT.
    Freeze,
    /// The owner's control group is frozen for twice the lease.
    CgroupFrozen,
    /// The owner's control group has a hundredth of a CPU for twice the lease.
    Throttled,
    /// The host reboots: it has another boot id, and no pins or addresses of xvip.
    Reboot,
    /// The cable is pulled.
    LinkDown,
    /// Only the owner loses the API: its frames are lost, without resets.
    ApiCut,
    /// The API accepts connections and answers no request for three leases.
    ApiHangs,
    /// Nothing listens where the API was, for three leases.
    ApiRefuses,
    /// All nodes are restarted, one after the other.
    RollingRestart,
}

impl Fault {
    /// All faults in the order of the demo.
    pub const ALL: [Self; 11] = [
        Self::PlannedStop,
        Self::Kill,
        Self::Freeze,
        Self::LinkDown,
        Self::ApiCut,
        Self::ApiHangs,
        Self::ApiRefuses,
        Self::RollingRestart,
        Self::Reboot,
        Self::CgroupFrozen,
        Self::Throttled,
    ];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlannedStop => "planned stop",
            Self::Kill => "SIGKILL, not restarted",
            Self::Freeze => "SIGSTOP 2·D, SIGCONT",
            Self::CgroupFrozen => "cgroup frozen 2·D, thawed",
            Self::Throttled => "cpu.max 1 % for 2·D",
            Self::Reboot => "reboot",
            Self::LinkDown => "link down",
            Self::ApiCut => "API cut off from owner",
            Self::ApiHangs => "API hangs for all 3·D",
            Self::ApiRefuses => "API refuses for all 3·D",
            Self::RollingRestart => "rolling restart of all",
        }
    }

    /// How long the VIPs may be dark, as a formula and in milliseconds.
    pub fn bound(self, timing: &Timing) -> (&'static str, f64) {
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        let slack = slack_ms();
        let (hold, wait) = (timing.hold(timing.duration_s), timing.wait(timing.duration_s));
        match self {
            Self::PlannedStop | Self::RollingRestart => ("slack", slack),
            // The kernel keeps answering until the fence, so only the gap to the taker is dark.
            Self::Kill | Self::Freeze | Self::CgroupFrozen | Self::Throttled | Self::ApiCut => {
                ("2·ρ·D + margin + slack", ms(wait) - ms(hold) + slack)
            }
            Self::LinkDown | Self::Reboot => ("D·(1+ρ) + slack", ms(wait) + slack),
            // The fence covers the beginning. The owner writes again as soon as it can.
            Self::ApiHangs | Self::ApiRefuses => (
                "3·D - fence + 2 renewals + slack",
                ms(outage(timing)) - ms(hold) + 2.0 * ms(timing.renew_every) + slack,
            ),
        }
    }

    /// Whether another node must own the VIPs afterwards.
    const fn moves(self) -> bool {
        !matches!(self, Self::ApiHangs | Self::ApiRefuses | Self::RollingRestart | Self::Throttled)
    }
}

/// Part of every bound: one API commit, one announcement, and a machine busy with the whole lab.
pub const SLACK_MS: f64 = 500.0;

/// [`SLACK_MS`], or more in a guest with an emulated processor; still less than another lease.
#[expect(clippy::disallowed_methods, reason = "set by xtask/src/vm/init.sh")]
fn slack_ms() -> f64 {
    let given = std::env::var("XVIP_SLACK_MS").ok();
    given.and_then(|given| given.parse().ok()).unwrap_or(SLACK_MS)
}

/// How long the lab is watched before the fault.
const BEFORE: Duration = Duration::from_millis(700);
/// How long the lab is watched after the latest time of the take-over.
const AFTER: Duration = Duration::from_secs(2);

fn outage(timing: &Timing) -> Duration {
    Duration::from_secs(3 * u64::from(timing.duration_s))
}

/// The result of one fault.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// Longest time without an answer to ARP or NS, ms.
    pub dark_asked_ms: f64,
    /// Longest time without an echo reply, ms.
    pub dark_felt_ms: f64,
    /// Echoes lost and sent.
    pub echoes: (usize, usize),
    /// How long two nodes claimed one VIP, ms.
    pub two_owner_ms: f64,
    /// The owner before and after.
    pub owners: (String, String),
    /// From the fault to the first answer of the new owner, ms.
    pub after_ms: f64,
    /// The bound of the dark times.
    pub bound: (&'static str, f64),
    /// How long the machine itself stalled, ms.
    pub stalled_ms: f64,
    /// Claims that the judge has seen.
    pub claims: usize,
    /// From the fault to the end of listening, in `CLOCK_BOOTTIME` nanoseconds.
    pub span: (u64, u64),
    /// When the fault was undone, if that happened while the judge listened.
    pub healed: Option<u64>,
}

impl Outcome {
    /// Whether the run was safe and in time.
    pub fn kept(&self) -> bool {
        self.is_safe() && self.is_in_time()
    }

    /// Whether there never were two owners, and the VIPs moved if they had to. A slow machine is no
    /// excuse.
    pub fn is_safe(&self) -> bool {
        self.two_owner_ms == 0.0
            && self.claims > 0
            && (!self.fault.moves() || self.owners.0 != self.owners.1)
    }

    /// Whether no dark time is longer than the bound plus the stalls of the machine.
    pub fn is_in_time(&self) -> bool {
        self.dark_asked_ms.max(self.dark_felt_ms) <= self.bound.1 + self.stalled_ms
    }
}

/// Judges one injected fault. If the run was only late, the fault is injected once more: the
/// machine may have been busy in a way that [`Stalls`] do not show.
///
/// # Errors
/// Those of the injections.
pub fn judged<T>(
    mut once: impl FnMut() -> anyhow::Result<(Outcome, T)>,
) -> anyhow::Result<(Outcome, T)> {
    let (outcome, more) = once()?;
    if outcome.is_safe() && !outcome.is_in_time() {
        println!("late, so it is repeated: {outcome:?}");
        return once();
    }
    Ok((outcome, more))
}

/// What the listeners have recorded around one fault.
#[derive(Clone, Debug)]
pub struct Recording {
    /// All claims.
    pub claims: Vec<Claim>,
    /// Questions and answers.
    pub asked: Series,
    /// Echoes.
    pub echoes: Series,
    /// When the machine stalled.
    pub stalls: Stalls,
}

/// Fails if `run` loses an echo between the instants that it returns. A stalled machine also loses
/// echoes; then `run` is repeated once.
pub fn loses_no_echo(mut run: impl FnMut() -> (Recording, u64, u64)) {
    for again in [true, false] {
        let (recording, from, to) = run();
        let ((lost, sent), stood) =
            (recording.echoes.unanswered(from, to), recording.stalls.within_ms(from, to));
        let dark = recording.asked.dark_ms(from, to);
        println!(
            "{lost} of {sent} echoes lost, dark for {dark:.0} ms, the machine stood {stood:.0} ms"
        );
        if lost == 0 {
            return;
        }
        let (at, who) = (recording.echoes.unanswered_at(from, to), spans(&recording.claims));
        assert!(again && stood > 0.0, "{lost} of {sent} echoes lost: {at:?}\n{who}");
        println!("they were lost while the machine stood still, so it is repeated: {at:?}\n{who}");
    }
}

/// Running listeners and probes.
#[derive(Debug)]
pub struct Watch {
    judge: Judge,
    questions: Probe,
    pings: Probe,
    stalls: StallWatch,
}

impl Watch {
    /// Starts to listen and to probe.
    pub fn begin(lab: &Lab) -> Self {
        let vips = Lab::vips();
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        Self {
            judge: Judge::listen(&lab.bridge, lab.ports(), &vips),
            questions: Probe::ask(&lab.asker, ASKER_MAC, [192, 0, 2, 200], v6, &vips),
            pings: Probe::echo(&lab.user, &vips),
            stalls: StallWatch::begin(),
        }
    }

    /// Stops, and returns the recording.
    ///
    /// # Errors
    /// If listening failed: then there is no verdict.
    pub fn finish(self) -> anyhow::Result<Recording> {
        let (asked, echoes) = (self.questions.finish()?, self.pings.finish()?);
        let stalls = self.stalls.finish();
        Ok(Recording { claims: self.judge.finish()?, asked, echoes, stalls })
    }
}

/// Listens and probes while `work` runs.
///
/// # Errors
/// Those of the work and of the listeners.
pub fn watched(
    lab: &mut Lab,
    work: impl FnOnce(&mut Lab) -> anyhow::Result<()>,
) -> anyhow::Result<Recording> {
    let watch = Watch::begin(lab);
    let outcome = work(lab);
    let recording = watch.finish()?;
    outcome?;
    Ok(recording)
}

/// Injects one fault, watches, and heals it. Also returns the recording.
///
/// # Errors
/// If the lab has no owner, or a node does not follow afterwards.
pub fn inject(lab: &mut Lab, timing: &Timing, fault: Fault) -> anyhow::Result<(Outcome, Recording)> {
    let owner = lab.wait_for_owner(Duration::from_mins(1))?;
    let (mut at, mut end, mut healed, mut moves) = (0, 0, None, Vec::new());
    let recording = watched(lab, |lab| {
        sleep(BEFORE);
        at = clock::boot().0;
        healed = suffer(lab, owner, fault, timing, &mut moves)?;
        sleep(AFTER);
        end = clock::boot().0;
        Ok(())
    })?;
    let old = lab.nodes[owner].mac;
    let first_other = recording.asked.first_other(at, old);
    let by_mac = |mac: [u8; 6]| lab.nodes.iter().position(|node| node.mac == mac);
    let last = recording.asked.last_mac(at).and_then(by_mac).unwrap_or(owner);
    let outcome = Outcome {
        fault,
        dark_asked_ms: recording.asked.dark_ms(at, end),
        dark_felt_ms: recording.echoes.dark_ms(at, end),
        echoes: recording.echoes.unanswered(at, end),
        two_owner_ms: two_owner_ms_between(&recording.claims, &moves),
        owners: (lab.nodes[owner].name.clone(), lab.nodes[last].name.clone()),
        after_ms: first_other.map_or(f64::NAN, |(first, _)| first.saturating_sub(at) as f64 / 1e6),
        bound: fault.bound(timing),
        stalled_ms: recording.stalls.within_ms(at, end),
        claims: recording.claims.len(),
        span: (at, end),
        healed,
    };
    heal(lab, owner, fault)?;
    Ok((outcome, recording))
}

/// The fault itself, for its whole duration. Returns when it was undone. If the VIP may move more
/// than once, the instant before each move is added to `moves`.
fn suffer(
    lab: &mut Lab,
    owner: usize,
    fault: Fault,
    timing: &Timing,
    moves: &mut Vec<u64>,
) -> anyhow::Result<Option<u64>> {
    let twice = Duration::from_secs(2 * u64::from(timing.duration_s));
    let take_over = timing.wait(timing.duration_s);
    let pid = |lab: &Lab| lab.nodes[owner].pid().context("the owner does not run");
    let healed = || Ok(Some(clock::boot().0));
    match fault {
        Fault::PlannedStop => lab.nodes[owner].signal(libc::SIGTERM),
        Fault::Kill => {
            lab.nodes[owner].kill();
            sleep(take_over);
        }
        Fault::Freeze => {
            lab.nodes[owner].signal(libc::SIGSTOP);
            sleep(twice);
            lab.nodes[owner].signal(libc::SIGCONT);
            return healed();
        }
        Fault::CgroupFrozen => {
            let group = Cgroup::frozen(pid(lab)?)?;
            sleep(twice);
            group.thaw()?;
            return healed();
        }
        Fault::Throttled => {
            let group = Cgroup::throttled(pid(lab)?, 1)?;
            sleep(twice);
            drop(group);
            return healed();
        }
        Fault::Reboot => {
            let node = &mut lab.nodes[owner];
            node.kill();
            // A reboot removes pins and addresses.
            node.xvip("cleanup", &[])?;
            node.reboot();
            sleep(Duration::from_secs(1));
            node.start()?;
            let back = clock::boot().0;
            sleep(take_over);
            return Ok(Some(back));
        }
        Fault::LinkDown => {
            lab.bridge.ip(&format!("link set n{} down", owner + 1))?;
            sleep(take_over);
        }
        Fault::ApiCut => {
            let nowhere = "neigh replace 192.0.2.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent";
            lab.nodes[owner].ns.ip(nowhere)?;
            sleep(take_over);
        }
        Fault::ApiHangs | Fault::ApiRefuses => {
            let hangs = fault == Fault::ApiHangs;
            lab.api.set_outage(if hangs { Outage::Hangs } else { Outage::Refuses });
            sleep(outage(timing));
            lab.api.set_outage(Outage::None);
            return healed();
        }
        Fault::RollingRestart => {
            for index in 0..lab.nodes.len() {
                moves.push(clock::boot().0);
                restart(lab, index)?;
            }
            return healed();
        }
    }
    Ok(None)
}

/// As a DaemonSet does: stop, wait for the end, start, wait until it is ready.
fn restart(lab: &mut Lab, index: usize) -> anyhow::Result<()> {
    let node = &mut lab.nodes[index];
    node.signal(libc::SIGTERM);
    let ended = eventually(Duration::from_secs(10), || node.has_ended());
    anyhow::ensure!(ended, "xvip did not end after SIGTERM:\n{}", node.log());
    node.start()?;
    let ready = eventually(Duration::from_secs(10), || {
        node.status()
            .is_ok_and(|status| status["daemon"]["not_ready"].as_array().is_some_and(Vec::is_empty))
    });
    anyhow::ensure!(ready, "{} does not get ready:\n{}", node.name, node.log());
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
        Fault::LinkDown => lab.bridge.ip(&format!("link set n{} up", owner + 1)).map(drop)?,
        Fault::ApiCut => lab.nodes[owner].ns.ip("neigh del 192.0.2.100 dev eth0").map(drop)?,
        _ => {}
    }
    // A node that does not hold the Lease must follow it.
    for node in &lab.nodes {
        let settled = eventually(Duration::from_secs(15), || {
            node.status().is_ok_and(|status| {
                let state = &status["daemon"]["leases"][0]["state"];
                state == "waiting" || state == "holding"
            })
        });
        anyhow::ensure!(settled, "{} is lost after {}:\n{}", node.name, fault.name(), node.log());
    }
    Ok(())
}
