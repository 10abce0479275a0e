//! The actions that take the host from its actual state to the desired one, in a safe order.

use super::desired::{ADDRESS_SLACK_S, AddrSpec, Desired};
use std::collections::{BTreeMap, BTreeSet};
use vip_common::abi::{HostAddr, Iface, Ip, Port, Vip};

/// The actual state of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Entries of the VIP map.
    pub vips: BTreeMap<Ip, Vip>,
    /// Entries of the interface map.
    pub ifaces: BTreeMap<Port, Iface>,
    /// Addresses on interfaces, with the seconds that they have left (`u32::MAX`: forever).
    pub addrs: BTreeMap<HostAddr, u32>,
    /// Addresses and groups that xvip has recorded as its own.
    pub owned: BTreeSet<HostAddr>,
    /// Addresses of ours that are present but have no route in the local table. The host accepts no
    /// traffic for them.
    pub unrouted: BTreeSet<HostAddr>,
}

/// One change of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Write an entry of the interface map.
    SetIface(Port, Iface),
    /// Remove an entry of the interface map.
    RemoveIface(Port),
    /// Write an entry of the VIP map.
    Publish(Ip, Vip),
    /// Remove an entry of the VIP map, so that frames pass.
    Withdraw(Ip),
    /// Record an address or group as ours and add it, or refresh its lifetime.
    AddAddr(HostAddr, AddrSpec),
    /// Remove an address or group, and its record.
    DelAddr(HostAddr),
}

/// The actions, in a safe order. Whatever silences comes first. A guarding entry is written before its
/// address is added, and the address is added before the entry answers. An entry is removed only when
/// no interface carries the address any more, or when another program of this host holds it. An
/// unwanted entry that stays is silent. Between any two actions this process may be paused for minutes,
/// and the kernel's stack answers for an address without a guarding entry.
pub fn plan(want: &Desired, have: &Actual) -> Vec<Action> {
    let mut actions = Vec::new();
    for (port, iface) in &want.ifaces {
        if have.ifaces.get(port) != Some(iface) {
            actions.push(Action::SetIface(*port, *iface));
        }
    }
    for (ip, vip) in changed(want, have).filter(|(_, vip)| vip.generation == 0) {
        actions.push(Action::Publish(*ip, *vip));
    }
    // Carried or not: a later action may fail, and then the entry stays.
    for (ip, vip) in unwanted(want, have).filter(|(_, vip)| vip.generation != 0) {
        actions.push(Action::Publish(*ip, Vip { generation: 0, ..*vip }));
    }
    let Addresses { groups, mut new, refreshed } = addresses(want, have);
    actions.extend(groups);
    // One VIP after the other: the first of ten thousand need not wait for the last.
    for (ip, vip) in changed(want, have).filter(|(_, vip)| vip.generation != 0) {
        if let Some(guard) = guard_first(vip, have.vips.get(ip)) {
            actions.push(Action::Publish(*ip, guard));
        }
        actions.extend(new.remove(ip).unwrap_or_default());
        actions.push(Action::Publish(*ip, *vip));
    }
    actions.extend(new.into_values().flatten());
    actions.extend(refreshed);
    let leaving = |addr: &HostAddr| have.owned.contains(addr) && !keeps(want, addr);
    for addr in have.owned.iter().filter(|addr| leaving(addr)) {
        actions.push(Action::DelAddr(*addr));
    }
    for (ip, _) in unwanted(want, have) {
        let [first, last] = [0, u32::MAX].map(|ifindex| HostAddr { ip: *ip, ifindex });
        let carried = have.addrs.range(first..=last).any(|(addr, _)| !leaving(addr));
        if !carried || want.passing.contains(ip) {
            actions.push(Action::Withdraw(*ip));
        }
    }
    for port in have.ifaces.keys().filter(|port| !want.ifaces.contains_key(port)) {
        actions.push(Action::RemoveIface(*port));
    }
    actions
}

/// Additions of addresses and groups.
#[derive(Default)]
struct Addresses {
    groups: Vec<Action>,
    /// Addresses that are not there, or not with their route.
    new: BTreeMap<Ip, Vec<Action>>,
    /// Addresses that get a new lifetime. None of these is urgent.
    refreshed: Vec<Action>,
}

fn addresses(want: &Desired, have: &Actual) -> Addresses {
    let mut found = Addresses::default();
    let stays = |addr: &HostAddr| have.owned.contains(addr) && have.addrs.contains_key(addr);
    let lingering = want.lingering.iter().filter(|(addr, _)| stays(addr));
    for (addr, spec) in want.addrs.iter().chain(lingering) {
        let add = Action::AddAddr(*addr, *spec);
        if have.unrouted.contains(addr) {
            // The kernel creates the route only together with the address.
            found.new.entry(addr.ip).or_default().extend([Action::DelAddr(*addr), add]);
        } else if needs_adding(*addr, *spec, have) {
            match spec {
                AddrSpec::Group => found.groups.push(add),
                _ if have.addrs.contains_key(addr) => found.refreshed.push(add),
                AddrSpec::Vip { .. } => found.new.entry(addr.ip).or_default().push(add),
            }
        }
    }
    found
}

fn changed<'a>(want: &'a Desired, have: &'a Actual) -> impl Iterator<Item = (&'a Ip, &'a Vip)> {
    want.vips.iter().filter(|(ip, vip)| have.vips.get(ip) != Some(vip))
}

/// Entries that are not desired and must not stay as they are.
fn unwanted<'a>(want: &'a Desired, have: &'a Actual) -> impl Iterator<Item = (&'a Ip, &'a Vip)> {
    // An entry that names another Lease's slot would become active with the fence of that Lease.
    let wanted =
        |ip: &Ip, vip: &Vip| want.vips.contains_key(ip) || want.untouched.get(ip) == Some(&vip.slot);
    have.vips.iter().filter(move |(ip, vip)| !wanted(ip, vip))
}

/// The entry that must exist before the address is added, if it does not exist yet. It is a silent one,
/// or the present one with all interfaces that must be guarded.
fn guard_first(want: &Vip, have: Option<&Vip>) -> Option<Vip> {
    match have {
        None => Some(Vip { generation: 0, ..*want }),
        Some(have) if want.guard & !have.guard != 0 => {
            Some(Vip { guard: have.guard | want.guard, ..*have })
        }
        Some(_) => None,
    }
}

fn keeps(want: &Desired, addr: &HostAddr) -> bool {
    want.addrs.contains_key(addr)
        || want.lingering.contains_key(addr)
        || want.untouched.contains_key(&addr.ip)
}

fn needs_adding(addr: HostAddr, spec: AddrSpec, have: &Actual) -> bool {
    match (spec, have.addrs.get(&addr)) {
        (_, None) => true,
        (AddrSpec::Vip { valid_s }, Some(left)) => left.saturating_add(ADDRESS_SLACK_S / 2) < valid_s,
        (AddrSpec::Group, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests;
