//! Names of Services, the load balancer, and what else changes packets.

use super::{
    Class::{NoEffect, Refused, Supported},
    Kind::{Bool, Int, Text},
    NOTHING, Name, variable,
};

const SERVICES: &str = "this build of xvip does not serve Services of type LoadBalancer";
const SERVICES_OFF: &str = "it belongs to Services, which this build of xvip does not serve";
pub(in crate::adapter) const LB: &str = "the VIP leads to the API server of the node that holds it";
const SLICES: &str = "this build of xvip reads no endpoints";
const EGRESS: &str = "this build of xvip does not rewrite the source of packets";
const UPNP: &str = "this build of xvip opens no ports in a router";
const MIRROR: &str = "this build of xvip does not mirror traffic";

pub(super) const NAMES: &[Name] = &[
    variable("lb_enable", Bool, Supported, "the VIP moves when the API server of its node is dead")
        .flags("enableLoadBalancer lbEnable")
        .key("enableLoadBalancer"),
    variable("lb_port", Int, NoEffect, LB).flags("lbPort").key("loadBalancerPort"),
    variable("lb_fwdmethod", Text, NoEffect, LB)
        .flags("lbForwardingMethod")
        .key("loadBalancerForwardingMethod"),
    variable("backend_health_check_interval", Int, NoEffect, LB).key("backendHealthCheckInterval"),
    variable("lb_backendport", Int, NoEffect, LB).flags("lbBackEndPort"),
    variable("lb_backends", Text, NoEffect, LB).flags("lbBackends").key("loadBalancers"),
    variable("lb_bindtovip", Bool, NoEffect, LB).flags("lbBindToVip"),
    variable("lb_name", Text, NoEffect, LB).flags("lbName"),
    variable("lb_type", Text, NoEffect, LB).flags("lbType"),
    variable("svc_enable", Bool, Refused, SERVICES).flags("services").key("enableServices"),
    variable("svc_election", Bool, NoEffect, SERVICES_OFF)
        .flags("servicesElection")
        .key("enableServicesElection"),
    variable("svc_leasename", Text, NoEffect, SERVICES_OFF)
        .flags("servicesLeaseName")
        .key("servicesLeaseName"),
    variable("svc_namespace", Text, NoEffect, SERVICES_OFF).key("serviceNamespace"),
    variable("vip_servicesinterface", Text, NoEffect, SERVICES_OFF)
        .flags("serviceInterface")
        .key("servicesInterface"),
    variable("lb_class_only", Bool, NoEffect, SERVICES_OFF)
        .flags("lbClassOnly")
        .key("loadBalancerClassOnly"),
    variable("lb_class_name", Text, NoEffect, SERVICES_OFF)
        .flags("lbClassName")
        .key("loadBalancerClassName"),
    variable("lb_class_legacy_handling", Bool, NoEffect, SERVICES_OFF)
        .flags("lbClassNameLegacyHandling")
        .key("loadBalancerClassLegacyHandling"),
    variable("disable_service_updates", Bool, NoEffect, SERVICES_OFF)
        .flags("disableServiceUpdates")
        .key("disableServiceUpdates"),
    variable("per_service_election_on_demand", Bool, NoEffect, SERVICES_OFF)
        .flags("perServiceElectionOnDemand")
        .key("perServiceElectionOnDemand"),
    variable("enable_service_security", Bool, NoEffect, SERVICES_OFF)
        .flags("onlyAllowTrafficServicePorts")
        .key("enableServiceSecurity"),
    variable("enable_endpoints", Bool, NoEffect, SLICES)
        .flags("enableEndpoints")
        .key("enableEndpoints"),
    variable("enable_endpointslices", Bool, NoEffect, SLICES).flags("enableEndpointSlices"),
    variable("debounce_time", Text, NoEffect, SLICES).flags("debounceTime").key("debounceTime"),
    variable("enable_upnp", Bool, Refused, UPNP).key("enableUPNP"),
    variable("mirror_dest_interface", Text, Refused, MIRROR)
        .flags("mirrorDestInterface")
        .key("mirrorDestInterface"),
    variable("egress_withnftables", Bool, Refused, EGRESS)
        .flags("egressWithNftables")
        .key("egressWithNftables"),
    variable("egress_podcidr", Text, Refused, EGRESS).key("egressPodCidr"),
    variable("egress_servicecidr", Text, Refused, EGRESS).key("egressServiceCidr"),
    variable("egress_enableinternalsnat", Bool, Refused, EGRESS).key("enableInternalSNAT"),
    variable("egress_clean", Bool, NoEffect, "xvip leaves the tables of kube-vip alone")
        .key("egressClean"),
    variable("iptables_backend", Text, NoEffect, NOTHING).key("iptablesBackend"),
];

/// Why a load balancer that forwards to other nodes is refused.
pub(in crate::adapter) const FORWARDS: &str =
    "this build of xvip does not forward to API servers of other nodes";
