//! The xvip controller.
//!
//! Userspace decides who may answer for a VIP and until when; the kernel enforces it packet by
//! packet. Reading order: [`model`] (pure), [`config`], [`controller`] (the loop), [`cluster`]
//! (Kubernetes I/O), [`node`] (host I/O), [`cli`].

pub mod model;
pub mod config;
pub mod state;
pub mod controller;
pub mod cluster;
pub mod node;
pub mod cli;
