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

/// The counters of the programs.
fn outcomes(maps: &Maps, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (mut answers, mut suppressed, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for (outcome, n) in maps.counters().unwrap_or_default() {
        let counter = ConstCounter::new(n);
        let (kind, reason) = outcome.name().split_once('_').unwrap_or((outcome.name(), ""));
        match (outcome, kind) {
            (Outcome::ArpAnswered | Outcome::NdAnswered, protocol) => {
                answers.push((vec![("protocol", protocol.into())], counter));
            }
            (Outcome::ClaimSent, _) => claims.push((vec![("by", "this_node".into())], counter)),
            (Outcome::ForeignClaim, _) => claims.push((vec![("by", "others".into())], counter)),
            (Outcome::ClaimEventLost, _) => {}
            (outcome, kind) => {
                let (kind, reason) = match outcome {
                    Outcome::TrafficDropped => ("traffic", "not_held"),
                    Outcome::ForeignClaimDropped => ("foreign_claim", "contradicts_lease"),
                    _ => (kind, reason),
                };
                let labels = vec![("kind", kind.into()), ("reason", reason.into())];
                suppressed.push((labels, counter));
            }
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
