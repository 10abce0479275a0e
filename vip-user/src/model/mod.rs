//! The pure core: who holds what until when, and what the host should look like. Nothing in here reads
//! a clock, does I/O or can fail; `now` comes in as an argument, what is to be done goes out, as a
//! [`turn`].
//!
//! Reading order: [`time`], [`timing`], [`record`], [`news`], [`turn`], [`state`], [`election`],
//! [`holding`], [`waiting`], [`leaving`], [`reading`], [`retry`], [`naming`], [`rivals`],
//! [`admission`], [`fitness`], [`rule`], [`selection`], [`edges`], [`hooks`], [`policy`],
//! [`ownership`], [`desired`], [`plan`].
#![forbid(unsafe_code)]

pub mod admission;
pub mod desired;
pub mod edges;
pub mod election;
pub mod fitness;
pub mod holding;
pub mod hooks;
pub mod leaving;
pub mod naming;
pub mod news;
pub mod ownership;
pub mod plan;
pub mod policy;
pub mod reading;
pub mod record;
pub mod retry;
pub mod rivals;
pub mod rule;
pub mod selection;
pub mod state;
pub mod time;
pub mod timing;
pub mod turn;
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
mod retry_tests;
