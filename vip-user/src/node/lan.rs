//! Checks that the LAN works: asks the gateway or named peers an ARP or neighbour discovery question,
//! from this node's own address. This finds faults that the carrier does not show: a wrong VLAN, or an
//! access list of a switch.

use super::{ask::Asker, netlink::Netlink};
use crate::model::selection::Selection;
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use tokio::sync::mpsc;

/// Only this many rounds in a row without any answer count as a fault, because single frames can be
/// lost.
const ROUNDS: u32 = 3;
/// How long a round waits for answers.
const WAIT: Duration = Duration::from_millis(500);

/// Which stations are asked, and how often.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Whether to ask the default gateways of the interfaces that answer.
    pub gateway: bool,
    /// Other addresses to ask.
    pub peers: Vec<IpAddr>,
    /// The pause between rounds.
    pub every: Duration,
}

/// Asks until the receiver is closed. On every change it sends `None` if the LAN answers, or the
/// problem as text.
pub async fn watch(
    netlink: Netlink,
    selection: Selection,
    targets: Targets,
    told: mpsc::Sender<Option<String>>,
) {
    let (mut silent, mut last, mut told_nobody) = (0, None, false);
    loop {
        tokio::time::sleep(targets.every).await;
        match round(&netlink, &selection, &targets).await {
            // Without a station to ask, or a link to ask on, nothing is known about the LAN.
            Ok(None) if !told_nobody => {
                told_nobody = true;
                tracing::warn!(
                    "lan_check asks nobody: no answering interface is up and has a default gateway"
                );
                continue;
            }
            Ok(None) | Err(_) => continue,
            Ok(Some(true)) => silent = 0,
            Ok(Some(false)) => silent += 1,
        }
        let problem = (silent >= ROUNDS).then(|| "nobody on the LAN answers".to_owned());
        if last.as_ref() != Some(&problem) {
            last = Some(problem.clone());
            if told.send(problem).await.is_err() {
                return;
            }
        }
    }
}

async fn round(
    netlink: &Netlink,
    selection: &Selection,
    targets: &Targets,
) -> anyhow::Result<Option<bool>> {
    let devices = netlink.devices().await?;
    let roles = selection.roles(&devices).roles;
    let asker = Asker::open()?;
    let mut questions: BTreeSet<(u32, IpAddr)> = BTreeSet::new();
    for device in devices.iter().filter(|device| device.up) {
        if roles.get(&device.ifindex).is_none_or(|role| role.answers.is_empty()) {
            continue;
        }
        let gateways =
            if targets.gateway { netlink.gateways(device.ifindex).await? } else { Vec::new() };
        for target in gateways.into_iter().chain(targets.peers.iter().copied()) {
            if asker.ask(device, target).unwrap_or(false) {
                questions.insert((device.ifindex, target));
            }
        }
    }
    if questions.is_empty() {
        return Ok(None);
    }
    let asked = questions.iter().map(|(_, target)| *target).collect();
    let heard = asker.hear(&asked, WAIT).await?;
    // An answer on another interface proves nothing about this one.
    Ok(Some(heard.iter().any(|answer| questions.contains(&(answer.ifindex, answer.ip)))))
}
