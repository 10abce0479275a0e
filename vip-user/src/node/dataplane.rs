//! The interface between the controller and the host. Behind it is the kernel, or a fake in tests.

use super::{maps::MapsError, netlink::NetlinkError, pins::PinsError, programs::AttachError};
use crate::model::{
    desired::Links,
    lease::record::Tenure,
    plan::{Action, Actual},
    time::BootNs,
};
use std::{collections::BTreeMap, future::Future, io, net::IpAddr, time::Duration};
use vip_common::mac::Mac;

/// An operation on the host that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A map operation failed.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// An entry of the map of interfaces could not be written.
    #[error("interface {interface}")]
    Interface {
        /// The name of the interface.
        interface: String,
        /// The cause.
        #[source]
        source: Box<MapsError>,
    },
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A program could not be loaded, attached or looked at.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A pin could not be handled.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// An announcement or probe could not be sent.
    #[error("announcement failed")]
    Announce(#[source] io::Error),
    /// Frames that were sent before are still queued, so the host is not silent yet.
    #[error("frames that were sent before are still queued")]
    StillQueued,
    /// A failure that concerns several slots, as text.
    #[error("{0}")]
    ForAll(String),
    /// A step took longer than the loop waits for it.
    #[error("cut off after {took:.0?} in step {step:?}")]
    CutOff {
        /// The name of the step.
        step: &'static str,
        /// How long the loop waited.
        took: Duration,
    },
}

impl HostError {
    /// Whether the error says only that the host could not be looked at, and nothing about its state.
    pub fn is_blind(&self) -> bool {
        match self {
            Self::CutOff { .. } | Self::Attach(AttachError::Look { .. }) => true,
            Self::Netlink(error) => error.is_blind(),
            _ => false,
        }
    }
}

/// The failures by VIP. VIPs that are not in it succeeded.
pub type Failures = BTreeMap<IpAddr, HostError>;

/// The tenure for which a fence is raised.
#[derive(Clone, Copy, Debug)]
pub struct Fencing<'a> {
    /// The slot.
    pub slot: u32,
    /// The name of its Lease.
    pub lease: &'a str,
    /// The confirmed tenure.
    pub tenure: &'a Tenure,
    /// D of the confirmed write, in seconds.
    pub duration_s: u32,
    /// The number of this tenure in its slot.
    pub generation: u64,
}

/// The operations of the controller on the host. The controller drops a future that takes too long, so
/// each must leave the host in a state in which it can be called again.
pub trait Dataplane {
    /// Reads the entries, interfaces and addresses that the host has.
    fn actual(&mut self) -> impl Future<Output = Result<Actual, HostError>>;

    /// The interfaces with a role, according to the configuration. Attaches programs where they are
    /// missing.
    fn links(&mut self) -> impl Future<Output = Result<Links, HostError>>;

    /// Whether every program and pin is still where [`links`](Self::links) has put it. This is asked
    /// often, because the kernel sends no event when a link is detached. An error means that it could
    /// not be checked.
    fn is_guarded(&mut self) -> impl Future<Output = Result<bool, HostError>>;

    /// The VIPs that this host could not carry, with the reason: asked before the node holds them.
    fn refused(&self) -> BTreeMap<IpAddr, String>;

    /// Makes one change on the host.
    fn apply(&mut self, action: Action) -> impl Future<Output = Result<(), HostError>>;

    /// Raises the fence of a slot. If the generation is not the slot's, this begins a tenure: entries
    /// of the old one are silent before the fence rises.
    fn raise_fence(&mut self, fencing: &Fencing<'_>, deadline: BootNs) -> Result<(), HostError>;

    /// Stores an earlier deadline for a slot.
    fn lower_fence(&mut self, slot: u32, deadline: BootNs) -> Result<(), HostError>;

    /// Silences slots: each fence is 0 and read back, no program uses an old value, and none of our
    /// frames is queued. Every fence is 0 before the first wait, so a call that is cut off has still
    /// lowered them. Returns the slots that are not known to be silent.
    fn silence(&mut self, slots: &[u32]) -> impl Future<Output = BTreeMap<u32, HostError>>;

    /// Stores which stations may claim the VIPs of a slot, and until when that is known. Used only with
    /// `guard_neighbours`.
    fn set_holder(&mut self, slot: u32, stations: &[Mac], until: BootNs) -> Result<(), HostError>;

    /// Sends one round of announcements for VIPs. With `ask`, the VIPs also ask known neighbours.
    fn announce(&mut self, vips: &[IpAddr], ask: bool) -> impl Future<Output = Failures>;

    /// The present problems on the host, by subject.
    fn problems(&self) -> BTreeMap<String, String>;

    /// Probes whether addresses are in use.
    fn probe(&mut self, vips: &[IpAddr]) -> impl Future<Output = Failures>;
}
