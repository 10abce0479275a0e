//! Whether the LAN is there: an ARP or neighbour discovery question to the gateway or to named peers,
//! from this node's own address. It catches what carrier cannot: a wrong VLAN, an access list of a
//! switch.

use super::{ask::Asker, netlink::Netlink};
use crate::model::selection::Selection;
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use tokio::sync::mpsc;

/// So many rounds without any answer are a sign; a single lost frame is none.
const ROUNDS: u32 = 3;
/// Answers are waited for this long.
const WAIT: Duration = Duration::from_millis(500);

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The default gateways of the interfaces that answer.
    pub gateway: bool,
    /// More addresses.
    pub peers: Vec<IpAddr>,
    /// Between rounds.
    pub every: Duration,
}

/// Asks until the receiver is closed, and tells each change: `None` while the LAN answers, else what is
/// wrong, in words.
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
            // Nobody to ask, or no link to ask on, says nothing of the LAN.
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
    // What another interface hears says nothing about this one.
    Ok(Some(heard.iter().any(|answer| questions.contains(&(answer.ifindex, answer.ip)))))
}
