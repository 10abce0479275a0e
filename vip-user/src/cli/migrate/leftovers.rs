//! Finds what kube-vip has left, and removes it.

use super::{args::Common, gather, show};
use crate::{
    cluster::{
        lease::LeaseApi,
        objects::{BindingSeen, Created},
    },
    migrate::{
        facts::Facts,
        finish::{ACCOUNT, BINDING, BindingFact, Carried, Leftover, ROLE, Rights, unused},
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
use tokio::time::{Instant, sleep, timeout};
use vip_common::abi::{HostAddr, Ip};

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
    let settings = facts.manifests.iter().chain(&facts.template);
    let vips: Vec<IpAddr> = settings.flat_map(|manifest| manifest.vips.clone()).collect();
    let mut found = addresses(common, facts, &vips).await?;
    let label =
        |(node, key): &(String, String)| Leftover::Label { node: node.clone(), key: key.clone() };
    found.extend(facts.labels.iter().map(label));
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

async fn addresses(common: &Common, facts: &Facts, vips: &[IpAddr]) -> anyhow::Result<Vec<Leftover>> {
    let addresses = gather::carried(common, facts).await?;
    let left = |found: Carried| {
        let (vip, prefix) = (found.ip, found.prefix);
        let interface = host::interface_name(found.ifindex);
        if found.takes_others(&addresses.all) {
            let what = "the kernel may remove other addresses of its subnet along with it";
            Leftover::Rules(format!("address {vip}/{prefix} on {interface}: {what}"))
        } else {
            Leftover::Address { vip, prefix, interface }
        }
    };
    Ok(addresses.foreign(vips).into_iter().map(left).collect())
}

async fn rights(api: &LeaseApi, facts: &Facts) -> anyhow::Result<Vec<Leftover>> {
    let fact = |BindingSeen { namespace, name, role, subjects }| BindingFact {
        namespace,
        name,
        role,
        subjects,
    };
    let rights = Rights {
        bindings: api.bindings().await?.into_iter().map(fact).collect(),
        role: api.exists(Created::Role(ROLE)).await?,
        account: api.exists(Created::Account(ACCOUNT.0, ACCOUNT.1)).await?,
    };
    match unused(&rights, &facts.users) {
        Ok(found) => Ok(found),
        Err(why) => {
            show::say(&format!("the rights of kube-vip stay ({BINDING}, {ROLE}): {why}"));
            Ok(Vec::new())
        }
    }
}

/// Removes one.
pub(super) async fn remove(
    (common, facts): (&Common, &Facts),
    api: &LeaseApi,
    leftover: &Leftover,
) -> anyhow::Result<()> {
    match leftover {
        Leftover::Address { .. } => remove_address(common, facts, leftover).await?,
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

/// xvip may have taken the address since it was found, so all is looked at again.
async fn remove_address(common: &Common, facts: &Facts, leftover: &Leftover) -> anyhow::Result<()> {
    let Leftover::Address { vip, prefix, interface } = leftover else { return Ok(()) };
    let Some(ifindex) = host::interface_index(interface) else { return Ok(()) };
    let look = async || -> anyhow::Result<Option<Carried>> {
        let addresses = gather::carried(common, facts).await?;
        let is_it = |found: &Carried| (found.prefix, found.ifindex) == (*prefix, ifindex);
        let found = addresses.foreign(&[*vip]).into_iter().find(is_it);
        if found.is_some_and(|found| found.takes_others(&addresses.all)) {
            bail!("{leftover}: the kernel may remove other addresses along with it");
        }
        Ok(found)
    };
    let Some(found) = look().await? else {
        show::say(&format!("{leftover} is gone, or is xvip's"));
        return Ok(());
    };
    let addr = HostAddr { ip: Ip::from(found.ip), ifindex };
    Netlink::patient()?.remove_with_prefix(addr, found.prefix).await?;
    if look().await?.is_some() {
        bail!("{leftover} is still there");
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
    // A child of the program may keep the pipe open.
    let text = timeout(LIMIT, reader).await.map_err(|_| format!("{program}: its output has no end"))?;
    text.map_err(|error| format!("{program}: {error}"))
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
