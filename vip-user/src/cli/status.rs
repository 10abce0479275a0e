//! `xvip status`: the state of the maps, and that of a running daemon.

use super::{
    Output, View, pins_of, print_json,
    table::{self, Cell, bold, red},
};
use crate::{
    clock,
    escape::printable,
    model::time::BootNs,
    node::{
        answers::Answers,
        maps::{Maps, string},
        pins::Pins,
        socket,
    },
    state::DaemonState,
};
use anyhow::Context as _;
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr, process::ExitCode};

/// The whole status, as `-o json` prints it.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// Node name in the pin directory.
    pub node: String,
    /// The instance.
    pub instance: String,
    /// One per slot that ever had a tenure.
    pub leases: Vec<SlotStatus>,
    /// One per VIP.
    pub vips: Vec<VipStatus>,
    /// One per interface with programs.
    pub interfaces: Vec<InterfaceStatus>,
    /// The programs' counters by name, without zeros.
    pub counters: BTreeMap<&'static str, u64>,
    /// The daemon's own view, if one runs.
    pub daemon: Option<DaemonState>,
}

/// One Lease.
#[derive(Debug, Serialize)]
pub struct SlotStatus {
    /// Its slot.
    pub slot: u32,
    /// `namespace/name`.
    pub lease: String,
    /// Whether this node may answer right now.
    pub owner: bool,
    /// Milliseconds until the fence runs out; 0 if it is not held.
    pub fence_left_ms: u64,
    /// Number of the tenure on this host.
    pub generation: u64,
}

/// One VIP.
#[derive(Debug, Serialize)]
pub struct VipStatus {
    /// The address.
    pub address: IpAddr,
    /// The slot of its Lease.
    pub slot: u32,
    /// Whether the kernel answers for it right now.
    pub answering: bool,
}

/// One interface.
#[derive(Debug, Serialize)]
pub struct InterfaceStatus {
    /// Its name when it was attached.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `native`, `tc` or `generic`; absent if claims are only guarded there.
    pub answers_by: Option<&'static str>,
    /// Whether the egress guard is attached.
    pub guarded: bool,
    /// Whether it is up, as the programs see it.
    pub up: bool,
}

/// Prints the status. The exit code is 0 even if this node owns nothing.
pub async fn status(view: &View) -> anyhow::Result<ExitCode> {
    let Some(pins) = pins_of(&view.place)? else {
        let nothing = why_nothing(&Pins::new(&view.place.pin_root, &view.place.instance));
        match view.output {
            Output::Json => {
                eprintln!("{nothing}");
                print_json(&Status { instance: view.place.instance.clone(), ..Status::default() })?;
            }
            Output::Table => println!("{nothing}"),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (daemon, why) = match socket::ask(&view.place.instance).await {
        Ok(state) => (Some(state), String::new()),
        Err(error) => (None, error.to_string()),
    };
    let status = read(&pins, &view.place.instance, daemon)?;
    match view.output {
        Output::Json => print_json(&status)?,
        Output::Table => print(&status, &why),
    }
    Ok(ExitCode::SUCCESS)
}

/// The message if there are no pins of this version.
fn why_nothing(pins: &Pins) -> String {
    if let Some(other) = pins.other_versions().first() {
        let version = other.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        return format!(
            "another version of xvip ({}) has pins here: ask the binary that made them, \
             or start this one to take over",
            printable(&version)
        );
    }
    let dir = pins.dir().display().to_string();
    format!("xvip has put nothing on this host (no pins in {})", printable(&dir))
}

/// Reads the maps.
pub(super) fn read(pins: &Pins, instance: &str, daemon: Option<DaemonState>) -> anyhow::Result<Status> {
    let maps = Maps::open(pins).context("cannot read the pinned maps (root is needed)")?;
    let now = clock::boot();
    let mut leases = Vec::new();
    for slot in 0..maps.slots() {
        if let Some(record) = maps.slot(slot)? {
            let fence = maps.fence(slot)?;
            let left = now.until(BootNs(fence.deadline_ns));
            leases.push(SlotStatus {
                slot,
                lease: format!("{}/{}", record.namespace, record.name),
                owner: !left.is_zero(),
                fence_left_ms: left.as_millis() as u64,
                generation: fence.generation,
            });
        }
    }
    let answers = Answers::read(&maps)?;
    let vips = maps.vips()?.into_iter().map(|(ip, vip)| VipStatus {
        address: IpAddr::from(ip),
        slot: vip.slot,
        answering: answers.on(&vip).is_some(),
    });
    let ports = maps.ifaces()?;
    let mut interfaces: BTreeMap<u32, InterfaceStatus> = BTreeMap::new();
    for pin in pins.links() {
        let up = ports.iter().any(|(port, iface)| port.ifindex == pin.ifindex && iface.up == 1);
        let entry = interfaces.entry(pin.ifindex).or_insert(InterfaceStatus {
            name: pin.interface,
            ifindex: pin.ifindex,
            answers_by: None,
            guarded: false,
            up,
        });
        match pin.kind {
            kind if kind.is_guard() => entry.guarded = true,
            kind => entry.answers_by = Some(kind.name()),
        }
    }
    let counters = maps.counters()?.into_iter();
    Ok(Status {
        node: string(&maps.identity()?.node),
        instance: instance.into(),
        vips: vips.collect(),
        leases,
        interfaces: interfaces.into_values().collect(),
        counters: counters.filter(|(_, n)| *n > 0).map(|(counter, n)| (counter.name(), n)).collect(),
        daemon,
    })
}

fn print(status: &Status, why: &str) {
    println!("{} {}   instance {}", bold("node"), printable(&status.node), printable(&status.instance));
    if let Some(daemon) = &status.daemon {
        println!("{} running, pid {}", bold("daemon"), daemon.pid);
        for lease in &daemon.leases {
            let holder = lease.holder.as_deref().filter(|holder| !holder.is_empty());
            let (holder, fitness) = (holder.unwrap_or("nobody"), lease.fitness);
            let (name, state) = (printable(&lease.lease), printable(&lease.state));
            println!("  {name}: {state}, {fitness}, holder {}", printable(holder));
        }
        for (subject, why) in &daemon.problems {
            println!("  {} {}: {}", red("problem"), printable(subject), printable(why));
        }
    } else {
        let words = format!("{why}; the kernel goes silent when the fence runs out");
        println!("{} {}", bold("daemon"), red(&words));
    }
    println!();
    let rows = status.leases.iter().map(|lease| {
        let owner = if lease.owner { Cell::green("yes") } else { "no".into() };
        let left = format!("{} ms", lease.fence_left_ms).into();
        let (generation, slot) = (lease.generation.to_string(), lease.slot.to_string());
        vec![lease.lease.as_str().into(), owner, left, generation.into(), slot.into()]
    });
    table::print(&["LEASE", "OWNER", "FENCE LEFT", "GENERATION", "SLOT"], &rows.collect::<Vec<_>>());
    println!();
    let rows = status.vips.iter().map(|vip| {
        let answering = if vip.answering { Cell::green("yes") } else { "no".into() };
        vec![vip.address.to_string().into(), answering, vip.slot.to_string().into()]
    });
    table::print(&["VIP", "ANSWERING", "SLOT"], &rows.collect::<Vec<_>>());
    println!();
    let rows = status.interfaces.iter().map(|interface| {
        vec![
            interface.name.as_str().into(),
            if interface.up { "up".into() } else { Cell::red("down") },
            if interface.answers_by.is_some() { "answers" } else { "guards" }.into(),
            interface.answers_by.unwrap_or("-").into(),
            if interface.guarded { "yes".into() } else { Cell::red("no") },
        ]
    });
    table::print(&["INTERFACE", "STATE", "ROLE", "HOOK", "GUARDED"], &rows.collect::<Vec<_>>());
    println!();
    let rows = status.counters.iter().map(|(name, n)| vec![Cell::from(*name), n.to_string().into()]);
    table::print(&["COUNTER", "FRAMES"], &rows.collect::<Vec<_>>());
}
