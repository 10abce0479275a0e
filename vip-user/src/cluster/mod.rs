//! Kubernetes I/O: clients for the API servers, and the Lease.

pub mod client;
pub mod endpoints;
pub mod events;
pub mod lease;
pub mod node;
pub mod watch;
