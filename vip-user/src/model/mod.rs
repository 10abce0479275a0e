//! The pure core: which node holds which Lease until when, and what the host should look like. Nothing
//! in here reads a clock, does I/O or can fail. `now` comes in as an argument; what to do comes out as
//! a [`turn`].
//!
//! Reading order: [`time`], [`timing`], [`news`], [`effects`], [`lease`], [`fitness`], [`health`],
//! [`rule`], [`selection`], [`edges`], [`hooks`], [`policy`], [`ownership`], [`desired`], [`plan`],
//! [`changes`], [`schedule`], [`precedence`], [`harm`], [`facts`], [`conflicts`], [`namesake`], [`slots`],
//! [`group`], [`turn`], [`agent`].
#![forbid(unsafe_code)]

pub mod agent;
pub mod changes;
pub mod conflicts;
pub mod desired;
pub mod edges;
pub mod effects;
pub mod facts;
pub mod fitness;
pub mod group;
pub mod harm;
pub mod health;
pub mod hooks;
pub mod lease;
pub mod namesake;
pub mod news;
pub mod ownership;
pub mod plan;
pub mod policy;
pub mod precedence;
pub mod rule;
pub mod schedule;
pub mod selection;
pub mod slots;
pub mod time;
pub mod timing;
pub mod turn;
