//! The xvip controller.
//!
//! Userspace decides which node may answer for a VIP, and until when. The kernel enforces this
//! packet by packet. Reading order: [`model`] (pure), [`config`], [`controller`] (the loop),
//! [`cluster`] (Kubernetes I/O), [`node`] (host I/O), [`probe`] (asking the LAN), [`adapter`] (runs
//! kube-vip's manifests), [`migrate`] (moves
//! a node from kube-vip), [`cli`]. Without the feature `host` only the model is built.

#[cfg(feature = "host")]
pub mod adapter;
#[cfg(feature = "host")]
pub mod admin;
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod clock;
#[cfg(feature = "host")]
pub mod cluster;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod controller;
#[cfg(feature = "host")]
pub mod escape;
#[cfg(feature = "host")]
mod guests;
#[cfg(feature = "host")]
pub mod handover;
#[cfg(feature = "host")]
mod log;
#[cfg(feature = "host")]
pub mod metrics;
#[cfg(feature = "host")]
pub mod migrate;
pub mod model;
#[cfg(feature = "host")]
pub mod node;
#[cfg(feature = "host")]
pub mod notice;
#[cfg(feature = "host")]
pub mod observers;
#[cfg(feature = "host")]
pub mod probe;
#[cfg(feature = "host")]
mod server_url;
#[cfg(feature = "host")]
mod sources;
#[cfg(feature = "host")]
pub mod state;
