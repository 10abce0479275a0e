//! What this process counts for Prometheus; what the kernel knows is added by `node/scrape.rs`.
//! `docs/metrics.md` lists all.

use crate::model::fitness::Fitness;
use prometheus_client::{
    collector::Collector,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{net::IpAddr, time::Duration};

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// From a fast API on one switch to a lease of ten minutes, in seconds.
const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// What this process counts. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    transitions: Family<Labels, Counter>,
    conflicts: Family<Labels, Counter>,
    problems: Family<Labels, Gauge>,
    fitness: Family<Labels, Gauge>,
    handover: Histograms,
    dark: Histograms,
    api: Histograms,
    steps: Histograms,
    overruns: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = || Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        Self {
            transitions: Family::default(),
            conflicts: Family::default(),
            problems: Family::default(),
            fitness: Family::default(),
            handover: histograms(),
            dark: histograms(),
            api: histograms(),
            steps: histograms(),
            overruns: Family::default(),
        }
    }
}

impl Metrics {
    /// Everything under its name, with what `kernel` brings at each scrape.
    pub fn registry(&self, kernel: Box<dyn Collector>) -> Registry {
        let mut registry = Registry::with_prefix("xvip");
        registry.register(
            "transitions",
            "Changes of leadership on this node, by Lease and reason",
            self.transitions.clone(),
        );
        registry.register(
            "conflicts",
            "Reports that another station claims a VIP while this node holds it, by VIP",
            self.conflicts.clone(),
        );
        registry.register(
            "problem",
            "1 while something stands in the way, by subject",
            self.problems.clone(),
        );
        registry.register(
            "fitness",
            "How well this node could serve, by Lease: 0 able, 1 doubtful, 2 unable, 3 barred",
            self.fitness.clone(),
        );
        registry.register_with_unit(
            "handover",
            "From the end of another node's tenure, as seen here, to our fence, by reason",
            Unit::Seconds,
            self.handover.clone(),
        );
        registry.register_with_unit(
            "dark",
            "How long no node could answer before this one did, at most, by reason",
            Unit::Seconds,
            self.dark.clone(),
        );
        registry.register_with_unit(
            "api_request",
            "Requests to the Kubernetes API, by verb and outcome",
            Unit::Seconds,
            self.api.clone(),
        );
        registry.register_with_unit(
            "loop_step",
            "How long the loop was in one step on the host, by step",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register(
            "loop_overruns",
            "Steps of the loop that took longer than their bound, by step",
            self.overruns.clone(),
        );
        registry.register_collector(kernel);
        registry
    }

    /// Lets what may never happen begin at zero: an alert on a series that does not exist is silent.
    pub fn begin(&self, vips: &[IpAddr], leases: &[String]) {
        for vip in vips {
            drop(self.conflicts.get_or_create(&vec![("vip", vip.to_string())]));
        }
        for lease in leases {
            self.problem(&format!("API {lease}"), false);
        }
        self.problem("loop", false);
    }

    /// A change of leadership.
    pub fn transition(&self, lease: &str, reason: &'static str) {
        let labels = vec![("lease", lease.to_owned()), ("reason", reason.to_owned())];
        self.transitions.get_or_create(&labels).inc();
    }

    /// A take-over: how long it took, and how long nobody could answer.
    pub fn took_over(&self, reason: &'static str, handover: Duration, dark: Duration) {
        let labels = vec![("reason", reason.to_owned())];
        self.handover.get_or_create(&labels).observe(handover.as_secs_f64());
        self.dark.get_or_create(&labels).observe(dark.as_secs_f64());
    }

    /// Another station claims a VIP that this node holds.
    pub fn conflict(&self, vip: IpAddr) {
        self.conflicts.get_or_create(&vec![("vip", vip.to_string())]).inc();
    }

    /// A request to the API has ended.
    pub fn request(&self, verb: &'static str, outcome: &'static str, took: Duration) {
        let labels = vec![("verb", verb.to_owned()), ("outcome", outcome.to_owned())];
        self.api.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// How well this node could serve the VIPs of a Lease.
    pub fn fitness(&self, lease: &str, fitness: Fitness) {
        let labels = vec![("lease", lease.to_owned())];
        self.fitness.get_or_create(&labels).set(fitness as i64);
    }

    /// A step of the loop is over; `late` if it took longer than its bound.
    pub fn step(&self, step: &'static str, took: Duration, late: bool) {
        let labels = vec![("step", step.to_owned())];
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
        self.overruns.get_or_create(&labels).inc_by(u64::from(late));
    }

    /// A problem has appeared or is over.
    pub fn problem(&self, subject: &str, stands: bool) {
        self.problems.get_or_create(&vec![("subject", subject.to_owned())]).set(i64::from(stands));
    }
}
