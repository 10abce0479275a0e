//! Host I/O: the maps and programs, addresses, announcements, and what identifies this host.

pub mod clock;
pub mod host;
pub mod lock;
pub mod pins;
pub mod maps;
pub mod attach;
pub mod netlink;
pub mod sysctl;
pub mod announce;
pub mod dataplane;
pub mod kernel;
pub mod start;
pub mod cleanup;
