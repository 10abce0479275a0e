//! Kubernetes I/O: clients for the API servers, requests for the Lease, and watches of objects.

mod ask;
mod backoff;
pub mod client;
pub mod client_error;
pub mod endpoints;
pub mod events;
mod evidence;
mod follow;
pub mod health;
mod kubeconfig;
pub mod lease;
mod lenient;
pub mod node;
pub mod objects;
mod proxy;
mod requests;
pub mod rights;
pub mod scope;
pub mod watch;
mod words;
