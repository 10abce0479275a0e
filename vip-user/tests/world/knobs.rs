//! How hostile a simulation is to its nodes.

use super::Ms;
use std::{collections::BTreeMap, ops::Range};

/// The faults of a world and the errors of its clocks. Probabilities are per thousand.
#[derive(Clone)]
pub struct Knobs {
    pub nodes: usize,
    /// The delay of a message between a node and the API, in either direction.
    pub delay_ms: Range<Ms>,
    /// Probability that a message takes up to ten seconds.
    pub late: u32,
    /// Probability that a message is lost.
    pub lost: u32,
    /// Probability that a message arrives twice.
    pub twice: u32,
    /// Probability that a process stalls for up to ten seconds before its next step.
    pub pause: u32,
    /// Probability that a fence cannot be lowered, that a look at the host fails, or that the
    /// kernel is not known to be silent.
    pub refused: u32,
    /// Probability that a change of the host fails. With the same probability, a change that was done
    /// is reported as failed.
    pub change_fails: u32,
    /// Probability that a turn has no time for the rest of a plan.
    pub put_off: u32,
    /// Mean time between two mishaps.
    pub mishap_every_ms: Ms,
    pub clock_error_percent: u64,
    pub extreme_clocks: bool,
    /// Whether the VIP prefers nodes.
    pub weighted: bool,
}

impl Knobs {
    pub fn calm() -> Self {
        Self {
            nodes: 3,
            delay_ms: 1..20,
            late: 0,
            lost: 0,
            twice: 0,
            pause: 0,
            refused: 0,
            change_fails: 0,
            put_off: 0,
            mishap_every_ms: Ms::MAX / 4,
            clock_error_percent: 10,
            extreme_clocks: false,
            weighted: false,
        }
    }

    /// How much the VIP belongs to each node, by name. The last one is the heaviest.
    pub fn weights(&self) -> BTreeMap<String, u8> {
        let nodes = 0..if self.weighted { self.nodes } else { 0 };
        nodes.map(|index| (format!("node{index}"), index as u8 * 10)).collect()
    }

    pub fn hostile() -> Self {
        Self {
            late: 20,
            lost: 20,
            twice: 10,
            pause: 10,
            refused: 250,
            change_fails: 30,
            put_off: 200,
            mishap_every_ms: 20_000,
            ..Self::calm()
        }
    }
}
