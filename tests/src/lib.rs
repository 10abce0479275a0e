//! The common parts of tests and demo: namespaces, the stand-in API, the judge and the probes.
//!
//! Everything runs in network namespaces that the lab creates and removes, with its own BPF file
//! system.

pub mod cgroup;
pub mod cluster;
pub mod faults;
pub mod frames;
pub mod judge;
pub mod keepalived;
pub mod kernel_run;
pub mod kube;
pub mod lab;
pub mod manifests;
pub mod netns;
pub mod packet_socket;
pub mod packets;
pub mod percentiles;
pub mod probes;
pub mod stalls;
pub mod standin;
pub mod timeline;
pub mod verdict;
pub mod verifier;
