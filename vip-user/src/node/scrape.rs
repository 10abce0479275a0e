//! Metrics from the maps (leader, fence, answers, silence). They are read at each scrape, and so show
//! the state of the kernel, whatever this process believes.

use super::{maps::Maps, pins::Pins};
use crate::{clock, metrics::Labels, model::time::BootNs};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::fmt;
use vip_common::counter::Counter as Outcome;

/// Reads the maps in this pin directory.
#[derive(Debug)]
pub struct FromMaps(pub Pins);

impl Collector for FromMaps {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(maps) = Maps::open(&self.0) else { return Ok(()) };
        leases(&maps, &mut encoder)?;
        outcomes(&maps, &mut encoder)?;
        let modes = self.0.links().into_iter().map(|pin| {
            let labels = vec![("interface", pin.interface.into()), ("mode", pin.kind.name().into())];
            (labels, ConstGauge::new(1_u64))
        });
        family(&mut encoder, "attach_mode", "1 for each attached program, by interface and mode", modes)
    }
}

/// For each Lease, whether the kernel may answer and for how long.
fn leases(maps: &Maps, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let now = clock::boot();
    let (mut leaders, mut fences) = (Vec::new(), Vec::new());
    for slot in 0..maps.slots() {
        let Ok(Some(record)) = maps.slot(slot) else { continue };
        let Ok(fence) = maps.fence(slot) else { continue };
        let left = now.until(BootNs(fence.deadline_ns));
        let labels = vec![("lease", format!("{}/{}", record.namespace, record.name).into())];
        leaders.push((labels.clone(), ConstGauge::new(u64::from(!left.is_zero()))));
        fences.push((labels, ConstGauge::new(left.as_secs_f64())));
    }
    family(encoder, "leader", "1 while this node's kernel may answer, by Lease", leaders)?;
    let help = "Until this node's kernel goes silent unless the Lease is renewed";
    family(encoder, "fence_left_seconds", help, fences)
}

/// The series in which an outcome is counted, with its labels.
enum Series {
    /// By protocol.
    Answers(&'static str),
    /// By station.
    Claims(&'static str),
    /// By kind of frame, and reason.
    Suppressed(&'static str, &'static str),
    /// The controller counts it elsewhere.
    None,
}

impl Series {
    const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::ArpAnswered => Self::Answers("arp"),
            Outcome::NdAnswered => Self::Answers("nd"),
            Outcome::QuestionNotHeld => Self::Suppressed("question", "not_held"),
            Outcome::QuestionExpired => Self::Suppressed("question", "expired"),
            Outcome::QuestionStale => Self::Suppressed("question", "stale_generation"),
            Outcome::QuestionWrongInterface => Self::Suppressed("question", "wrong_interface"),
            Outcome::QuestionInterfaceDown => Self::Suppressed("question", "interface_down"),
            Outcome::QuestionMalformed => Self::Suppressed("question", "malformed"),
            Outcome::QuestionBadSender => Self::Suppressed("question", "bad_sender"),
            Outcome::QuestionResizeFailed => Self::Suppressed("question", "resize_failed"),
            Outcome::ClaimSent => Self::Claims("this_node"),
            Outcome::ClaimNotHeld => Self::Suppressed("claim", "not_held"),
            Outcome::ClaimExpired => Self::Suppressed("claim", "expired"),
            Outcome::ClaimStale => Self::Suppressed("claim", "stale_generation"),
            Outcome::ClaimWrongInterface => Self::Suppressed("claim", "wrong_interface"),
            Outcome::ClaimInterfaceDown => Self::Suppressed("claim", "interface_down"),
            Outcome::ClaimHidden => Self::Suppressed("claim", "hidden"),
            Outcome::ForeignClaim => Self::Claims("others"),
            Outcome::ClaimEventLost => Self::None,
            Outcome::TrafficDropped => Self::Suppressed("traffic", "not_held"),
            Outcome::ForeignClaimDropped => Self::Suppressed("foreign_claim", "contradicts_lease"),
        }
    }
}

/// The counters of the programs.
fn outcomes(maps: &Maps, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (mut answers, mut suppressed, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for (outcome, n) in maps.counters().unwrap_or_default() {
        let counter = ConstCounter::new(n);
        match Series::of(outcome) {
            Series::Answers(protocol) => answers.push((vec![("protocol", protocol.into())], counter)),
            Series::Claims(by) => claims.push((vec![("by", by.into())], counter)),
            Series::Suppressed(kind, reason) => {
                let labels = vec![("kind", kind.into()), ("reason", reason.into())];
                suppressed.push((labels, counter));
            }
            Series::None => {}
        }
    }
    family(encoder, "answers", "Questions that the kernel answered, by protocol", answers)?;
    let help = "Questions and claims that the kernel stopped, by reason";
    family(encoder, "suppressed", help, suppressed)?;
    family(encoder, "claims", "Frames that claim a VIP: sent by this node, seen of others", claims)
}

fn family<M: EncodeMetric + TypedMetricType>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metrics: impl IntoIterator<Item = (Labels, M)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, M::KIND)?;
    for (labels, metric) in metrics {
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The metric type for a descriptor.
trait TypedMetricType {
    const KIND: MetricType;
}

impl TypedMetricType for ConstCounter<u64> {
    const KIND: MetricType = MetricType::Counter;
}

impl<T> TypedMetricType for ConstGauge<T> {
    const KIND: MetricType = MetricType::Gauge;
}
