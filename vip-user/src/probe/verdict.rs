//! Judges one round of answers.

use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Added to an owner that is the asking host.
const OWN: &str = ", which is this host: the LAN was not tried; ask from another host";

/// One station that answered for a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Station {
    /// The MAC address in its answer.
    pub mac: String,
    /// The interface on which the answer came in.
    pub interface: String,
    /// The node with this MAC address, if it is known.
    pub node: Option<String>,
    /// Whether it is this host. Then its maps say that it answers, and no answer arrived: a host's
    /// own question never crosses the LAN.
    pub own: bool,
}

impl Station {
    /// The node's name, else the MAC address.
    pub fn owner(&self) -> &str {
        self.node.as_deref().unwrap_or(&self.mac)
    }
}

/// How many owners a VIP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owners {
    /// One station answers.
    One,
    /// No station answers.
    Nobody,
    /// More than one station answers.
    Two,
}

impl Owners {
    /// The exit code of `xvip probe`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Nobody => 1,
            Self::Two => 2,
        }
    }
}

/// The result of one round for one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The VIP.
    pub vip: IpAddr,
    /// How many owners it has.
    pub owners: Owners,
    /// The stations that answered.
    pub stations: BTreeSet<Station>,
}

impl Verdict {
    /// Counts the owners. Two MAC addresses on one segment are two owners, even if one host has
    /// both, because the address then moves between its interfaces. On different segments one node
    /// may show different MAC addresses, if they are known to be its own.
    pub fn new(vip: IpAddr, stations: BTreeSet<Station>) -> Self {
        let mut by_interface: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for station in &stations {
            by_interface.entry(&station.interface).or_default().insert(&station.mac);
        }
        let owners: BTreeSet<&str> = stations.iter().map(Station::owner).collect();
        let owners = if stations.is_empty() {
            Owners::Nobody
        } else if owners.len() > 1 || by_interface.values().any(|macs| macs.len() > 1) {
            Owners::Two
        } else {
            Owners::One
        };
        Self { vip, owners, stations }
    }

    /// The verdict in plain words.
    pub fn words(&self) -> String {
        let told = |station: &Station| {
            let node = station.node.as_ref().map(|node| format!(" (node {node})")).unwrap_or_default();
            let own = if station.own { OWN } else { "" };
            format!("{}{node} on {}{own}", station.mac, station.interface)
        };
        let stations: Vec<String> = self.stations.iter().map(told).collect();
        match self.owners {
            Owners::One => format!("one owner: {}", stations.join(", ")),
            Owners::Nobody => "nobody".into(),
            Owners::Two => format!("two owners: {}", stations.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
