//! Names of interfaces, and of the modes that xvip lacks: BGP, the routing table, WireGuard.

use super::{
    ALWAYS_STARTS,
    Class::{Never, NoEffect, Supported},
    Kind::{Bool, Int, Secret, Text},
    Name, PREFIX, variable,
};

const BGP: &str = "this build of xvip does not speak BGP: leave the cluster on kube-vip";
const BGP_OFF: &str = "it belongs to BGP, which is off";
const TABLE: &str = "this build of xvip writes no routes: leave the cluster on kube-vip";
const TABLE_OFF: &str = "it belongs to the routing table mode, which is off";
const WIREGUARD: &str = "this build of xvip has no WireGuard mode: leave the cluster on kube-vip";
const SCOPE: &str =
    "VIPs always have host scope, and duplicates are found before a VIP is put on the host";
const ALWAYS_DOWN: &str = "a node whose interface is down always gives its VIPs to a better one";

pub(super) const NAMES: &[Name] = &[
    variable("vip_interface", Text, Supported, "`interfaces`; not set: the default route's interface")
        .flags("interface")
        .key("interface")
        .default("default-route"),
    variable("vip_subnet", Text, Supported, PREFIX).flags("vipSubnet").key("vipSubnet"),
    variable("vip_cidr", Text, Supported, PREFIX).flags("cidr").key("vipCIDR"),
    variable("vip_arpRate", Int, Supported, "`announce.refresh_s`, from milliseconds")
        .key("arpBroadcastRate")
        .default("3000"),
    variable(
        "vip_preserve_on_leadership_loss",
        Bool,
        Supported,
        "`linger_ms: 20000`: a lost VIP is served, and never answered",
    )
    .flags("preserveVipOnLeadershipLoss")
    .key("preserveVipOnLeadershipLoss"),
    variable("vip_loseleadership", Bool, Supported, ALWAYS_DOWN)
        .flags("loseLeadership")
        .key("loseLeadership"),
    variable("vip_loseleadership_timeout_seconds", Int, NoEffect, ALWAYS_DOWN)
        .flags("loseLeadershiptTimeoutSeconds")
        .key("loseLeadershipTimeoutSeconds"),
    variable("vip_allow_interface_not_up", Bool, Supported, ALWAYS_STARTS)
        .flags("allowInterfaceNotUp")
        .key("allowInterfaceNotUp"),
    variable("vip_interfaceloglobal", Bool, NoEffect, SCOPE)
        .flags("loInterfaceGlobalScope")
        .key("loInterfaceGlobalScope"),
    variable("vip_skipdad", Bool, NoEffect, SCOPE).key("skipDAD"),
    variable("bgp_enable", Bool, Never, BGP).flags("bgp").key("enableBGP"),
    variable("bgp_routerid", Text, NoEffect, BGP_OFF).flags("bgpRouterID").key("bgpConfig.routerID"),
    variable("bgp_routerinterface", Text, NoEffect, BGP_OFF),
    variable("bgp_as", Int, NoEffect, BGP_OFF).flags("localAS").key("bgpConfig.as"),
    variable("bgp_peeraddress", Text, NoEffect, BGP_OFF)
        .flags("peerAddress")
        .key("bgpPeerConfig.address"),
    variable("bgp_peeras", Int, NoEffect, BGP_OFF).flags("peerAS").key("bgpPeerConfig.as"),
    variable("bgp_peerpass", Secret, NoEffect, BGP_OFF).flags("peerPass").key("bgpPeerConfig.password"),
    // An entry contains the password of its peer.
    variable("bgp_peers", Secret, NoEffect, BGP_OFF).flags("bgppeers").key("bgpPeers"),
    variable("bgp_multihop", Bool, NoEffect, BGP_OFF).flags("multihop").key("bgpPeerConfig.multiHop"),
    variable("bgp_sourceif", Text, NoEffect, BGP_OFF).flags("sourceIF").key("bgpConfig.sourceIF"),
    variable("bgp_sourceip", Text, NoEffect, BGP_OFF).flags("sourceIP").key("bgpConfig.sourceIP"),
    variable("bgp_hold_time", Int, NoEffect, BGP_OFF).flags("bgpHoldTimer").key("bgpConfig.holdTime"),
    variable("bgp_keepalive_interval", Int, NoEffect, BGP_OFF)
        .flags("bgpKeepAliveInterval")
        .key("bgpConfig.keepaliveInterval"),
    variable("bgp_attach_ip_to_interface", Bool, NoEffect, BGP_OFF)
        .flags("bgpAttachIPToInterface")
        .key("bgpAttachIPToInterface"),
    variable("zebra_enable", Bool, NoEffect, BGP_OFF).flags("zebra").key("bgpConfig.zebra.enabled"),
    variable("zebra_url", Text, NoEffect, BGP_OFF).flags("zebraUrl").key("bgpConfig.zebra.url"),
    variable("zebra_version", Int, NoEffect, BGP_OFF)
        .flags("zebraVersion")
        .key("bgpConfig.zebra.version"),
    variable("zebra_software_name", Text, NoEffect, BGP_OFF)
        .flags("zebraSoftwareName")
        .key("bgpConfig.zebra.softwareName"),
    variable("mpbgp_nexthop", Text, NoEffect, BGP_OFF).key("bgpConfig.mpbgpNexthop"),
    variable("mpbgp_ipv4", Text, NoEffect, BGP_OFF).key("bgpConfig.mpbgpIPv4"),
    variable("mpbgp_ipv6", Text, NoEffect, BGP_OFF).key("bgpConfig.mpbgpIPv6"),
    variable("annotation", Text, NoEffect, BGP_OFF).flags("annotations").key("annotations"),
    variable("vip_routingtable", Bool, Never, TABLE).flags("table").key("enableRoutingTable"),
    variable("vip_routingtableid", Int, NoEffect, TABLE_OFF).flags("tableID").key("routingTableID"),
    variable("vip_routingtabletype", Int, NoEffect, TABLE_OFF)
        .flags("tableType")
        .key("routingTableType"),
    variable("vip_routingprotocol", Int, NoEffect, TABLE_OFF)
        .flags("routingProtocol")
        .key("routingProtocol"),
    variable("vip_cleanroutingtable", Bool, NoEffect, TABLE_OFF)
        .flags("cleanRoutingTable")
        .key("cleanRoutingTable"),
    variable("vip_wireguard", Bool, Never, WIREGUARD).flags("wireguard").key("enableWireguard"),
];
