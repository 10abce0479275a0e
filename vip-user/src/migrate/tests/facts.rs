//! Which node, which pod and which kubelet is meant, and what of kube-vip is left.

use super::decisions::{VIP, facts, pod, pods, whats, with};
use crate::migrate::{
    facts::{Facts, PodFact},
    finish::{self, BINDING, BindingFact, Carried, Leftover, ROLE, Rights, unused},
    plan::{self, Turn},
    pod::Program,
};
use std::net::IpAddr;
use vip_common::abi::{HostAddr, Ip};

type Change = fn(&mut Facts);

fn service(node: &str) -> PodFact {
    PodFact {
        name: format!("services-{node}"),
        container: "vip".into(),
        daemonset: Some("services".into()),
        mirror: false,
        preserves: true,
        holds_plane: false,
        ..pod(node, Program::KubeVip)
    }
}

#[test]
fn the_kubelet_must_have_read_the_manifest() {
    let table: [(Change, &str); 7] = [
        (|f| f.kubelet = Err("connection refused".into()), "the kubelet is not well"),
        (|f| drop(pods(f).remove(0)), "the API does not show the pod of the manifest"),
        (|f| pods(f)[0].name = "other-a".into(), "the API does not show the pod"),
        (|f| pods(f)[0].namespace = "default".into(), "the API does not show the pod"),
        (|f| pods(f)[0].mirror = false, "the pod is not from a file"),
        (|f| pods(f)[0].image = "kube-vip:old".into(), "the pod has another image"),
        (|f| pods(f)[0].ready = false, "the pod of kube-vip is not ready"),
    ];
    for (change, what) in table {
        let told = whats(&plan::plan(&with(change)).problems);
        assert!(told.starts_with(what), "{what}: {told}");
    }
    // xvip's manifest is no longer judged like this.
    let moved = with(|f| {
        f.manifests[0].program = Program::Xvip;
        f.kubelet = Err("connection refused".into());
    });
    assert_eq!(plan::plan(&moved).problems, []);
}

#[test]
fn this_host_must_be_the_node() {
    let table: [(Change, &str); 4] = [
        (|f| f.nodes = Ok(vec![]), "no node of the control plane was found"),
        (|f| f.node = "z".into(), "z is no node of the control plane"),
        (|f| f.nodes.as_mut().unwrap()[2].boot_id.clear(), "the Node has no boot id"),
        (|f| f.boot_id = "other".into(), "this host is not a"),
    ];
    assert_eq!(facts().stranger(), None);
    for (change, what) in table {
        let facts = with(change);
        let told = whats(&plan::plan(&facts).problems);
        assert!(told.starts_with(what), "{what}: {told}");
        let told = whats(&finish::refusals(&facts, &[]));
        assert!(told.starts_with(what), "{what}: {told}");
    }
}

#[test]
fn a_daemonset_for_services_beside_static_pods_stays() {
    let beside = with(|f| pods(f).extend(["a", "b", "c"].map(service)));
    let plan = plan::plan(&beside);
    assert_eq!((plan.problems.as_slice(), plan.daemonset), (&[][..], None));
    assert!(plan.notes.iter().any(|note| note.starts_with("two programs share a:")));
    let moved = with(|f| {
        pods(f)[1].program = Program::Xvip;
        pods(f).extend(["a", "b", "c"].map(service));
    });
    let turns: Vec<_> = plan::plan(&moved).rows.iter().map(|row| row.turn).collect();
    assert_eq!(turns, [Turn::Done, Turn::Now, Turn::Last]);
    // A node whose static pod is elsewhere is no case for the DaemonSet's commands.
    let elsewhere = with(|f| {
        f.manifests.clear();
        pods(f).push(service("a"));
    });
    let plan = plan::plan(&elsewhere);
    assert_eq!(plan.daemonset, None);
    assert!(whats(&plan.problems).contains("no manifest of kube-vip was found"));
}

/// Its name for this node is that of xvip here, so it would renew xvip's tenure.
#[test]
fn a_daemonset_that_serves_the_control_plane_beside_the_static_pod_is_refused() {
    let beside = |holds_plane: bool| {
        let facts = with(|f| pods(f).push(PodFact { holds_plane, ..service("a") }));
        whats(&plan::plan(&facts).problems).contains("serves the control plane beside a static pod")
    };
    assert!(beside(true) && !beside(false));
}

#[test]
fn the_plan_of_a_daemonset_knows_its_settings_and_names_its_pods() {
    let of = |change: Change| {
        with(|f| {
            f.template = f.manifests.pop();
            *pods(f) = ["a", "b", "c"].map(service).to_vec();
            for pod in pods(f) {
                pod.preserves = false;
            }
            change(f);
        })
    };
    let plan = plan::plan(&of(|_| {}));
    assert_eq!(plan.problems, []);
    let steps = plan::of_daemonset(&plan.daemonset.unwrap(), &plan.rows, ("xvip:1", true));
    let commands: Vec<&str> = steps.iter().map(|(_, command)| command.as_str()).collect();
    assert!(commands[1].contains(r#"{"add":["BPF","PERFMON","NET_ADMIN","NET_RAW"],"drop":["ALL"]}"#));
    assert_eq!(commands[2], "kubectl -n kube-system set image daemonset/services vip=xvip:1");
    assert_eq!(commands[3], "kubectl -n kube-system delete pod services-a");
    assert_eq!(commands[5], "kubectl -n kube-system delete pod services-c");
    // Another DaemonSet on the same nodes is for Services.
    let two = plan::plan(&of(|f| {
        let other = |node: &str| PodFact {
            name: format!("cp-{node}"),
            daemonset: Some("cp".into()),
            ..service(node)
        };
        let more = ["a", "b", "c"].map(|node| PodFact { preserves: false, ..other(node) });
        pods(f).extend(more);
        f.template.as_mut().unwrap().name = "cp-a".into();
    }));
    assert_eq!(two.daemonset.as_deref(), Some("kube-system/cp"));
    let names: Vec<&str> = two.rows.iter().map(|row| row.pod.as_str()).collect();
    assert_eq!(names, ["cp-a", "cp-b", "cp-c"]);
    let table: [(Change, &str); 3] = [
        (|f| f.template.as_mut().unwrap().refused.push("svc_enable".into()), "svc_enable"),
        (|f| f.template.as_mut().unwrap().preserves = true, "preserve_on_leadership_loss is on"),
        (
            |f| {
                f.template.as_mut().unwrap().duration_s = 15;
                pods(f)[1].version = Some((0, 6, 0));
            },
            "waits for its own D",
        ),
    ];
    for (change, what) in table {
        let told = whats(&plan::plan(&of(change)).problems);
        assert!(told.contains(what), "{what}: {told}");
    }
}

#[test]
fn nothing_ends_while_a_kube_vip_runs_on_any_node() {
    let facts = with(|f| {
        for pod in pods(f) {
            pod.program = Program::Xvip;
        }
        f.lease.as_mut().unwrap().as_mut().unwrap().ours = true;
        pods(f).push(service("worker"));
    });
    let told = whats(&finish::refusals(&facts, &[]));
    assert_eq!(told, "kube-vip still runs there, as kube-system/services-worker");
}

fn guides() -> Rights {
    let account = ("ServiceAccount".into(), "kube-system".into(), "kube-vip".into());
    let binding = BindingFact {
        namespace: None,
        name: BINDING.into(),
        role: ROLE.into(),
        subjects: vec![account],
    };
    Rights { bindings: vec![binding], role: true, account: true }
}

#[test]
fn rights_that_anybody_else_uses_stay() {
    let account = || ("ServiceAccount".to_owned(), "kube-system".to_owned(), "kube-vip".to_owned());
    let other = || ("ServiceAccount".to_owned(), "metallb".to_owned(), "kube-vip".to_owned());
    let all = [
        Leftover::Binding(BINDING.into()),
        Leftover::Role(ROLE.into()),
        Leftover::Account("kube-system/kube-vip".into()),
    ];
    assert_eq!(unused(&guides(), &[]).unwrap(), all);
    assert_eq!(unused(&Rights::default(), &[]).unwrap(), []);
    assert!(unused(&guides(), &["kube-system/x".into()]).unwrap_err().contains("kube-system/x"));
    let binding = |name: &str, role: &str, subject| BindingFact {
        namespace: Some("ns".into()),
        name: name.into(),
        role: role.into(),
        subjects: vec![subject],
    };
    for (change, stays) in [
        (binding("x", "view", other()), false),
        (binding("x", ROLE, other()), true),
        (binding("x", "view", account()), true),
        // The same name in a namespace is another object.
        (binding(BINDING, ROLE, account()), true),
    ] {
        let mut rights = guides();
        rights.bindings.push(change.clone());
        assert_eq!(unused(&rights, &[]).is_err(), stays, "{change:?}");
    }
    let mut rights = guides();
    rights.bindings[0].subjects.push(other());
    assert!(unused(&rights, &[]).unwrap_err().contains("other subjects"));
    rights.bindings[0].subjects.clear();
    assert!(unused(&rights, &[]).is_err());
    let mut rights = guides();
    rights.bindings[0].role = "cluster-admin".into();
    assert!(unused(&rights, &[]).unwrap_err().contains("another role"));
}

#[test]
fn only_labels_of_kube_vip_are_its_own() {
    for (key, is) in [
        ("kube-vip.io/has-ip", true),
        ("service-provided.kube-vip.io/web", true),
        ("kube-vip.io/pool", false),
        ("service-provided.example.com/web", false),
        ("node-role.kubernetes.io/control-plane", false),
    ] {
        assert_eq!(finish::is_label(key), is, "{key}");
    }
}

#[test]
fn an_address_of_xvip_or_with_others_behind_it_is_not_removed() {
    let at = |ip: [u8; 4], prefix, secondary| Carried { ip: ip.into(), prefix, ifindex: 2, secondary };
    let owned = [HostAddr { ip: Ip::from(IpAddr::from(VIP)), ifindex: 2 }];
    for (found, owned, foreign) in [
        (at(VIP, 32, false), &owned[..], false),
        (at(VIP, 32, false), &[], true),
        // xvip adds IPv4 as /32 only.
        (at(VIP, 24, true), &owned, true),
        (Carried { ifindex: 3, ..at(VIP, 32, false) }, &owned, true),
    ] {
        assert_eq!(found.is_foreign(owned), foreign, "{found:?}");
    }
    let host = at([192, 0, 2, 1], 24, true);
    for (found, all, takes) in [
        (at(VIP, 24, false), &[host][..], true),
        (at(VIP, 24, true), &[host], false),
        (at(VIP, 32, false), &[host], false),
        (at(VIP, 24, false), &[Carried { ifindex: 3, ..host }], false),
        (at(VIP, 24, false), &[at([192, 0, 3, 1], 24, true)], false),
        (at(VIP, 24, false), &[], false),
        (at(VIP, 0, false), &[Carried { prefix: 0, ..host }], true),
    ] {
        assert_eq!(found.takes_others(all), takes, "{found:?} {all:?}");
    }
}
