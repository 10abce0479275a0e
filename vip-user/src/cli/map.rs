//! `xvip map`: the VIP map as the programs read it, each entry with its fence.

use super::{
    Output, View, pins_of, print_json,
    table::{self, Cell},
};
use crate::{clock, model::time::BootNs, node::maps::Maps};
use anyhow::Context as _;
use serde::Serialize;
use std::{net::IpAddr, process::ExitCode};

/// One entry, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct Entry {
    address: IpAddr,
    slot: u32,
    generation: u64,
    fence_generation: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    fence_deadline_ns: u64,
    fence_left_ms: u64,
    /// Interface indexes, as in `guard`.
    answer: Vec<u32>,
    guard: Vec<u32>,
}

/// Prints the map.
pub fn map(view: &View) -> anyhow::Result<ExitCode> {
    let mut entries = Vec::new();
    if let Some(pins) = pins_of(&view.place)? {
        let maps = Maps::open(&pins).context("cannot read the pinned maps (root is needed)")?;
        let ports = maps.ifaces()?;
        let now = clock::boot();
        for (ip, vip) in maps.vips()? {
            let fence = maps.fence(vip.slot)?;
            let on = |allowed: &dyn Fn(u8) -> bool| -> Vec<u32> {
                let ports = ports.iter().filter(|(_, iface)| allowed(iface.bit));
                ports.map(|(port, _)| port.ifindex).collect()
            };
            entries.push(Entry {
                address: IpAddr::from(ip),
                slot: vip.slot,
                generation: vip.generation,
                fence_generation: fence.generation,
                fence_deadline_ns: fence.deadline_ns,
                fence_left_ms: now.until(BootNs(fence.deadline_ns)).as_millis() as u64,
                answer: on(&|bit| vip.answers_on(bit)),
                guard: on(&|bit| vip.guarded_on(bit)),
            });
        }
    }
    match view.output {
        Output::Json => print_json(&entries)?,
        Output::Table => {
            let rows: Vec<Vec<Cell>> = entries.iter().map(row).collect();
            let header = [
                "VIP",
                "SLOT",
                "GENERATION",
                "FENCE GENERATION",
                "FENCE LEFT",
                "ANSWER ON",
                "GUARD ON",
            ];
            table::print(&header, &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &Entry) -> Vec<Cell> {
    let list = |indexes: &[u32]| indexes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let cells = [
        entry.address.to_string(),
        entry.slot.to_string(),
        entry.generation.to_string(),
        entry.fence_generation.to_string(),
        format!("{} ms", entry.fence_left_ms),
        list(&entry.answer),
        list(&entry.guard),
    ];
    cells.map(Cell::from).into()
}
