//! Manifests that people use, with facts taken from the sources that the files name.

use super::*;
use serde::Deserialize;

/// What the adapter needs of a manifest.
#[derive(Deserialize)]
struct Manifest {
    namespace: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    security: serde_json::Value,
    mounts: Vec<String>,
    service_account: bool,
}

macro_rules! manifests {
    ($($name:literal: $refused:expr, $noted:expr;)*) => {
        [$((
            $name,
            include_str!(concat!("../fixtures/", $name, ".yaml")),
            &$refused[..],
            &$noted[..]
        )),*]
    };
}

type Names = &'static [&'static str];
type Expected = (&'static str, &'static str, Names, Names);

/// The name, the text, the names that are refused, and the names without effect.
fn all() -> [Expected; 24] {
    const ELECT: [&str; 2] = ["vip_leaderelection", "vip_renewdeadline"];
    const NONE: [&str; 0] = [];
    manifests! {
        "caprke2": NONE, ELECT;
        "capv": ["svc_enable"], ["svc_election", "svc_leasename", "vip_ddns"];
        "chart": ["svc_enable"], ["lb_port", "svc_election", "vip_leaderelection"];
        "chart-cp-only": NONE, ["lb_port", "svc_enable", "svc_election", "vip_leaderelection"];
        "daemonset": NONE, ["dhcp_mode", "dns_mode"];
        "daemonset-services": ["svc_enable"], ["svc_leasename"];
        "eks-anywhere": NONE, ["vip_ddns"];
        "harvester": ["svc_enable"], ["enable_service_security", "svc_election"];
        "home-ops": NONE, ["svc_enable", "vip_ddns"];
        "home-ops-local-api": ["enable_node_labeling"],
            ["backend_health_check_interval", "enable_service_security", "svc_leasename"];
        "k3s-ansible": NONE, ["bgp_enable", "svc_enable", "vip_ddns"];
        "kubeadm": NONE, ["dhcp_mode", "dns_mode", "vip_renewdeadline"];
        "kubeadm-0.8": NONE, ["dns_mode"];
        "kubeadm-1.0": NONE, ["dhcp_mode"];
        "kubekey": ["svc_enable"], ["lb_port"];
        "kubespray": NONE, ["dns_mode", "lb_fwdmethod", "svc_leasename", "vip_ddns"];
        "kubespray-2.23": ["svc_enable"], ["enableServicesElection"];
        "kubespray-2.24": NONE, ["lb_fwdmethod"];
        "kubespray-2.29": NONE, ["lb_fwdmethod", "svc_leasename"];
        "kubespray-first": NONE, ["svc_leasename"];
        "kubespray-lb": NONE, ["svc_leasename"];
        "kubespray-masquerade": ["lb_enable"], ["svc_leasename"];
        "rke2": ["svc_enable"], ["enable_upnp", "svc_election"];
        "rke2-jimsgarage": ["svc_enable"], NONE;
    }
}

/// What the kubelet puts in for a field.
fn adapted(manifest: &Manifest, more: &[(&str, &str)]) -> Adapted {
    in_namespace(manifest, None, more)
}

/// The same in a pod with a service account.
fn in_namespace(
    manifest: &Manifest,
    namespace: Option<&'static str>,
    more: &[(&str, &str)],
) -> Adapted {
    let mut environment: Vec<(String, String)> = manifest
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.replace("$(spec.nodeName)", "Node1")))
        .collect();
    environment.extend(owned(more));
    assert_eq!(manifest.args[0], "manager");
    let host = Host {
        files: if manifest.mounts.iter().any(|path| path == "/etc/kubernetes/admin.conf") {
            vec!["/etc/kubernetes/admin.conf"]
        } else {
            Vec::new()
        },
        namespace,
    };
    adapt(&Input { environment, flags: flags::parse(&manifest.args[1..], &[]), file: None }, &host)
}

#[test]
fn each_manifest_runs_or_says_why_not() {
    for (name, text, wanted, noted) in all() {
        assert!(text.starts_with("# Source: "), "{name}");
        let manifest: Manifest = serde_norway::from_str(text).unwrap();
        let adapted = adapted(&manifest, &[]);
        assert_eq!(refused(&adapted), wanted, "{name}: {:?}", adapted.refused);
        for noted in noted {
            assert!(!told(&adapted, noted).is_empty(), "{name}: {noted} is not noted");
        }
        assert_eq!(adapted.config.addresses().len(), usize::from(name != "harvester"), "{name}");
        assert_eq!(adapted.config.api.endpoints, ["https://127.0.0.1:6443"], "{name}");
        assert_eq!(adapted.search.chosen.name, "plndr-cp-lock", "{name}");
        // A static pod has no account, and RKE2's manifest has both.
        let by_kubeconfig = adapted.config.api.kubeconfig.is_some();
        assert_eq!(by_kubeconfig, !manifest.service_account || name == "rke2", "{name}");
    }
}

/// The chart and others set no namespace: the Lease is where the pod is, as with kube-vip. The usual
/// one is looked at too.
#[test]
fn a_service_account_of_another_namespace_moves_the_lease_unless_one_is_set() {
    let mut moved = 0;
    for (name, text, ..) in all() {
        let manifest: Manifest = serde_norway::from_str(text).unwrap();
        let search = in_namespace(&manifest, Some("elsewhere"), &[]).search;
        let sets = manifest.env.iter().any(|(name, _)| name == "cp_namespace");
        let wanted = if sets { "kube-system" } else { "elsewhere" };
        assert_eq!(search.chosen.namespace, wanted, "{name}");
        let other = if sets { "elsewhere" } else { "kube-system" };
        assert!(search.others.iter().any(|lease| lease.namespace == other), "{name}");
        moved += usize::from(!sets);
    }
    assert_eq!(moved, 4);
}

#[test]
fn accepted_losses_let_all_run_but_the_one_without_a_vip() {
    for (name, text, wanted, _) in all() {
        let manifest: Manifest = serde_norway::from_str(text).unwrap();
        let adapted = adapted(&manifest, &[("xvip_without", &wanted.join(","))]);
        let lost: Vec<&str> = adapted.without.iter().map(|lost| lost.name.as_str()).collect();
        if name == "harvester" {
            assert_eq!(
                (refused(&adapted), manifest.namespace.as_str()),
                (vec!["svc_enable"], "harvester-system")
            );
        } else {
            assert_eq!((refused(&adapted), lost), (vec![], wanted.to_vec()), "{name}");
        }
    }
}

/// With the image alone none of them can load a program.
#[test]
fn no_manifest_grants_the_right_to_load_programs() {
    for (name, text, ..) in all() {
        let manifest: Manifest = serde_norway::from_str(text).unwrap();
        let security = &manifest.security;
        let added = security["capabilities"]["add"].as_array().cloned().unwrap_or_default();
        let may = added.iter().any(|right| right == "BPF" || right == "SYS_ADMIN");
        assert!(!may, "{name}: {security}");
        assert!(!manifest.mounts.iter().any(|path| path.contains("bpf")), "{name}");
        assert_eq!(security["privileged"] == true, name == "kubespray-masquerade", "{name}");
    }
}
