//! The xvip controller.
//!
//! Userspace decides who may answer for a VIP and until when; the kernel enforces it packet by
//! packet. Reading order: [`model`] (pure), [`config`], [`controller`] (the loop), [`cluster`]
//! (Kubernetes I/O), [`node`] (host I/O), [`probe`] (asking the LAN), [`cli`].

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod escape;
pub mod metrics;
pub mod model;
pub mod node;
pub mod notice;
pub mod observers;
pub mod probe;
pub mod state;
