//! What the host needs to know of the configuration.

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
    /// Where questions are answered.
    pub attach: Hooks,
    /// Where a held VIP is put.
    pub placement: Placement,
    /// What is taken off every fence: a frame that has passed the check waits no longer in a queue.
    pub margin: Duration,
    /// Debug log of the programs, 0 to 5.
    pub kernel_log_level: u8,
    /// Traffic to a VIP that is not held is dropped.
    pub drops_on_loss: bool,
}

impl Settings {
    /// Whether an address is a VIP.
    pub fn has_vip(&self, ip: IpAddr) -> bool {
        self.selection.vips.iter().any(|(vip, _)| *vip == ip)
    }
}
