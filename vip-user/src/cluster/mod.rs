//! Kubernetes I/O: clients for the API servers, and the Lease.

mod ask;
mod backoff;
pub mod client;
pub mod client_error;
pub mod endpoints;
pub mod events;
mod kubeconfig;
pub mod lease;
mod lenient;
pub mod node;
mod proxy;
pub mod rights;
pub mod watch;
mod words;
