//! The start of a cluster: the nodes run before there is an API, and the API forbids everything at
//! first, as it does until kubeadm has bound the rights of an administrator.

use crate::{faults::SETTLE, trial};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, Client, api::DeleteParams};
use libtest_mimic::Trial;
use std::{thread::sleep, time::Duration};
use vip_tests::{
    faults::watched,
    judge::two_owner_ms,
    kube::{
        objects::{self, Mode},
        proxy::Way,
    },
    lab::{Kube, Lab, Options, RBAC, eventually},
};
use vip_user::clock;

pub fn trials() -> Vec<Trial> {
    vec![trial("bootstrap::an_api_that_starts_late_and_forbids_at_first", late_api)]
}

fn late_api() {
    let mut lab = Lab::new(&Options { kube: Kube::One, ..Options::default() }).unwrap();
    let api = lab.api.real().unwrap();
    api.proxy.set(Way::Refuse);
    api.plane.call(0, async |client: Client| unbind(client).await).unwrap();
    let mut bound = 0;
    let recording = watched(&mut lab, |lab| {
        lab.start()?;
        sleep(Duration::from_secs(4));
        let api = lab.api.real().unwrap();
        api.proxy.set(Way::Open);
        let forbidden = || lab.nodes.iter().all(|node| node.log().contains("forbidden"));
        assert!(eventually(SETTLE, forbidden), "{}", lab.nodes[0].log());
        for node in &mut lab.nodes {
            assert!(!node.has_ended(), "it waits, as kube-vip does: {}", node.log());
        }
        bound = clock::boot().0;
        objects::apply(&lab.api.real().unwrap().plane, RBAC, Mode::Store)?;
        lab.wait_for_owner(SETTLE)?;
        Ok(())
    });
    let claims = recording.unwrap().claims;
    assert_eq!(two_owner_ms(&claims), 0.0);
    let first = claims.first().unwrap().at_ns;
    assert!(first > bound, "nobody answers before the Lease was held");
    println!("the first answer came {:.1} s after the rights", (first - bound) as f64 / 1e9);
}

async fn unbind(client: Client) -> anyhow::Result<()> {
    let bindings: Api<RoleBinding> = Api::namespaced(client, "kube-system");
    for binding in bindings.list(&kube::api::ListParams::default()).await? {
        let name = binding.metadata.name.unwrap_or_default();
        if name.starts_with("xvip") {
            bindings.delete(&name, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}
