//! Time limits for everything that the loop waits for, and a thread that names the step in which the
//! loop hangs.
//!
//! While the loop stands still, renewals are late by as much. So each step on the host gets a tenth of
//! the time for which a fence is raised. A step that is cut off has failed and is tried again. A system
//! call cannot be cut off, so the thread names the step while it hangs.

use crate::{
    clock,
    metrics::Metrics,
    model::{time::BootNs, timing::Timing},
    node::dataplane::HostError,
    state::DaemonState,
};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch as latest;

/// A shorter bound would cut off a host that is only busy; a longer one would hide a hang.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// Work that can go on in the next turn is interrupted after this. A renewal is late by as much.
const SLICE: Duration = Duration::from_millis(20);
/// A late step that has ended stays a problem for this long.
const SHOWN: Duration = Duration::from_secs(10);
/// The loop counts as hanging once it has been in one step for this many bounds.
const HANGS_AFTER: u32 = 3;
/// The subject of the watchdog's problem.
pub(super) const SUBJECT: &str = "loop";

/// What the loop is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It waits for the next event. It is late only if the process does not get to run.
    Wait,
    /// It decides, and reports what it has decided.
    Decide,
    /// It looks at the interfaces and attaches programs.
    Interfaces,
    /// It reads entries and addresses.
    Read,
    /// It checks whether the guard is in place.
    Guard,
    /// It changes one thing on the host.
    Change,
    /// It raises or lowers a fence.
    Fence,
    /// It clears a fence.
    Silence,
    /// It announces VIPs.
    Announce,
    /// It probes whether addresses are in use.
    Probe,
}

impl Activity {
    const ALL: [Self; 10] = [
        Self::Wait,
        Self::Decide,
        Self::Interfaces,
        Self::Read,
        Self::Guard,
        Self::Change,
        Self::Fence,
        Self::Silence,
        Self::Announce,
        Self::Probe,
    ];

    /// The name in metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Decide => "decide",
            Self::Interfaces => "interfaces",
            Self::Read => "read",
            Self::Guard => "guard",
            Self::Change => "change",
            Self::Fence => "fence",
            Self::Silence => "silence",
            Self::Announce => "announce",
            Self::Probe => "probe",
        }
    }
}

/// The step of the loop and its first millisecond, in one word, so that another thread reads both at
/// once.
#[derive(Debug, Default)]
struct Pulse(AtomicU64);

impl Pulse {
    fn set(&self, step: Activity, since: BootNs) {
        let millis = since.0 / 1_000_000;
        self.0.store(millis << 8 | step as u64, Ordering::Relaxed);
    }

    fn get(&self) -> (Activity, BootNs) {
        let word = self.0.load(Ordering::Relaxed);
        let step = Activity::ALL.get((word & 0xff) as usize).copied().unwrap_or(Activity::Decide);
        (step, BootNs((word >> 8).saturating_mul(1_000_000)))
    }
}

/// Runs the steps of the loop within their bounds.
#[derive(Debug)]
pub(super) struct Watchdog {
    pulse: Arc<Pulse>,
    metrics: Metrics,
    bound: Duration,
    /// The instant at which the present turn began.
    turn: BootNs,
    /// The instant at which the present turn began to work on the host.
    host: Option<BootNs>,
    /// Whether a step of the present turn was cut off.
    cut: bool,
    /// How often in a row each step was cut off.
    cuts: BTreeMap<Activity, u32>,
    /// The last step that took too long, as text, and when it ended.
    late: Option<(String, BootNs)>,
}

impl Watchdog {
    pub(super) fn new(timing: &Timing, metrics: Metrics) -> Self {
        Self {
            pulse: Arc::default(),
            metrics,
            bound: bound(timing),
            turn: clock::boot(),
            host: None,
            cut: false,
            cuts: BTreeMap::new(),
            late: None,
        }
    }

    /// Notes that the loop waits until `due`.
    pub(super) fn waits(&self, due: BootNs) {
        self.pulse.set(Activity::Wait, due.max(clock::boot()));
    }

    /// Notes that a turn begins.
    pub(super) fn turn(&mut self) {
        self.turn = clock::boot();
        (self.cut, self.host) = (false, None);
        self.pulse.set(Activity::Decide, self.turn);
    }

    /// Whether this turn has time left for work that can also wait for the next one.
    pub(super) fn has_time(&self) -> bool {
        !self.cut && !self.left().is_zero()
    }

    /// The instant at which this turn began to work on the host: now, if it has not yet.
    pub(super) fn begins_on_host(&mut self, now: BootNs) -> BootNs {
        *self.host.get_or_insert(now)
    }

    /// Whether work that began at `since` has had its slice of the turn.
    pub(super) fn is_used_up(&self, since: BootNs) -> bool {
        self.cut || slice_is_over(since)
    }

    /// Runs one step. The step is always begun, and is dropped if it waits for longer than its bound.
    pub(super) async fn run<T>(
        &mut self,
        step: Activity,
        work: impl Future<Output = T>,
    ) -> Result<T, HostError> {
        let since = clock::boot();
        self.pulse.set(step, since);
        let result = tokio::time::timeout(self.bound_of(step), work).await;
        let took = self.ended(step, since);
        let Ok(done) = result else {
            self.cut = true;
            *self.cuts.entry(step).or_default() += 1;
            return Err(HostError::CutOff { step: step.name(), took });
        };
        self.cuts.remove(&step);
        Ok(done)
    }

    /// Runs a step that waits only for system calls, and so cannot be cut off.
    pub(super) fn call<T>(&mut self, step: Activity, work: impl FnOnce() -> T) -> T {
        let since = clock::boot();
        self.pulse.set(step, since);
        let done = work();
        self.ended(step, since);
        done
    }

    /// The last step that took too long, as text, while it is still shown.
    pub(super) fn problem(&mut self) -> Option<String> {
        let now = clock::boot();
        self.late = self.late.take().filter(|(_, at)| at.after(SHOWN) > now);
        self.late.as_ref().map(|(text, _)| text.clone())
    }

    /// Starts the thread that watches the loop from outside. It ends with the loop.
    pub(super) fn observe(&self, state: latest::Sender<DaemonState>) -> io::Result<()> {
        let observer = Observer {
            pulse: Arc::downgrade(&self.pulse),
            limit: self.bound * HANGS_AFTER,
            metrics: self.metrics.clone(),
            state,
        };
        let every = (self.bound / 2).max(SHORTEST);
        let thread = std::thread::Builder::new().name("xvip-watchdog".into());
        thread.spawn(move || observer.run(every)).map(drop)
    }

    /// The time limit of a step. A step that was cut off gets twice the time, so that it ends on a slow
    /// host too. Clearing fences shares what is left of the turn.
    fn bound_of(&self, step: Activity) -> Duration {
        match step {
            Activity::Silence => self.left(),
            _ if self.cuts.contains_key(&step) => self.bound * 2,
            _ => self.bound,
        }
    }

    fn left(&self) -> Duration {
        clock::boot().until(self.turn.after(self.bound))
    }

    fn ended(&mut self, step: Activity, since: BootNs) -> Duration {
        let now = clock::boot();
        self.pulse.set(Activity::Decide, now);
        let took = since.until(now);
        self.metrics.step(step.name(), took, took > self.bound);
        // A step that was cut off is reported by the work that it belongs to. This reports system
        // calls, which could not be cut off.
        if took > self.bound * HANGS_AFTER {
            let text = format!("the loop was in step {:?} for {took:.1?}", step.name());
            self.late = Some((text, now));
        }
        took
    }
}

/// Whether work that began at `since` has had its slice of the turn, even if a step was cut off.
pub(super) fn slice_is_over(since: BootNs) -> bool {
    since.after(SLICE) <= clock::boot()
}

/// The bound of a step: a tenth of the time for which a renewal raises the fence.
fn bound(timing: &Timing) -> Duration {
    (timing.hold(timing.duration_s) / 10).clamp(SHORTEST, LONGEST)
}

/// The thread that reports a loop that hangs.
struct Observer {
    pulse: Weak<Pulse>,
    limit: Duration,
    metrics: Metrics,
    state: latest::Sender<DaemonState>,
}

impl Observer {
    fn run(&self, every: Duration) {
        let mut told: Option<Activity> = None;
        loop {
            std::thread::sleep(every);
            let Some(pulse) = self.pulse.upgrade() else { return };
            let (step, since) = pulse.get();
            let Some(hangs) = hangs(clock::boot(), (step, since), self.limit) else {
                told = None;
                continue;
            };
            self.state.send_modify(|state| {
                state.problems.insert(SUBJECT.into(), hangs.clone());
                self.metrics.problem(SUBJECT, true);
            });
            if told.replace(step) != Some(step) {
                tracing::warn!(step = step.name(), "{hangs}");
            }
        }
    }
}

/// The text that says for how long the loop has hung, if it has.
fn hangs(now: BootNs, (step, since): (Activity, BootNs), limit: Duration) -> Option<String> {
    let so_far = since.until(now);
    let name = step.name();
    (so_far > limit).then(|| format!("the loop has been in step {name:?} for {so_far:.1?}"))
}

#[cfg(test)]
mod tests;
