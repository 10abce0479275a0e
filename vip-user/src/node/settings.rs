//! The settings of the host part.

use crate::model::{desired::Placement, hooks::Hooks, selection::Selection};
use std::{net::IpAddr, time::Duration};

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which interfaces answer for which VIP, and which are only guarded.
    pub selection: Selection,
    /// The VIPs by the name of the Lease that guards them.
    pub leases: Vec<(String, Vec<IpAddr>)>,
    /// The namespace of the Leases.
    pub namespace: String,
    /// The hooks at which questions are answered, in the order in which they are tried.
    pub attach: Hooks,
    /// Where held VIPs are put.
    pub placement: Placement,
    /// The time by which every fence ends early: no frame that has passed the check waits longer in a
    /// queue.
    pub margin: Duration,
    /// The log level of the programs, 0 to 5.
    pub kernel_log_level: u8,
    /// Whether traffic to a VIP that is not held is dropped.
    pub drops_on_loss: bool,
}

impl Settings {
    /// Whether an address is a VIP.
    pub fn has_vip(&self, ip: IpAddr) -> bool {
        self.selection.vips.iter().any(|(vip, _)| *vip == ip)
    }
}
