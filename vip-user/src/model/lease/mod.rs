//! The election of one Lease: who holds it, for how long, and which VIPs may be published under it. The
//! rest of the model sees its [`Ownership`](super::ownership::Ownership), and none of its states.
//!
//! Reading order: [`record`], [`state`], [`election`], [`holding`], [`waiting`], [`leaving`],
//! [`reading`], [`retry`], [`stranger`], [`asking`], [`offers`], [`invites`]; for the VIPs of a Lease
//! [`naming`], [`rivals`], [`admission`].

pub mod admission;
pub mod asking;
pub mod election;
pub mod holding;
pub mod invites;
pub mod leaving;
pub mod naming;
pub mod offers;
pub mod reading;
pub mod record;
pub mod retry;
pub mod rivals;
pub mod state;
pub mod stranger;
pub mod waiting;

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod anew_election_tests;
#[cfg(test)]
mod election_tests;
#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod fitness_tests;
#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod offers_tests;
#[cfg(test)]
mod retry_tests;
#[cfg(test)]
mod strangers_tests;
