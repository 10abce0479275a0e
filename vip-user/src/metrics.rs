//! The process's own metrics. `node/scrape.rs` adds those of the kernel, and `docs/metrics.md` lists
//! all.

use crate::model::fitness::Fitness;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Names and values of labels.
pub type Labels = Vec<(&'static str, Value)>;

/// The value of a label, escaped. The library does not escape it, and a quotation mark in a name
/// from outside would break the scrape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value(String);

impl<T: Into<String>> From<T> for Value {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => encoder.write_str("\\\\")?,
                '"' => encoder.write_str("\\\"")?,
                '\n' => encoder.write_str("\\n")?,
                _ => encoder.write_char(character)?,
            }
        }
        Ok(())
    }
}

type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Upper bounds in seconds: from a fast API on one switch to a lease of ten minutes.
const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// The process's metrics. Cheap to clone; all clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    transitions: Family<Labels, Counter>,
    conflicts: Family<Labels, Counter>,
    problems: Family<Labels, Gauge>,
    /// Subjects whose series stays at 0 when the problem is over.
    begun: Arc<OnceLock<BTreeSet<String>>>,
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
            begun: Arc::default(),
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
    /// A registry of all metrics, with those that `kernel` collects at each scrape.
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
            "From the last sign of the old holder, as seen here, to our fence, by reason",
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

    /// Starts series of rare events at zero, because an alert on a missing series never fires.
    pub fn begin(&self, vips: &[IpAddr], leases: &[String]) {
        for vip in vips {
            drop(self.conflicts.get_or_create(&vec![("vip", vip.to_string().into())]));
        }
        let problems = leases.iter().map(|lease| format!("API {lease}"));
        let begun = self.begun.get_or_init(|| problems.chain(["loop".into()]).collect());
        for subject in begun {
            self.problem(subject, false);
        }
    }

    /// Counts a change of leadership.
    pub fn transition(&self, lease: &str, reason: &'static str) {
        let labels = vec![("lease", lease.into()), ("reason", reason.into())];
        self.transitions.get_or_create(&labels).inc();
    }

    /// Records a take-over: how long it took, and how long no node could answer at most.
    pub fn took_over(&self, reason: &'static str, handover: Duration, dark: Duration) {
        let labels = vec![("reason", reason.into())];
        self.handover.get_or_create(&labels).observe(handover.as_secs_f64());
        self.dark.get_or_create(&labels).observe(dark.as_secs_f64());
    }

    /// Counts a report that another station claims a VIP that this node holds.
    pub fn conflict(&self, vip: IpAddr) {
        self.conflicts.get_or_create(&vec![("vip", vip.to_string().into())]).inc();
    }

    /// Records a finished request to the API.
    pub fn request(&self, verb: &'static str, outcome: &'static str, took: Duration) {
        let labels = vec![("verb", verb.into()), ("outcome", outcome.into())];
        self.api.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Sets how well this node could serve the VIPs of a Lease.
    pub fn fitness(&self, lease: &str, fitness: Fitness) {
        let labels = vec![("lease", lease.into())];
        self.fitness.get_or_create(&labels).set(fitness as i64);
    }

    /// Records a step of the loop; `late` if it took longer than its limit.
    pub fn step(&self, step: &'static str, took: Duration, late: bool) {
        let labels = vec![("step", step.into())];
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
        self.overruns.get_or_create(&labels).inc_by(u64::from(late));
    }

    /// Sets or ends a problem. Its series ends too, unless [`begin`](Self::begin) has started it:
    /// subjects name interfaces, which come and go.
    pub fn problem(&self, subject: &str, stands: bool) {
        let labels = vec![("subject", subject.into())];
        if stands || self.begun.get().is_some_and(|begun| begun.contains(subject)) {
            self.problems.get_or_create(&labels).set(i64::from(stands));
        } else {
            self.problems.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

    #[derive(Debug)]
    struct Nothing;

    impl Collector for Nothing {
        fn encode(&self, _encoder: DescriptorEncoder<'_>) -> fmt::Result {
            Ok(())
        }
    }

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry(Box::new(Nothing)))
            .unwrap();
        text
    }

    #[test]
    fn a_name_from_outside_ends_no_label() {
        let metrics = Metrics::default();
        metrics.problem("interface x\"y\\\n", true);
        let line = "xvip_problem{subject=\"interface x\\\"y\\\\\\n\"} 1\n";
        assert!(text(&metrics).contains(line), "{}", text(&metrics));
    }

    /// Interfaces of pods come and go all the time.
    #[test]
    fn a_problem_that_is_over_leaves_no_series() {
        let metrics = Metrics::default();
        metrics.begin(&[], &["ns/lease".to_owned()]);
        for subject in ["interface eni1", "API ns/lease"] {
            metrics.problem(subject, true);
            metrics.problem(subject, false);
        }
        let text = text(&metrics);
        assert!(!text.contains("eni1"), "{text}");
        assert!(text.contains("xvip_problem{subject=\"API ns/lease\"} 0\n"), "{text}");
    }
}
