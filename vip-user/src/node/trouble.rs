//! What stands in the way on this host.

use std::{fmt, net::IpAddr};

/// The subject of a problem. Its text is for people; the node looks at the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// The interfaces could not be examined.
    Look,
    /// It is not known whether the programs are still in place.
    Inspection,
    /// The map of interfaces has no room.
    Room,
    /// The requests to the kernel, or the subscription to its changes.
    Netlink,
    /// The choice of interfaces refuses one.
    Selection(String),
    /// Another program carries a VIP.
    Address(IpAddr),
    /// An interface is not guarded.
    Interface(String),
    /// An interface answers, but not by the first choice of hook.
    Attach(String),
    /// It is not known whether the programs of one interface are still in place.
    Programs(String),
}

impl Trouble {
    /// The interface that it is about. When the interface is gone, so is the problem.
    pub(super) fn interface(&self) -> Option<&str> {
        match self {
            Self::Interface(name) | Self::Attach(name) | Self::Programs(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look => f.write_str("look at the interfaces"),
            Self::Inspection => f.write_str("inspection"),
            Self::Room => f.write_str("map of interfaces"),
            Self::Netlink => f.write_str("netlink"),
            Self::Selection(name) => write!(f, "selection {name}"),
            Self::Address(vip) => write!(f, "address {vip}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Attach(name) => write!(f, "attach {name}"),
            Self::Programs(name) => write!(f, "programs {name}"),
        }
    }
}
