//! A host with ten thousand VIPs, under one Lease and under many: how long everything takes that grows
//! with their number, and how late renewals are meanwhile.

use super::{cpu_ms, rss_mib};
use anyhow::{Context as _, bail, ensure};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};
use vip_tests::{
    kube::api::LabApi,
    lab::{Lab, Options, eventually},
    stalls::StallWatch,
    standin::StandIn,
};
use vip_user::{cli::table::print, clock, node::raw_map::RawMap};

const VIPS: u32 = 10_000;
const LIMIT: Duration = Duration::from_mins(3);
const DURATION_S: u32 = 10;
/// The longest lateness of a renewal that is wanted, in milliseconds.
const WANTED_MS: f64 = 50.0;

/// Prints a column for each number of Leases.
pub fn ten_thousand(leases: &[u32]) -> anyhow::Result<()> {
    println!("\n{VIPS} VIPs, Leases of {DURATION_S} s, one daemon\n");
    let columns = leases.iter().map(|leases| measure(*leases)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut head = vec!["what".to_owned()];
    head.extend(leases.iter().map(|leases| format!("{leases} Leases")));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let what = [
        "first fence raised to all addresses added and entries published",
        "SIGTERM to all fences 0 (silent)",
        "SIGTERM to the end: silent, released, all withdrawn",
        "resident memory",
        "CPU while nothing happens, of one core",
        "latest renewal while VIPs are published",
        "latest renewal while nothing happens",
        "the machine stood still, at the longest",
    ];
    let rows = what.iter().enumerate().map(|(row, what)| {
        let cells = columns.iter().map(|column| column[row].clone());
        std::iter::once((*what).to_owned()).chain(cells).collect()
    });
    print(&head, &rows.collect::<Vec<Vec<String>>>());
    println!("\nwanted: no renewal later than {WANTED_MS} ms");
    Ok(())
}

fn measure(leases: u32) -> anyhow::Result<Vec<String>> {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 1));
    let vips: Vec<IpAddr> = (0..VIPS).map(|n| IpAddr::from(Ipv4Addr::from(first + n))).collect();
    let options = Options {
        nodes: 1,
        duration_s: DURATION_S,
        extra: "linger_ms: 0\nannounce: {refresh_s: 0}\n".into(),
        vips: Some(vips),
        spread_over: leases,
        ..Options::default()
    };
    let mut lab = Lab::new(&options)?;
    lab.start()?;
    let stalls = StallWatch::begin();
    let LabApi::StandIn(api) = &lab.api else { bail!("the lab has a real API server") };
    let renewals = Renewals::watch(api.clone(), leases);
    let pins = lab.dir().join("bpf").join(&lab.nodes[0].instance).join("v2");
    ensure!(eventually(LIMIT, || fences(&pins) > 0), "no fence:\n{}", lab.nodes[0].log());
    let begun = clock::boot();
    ensure!(eventually(LIMIT, || published(&pins) == VIPS as usize), "not all are published");
    let publish = begun.until(clock::boot());
    // The burst of announcements is over after some seconds.
    sleep(Duration::from_secs(10));
    let late_while_published = renewals.take();
    let pid = lab.nodes[0].pid().context("pid")?;
    let (cpu, rss) = (cpu_ms(pid)?, rss_mib(pid)?);
    let watch = Duration::from_secs(20);
    sleep(watch);
    let idle = (cpu_ms(pid)? - cpu) / watch.as_secs_f64() / 10.0;
    let late_while_idle = renewals.take();
    let stood = stalls.finish().0.concat().iter().map(|stall| stall.to_ns - stall.from_ns).max();
    let begun = clock::boot();
    lab.nodes[0].signal(libc::SIGTERM);
    ensure!(eventually(LIMIT, || fences(&pins) == 0), "not silent:\n{}", lab.nodes[0].log());
    let silent = begun.until(clock::boot());
    let node = &mut lab.nodes[0];
    ensure!(eventually(LIMIT, || node.has_ended()), "does not end:\n{}", node.log());
    let withdraw = begun.until(clock::boot());
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    Ok(vec![
        seconds(publish),
        seconds(silent),
        seconds(withdraw),
        format!("{rss:.0} MiB"),
        format!("{idle:.1} %"),
        format!("{late_while_published:.0} ms"),
        format!("{late_while_idle:.0} ms"),
        format!("{:.0} ms", stood.unwrap_or_default() as f64 / 1e6),
    ])
}

/// How many entries answer.
fn published(pins: &Path) -> usize {
    let entries = RawMap::open(&pins.join("VIPS")).ok().flatten().and_then(|map| map.entries().ok());
    // Bytes 8 to 15 are the generation; 0: a silent entry.
    entries.unwrap_or_default().iter().filter(|(_, value)| value[8..16] != [0; 8]).count()
}

/// How many fences are not 0.
fn fences(pins: &Path) -> usize {
    let entries = RawMap::open(&pins.join("FENCES")).ok().flatten().and_then(|map| map.entries().ok());
    entries.unwrap_or_default().iter().filter(|(_, value)| value[..8] != [0; 8]).count()
}

/// Looks at the Leases, and how much later than a renewal interval after the one before each renewal
/// was sent.
struct Renewals {
    late: Arc<Mutex<f64>>,
    ends: Arc<AtomicBool>,
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Renewals {
    fn watch(api: StandIn, leases: u32) -> Self {
        let late = Arc::new(Mutex::new(0.0_f64));
        let ends = Arc::new(AtomicBool::new(false));
        let (worst, end) = (Arc::clone(&late), Arc::clone(&ends));
        thread::spawn(move || {
            let mut last: BTreeMap<String, i64> = BTreeMap::new();
            while !end.load(Ordering::Relaxed) {
                for lease in 0..leases {
                    let name = Options::lease_name(lease);
                    let Some(renewed) = renewed_us(&api, &name) else { continue };
                    let before = last.insert(name, renewed);
                    // The wait before a take-over is no lateness.
                    let Some(gap) = before.map(|before| renewed - before).filter(|gap| *gap > 0) else {
                        continue;
                    };
                    let ms = gap as f64 / 1e3 - f64::from(DURATION_S) * 200.0;
                    if let Ok(mut worst) = worst.lock() {
                        *worst = worst.max(ms);
                    }
                }
                sleep(Duration::from_millis(100));
            }
        });
        Self { late, ends }
    }

    /// The latest renewal since the last call, in milliseconds.
    fn take(&self) -> f64 {
        self.late.lock().map(|mut late| std::mem::take(&mut *late)).unwrap_or_default()
    }
}

/// When a holder last renewed a Lease.
fn renewed_us(api: &StandIn, name: &str) -> Option<i64> {
    let lease = api.lease("kube-system", name)?;
    if lease["spec"]["holderIdentity"].as_str().unwrap_or_default().is_empty() {
        return None;
    }
    let text = lease["spec"]["renewTime"].as_str()?;
    Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond())
}
