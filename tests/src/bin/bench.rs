//! Nanoseconds per packet, by `BPF_PROG_TEST_RUN`, as ratios to the floor of an XDP_PASS in the
//! same run. It runs twice, because without CAP_PERFMON the kernel adds barriers against
//! speculative execution to a program.

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, HashMap, MapData},
    programs::{TestRunOptions, Xdp},
};
use std::process::{Command, ExitCode};
use vip_common::abi::{Fence, Iface, Ip, Vip};
use vip_tests::{
    frames::{arp_request, ethernet, icmp6, solicitation},
    kernel_run::KernelRun,
    lab::node::rights,
    packets::{IFINDEX, Kind, MAC, PEER, PEER4, PEER6, fences, ifaces, vips},
};
use vip_user::cli::table::print;

/// The kernel's return values for an answer, and for a frame that the guard passes.
const XDP_TX: u32 = 3;
const TC_ACT_UNSPEC: u32 = u32::MAX;
/// Runs per measurement, and the number of measurements of which the median counts.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 15;

struct Bench {
    ebpf: Ebpf,
}

impl Bench {
    fn load(more_vips: u32, drop_on_loss: bool) -> anyhow::Result<Self> {
        let (mut loader, strict) = (EbpfLoader::new(), u8::from(drop_on_loss));
        loader.override_global("DROP_ON_LOSS", &strict, true);
        let mut ebpf = loader.load(vip_user::node::programs::bench_object())?;
        for name in ["bench_restore", "bench_answer", "bench_decide"] {
            let xdp: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            xdp.load()?;
        }
        let mut map: HashMap<&mut MapData, Ip, Vip> =
            ebpf.map_mut("VIPS").context("VIPS")?.try_into()?;
        let other = |n: u32| Ip::v6(bytemuck::cast([0x2001_0db8_u32.to_be(), 7, 7, n.to_be()]));
        let fill = (0..more_vips).map(|n| (other(n), vips()[0].1));
        for (ip, vip) in vips().into_iter().chain(fill) {
            map.insert(ip, vip, 0)?;
        }
        let mut map: Array<&mut MapData, Fence> =
            ebpf.map_mut("FENCES").context("FENCES")?.try_into()?;
        fences().into_iter().try_for_each(|(slot, fence)| map.set(slot, fence, 0))?;
        let mut map: Array<&mut MapData, Iface> =
            ebpf.map_mut("IFACES_BY_INDEX").context("IFACES_BY_INDEX")?.try_into()?;
        map.set(IFINDEX, ifaces()[0].1, 0)?;
        Ok(Self { ebpf })
    }

    fn ask(&mut self, question: &[u8]) -> anyhow::Result<()> {
        let mut words = Words([0; 43]);
        bytemuck::bytes_of_mut(&mut words.0)[..question.len()].copy_from_slice(question);
        let mut map: Array<&mut MapData, Words> =
            self.ebpf.map_mut("QUESTION").context("QUESTION")?.try_into()?;
        Ok(map.set(0, words, 0)?)
    }

    /// The verdict, and nanoseconds per run of a program on a question.
    fn run(&mut self, program: &str, question: &[u8]) -> anyhow::Result<(u32, f64)> {
        let xdp: &mut Xdp = self.ebpf.program_mut(program).context("program")?.try_into()?;
        let options =
            TestRunOptions { data_in: Some(question), repeat: REPEAT, ..TestRunOptions::default() };
        let result = xdp.test_run(options)?;
        Ok((result.return_value, result.duration.as_nanos() as f64))
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Words([u16; 43]);

// SAFETY: a transparent array of integers.
unsafe impl aya::Pod for Words {}

/// The restore loop copies 43 words into frames of at least this length, 30 words into shorter
/// ones.
const LONG: usize = 86;

/// The argument of the second run, which has only the rights of the manifests.
const AS_SHIPPED: &str = "as-shipped";

fn main() -> anyhow::Result<ExitCode> {
    let shipped = std::env::args().nth(1).is_some_and(|argument| argument == AS_SHIPPED);
    let with = if shipped { "with the capabilities of the manifests" } else { "with CAP_PERFMON too" };
    println!("{with}: medians of {ROUNDS} rounds of {REPEAT} runs each");
    println!("floor: XDP_PASS alone, in the same rounds\n");
    arriving(shipped)?;
    leaving()?;
    if shipped {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    let mut again = Command::new("setpriv");
    again.args(rights()).arg(std::env::current_exe()?).arg(AS_SHIPPED);
    let status = again.status().context("cannot run setpriv")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Outgoing packets: each one of the host goes through the guard.
fn leaving() -> anyhow::Result<()> {
    let tcp = ethernet(PEER, MAC, 0x0800, &[0x45; 46]);
    let announcement = |kind: Kind| arp_request(MAC, kind.v4(), kind.v4());
    let frames = [
        ("TCP over IPv4", tcp),
        ("announcement, held", announcement(Kind::Held)),
        ("announcement, not held", announcement(Kind::NotHeld)),
    ];
    let mut run = KernelRun::new()?;
    vips().into_iter().try_for_each(|(ip, vip)| run.set_vip(ip, vip))?;
    fences().into_iter().try_for_each(|(slot, fence)| run.set_fence(slot, fence))?;
    ifaces().into_iter().try_for_each(|(port, iface)| run.set_iface(port, iface))?;
    let mut rows = Vec::new();
    for (name, frame) in frames {
        let mut times = [const { Vec::new() }; 2];
        let mut verdict = "dropped";
        for _ in 0..ROUNDS {
            times[0].push(run.xdp("xvip_pass", &frame, REPEAT)?.duration.as_nanos() as f64);
            let ran = run.tc("xvip_egress", &frame, REPEAT)?;
            times[1].push(ran.duration.as_nanos() as f64);
            if ran.action == TC_ACT_UNSPEC {
                verdict = "let through";
            }
        }
        let [floor, guard] = times.map(median);
        let (ns, ratio) = (format!("{guard:.0}"), format!("{:.2}", guard / floor));
        rows.push(vec![name.to_owned(), verdict.to_owned(), format!("{floor:.0}"), ns, ratio]);
    }
    println!();
    print(&["leaving", "verdict", "floor ns", "ns", "x floor"], &rows);
    Ok(())
}

/// Incoming packets. Limits apply to traffic always, to answers only without barriers.
fn arriving(shipped: bool) -> anyhow::Result<()> {
    let padded = |mut frame: Vec<u8>| {
        frame.resize(if frame.len() > 60 { frame.len().max(LONG) } else { 60 }, 0);
        frame.truncate(LONG);
        frame
    };
    let mut tcp6 = icmp6(PEER6, Kind::Held.v6(), 64, &[0; 20]);
    tcp6[6] = 6;
    let user = |kind: Kind| {
        let mut packet = [0; 46];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[16..20].copy_from_slice(&kind.v4());
        ethernet(MAC, PEER, 0x0800, &packet)
    };
    let questions = [
        ("not ours: TCP over IPv4", ethernet(MAC, PEER, 0x0800, &[0x45; 46]), Some(1.15)),
        ("not ours: TCP over IPv6", ethernet(MAC, PEER, 0x86dd, &tcp6), Some(1.15)),
        ("TCP to a VIP that is held", user(Kind::Held), None),
        ("TCP to a VIP that was lost", user(Kind::Expired), None),
        ("ARP, unknown address", arp_request(PEER, PEER4, Kind::Unknown.v4()), None),
        ("ARP, not held", arp_request(PEER, PEER4, Kind::NotHeld.v4()), None),
        ("ARP, expired", arp_request(PEER, PEER4, Kind::Expired.v4()), None),
        ("ARP, answered", arp_request(PEER, PEER4, Kind::Held.v4()), Some(5.0)),
        ("NS, unknown address", solicitation(PEER, PEER6, Kind::Unknown.v6()), None),
        ("NS, not held", solicitation(PEER, PEER6, Kind::NotHeld.v6()), None),
        ("NS, expired", solicitation(PEER, PEER6, Kind::Expired.v6()), None),
        ("NS, answered", solicitation(PEER, PEER6, Kind::Held.v6()), Some(6.0)),
    ];
    let mut benches = [
        Bench::load(0, false)?,
        Bench::load(1_000, false)?,
        Bench::load(10_000, false)?,
        Bench::load(0, true)?,
    ];
    let mut floor_run = KernelRun::new()?;
    println!("restore: writing an answered question back before each run; it is taken off\n");
    let mut rows = Vec::new();
    let mut missed = Vec::new();
    for (name, question, wanted) in questions {
        let question = padded(question);
        benches.iter_mut().try_for_each(|bench| bench.ask(&question))?;
        // A frame that is not answered stays unchanged and needs no restoring.
        let (action, _) = benches[0].run("bench_answer", &question)?;
        let program = if action == XDP_TX { "bench_answer" } else { "bench_decide" };
        // The programs are measured in turns, so that a slow phase of the machine affects all
        // alike.
        let mut times = [const { Vec::new() }; 6];
        for _ in 0..ROUNDS {
            times[0].push(floor_run.xdp("xvip_pass", &question, REPEAT)?.duration.as_nanos() as f64);
            times[1].push(benches[0].run("bench_restore", &question)?.1);
            for (bench, times) in benches.iter_mut().zip(&mut times[2..]) {
                times.push(bench.run(program, &question)?.1);
            }
        }
        let [floor, restore, few, thousand, ten_thousand, strict] = times.map(median);
        // The measured restoring includes one pass program, which is not to be subtracted.
        let restore = if action == XDP_TX { restore - floor } else { 0.0 };
        let [net, thousand, ten_thousand, strict] =
            [few, thousand, ten_thousand, strict].map(|time| time - restore);
        let ratio = net / floor;
        let wanted = wanted.filter(|_| !shipped || action != XDP_TX);
        if wanted.is_some_and(|wanted| ratio > wanted) {
            missed.push(name);
        }
        rows.push(vec![
            name.to_owned(),
            ["aborted", "drop", "pass", "answer"].get(action as usize).unwrap_or(&"?").to_string(),
            format!("{floor:.0}"),
            format!("{restore:.0}"),
            format!("{net:.0}"),
            format!("{ratio:.2}"),
            wanted.map_or("-".into(), |wanted| format!("<= {wanted}")),
            format!("{:.2}", strict / floor),
            format!("{:+.0} %", (thousand / net - 1.0) * 100.0),
            format!("{:+.0} %", (ten_thousand / net - 1.0) * 100.0),
        ]);
    }
    print(
        &[
            "frame",
            "verdict",
            "floor ns",
            "restore ns",
            "net ns, few VIPs",
            "x floor",
            "wanted",
            "x floor, on_loss: drop",
            "1000 VIPs",
            "10000 VIPs",
        ],
        &rows,
    );
    if missed.is_empty() {
        println!("\nall wanted ratios are met");
    } else {
        println!("\nwanted ratios that were missed in this run: {}", missed.join(", "));
    }
    Ok(())
}
