//! What happens to the loop, and what it needs to know to begin.

use crate::{
    cluster::{events::Recorder, watch::Sighting},
    config::{Config, OnStop},
    metrics::Metrics,
    model::{
        desired::Placement,
        election::{Identity, Slot, Written},
        timing::Timing,
    },
};
use std::{net::IpAddr, time::Duration};
use vip_common::abi::Claim;

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// The Lease was seen, or could not be.
    Sighting(Sighting),
    /// A write has ended.
    Written {
        /// Its id.
        id: u64,
        /// How.
        outcome: Written,
        /// What went wrong, in words.
        problem: Option<String>,
    },
    /// Links or addresses have changed.
    HostChanged,
    /// Somebody else claims a VIP.
    Claim(Claim),
    /// SIGTERM or SIGINT.
    Stop,
    /// A deadline of the loop has come.
    Timer,
}

/// What the loop needs to know about its Lease.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The timings.
    pub timing: Timing,
    /// What a stop does.
    pub on_stop: OnStop,
    /// Between refreshing announcements; zero: none.
    pub refresh: Duration,
    /// Who we are.
    pub me: Identity,
    /// The Lease's slot in the maps.
    pub slot: u32,
    /// The highest generation that the slot has had.
    pub generation: u64,
    /// A tenure of this boot.
    pub backed: Option<Slot>,
    /// Where held VIPs are put.
    pub placement: Placement,
    /// What is counted.
    pub metrics: Metrics,
    /// Where Kubernetes Events go.
    pub recorder: Recorder,
}

impl Setup {
    /// From the configuration and what was found on the host.
    pub fn new(
        config: &Config,
        me: Identity,
        slot: u32,
        generation: u64,
        backed: Option<Slot>,
    ) -> Self {
        Self {
            vips: config.vips.clone(),
            timing: config.timing(),
            on_stop: config.on_stop,
            refresh: Duration::from_secs(config.announce.refresh_s),
            me,
            slot,
            generation,
            backed,
            placement: config.placement,
            metrics: Metrics::default(),
            recorder: Recorder::default(),
        }
    }
}
