//! A host with five hundred guarded interfaces. Measures the cost while nothing changes, and the
//! delay of renewals while links come and go, as on a host with pods.

use super::cpu_ms;
use anyhow::{Context as _, ensure};
use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    lab::{Lab, Options, eventually},
    netns::NetNs,
    stalls::StallWatch,
};
use vip_user::{cli::table::print, clock};

const PAIRS: usize = 250;
/// How long each row is measured.
const WATCH: Duration = Duration::from_secs(30);
/// Link events a second.
const EVENTS: u32 = 100;

/// Prints a row for each kind of change.
pub fn many() -> anyhow::Result<()> {
    println!("\n{} guarded interfaces, one daemon, a Lease of 3 s\n", 2 * PAIRS);
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() })?;
    let mut ip = Ip::start(&lab.nodes[0].ns)?;
    for number in 0..PAIRS {
        ip.run(&pair("lan", number))?;
    }
    // Waits until `ip` has carried out all commands.
    let last = format!("lan{}", PAIRS - 1);
    let made =
        || lab.nodes[0].ns.ip(&format!("link show {last} up")).is_ok_and(|text| !text.is_empty());
    ensure!(eventually(Duration::from_mins(2), made), "no interface {last}");
    lab.start()?;
    lab.wait_for_owner(Duration::from_mins(2))?;
    // By then every program is attached, and the announcements are sent.
    sleep(Duration::from_secs(10));
    let quiet = measure(&lab, &mut ip, 0, |_| String::new())?;
    // A link goes down and up: two changes at each of its ends.
    let flap = |turn| {
        let number = turn / 2 % PAIRS;
        format!("link set lan{number} {}\n", if turn % 2 == 0 { "down" } else { "up" })
    };
    let flapping = measure(&lab, &mut ip, EVENTS / 2, flap)?;
    // A veth pair is created, set up and removed: about eight changes, and programs for both ends.
    let pods = |turn| match turn % 2 {
        0 => pair("pod", turn / 2),
        _ => format!("link del pod{}\n", turn / 2),
    };
    let pods = measure(&lab, &mut ip, EVENTS / 4, pods)?;
    let names = ["nothing changes", "links go down and up", "links are made and removed"];
    let rows = names.into_iter().zip([quiet, flapping, pods]);
    let rows: Vec<_> = rows.map(|(name, row)| row.cells(name)).collect();
    let head = [
        "meanwhile",
        "CPU of one core",
        "renewals",
        "gap, median",
        "gap, longest",
        "the machine stood",
    ];
    print(&head, &rows);
    Ok(())
}

/// The `ip` commands that create a pair with both ends up.
fn pair(name: &str, number: usize) -> String {
    let (one, other) = (format!("{name}{number}"), format!("{name}x{number}"));
    format!("link add {one} type veth peer name {other}\nlink set {one} up\nlink set {other} up\n")
}

/// The result of one kind of change.
struct Row {
    cpu: f64,
    gaps: Vec<f64>,
    stalled: f64,
}

impl Row {
    fn cells(mut self, name: &str) -> Vec<String> {
        self.gaps.sort_by(f64::total_cmp);
        let (median, longest) = (self.gaps[self.gaps.len() / 2], self.gaps[self.gaps.len() - 1]);
        vec![
            name.to_owned(),
            format!("{:.1} %", self.cpu),
            (self.gaps.len() + 1).to_string(),
            format!("{median:.0} ms"),
            format!("{longest:.0} ms"),
            format!("{:.0} ms", self.stalled),
        ]
    }
}

/// Runs the commands of `change` at a fixed rate and records when renewals are stored.
fn measure(
    lab: &Lab,
    ip: &mut Ip,
    turns_a_second: u32,
    change: impl Fn(usize) -> String,
) -> anyhow::Result<Row> {
    let pid = lab.nodes[0].pid().context("the node does not run")?;
    let (begun, cpu) = (clock::boot(), cpu_ms(pid)?);
    let watch = StallWatch::begin();
    let (mut stored, mut version, mut turn) = (Vec::new(), None, 0);
    loop {
        let now = begun.until(clock::boot());
        if now >= WATCH {
            break;
        }
        if f64::from(turns_a_second) * now.as_secs_f64() > turn as f64 {
            ip.run(&change(turn))?;
            turn += 1;
        }
        let lease = lab.api.lease("kube-system", "plndr-cp-lock").context("no Lease")?;
        let found = lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if found != version {
            version = found;
            stored.push(now);
        }
        sleep(Duration::from_millis(1));
    }
    let longest = watch.finish().0.concat().iter().map(|stall| stall.to_ns - stall.from_ns).max();
    ensure!(lab.nodes[0].owns(), "the Lease was lost:\n{}", lab.nodes[0].log());
    ensure!(stored.len() > 2, "nothing was renewed:\n{}", lab.nodes[0].log());
    let gap = |pair: &[Duration]| pair[1].saturating_sub(pair[0]).as_secs_f64() * 1e3;
    Ok(Row {
        cpu: (cpu_ms(pid)? - cpu) / WATCH.as_secs_f64() / 10.0,
        // The first one is the Lease as it was found.
        gaps: stored[1..].windows(2).map(gap).collect(),
        stalled: longest.unwrap_or_default() as f64 / 1e6,
    })
}

/// One long-running `ip` that reads commands: starting a process for each would itself be the load.
struct Ip {
    child: Child,
}

impl Ip {
    fn start(ns: &NetNs) -> anyhow::Result<Self> {
        let mut ip = Command::new("ip");
        ip.args(["-n", ns.name(), "-batch", "-"]);
        Ok(Self { child: ip.stdin(Stdio::piped()).spawn()? })
    }

    fn run(&mut self, lines: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("ip has no input")?;
        stdin.write_all(lines.as_bytes()).context("ip refused a command")
    }
}

impl Drop for Ip {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}
