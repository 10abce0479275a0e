//! Names of the VIP, its Lease, the way to the API, and what watches the process.

use super::{
    Class::{Never, NoEffect, Refused, Supported},
    Kind::{Bool, Int, Secret, Text},
    NOTHING, Name, only_flag, variable,
};

const LITERAL: &str = "VIPs are literal addresses: nothing is resolved, and no DHCP server is asked";
const ETCD: &str = "xvip elects by a Kubernetes Lease only";
const GATE: &str = "the check of this node's API server, which ranks this node as an owner";

pub(super) const NAMES: &[Name] = &[
    variable("vip_arp", Bool, Supported, "VIPs are answered by ARP and neighbour discovery")
        .flags("arp")
        .key("enableARP"),
    variable("cp_enable", Bool, Supported, "the VIP of the control plane is held")
        .flags("controlplane")
        .key("enableControlPlane"),
    variable("address", Text, Supported, "`vips`").flags("address").key("address"),
    variable("vip_address", Text, Supported, "`vips`, the older name of `address`")
        .flags("vip")
        .key("vip"),
    variable("vip_ddns", Bool, Never, LITERAL).flags("ddns").key("ddns"),
    variable("dns_mode", Text, NoEffect, LITERAL).flags("dnsMode").key("dnsMode"),
    variable("dhcp_mode", Text, NoEffect, LITERAL).flags("dhcpMode").key("dhcpMode"),
    variable("dhcp_backoff_attempts", Int, NoEffect, LITERAL)
        .flags("dhcpBackoffAttempts")
        .key("dhcpBackoffAttempts"),
    variable("port", Int, Supported, "the API server of this node, in `api.endpoints`")
        .flags("port")
        .key("port")
        .default("6443"),
    variable("kubernetes_addr", Text, Supported, "the first of `api.endpoints`").key("kubernetesAddr"),
    variable("cp_detect", Bool, Supported, "the API server of this node is always asked first")
        .flags("autodetectcp")
        .key("detectControlPlane"),
    variable("k8s_config_file", Text, Supported, "`api.kubeconfig`")
        .flags("k8sConfigPath")
        .key("k8sConfigFile")
        .default("/etc/kubernetes/admin.conf"),
    variable("cp_namespace", Text, Supported, "`lease.namespace`")
        .flags("namespace n")
        .key("namespace"),
    variable("vip_leasename", Text, Supported, "`lease.name`, or `lease.namespace`/`lease.name`")
        .flags("leaseName")
        .key("leaseName")
        .default("plndr-cp-lock"),
    variable("vip_leaseduration", Int, Supported, "`lease.duration_s`")
        .flags("leaseDuration")
        .key("leaseDuration")
        .default("5"),
    variable("vip_retryperiod", Int, Supported, "`lease.renew_ms`, times 1000")
        .flags("leaseRetry")
        .key("retryPeriod"),
    variable("vip_renewdeadline", Int, NoEffect, "the fence ends a tenure that is not renewed")
        .flags("leaseRenewDuration")
        .key("renewDeadline"),
    variable("vip_leaderelection", Bool, NoEffect, "xvip always elects, as kube-vip does with ARP")
        .flags("leaderElection")
        .key("enableLeaderElection"),
    variable("vip_leaseannotations", Text, NoEffect, NOTHING).key("leaseAnnotations"),
    only_flag("leaderElectionType", Text, Never, ETCD).key("leaderElectionType"),
    only_flag("etcdCACert", Text, Never, ETCD).key("etcd.caFile"),
    only_flag("etcdCert", Text, Never, ETCD).key("etcd.clientCertFile"),
    only_flag("etcdKey", Text, Never, ETCD).key("etcd.clientKeyFile"),
    only_flag("etcdEndpoints", Text, Never, ETCD).key("etcd.endpoints"),
    variable("vip_nodename", Text, Supported, "`node`, in lower case")
        .flags("nodeName")
        .key("nodeName"),
    variable("vip_loglevel", Int, Supported, "`log.level`").flags("log").key("logging").default("0"),
    variable("prometheus_server", Text, Supported, "`admin.port` and `admin.address`")
        .flags("prometheusHTTPServer promethuesHTTPServer")
        .key("prometheusHTTPServer")
        .default(":2112"),
    variable("health_check_port", Int, Supported, "`admin.health_port`")
        .flags("healthCheckPort")
        .key("healthCheckPort"),
    variable("control_plane_health_check_address", Text, Supported, GATE)
        .flags("controlPlaneHealthCheckAddress")
        .key("controlPlaneHealthCheck.address"),
    variable("control_plane_health_check_period_seconds", Int, Supported, GATE)
        .flags("controlPlaneHealthCheckPeriodSeconds")
        .key("controlPlaneHealthCheck.periodSeconds"),
    variable("control_plane_health_check_timeout_seconds", Int, Supported, GATE)
        .flags("controlPlaneHealthCheckTimeoutSeconds")
        .key("controlPlaneHealthCheck.timeoutSeconds"),
    variable("control_plane_health_check_failure_threshold", Int, Supported, GATE)
        .flags("controlPlaneHealthCheckFailureThreshold")
        .key("controlPlaneHealthCheck.failureThreshold"),
    variable("control_plane_health_check_ca_path", Text, Supported, GATE)
        .flags("controlPlaneHealthCheckCAPath")
        .key("controlPlaneHealthCheck.caPath"),
    variable("enable_node_labeling", Bool, Refused, "this build of xvip does not label the Node")
        .flags("enableNodeLabeling")
        .key("enableNodeLabeling"),
    variable("instance_name", Text, NoEffect, "the lock and the pins of a host are shared on purpose")
        .flags("instanceName")
        .key("instanceName"),
    variable("config_file", Text, NoEffect, "kube-vip reads only the flag --config-file"),
    only_flag("config-file", Text, Supported, "settings that neither variables nor flags set"),
    variable("vip_configmap", Text, NoEffect, NOTHING).flags("configMap c"),
    variable("vip_singlenode", Bool, NoEffect, NOTHING).flags("singleNode").key("singleNode"),
    variable("vip_startleader", Bool, NoEffect, NOTHING).flags("startAsLeader").key("startAsLeader"),
    variable("vip_addpeerstolb", Bool, NoEffect, NOTHING)
        .flags("addPeersToLB")
        .key("addPeersAsBackends"),
    variable("vip_localpeer", Text, NoEffect, NOTHING).flags("localPeer"),
    variable("vip_peers", Text, NoEffect, NOTHING),
    variable("vip_remotepeers", Text, NoEffect, NOTHING).flags("remotePeers"),
    variable("vip_packet", Bool, NoEffect, NOTHING).flags("metal packet"),
    variable("vip_packetproject", Text, NoEffect, NOTHING).flags("metalProject packetProject"),
    variable("vip_packetprojectid", Text, NoEffect, NOTHING)
        .flags("metalProjectID metalrojectID packetProjectID"),
    variable("PACKET_AUTH_TOKEN", Secret, NoEffect, NOTHING),
    only_flag("metalKey", Secret, NoEffect, NOTHING).flags("metalKey packetKey"),
    variable("provider_config", Text, NoEffect, NOTHING).flags("provider-config"),
    only_flag("OutSideCluster", Bool, NoEffect, NOTHING),
    only_flag("disableVIP", Bool, NoEffect, NOTHING),
    only_flag("kubeConfig", Text, NoEffect, NOTHING),
];
