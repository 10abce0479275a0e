//! Finds what kube-vip has left, and removes it.

use super::{args::Common, gather, show};
use crate::{
    cluster::{lease::LeaseApi, objects::Created},
    migrate::{
        facts::Facts,
        finish::{Leftover, is_account_used},
    },
    node::{host, netlink::Netlink},
};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    fs,
    io::Read as _,
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use vip_common::abi::{HostAddr, Ip};

/// What kube-vip's guides create.
const BINDING: &str = "system:kube-vip-binding";
const ROLE: &str = "system:kube-vip-role";
const ACCOUNT: &str = "kube-vip";
const NAMESPACE: &str = "kube-system";
/// The time limit for a command.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest output that is read.
const LONGEST: u64 = 16 << 20;

/// Everything on this host and in the cluster.
pub(super) async fn find(
    common: &Common,
    api: &LeaseApi,
    facts: &Facts,
) -> anyhow::Result<Vec<Leftover>> {
    let vips: Vec<IpAddr> = facts.manifests.iter().flat_map(|manifest| manifest.vips.clone()).collect();
    let mut found = Vec::new();
    for (vip, interface) in gather::carried(&vips, common).await? {
        found.push(Leftover::Address { vip, interface });
    }
    for node in facts.known_nodes() {
        let of = |key: &String| Leftover::Label { node: node.name.clone(), key: key.clone() };
        found.extend(node.labels.iter().map(of));
    }
    match run("nft", &["-j", "list", "tables"]).await {
        Ok(text) => found.extend(tables(&text)),
        Err(why) => found.push(Leftover::Rules(format!("nftables was not looked at ({why})"))),
    }
    if let Ok(text) = run("iptables-save", &[]).await {
        let rules = text.lines().filter(|line| line.to_lowercase().contains("kube-vip")).count();
        if rules > 0 {
            found.push(Leftover::Rules(format!("{rules} lines of iptables-save that name kube-vip")));
        }
    }
    let services = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    found.extend(
        vips.iter()
            .filter(|vip| has_service(&services, **vip))
            .map(|vip| Leftover::Rules(format!("an IPVS service on {vip}"))),
    );
    found.extend(rights(api, facts).await?);
    Ok(found)
}

async fn rights(api: &LeaseApi, facts: &Facts) -> anyhow::Result<Vec<Leftover>> {
    let account = format!("{NAMESPACE}/{ACCOUNT}");
    if is_account_used(facts, &account) {
        show::say(&format!("ServiceAccount {account} stays with its role: pods of xvip use it"));
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    if api.exists(Created::Binding(BINDING)).await? {
        found.push(Leftover::Binding(BINDING.into()));
    }
    if api.exists(Created::Role(ROLE)).await? {
        found.push(Leftover::Role(ROLE.into()));
    }
    if api.exists(Created::Account(NAMESPACE, ACCOUNT)).await? {
        found.push(Leftover::Account(account));
    }
    Ok(found)
}

/// Removes one.
pub(super) async fn remove(api: &LeaseApi, leftover: &Leftover) -> anyhow::Result<()> {
    match leftover {
        Leftover::Address { vip, interface } => {
            let Some(ifindex) = host::interface_index(interface) else { return Ok(()) };
            let address = HostAddr { ip: Ip::from(*vip), ifindex };
            Netlink::patient()?.remove_address(address).await?;
        }
        Leftover::Label { node, key } => api.unlabel(node, key).await?,
        Leftover::Table { family, name } => {
            run("nft", &["delete", "table", family, name]).await.map_err(anyhow::Error::msg)?;
        }
        Leftover::Binding(name) => api.delete(Created::Binding(name)).await?,
        Leftover::Role(name) => api.delete(Created::Role(name)).await?,
        Leftover::Account(name) => {
            let (namespace, name) = name.split_once('/').context("an account has a namespace")?;
            api.delete(Created::Account(namespace, name)).await?;
        }
        Leftover::Rules(_) => bail!("this is only shown"),
    }
    Ok(())
}

/// The tables of kube-vip.
fn tables(text: &str) -> Vec<Leftover> {
    let object: Value = serde_json::from_str(text).unwrap_or_default();
    let entries = object["nftables"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| {
            let table = &entry["table"];
            let (family, name) = (table["family"].as_str()?, table["name"].as_str()?);
            let is_ours = name.starts_with("kube_vip") || name.starts_with("kube-vip");
            is_ours.then(|| Leftover::Table { family: family.into(), name: name.into() })
        })
        .collect()
}

/// Whether the kernel's list of IPVS services has one with this address: `TCP  C000020A:192B rr`.
fn has_service(list: &str, vip: IpAddr) -> bool {
    let wanted = match vip {
        IpAddr::V4(v4) => format!("{:08X}:", u32::from(v4)),
        IpAddr::V6(v6) => {
            let groups: Vec<String> =
                v6.segments().iter().map(|group| format!("{group:04x}")).collect();
            format!("[{}]:", groups.join(":"))
        }
    };
    let services = list.lines().filter(|line| line.starts_with("TCP") || line.starts_with("UDP"));
    services
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|found| found.get(..wanted.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(&wanted)))
}

/// Runs a command for at most ten seconds, and returns its output. `Err`: why there is none.
async fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take();
    // A pipe that is full would keep the program waiting.
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let _unread_is_empty = output.map(|pipe| pipe.take(LONGEST).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let end = Instant::now() + LIMIT;
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => break,
            Some(status) => return Err(format!("{program}: {status}")),
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} did not end within {LIMIT:?}"));
            }
            None => sleep(Duration::from_millis(20)).await,
        }
    }
    reader.await.map_err(|error| format!("{program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_of_kube_vip_are_found() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "kube_vip_v4", "handle": 1}},
            {"table": {"family": "inet", "name": "kube-proxy"}}]}"#;
        let table = Leftover::Table { family: "ip".into(), name: "kube_vip_v4".into() };
        assert_eq!(tables(text), [table]);
        assert_eq!(tables("no json"), []);
    }

    #[test]
    fn a_service_of_ipvs_is_found_by_its_address() {
        let list = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n\
                    TCP  C000020A:192B rr\n  -> C0000201:192B Masq 1 0 0\n\
                    TCP  [2001:0db8:0000:0000:0000:0000:0000:0010]:192B rr\n";
        for (vip, found) in
            [("192.0.2.10", true), ("192.0.2.1", false), ("2001:db8::10", true), ("2001:db8::1", false)]
        {
            assert_eq!(has_service(list, vip.parse().unwrap()), found, "{vip}");
        }
    }
}
