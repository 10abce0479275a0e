//! How long the machine itself stalled. On each processor a thread should wake every millisecond
//! and records when it did not. Without this, a verdict about time would be one about the machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use vip_user::clock;

/// Time between two wake-ups.
const EVERY: Duration = Duration::from_millis(1);
/// A wake-up that is less late than this is within the timer's own slack.
const LATE_NS: u64 = 4_000_000;

/// Threads that watch the processors.
#[derive(Debug)]
pub struct StallWatch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Stall>>>,
}

/// A span in which a thread should have run but did not, in `CLOCK_BOOTTIME` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When it should have woken.
    pub from_ns: u64,
    /// When it woke.
    pub to_ns: u64,
}

/// The stalls of each processor.
#[derive(Clone, Debug, Default)]
pub struct Stalls(pub Vec<Vec<Stall>>);

impl StallWatch {
    /// Starts to watch every processor on which this process may run.
    pub fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..processors).map(|processor| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                pin_to(processor);
                watch(&stop)
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// Stops, and returns the stalls.
    pub fn finish(self) -> Stalls {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.threads.into_iter().map(|thread| thread.join().unwrap_or_default());
        Stalls(seen.collect())
    }
}

fn watch(stop: &AtomicBool) -> Vec<Stall> {
    let mut stalls = Vec::new();
    let mut last = clock::boot().0;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(EVERY);
        let now = clock::boot().0;
        let due = last + EVERY.as_nanos() as u64;
        if now.saturating_sub(due) >= LATE_NS {
            stalls.push(Stall { from_ns: due, to_ns: now });
        }
        last = now;
    }
    stalls
}

/// If the kernel refuses this, the thread watches any processor on which it runs.
fn pin_to(processor: usize) {
    // SAFETY: the set is a plain bit mask, valid when zeroed, and outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

impl Stalls {
    /// The stall time within a span of the processor that stalled most, in milliseconds.
    pub fn within_ms(&self, from_ns: u64, to_ns: u64) -> f64 {
        let overlap = |stall: &Stall| stall.to_ns.min(to_ns).saturating_sub(stall.from_ns.max(from_ns));
        let of_processor = |stalls: &Vec<Stall>| stalls.iter().map(overlap).sum::<u64>();
        self.0.iter().map(of_processor).max().unwrap_or(0) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_within_the_span_counts_and_the_worst_processor() {
        let stall = |from: u64, to: u64| Stall { from_ns: from * 1_000_000, to_ns: to * 1_000_000 };
        let stalls = Stalls(vec![vec![stall(0, 10), stall(90, 120)], vec![stall(50, 65)]]);
        assert_eq!(stalls.within_ms(5_000_000, 100_000_000), 15.0);
        assert_eq!(stalls.within_ms(0, 120_000_000), 40.0);
        assert_eq!(Stalls::default().within_ms(0, 1), 0.0);
    }

    #[test]
    fn every_processor_is_watched() {
        let stalls = StallWatch::begin().finish();
        assert_eq!(stalls.0.len(), thread::available_parallelism().map_or(1, usize::from));
    }
}
