//! The arithmetic of a lease: how long a holder may answer and how long a taker must wait.

use super::time::BootNs;
use std::time::Duration;

/// The longest D that can be configured, in seconds. A Lease that names a longer one was edited by hand
/// and must not keep a VIP dark for years.
pub const MAX_DURATION_S: u32 = 600;

/// Timings of one Lease, checked by the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// D: the lease length in whole seconds, the unit of the API.
    pub duration_s: u32,
    /// Time between renewals; also how long an attempt may take before another one is started.
    pub renew_every: Duration,
    /// Time that is taken off the fence. It covers reading the clock, and frames that have passed the
    /// check and are still queued.
    pub margin: Duration,
    /// ρ in percent: how much faster or slower than real time a host's clock may run. `adjtimex` allows
    /// 10 % by `tick` plus 0.05 % by frequency.
    pub clock_error_percent: u32,
    /// How long a candidate waits for a foreign holder (kube-vip, any client-go program) after its last
    /// sign of life. `None` means 2·D + 10 s, with the D of the record.
    pub foreign_grace: Option<Duration>,
    /// How long the address stays on the host for late traffic after this node has given up the VIP.
    pub linger: Duration,
}

impl Timing {
    /// The defaults for a lease of this length. Five renewals fit into it, but none come faster than
    /// every 500 ms. ρ is 10 %, the margin [`least_margin`](Self::least_margin), and the linger two
    /// seconds.
    pub fn of(duration_s: u32) -> Self {
        Self {
            duration_s,
            renew_every: Duration::from_millis((u64::from(duration_s) * 200).max(500)),
            margin: Self::least_margin(duration_s),
            clock_error_percent: 10,
            foreign_grace: None,
            linger: Duration::from_secs(2),
        }
    }

    /// The shortest margin that is safe: the larger of 50 ms and 0.002·D.
    pub fn least_margin(duration_s: u32) -> Duration {
        Duration::from_millis((u64::from(duration_s) * 2).max(50))
    }

    /// The D on which a holder may rely whose record names `duration_s`: at least our own, and at most
    /// the longest allowed.
    pub fn counted(&self, duration_s: u32) -> u32 {
        duration_s.clamp(self.duration_s, MAX_DURATION_S.max(self.duration_s))
    }

    /// D·(1-ρ) - margin: how long a holder may answer, counted from just before the request left.
    pub fn hold(&self, duration_s: u32) -> Duration {
        let percent = 100_u64.saturating_sub(u64::from(self.clock_error_percent));
        Duration::from_millis(u64::from(duration_s) * percent * 10).saturating_sub(self.margin)
    }

    /// D·(1+ρ): how long a taker must have observed no change.
    pub fn wait(&self, duration_s: u32) -> Duration {
        let percent = 100 + u64::from(self.clock_error_percent);
        Duration::from_millis(u64::from(duration_s) * percent * 10)
    }

    /// How long a candidate waits for a foreign holder. client-go counts its tenure from the response.
    /// With an API that swallows requests, client-go stops only after renewDeadline plus a release
    /// timeout.
    pub fn foreign_wait(&self, duration_s: u32) -> Duration {
        let grace = Duration::from_secs(2 * u64::from(duration_s) + 10);
        self.foreign_grace.unwrap_or(grace).max(self.wait(duration_s))
    }

    /// How long the guard lets frames of a foreign holder on this node pass after its last sign of
    /// life. Other nodes wait longer, even if their clocks are as fast as this node's clock is slow.
    pub fn foreign_pass(&self, duration_s: u32) -> Duration {
        let rho = self.clock_error_percent.min(100);
        self.foreign_wait(duration_s) * (100 - rho) / (100 + rho)
    }

    /// The deadline of the fence for a write whose clock was read at `sent`, before the request left.
    pub fn fence(&self, sent: BootNs, duration_s: u32) -> BootNs {
        sent.after(self.hold(duration_s))
    }
}
