//! The VIPs of a configuration, and which Lease guards which.

use super::Config;
use crate::model::group::GroupSpec;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// A VIP: an address, with settings of its own or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// The address.
    pub address: IpAddr,
    /// Where it is answered, instead of the global `interfaces`.
    pub interfaces: Option<Vec<String>>,
    /// The labels of the nodes that may hold it, instead of the global `nodes`.
    pub nodes: Option<BTreeMap<String, String>>,
    /// How much it belongs to each node, instead of the global `weights`.
    pub weights: Option<BTreeMap<String, u8>>,
    /// The name of its Lease, instead of `lease.name`.
    pub lease: Option<String>,
}

/// The long form, as it is written in the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Long {
    #[serde(deserialize_with = "address")]
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interfaces: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<BTreeMap<String, u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

impl Config {
    /// The VIPs by the Lease that guards them. The Lease is named, never computed from settings: a file
    /// that is edited on one node after the other must not give one VIP two Leases.
    pub fn groups(&self) -> Vec<GroupSpec> {
        let mut groups: Vec<GroupSpec> = Vec::new();
        for vip in &self.vips {
            let name = vip.lease.as_ref().unwrap_or(&self.lease.name);
            match groups.iter_mut().find(|group| group.lease == *name) {
                Some(group) => group.vips.push(vip.address),
                None => groups.push(GroupSpec {
                    lease: name.clone(),
                    vips: vec![vip.address],
                    nodes: self.nodes_of(vip).clone(),
                    weights: self.weights_of(vip).clone(),
                }),
            }
        }
        groups
    }

    /// The labels of the nodes that may hold a VIP.
    pub fn nodes_of<'a>(&'a self, vip: &'a VipConfig) -> &'a BTreeMap<String, String> {
        vip.nodes.as_ref().unwrap_or(&self.nodes)
    }

    /// How much a VIP belongs to each node.
    pub fn weights_of<'a>(&'a self, vip: &'a VipConfig) -> &'a BTreeMap<String, u8> {
        vip.weights.as_ref().unwrap_or(&self.weights)
    }

    /// The addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.vips.iter().map(|vip| vip.address).collect()
    }
}

impl VipConfig {
    /// Whether it has nodes or weights of its own.
    pub(super) fn has_own_nodes(&self) -> bool {
        self.nodes.is_some() || self.weights.is_some()
    }
}

impl From<IpAddr> for VipConfig {
    fn from(address: IpAddr) -> Self {
        Self { address, interfaces: None, nodes: None, weights: None, lease: None }
    }
}

impl Serialize for VipConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { address, interfaces, nodes, weights, lease } = self.clone();
        if *self == Self::from(address) {
            return address.serialize(serializer);
        }
        Long { address, interfaces, nodes, weights, lease }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VipConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = VipConfig;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(
                    "an IP address, or {address: …, interfaces: […], nodes: {…}, weights: {…}, \
                     lease: …}",
                )
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VipConfig, E> {
                parse(text).map(VipConfig::from).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<VipConfig, A::Error> {
                let Long { address, interfaces, nodes, weights, lease } =
                    Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(VipConfig { address, interfaces, nodes, weights, lease })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// Parses an address. `Err` says what is wrong with the text and what to write instead.
fn parse(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`vips`: {text:?} is no IP address{}", advice(text)))
}

/// A hint at the form that was probably meant.
fn advice(text: &str) -> String {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let write = |ip: IpAddr, without: &str| format!("; write it without {without}: {ip}");
    if let Some(ip) = text.split_once('/').and_then(|(ip, _)| bare(ip)) {
        return write(ip, "the length of a prefix");
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return write(socket.ip(), "the port");
    }
    if let Some(ip) = bare(text) {
        return write(ip, "brackets");
    }
    if let Some(ip) = text.split_once('%').and_then(|(ip, _)| bare(ip)) {
        return write(ip, "an interface");
    }
    if let Some(ip) = bare(text.trim()) {
        return write(ip, "blanks");
    }
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if text.bytes().all(letters) && text.bytes().any(|b| b.is_ascii_alphabetic()) {
        return "; a name cannot be a VIP: write the address that it resolves to".into();
    }
    String::new()
}
