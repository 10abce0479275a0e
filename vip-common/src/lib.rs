//! What the kernel programs and the controller agree on.
//!
//! The crate is `no_std` and free of I/O: [`ingress`](ingress::ingress) and
//! [`egress`](egress::egress) decide what happens to a frame, and read everything else only through
//! [`Frame`](env::Frame) and [`Env`](env::Env). The same functions run in the kernel and in host
//! tests.
//!
//! Reading order: [`abi`], [`wire`], [`env`], [`layer3`], [`standing`]; what arrives: [`ingress`],
//! [`arp`], [`nd`], [`claims`], [`traffic`]; what leaves: [`egress`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

pub mod abi;
mod arp;
pub mod checksum;
mod claims;
pub mod counter;
pub mod egress;
pub mod env;
pub mod ingress;
pub mod layer3;
pub mod mac;
pub mod nd;
pub mod standing;
mod traffic;
pub mod wire;
