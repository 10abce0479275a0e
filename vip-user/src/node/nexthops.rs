//! Next-hop objects (`ip nexthop`, Linux 5.3). A route may name one by its number and show nothing else
//! (`net.ipv4.nexthop_compat_mode=0`). rtnetlink has no such message, so this file defines it.

use futures::StreamExt as _;
use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable, NlasIterator,
    },
    proto,
    sys::{SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

const RTM_GETNEXTHOP: u16 = 106;
/// `struct nhmsg`: family, scope, protocol, a reserved byte and 32 flags.
const HEADER_LEN: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nexthop_grp`: the number of the member, and its share.
const MEMBER_LEN: usize = 8;

/// One next-hop object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NextHop {
    id: u32,
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    group: Vec<u32>,
}

impl NextHop {
    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut hop = Self::default();
        let number = |value: &[u8]| value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        for part in NlasIterator::new(payload.get(HEADER_LEN..).unwrap_or_default()) {
            let part = part?;
            let value = part.value();
            match part.kind() {
                NHA_ID => hop.id = number(value),
                NHA_OIF => hop.ifindex = Some(number(value)),
                NHA_GATEWAY => hop.gateway = address(value),
                NHA_GROUP => hop.group = value.chunks_exact(MEMBER_LEN).map(number).collect(),
                _ => {}
            }
        }
        Ok(hop)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// All next-hop objects of the host, by number.
#[derive(Debug, Default)]
pub(super) struct NextHops(BTreeMap<u32, NextHop>);

impl NextHops {
    /// Asks the kernel for all of them. A kernel without next-hop objects has none.
    pub(super) async fn read() -> io::Result<Self> {
        let (connection, handle, _) = proto::new_connection::<Message>(NETLINK_ROUTE)?;
        // The connection ends with its handle.
        tokio::spawn(connection);
        let mut request =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(Message::Get));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut found = Self::default();
        let mut answers = handle.request(request, SocketAddr::new(0, 0)).map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(Message::Is(hop)) => drop(found.0.insert(hop.id, hop)),
                NetlinkPayload::Error(error) if -error.raw_code() == libc::EOPNOTSUPP => break,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(found)
    }

    /// The interfaces and gateways to which an object leads, directly or through the members of its
    /// group.
    pub(super) fn ways(&self, id: u32) -> BTreeSet<(u32, Option<IpAddr>)> {
        let Some(hop) = self.0.get(&id) else { return BTreeSet::new() };
        // A group cannot contain groups.
        let members = hop.group.iter().filter_map(|member| self.0.get(member));
        members.chain([hop]).filter_map(|hop| Some((hop.ifindex?, hop.gateway))).collect()
    }

    /// Every gateway, even if no route uses it.
    pub(super) fn gateways(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        self.0.values().filter_map(|hop| Some((hop.ifindex?, hop.gateway?)))
    }
}

/// The messages of a dump of next-hop objects.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    Get,
    Is(NextHop),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        RTM_GETNEXTHOP
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        NextHop::parse(payload).map(Self::Is)
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests;
