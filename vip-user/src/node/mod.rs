//! Host I/O: the maps and programs, addresses, announcements, and what identifies this host.

pub mod announce;
pub mod ask;
pub mod attach;
pub mod bpf;
pub mod carry;
pub mod cleanup;
pub mod clock;
pub mod clsact;
pub mod dataplane;
pub mod ethtool;
pub mod host;
pub mod interfaces;
pub mod kernel;
pub mod lan;
pub mod lock;
pub mod maps;
pub mod netlink;
pub mod pins;
pub mod programs;
pub mod queues;
pub mod scrape;
pub mod socket;
pub mod start;
pub mod sysctl;
