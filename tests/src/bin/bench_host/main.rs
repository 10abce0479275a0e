//! What one host can carry: answers per second on one core against the kernel's own, a daemon with
//! ten thousand VIPs, and one with five hundred interfaces.

mod interfaces;
mod vips;

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, HashMap, MapData},
    programs::{TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use std::{fs, process::ExitCode, thread::sleep, time::Duration};
use vip_common::abi::{Fence, Iface, Ip, Vip};
use vip_tests::{
    frames::{arp_request, solicitation},
    kernel_run,
    netns::NetNs,
};
use vip_user::{cli::table::print, clock};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Questions per measurement, the number of measurements of which the median counts, frames per
/// batch of the kernel.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 9;
const BATCH: u32 = 64;
const WANTED: f64 = 4.0;

fn main() -> anyhow::Result<ExitCode> {
    answers()?;
    vips::ten_thousand(&[1, 64])?;
    interfaces::many()?;
    Ok(ExitCode::SUCCESS)
}

/// Questions arrive at one end of a veth as live frames; answers are counted at the other.
fn answers() -> anyhow::Result<()> {
    println!(
        "answers per second on one core, medians of {ROUNDS} rounds of {REPEAT} questions in turns\n"
    );
    let ns = NetNs::new(&format!("xvbench{}", std::process::id()))?;
    ns.ip("link add asker type veth peer name host address 02:00:00:00:00:01")?;
    ns.ip("link set asker address 02:00:00:00:00:02 up")?;
    ns.ip("link set host up")?;
    for address in ["192.0.2.1/24", "2001:db8::1/64 nodad"] {
        ns.ip(&format!("addr add {address} dev host"))?;
    }
    let [vip4, kernel4] = [[192, 0, 2, 10], [192, 0, 2, 1]];
    let v6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let (asker4, asker6) = ([192, 0, 2, 2], v6(2));
    let rows = ns.run(|| -> anyhow::Result<Vec<Vec<String>>> {
        pin_to_one_core()?;
        let host = ifindex("host")?;
        let mut ours = Responder::load(host, &[Ip::v4(vip4), Ip::v6(v6(10))])?;
        let mut kernel = Responder::passing()?;
        // Answers are dropped on arrival, so that the asker's stack adds no cost.
        ours.attach_sink("asker")?;
        let mut rows = Vec::new();
        for (name, vip, own) in [
            ("ARP", arp_request(ASKER, asker4, vip4), arp_request(ASKER, asker4, kernel4)),
            ("NS", solicitation(ASKER, asker6, v6(10)), solicitation(ASKER, asker6, v6(1))),
        ] {
            let mut times = [const { Vec::new() }; 4];
            for _ in 0..ROUNDS {
                times[0].push(ours.ns_per_answer("bench_answer", &vip, host)?);
                times[1].push(ours.ns_per_frame("bench_restore_drop", &vip, host)?);
                times[2].push(ours.ns_per_frame("bench_drop", &vip, host)?);
                times[3].push(kernel.ns_per_answer("xvip_pass", &own, host)?);
            }
            let [answer, restore, drop, kernel] = times.map(median);
            let (xvip, kernel) = (1e9 / (answer - (restore - drop)), 1e9 / kernel);
            rows.push(vec![
                name.into(),
                format!("{:.2} M/s", xvip / 1e6),
                format!("{:.2} M/s", kernel / 1e6),
                format!("{:.1} x", xvip / kernel),
                format!(">= {WANTED} x"),
            ]);
        }
        Ok(rows)
    })??;
    print(&["question", "xvip, native XDP", "the kernel itself", "ratio", "wanted"], &rows);
    Ok(())
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Question([u16; 43]);

// SAFETY: a transparent array of integers.
unsafe impl aya::Pod for Question {}

struct Responder {
    ebpf: Ebpf,
}

impl Responder {
    fn load(ifindex: u32, vips: &[Ip]) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &0_u8, false);
        let mut ebpf = loader.load(vip_user::node::programs::bench_object())?;
        for name in ["bench_answer", "bench_restore_drop", "bench_drop"] {
            let xdp: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            xdp.load()?;
        }
        let mut map: HashMap<&mut MapData, Ip, Vip> =
            ebpf.map_mut("VIPS").context("VIPS")?.try_into()?;
        vips.iter().try_for_each(|ip| map.insert(ip, Vip::new(0, 1, 1, 1), 0))?;
        let mut map: Array<&mut MapData, Fence> =
            ebpf.map_mut("FENCES").context("FENCES")?.try_into()?;
        map.set(0, Fence::new(u64::MAX, 1), 0)?;
        let mut map: Array<&mut MapData, Iface> =
            ebpf.map_mut("IFACES_BY_INDEX").context("IFACES_BY_INDEX")?.try_into()?;
        map.set(ifindex, Iface { mac: MAC, bit: 0, up: 1, known: 1, alias: 0, _reserved: [0; 6] }, 0)?;
        Ok(Self { ebpf })
    }

    fn attach_sink(&mut self, interface: &str) -> anyhow::Result<()> {
        let xdp: &mut Xdp = self.ebpf.program_mut("bench_drop").context("bench_drop")?.try_into()?;
        xdp.attach(interface, XdpMode::Driver)?;
        Ok(())
    }

    /// Nothing but a program that passes every frame to the stack.
    fn passing() -> anyhow::Result<Self> {
        let mut ebpf = kernel_run::load()?;
        let xdp: &mut Xdp = ebpf.program_mut("xvip_pass").context("xvip_pass")?.try_into()?;
        xdp.load()?;
        Ok(Self { ebpf })
    }

    /// Time per answer that has arrived at the other end.
    fn ns_per_answer(&mut self, program: &str, question: &[u8], ifindex: u32) -> anyhow::Result<f64> {
        let before = received()?;
        let took = self.ns_per_frame(program, question, ifindex)? * f64::from(REPEAT);
        // Frames that are still in the ring belong to this round.
        sleep(Duration::from_millis(20));
        Ok(took / (received()? - before) as f64)
    }

    /// Time per live frame. The kernel reuses frames unchanged, so a program that answers first
    /// restores the question. That cost is measured separately and subtracted.
    fn ns_per_frame(&mut self, program: &str, question: &[u8], ifindex: u32) -> anyhow::Result<f64> {
        let mut question = question.to_vec();
        question.resize(if question.len() > 60 { 86 } else { 60 }, 0);
        let mut words = Question([0; 43]);
        bytemuck::bytes_of_mut(&mut words.0)[..question.len()].copy_from_slice(&question);
        if let Some(map) = self.ebpf.map_mut("QUESTION") {
            let mut map: Array<&mut MapData, Question> = map.try_into()?;
            map.set(0, words, 0)?;
        }
        let xdp: &mut Xdp = self.ebpf.program_mut(program).context("program")?.try_into()?;
        // struct xdp_md: the frame's end and its incoming interface.
        let context = [0, question.len() as u32, 0, ifindex, 0, 0];
        let options = TestRunOptions {
            data_in: Some(&question),
            ctx_in: Some(bytemuck::cast_slice(&context)),
            repeat: REPEAT,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let begun = clock::boot();
        xdp.test_run(options)?;
        Ok(begun.until(clock::boot()).as_nanos() as f64 / f64::from(REPEAT))
    }
}

/// Frames that the asker's end has received. `/sys` shows another namespace here, `/proc/net` ours.
fn received() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("asker:")).context("asker")?;
    Ok(line.split_whitespace().nth(1).context("packets")?.parse()?)
}

fn ifindex(name: &str) -> std::io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the pointer is to a live string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(std::io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn pin_to_one_core() -> std::io::Result<()> {
    // SAFETY: an all-zero set is valid, and the pointer is to a live one.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// User and system time of a process.
fn cpu_ms(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every relevant architecture.
    Ok(ticks * 10.0)
}

fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("kB")?.parse::<f64>()? / 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
