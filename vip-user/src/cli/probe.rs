//! `xvip probe`: asks the LAN which station answers for VIPs, once or repeatedly.

use super::{
    Output, Place, pins_of, print_json,
    table::{bold, green, red},
};
use crate::{
    clock,
    escape::printable,
    model::{selection::Device, time::BootNs},
    node::{
        answers::Answers,
        ask::Asker,
        host,
        maps::{Maps, string},
        netlink::Netlink,
        socket,
    },
    probe::{
        report,
        timeline::{Round, Timeline},
        user::Wish,
        verdict::{Owners, Station, Verdict},
    },
};
use anyhow::{Context as _, bail};
use clap::Args;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal as _, Write as _, stderr},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use vip_common::{abi::Ip, mac::Mac};

/// What to ask, and how.
#[derive(Debug, Args)]
pub struct Probe {
    /// The VIPs.
    #[arg(required = true)]
    pub vips: Vec<IpAddr>,
    /// Ask on these interfaces only. Default: every one that is up and has a MAC address.
    #[arg(short, long)]
    pub interface: Vec<String>,
    /// How long answers are waited for, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub wait: u64,
    /// Go on asking until interrupted, and draw who answered when.
    #[arg(long)]
    pub watch: bool,
    /// With --watch: time between questions, in milliseconds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub interval: u64,
    /// With --watch: end after this many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub duration: Option<u64>,
    /// With --watch: write the timeline as an HTML page.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Also open a TCP connection to this port, as a user does.
    #[arg(long, value_name = "PORT")]
    pub tcp: Option<u16>,
    /// Also ask for this path over HTTP (port 80, or that of --tcp).
    #[arg(long, value_name = "PATH")]
    pub http: Option<String>,
    /// The instance on this host: its daemon knows the nodes' MAC addresses, and its maps whether this
    /// host answers itself.
    #[command(flatten)]
    pub place: Place,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The exit code if the LAN could not be asked.
const NOT_ASKED: u8 = 3;

/// Exit code 0: every VIP has one owner; 1: one has none; 2: one has two; 3: the LAN could not be
/// asked.
pub async fn probe(args: &Probe) -> anyhow::Result<ExitCode> {
    // Exit codes 1 and 2 are answers, so a failure needs another one.
    Ok(ask(args).await.unwrap_or_else(|error| {
        eprintln!("xvip: {}", printable(&format!("{error:#}")));
        ExitCode::from(NOT_ASKED)
    }))
}

async fn ask(args: &Probe) -> anyhow::Result<ExitCode> {
    if let Some(path) = args.http.as_ref().filter(|path| !path.starts_with('/')) {
        bail!("--http: {path:?} cannot be used: a path that begins with /");
    }
    if !args.watch && (args.duration.is_some() || args.report.is_some()) {
        bail!("--for and --report need --watch");
    }
    let netlink = Netlink::patient()?;
    let devices = chosen(netlink.devices().await?, &args.interface)?;
    let lan = Lan {
        asker: Asker::open()?,
        devices,
        nodes: nodes(&args.place.instance).await,
        vips: args.vips.clone(),
        maps: own_maps(&args.place),
        wish: wish(args),
    };
    if args.watch { watch(args, &lan).await } else { once(args, &lan).await }
}

/// Asks the LAN once for each VIP on every interface.
pub(super) async fn once_for(
    vips: &[IpAddr],
    place: &Place,
    wait: Duration,
) -> anyhow::Result<Vec<Verdict>> {
    let lan = Lan {
        asker: Asker::open()?,
        devices: chosen(Netlink::patient()?.devices().await?, &[])?,
        nodes: nodes(&place.instance).await,
        vips: vips.to_vec(),
        maps: own_maps(place),
        wish: None,
    };
    Ok(lan.round(wait, clock::boot()).await?.verdicts)
}

struct Lan {
    asker: Asker,
    devices: Vec<Device>,
    nodes: BTreeMap<String, String>,
    vips: Vec<IpAddr>,
    wish: Option<Wish>,
    maps: Option<Maps>,
}

impl Lan {
    /// One round: a question per VIP and interface, and the answers within `wait`.
    async fn round(&self, wait: Duration, begun: BootNs) -> anyhow::Result<Round> {
        let at = begun.until(clock::boot());
        for device in &self.devices {
            for vip in &self.vips {
                // With `--watch`, a link that goes down is a result, not an error.
                if let Err(error) = self.asker.ask(device, *vip) {
                    tracing::debug!(interface = %device.name, %error, "not asked");
                }
            }
        }
        let asked = self.vips.iter().copied().collect();
        let served = async {
            let Some(wish) = &self.wish else { return vec![None; self.vips.len()] };
            let asked = self.vips.iter().map(|vip| wish.is_served(*vip, wait));
            futures::future::join_all(asked).await.into_iter().map(Some).collect()
        };
        let (heard, served) = tokio::join!(self.asker.hear(&asked, wait), served);
        let heard = heard.context("cannot hear answers")?;
        let verdict = |vip: &IpAddr| {
            let answers = heard.iter().filter(|answer| answer.ip == *vip);
            let mut stations: BTreeSet<Station> = answers
                .filter_map(|answer| {
                    let device = self.devices.iter().find(|d| d.ifindex == answer.ifindex)?;
                    let mac = answer.mac.to_string();
                    let node = self.nodes.get(&mac).cloned();
                    Some(Station { mac, interface: device.name.clone(), node, own: false })
                })
                .collect();
            // A host never receives its own answers.
            stations.extend(self.maps.as_ref().and_then(|maps| self.own(maps, *vip)));
            Verdict::new(*vip, stations)
        };
        Ok(Round { at, verdicts: self.vips.iter().map(verdict).collect(), served })
    }
}

impl Lan {
    /// The host and interfaces that ask: an answer is valid only for their segments.
    fn place(&self) -> String {
        let names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        let host = host::host_name().unwrap_or_else(|_| "this host".into());
        let inside = if host::in_own_netns() { " (in a network namespace of its own)" } else { "" };
        format!("{host}{inside} on {}", names.join(", "))
    }

    /// This host as a station, if its kernel answers for the VIP.
    fn own(&self, maps: &Maps, vip: IpAddr) -> Option<Station> {
        let entry = *maps.vips().ok()?.get(&Ip::from(vip))?;
        let answers = Answers::read(maps).ok()?;
        let (port, iface) = answers.on(&entry)?;
        let device = self.devices.iter().find(|device| device.ifindex == port.ifindex)?;
        Some(Station {
            mac: Mac(iface.mac).to_string(),
            interface: device.name.clone(),
            node: Some(string(&maps.identity().ok()?.node)),
            own: true,
        })
    }
}

fn own_maps(place: &Place) -> Option<Maps> {
    // Without the right to read the maps, probe as any host of the LAN does.
    pins_of(place).ok().flatten().and_then(|pins| Maps::open(&pins).ok())
}

fn wish(args: &Probe) -> Option<Wish> {
    let port = args.tcp.or_else(|| args.http.is_some().then_some(80))?;
    Some(Wish { port, path: args.http.clone() })
}

fn chosen(devices: Vec<Device>, names: &[String]) -> anyhow::Result<Vec<Device>> {
    for name in names {
        let known = || devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>().join(", ");
        match devices.iter().find(|device| device.name == *name) {
            None => bail!("--interface: {name} does not exist; this host has {}", known()),
            Some(device) if device.mac.is_none() => bail!("--interface: {name} has no MAC address"),
            Some(_) => {}
        }
    }
    let usable = |device: &Device| device.mac.is_some() && device.up && device.name != "lo";
    let wanted = |device: &Device| names.is_empty() || names.contains(&device.name);
    let chosen: Vec<Device> =
        devices.into_iter().filter(|device| usable(device) && wanted(device)).collect();
    if chosen.is_empty() && names.is_empty() {
        bail!("nobody can be asked: no interface of this host is up and has a MAC address");
    }
    if chosen.is_empty() {
        bail!("--interface: {} cannot be used: one that is up is needed", names.join(", "));
    }
    Ok(chosen)
}

/// MAC address to node name, as a daemon on this host has learned them from the Leases.
async fn nodes(instance: &str) -> BTreeMap<String, String> {
    socket::ask(instance).await.map(|state| state.nodes).unwrap_or_default()
}

async fn once(args: &Probe, lan: &Lan) -> anyhow::Result<ExitCode> {
    let round = lan.round(Duration::from_millis(args.wait), clock::boot()).await?;
    if args.output == Output::Json {
        let served = lan.vips.iter().zip(&round.served).collect::<Vec<_>>();
        let asked = lan.wish.is_some();
        let value = serde_json::json!({
            "vips": round.verdicts,
            "asked_from": lan.place(),
            "served": asked.then(|| served.iter().map(|(vip, served)| (vip.to_string(), **served)).collect::<BTreeMap<_, _>>()),
        });
        print_json(&value)?;
    } else {
        for (verdict, served) in round.verdicts.iter().zip(&round.served) {
            let words = coloured(verdict);
            let served = match served {
                Some(true) => ", serves",
                Some(false) => ", does not serve",
                None => "",
            };
            println!("{}  {words}{served}", bold(&verdict.vip.to_string()));
        }
        println!("asked from {}", printable(&lan.place()));
    }
    Ok(exit(&round.verdicts))
}

fn coloured(verdict: &Verdict) -> String {
    match verdict.owners {
        Owners::One => green(&verdict.words()),
        Owners::Nobody | Owners::Two => red(&verdict.words()),
    }
}

/// The worst verdict wins: two owners before no owner.
fn exit(verdicts: &[Verdict]) -> ExitCode {
    let worst = verdicts.iter().map(|verdict| verdict.owners).max().unwrap_or(Owners::Nobody);
    ExitCode::from(worst.exit_code())
}

async fn watch(args: &Probe, lan: &Lan) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let begun = clock::boot();
    let end = args.duration.map(|seconds| begun.after(Duration::from_secs(seconds)));
    let mut rounds: Vec<Round> = Vec::new();
    let mut live = Live { dark_since: vec![None; lan.vips.len()], terminal: stderr().is_terminal() };
    while end.is_none_or(|end| clock::boot() < end) {
        let round = tokio::select! {
            round = lan.round(Duration::from_millis(args.interval), begun) => round?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        live.show(rounds.last(), &round);
        rounds.push(round);
    }
    live.end();
    let end = begun.until(clock::boot());
    let timelines: Vec<Timeline> =
        (0..lan.vips.len()).filter_map(|index| Timeline::new(index, &rounds, end)).collect();
    if let Some(path) = &args.report {
        std::fs::write(path, report::page(&timelines))
            .with_context(|| format!("--report: cannot write {}", path.display()))?;
    }
    if args.output == Output::Json {
        print_json(&timelines)?;
    } else {
        for timeline in &timelines {
            println!("{}", timeline.words());
            println!("  asked from {}", printable(&lan.place()));
            println!("  |{}|", timeline.bar(76));
            for (name, letter) in timeline.letters() {
                println!("  {letter} {}", printable(&name));
            }
        }
    }
    let two = timelines.iter().any(|timeline| timeline.two_owners_ms > 0);
    let dark = timelines.is_empty() || timelines.iter().any(|timeline| timeline.longest_dark_ms > 0);
    Ok(ExitCode::from(if two { 2 } else { u8::from(dark) }))
}

/// The output of `--watch`: a line per change, a dot for every dark second.
struct Live {
    dark_since: Vec<Option<Duration>>,
    terminal: bool,
}

impl Live {
    fn show(&mut self, last: Option<&Round>, round: &Round) {
        for (index, verdict) in round.verdicts.iter().enumerate() {
            let before = last.and_then(|last| last.verdicts.get(index));
            if before != Some(verdict) {
                let at = round.at.as_secs_f64();
                let words = printable(&verdict.words());
                eprintln!("{}{at:8.2} s  {}  {words}", self.clear(), verdict.vip);
            }
            let Some(dark) = self.dark_since.get_mut(index) else { continue };
            if verdict.owners == Owners::Nobody {
                let since = *dark.get_or_insert(round.at);
                if round.at.saturating_sub(since) >= Duration::from_secs(1) {
                    *dark = Some(since + Duration::from_secs(1));
                    eprint!(".");
                }
            } else {
                *dark = None;
            }
        }
        if self.terminal && self.dark_since.iter().all(Option::is_none) {
            eprint!("\r{:8.2} s  watching, Ctrl-C ends", round.at.as_secs_f64());
        }
        let _ = stderr().flush();
    }

    const fn clear(&self) -> &'static str {
        if self.terminal { "\r\x1b[K" } else { "" }
    }

    fn end(&self) {
        if self.terminal {
            eprint!("{}", self.clear());
        } else {
            eprintln!();
        }
    }
}
