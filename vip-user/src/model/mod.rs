//! The pure core: which node holds which Lease until when, and what the host should look like. Nothing
//! in here reads a clock, does I/O or can fail. `now` comes in as an argument; what to do comes out as
//! a [`turn`].
//!
//! Reading order: [`time`], [`timing`], [`record`], [`news`], [`effects`], [`state`], [`election`],
//! [`holding`], [`waiting`], [`leaving`], [`reading`], [`retry`], [`naming`], [`rivals`],
//! [`admission`], [`fitness`], [`rule`], [`selection`], [`edges`], [`hooks`], [`policy`],
//! [`ownership`], [`desired`], [`plan`], [`changes`], [`schedule`], [`precedence`], [`harm`],
//! [`facts`], [`conflicts`], [`namesake`], [`slots`], [`group`], [`turn`], [`agent`].
#![forbid(unsafe_code)]

pub mod admission;
pub mod agent;
pub mod changes;
pub mod conflicts;
pub mod desired;
pub mod edges;
pub mod effects;
pub mod election;
pub mod facts;
pub mod fitness;
pub mod group;
pub mod harm;
pub mod holding;
pub mod hooks;
pub mod leaving;
pub mod namesake;
pub mod naming;
pub mod news;
pub mod ownership;
pub mod plan;
pub mod policy;
pub mod precedence;
pub mod reading;
pub mod record;
pub mod retry;
pub mod rivals;
pub mod rule;
pub mod schedule;
pub mod selection;
pub mod slots;
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
