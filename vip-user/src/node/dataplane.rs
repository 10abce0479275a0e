//! The seam between the controller and the host: the kernel on one side, a fake in tests.

use super::{maps::MapsError, netlink::NetlinkError, pins::PinsError, programs::AttachError};
use crate::model::{
    desired::Links,
    plan::{Action, Actual},
    record::Tenure,
    time::BootNs,
};
use std::{collections::BTreeMap, future::Future, io, net::IpAddr, time::Duration};

/// An operation on the host that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A map.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// An entry of the map of interfaces.
    #[error("interface {interface}")]
    Interface {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<MapsError>,
    },
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A program.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A pin.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// An announcement or probe.
    #[error("announcement failed")]
    Announce(#[source] io::Error),
    /// The host does not become silent.
    #[error("frames that were sent before are still queued")]
    StillQueued,
    /// Something that concerns several slots, in words.
    #[error("{0}")]
    ForAll(String),
    /// The loop waits for nothing without a bound.
    #[error("cut off after {took:.0?} in step {step:?}")]
    CutOff {
        /// What the loop was doing.
        step: &'static str,
        /// For how long.
        took: Duration,
    },
}

impl HostError {
    /// Whether it says nothing about the host but that it could not be looked at.
    pub fn is_blind(&self) -> bool {
        match self {
            Self::CutOff { .. } | Self::Attach(AttachError::Look { .. }) => true,
            Self::Netlink(error) => error.is_blind(),
            _ => false,
        }
    }
}

/// What failed, by VIP. A VIP that is missing is well.
pub type Failures = BTreeMap<IpAddr, HostError>;

/// For whom a fence is raised.
#[derive(Clone, Copy, Debug)]
pub struct Fencing<'a> {
    /// The slot.
    pub slot: u32,
    /// The name of its Lease.
    pub lease: &'a str,
    /// The confirmed tenure.
    pub tenure: &'a Tenure,
    /// D of the confirmed write, seconds.
    pub duration_s: u32,
    /// Counts the tenures of this slot.
    pub generation: u64,
}

/// What the controller does to the host. The controller drops a future that takes too long: each must
/// leave the host in a state from which it can be called again.
pub trait Dataplane {
    /// What the host looks like.
    fn actual(&mut self) -> impl Future<Output = Result<Actual, HostError>>;

    /// The interfaces that matter, by the rules of the configuration; attaches programs where they are
    /// missing.
    fn links(&mut self) -> impl Future<Output = Result<Links, HostError>>;

    /// Whether every program and pin still is where [`links`](Self::links) put it. Nothing tells when
    /// somebody detaches a link, so this is asked often. An error says that it could not look.
    fn is_guarded(&mut self) -> impl Future<Output = Result<bool, HostError>>;

    /// The VIPs that this host could not carry, and why. It is asked before the node holds them.
    fn refused(&self) -> BTreeMap<IpAddr, String>;

    /// Changes one thing.
    fn apply(&mut self, action: Action) -> impl Future<Output = Result<(), HostError>>;

    /// Raises the fence of a slot. A generation other than the slot's begins a tenure, with everything
    /// of the old one silenced first.
    fn raise_fence(&mut self, fencing: &Fencing<'_>, deadline: BootNs) -> Result<(), HostError>;

    /// Stores an earlier deadline.
    fn lower_fence(&mut self, slot: u32, deadline: BootNs) -> Result<(), HostError>;

    /// Silences slots: each fence 0 and read back, no program on an old value, nothing of ours queued.
    /// Every fence is 0 before the first wait, so that a call that is cut off has lowered them. A slot
    /// that is missing in what is returned is silent.
    fn silence(&mut self, slots: &[u32]) -> impl Future<Output = BTreeMap<u32, HostError>>;

    /// Says which stations may claim the VIPs of a slot, and until when that is known;
    /// `guard_neighbours` only.
    fn set_holder(&mut self, slot: u32, stations: &[[u8; 6]], until: BootNs) -> Result<(), HostError>;

    /// Sends one round of announcements for VIPs; `ask` also asks known neighbours from them.
    fn announce(&mut self, vips: &[IpAddr], ask: bool) -> impl Future<Output = Failures>;

    /// What stands in the way on the host at the moment, by subject.
    fn problems(&self) -> BTreeMap<String, String>;

    /// Asks whether addresses are in use.
    fn probe(&mut self, vips: &[IpAddr]) -> impl Future<Output = Failures>;
}
