//! The programs in the kernel: a pass program for the far end of veths, and `BPF_PROG_TEST_RUN`.

use crate::netns::NetNs;
use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRunOptions, Xdp, XdpMode, tc::TcAttachOptions,
    },
};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    time::Duration,
};
use vip_common::{
    abi::{Fence, Holder, Iface, Ip, Port, Vip},
    counter::Counter,
};

/// Pass programs on the bridge's ports: a frame sent by `XDP_TX` on a veth arrives only if the far
/// end has a program.
pub struct AttachedPass {
    _ebpf: Ebpf,
}

/// Whether this kernel has at least this version.
///
/// # Errors
/// If its version cannot be read.
pub fn kernel_is(major: u32, minor: u32) -> anyhow::Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(str::parse);
    let (Some(Ok(has_major)), Some(Ok(has_minor))) = (numbers.next(), numbers.next()) else {
        bail!("{release:?} does not begin with two numbers");
    };
    Ok((has_major, has_minor) >= (major, minor))
}

/// Whether this kernel has the XDP features that xvip needs: before 5.18 TC answers
/// (docs/interfaces.md).
///
/// # Errors
/// As for [`kernel_is`].
pub fn has_multi_buffer_xdp() -> anyhow::Result<bool> {
    kernel_is(5, 18)
}

/// Attaches the pass program to ports inside a namespace.
///
/// # Errors
/// If it cannot be loaded or attached.
pub fn attach_pass(ns: &NetNs, ports: &[String]) -> anyhow::Result<AttachedPass> {
    ns.run(|| {
        let mut ebpf = load()?;
        if !has_multi_buffer_xdp()? {
            return Ok(AttachedPass { _ebpf: ebpf });
        }
        let pass: &mut Xdp = ebpf.program_mut("xvip_pass").context("xvip_pass")?.try_into()?;
        pass.load()?;
        for port in ports {
            pass.attach(port, XdpMode::Driver).with_context(|| format!("attach to {port}"))?;
        }
        Ok(AttachedPass { _ebpf: ebpf })
    })?
}

/// Puts another program first at TC egress (tcx) of an interface, until the value is dropped.
///
/// # Errors
/// If it cannot be loaded or attached.
pub fn attach_egress_first(ns: &NetNs, interface: &str) -> anyhow::Result<AttachedPass> {
    ns.run(|| {
        let mut ebpf = load()?;
        // With empty maps xvip's guard passes every frame, so it can play a foreign program.
        let tc: &mut SchedClassifier =
            ebpf.program_mut("xvip_egress").context("xvip_egress")?.try_into()?;
        tc.load()?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        tc.attach_with_options(interface, TcAttachType::Egress, order)?;
        Ok(AttachedPass { _ebpf: ebpf })
    })?
}

/// Another program behind xvip's at TC egress (tcx) of an interface, as Cilium attaches its own. It
/// passes every frame except claims of one address, which it drops and counts.
pub struct Chained {
    run: KernelRun,
}

impl Chained {
    /// Attaches it until the value is dropped.
    ///
    /// # Errors
    /// If it cannot be loaded or attached.
    pub fn behind(ns: &NetNs, interface: &str, knows: [u8; 4]) -> anyhow::Result<Self> {
        ns.run(|| {
            let mut run = KernelRun::new()?;
            run.set_vip(Ip::v4(knows), Vip::new(0, 0, 0, u64::MAX))?;
            let tc: &mut SchedClassifier =
                run.ebpf.program_mut("xvip_egress").context("xvip_egress")?.try_into()?;
            let order = TcAttachOptions::TcxOrder(LinkOrder::last());
            tc.attach_with_options(interface, TcAttachType::Egress, order)?;
            Ok(Self { run })
        })?
    }

    /// How many claims of its address it has seen.
    ///
    /// # Errors
    /// If its counters cannot be read.
    pub fn claims_seen(&self) -> anyhow::Result<u64> {
        // Without an entry for its interface, a claim counts as one on the wrong interface.
        let counters = self.run.counters()?;
        Ok(counters.get(Counter::ClaimWrongInterface as usize).copied().unwrap_or(0))
    }
}

/// Loads the object with new maps, nothing pinned.
///
/// # Errors
/// Without rights, or if the object is broken.
pub fn load() -> anyhow::Result<Ebpf> {
    load_with(false)
}

fn load_with(drop_on_loss: bool) -> anyhow::Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    let drop_on_loss = u8::from(drop_on_loss);
    loader.override_global("AYA_LOG_LEVEL", &0_u8, true);
    loader.override_global("DROP_ON_LOSS", &drop_on_loss, true);
    loader
        .load(vip_user::node::programs::object())
        .context("cannot load the eBPF object (root is needed)")
}

/// The programs with their maps, run on frames by the kernel.
pub struct KernelRun {
    ebpf: Ebpf,
    /// Reported claims. If nothing reads them, the ring fills up and further claims are counted as
    /// lost.
    claims: RingBuf<MapData>,
    /// Number of CPUs for which `COUNTERS` has values.
    cpus: usize,
    /// The counters at the last call of `counted`.
    seen: Vec<u64>,
}

/// The result of one run of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its return value.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time per run.
    pub duration: Duration,
}

impl KernelRun {
    /// Loads all programs.
    ///
    /// # Errors
    /// Without rights, or if the verifier rejects one.
    pub fn new() -> anyhow::Result<Self> {
        Self::with(false)
    }

    /// The same with `on_loss: drop`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with(drop_on_loss: bool) -> anyhow::Result<Self> {
        let mut ebpf = load_with(drop_on_loss)?;
        let xdp: &[&str] = if has_multi_buffer_xdp()? { &["xvip_xdp", "xvip_pass"] } else { &[] };
        for name in xdp {
            let xdp: &mut Xdp = ebpf.program_mut(name).context(*name)?.try_into()?;
            xdp.load()?;
        }
        for name in ["xvip_ingress", "xvip_egress"] {
            let tc: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
            tc.load()?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("CPUs")?;
        let claims = RingBuf::try_from(ebpf.take_map("CLAIMS").context("CLAIMS")?)?;
        Ok(Self { ebpf, claims, cpus, seen: vec![0; Counter::ALL.len()] })
    }

    /// Writes an entry of `VIPS`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_vip(&mut self, ip: Ip, vip: Vip) -> anyhow::Result<()> {
        let mut map: HashMap<&mut MapData, Ip, Vip> =
            self.ebpf.map_mut("VIPS").context("VIPS")?.try_into()?;
        Ok(map.insert(ip, vip, 0)?)
    }

    /// Writes a fence.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_fence(&mut self, slot: u32, fence: Fence) -> anyhow::Result<()> {
        let mut map: Array<&mut MapData, Fence> =
            self.ebpf.map_mut("FENCES").context("FENCES")?.try_into()?;
        Ok(map.set(slot, fence, 0)?)
    }

    /// Writes an entry of `HOLDERS`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_holder(&mut self, slot: u32, holder: Holder) -> anyhow::Result<()> {
        let mut map: Array<&mut MapData, Holder> =
            self.ebpf.map_mut("HOLDERS").context("HOLDERS")?.try_into()?;
        Ok(map.set(slot, holder, 0)?)
    }

    /// Writes an entry of `IFACES`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_iface(&mut self, port: Port, iface: Iface) -> anyhow::Result<()> {
        let mut map: HashMap<&mut MapData, Port, Iface> =
            self.ebpf.map_mut("IFACES").context("IFACES")?.try_into()?;
        map.insert(port, iface, 0)?;
        if port.outer_vid == 0 {
            let mut map: Array<&mut MapData, Iface> =
                self.ebpf.map_mut("IFACES_BY_INDEX").context("IFACES_BY_INDEX")?.try_into()?;
            map.set(port.ifindex, iface, 0)?;
        }
        Ok(())
    }

    /// All counters.
    ///
    /// # Errors
    /// Those of the map.
    pub fn counters(&self) -> anyhow::Result<Vec<u64>> {
        let Some(Map::PerCpuArray(map)) = self.ebpf.map("COUNTERS") else { bail!("no COUNTERS") };
        let fd = map.fd().as_fd();
        let mut values = vec![0; self.cpus];
        let sum = |counter: &Counter| -> anyhow::Result<u64> {
            look_up(fd, *counter as u32, &mut values)?;
            Ok(values.iter().sum())
        };
        Counter::ALL.iter().map(sum).collect()
    }

    /// The scratch space of every CPU; the last word is the number of programs that use it.
    ///
    /// # Errors
    /// Those of the map.
    pub fn scratch(&self) -> anyhow::Result<Vec<[u64; 9]>> {
        let map: PerCpuArray<&MapData, [u64; 9]> =
            self.ebpf.map("SCRATCH").context("SCRATCH")?.try_into()?;
        Ok(map.get(&0, 0)?.to_vec())
    }

    /// Writes the scratch space of every CPU.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_scratch(&mut self, words: [u64; 9]) -> anyhow::Result<()> {
        let mut map: PerCpuArray<&mut MapData, [u64; 9]> =
            self.ebpf.map_mut("SCRATCH").context("SCRATCH")?.try_into()?;
        Ok(map.set(0, PerCpuValues::try_from(vec![words; self.cpus])?, 0)?)
    }

    /// The counters that were raised since the last call.
    ///
    /// # Errors
    /// Those of the map.
    pub fn counted(&mut self) -> anyhow::Result<Vec<Counter>> {
        while self.claims.next().is_some() {}
        let now = self.counters()?;
        let before = std::mem::replace(&mut self.seen, now);
        let all = Counter::ALL.iter().zip(before.iter().zip(&self.seen));
        Ok(all.flat_map(|(counter, (before, now))| vec![*counter; (now - before) as usize]).collect())
    }

    /// Runs an XDP program on a frame from `lo` (the kernel's choice for test runs).
    ///
    /// # Errors
    /// Those of `BPF_PROG_TEST_RUN`.
    pub fn xdp(&mut self, program: &str, frame: &[u8], repeat: u32) -> anyhow::Result<Ran> {
        let xdp: &mut Xdp = self.ebpf.program_mut(program).context("program")?.try_into()?;
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = xdp.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok(Ran { action: result.return_value, frame: out, duration: result.duration })
    }

    /// The program that answers at XDP, for several threads to run.
    ///
    /// # Errors
    /// If this kernel has no such program.
    pub fn answering_xdp(&self) -> anyhow::Result<&Xdp> {
        Ok(self.ebpf.program("xvip_xdp").context("xvip_xdp")?.try_into()?)
    }

    /// Runs a TC program on a frame of `lo`.
    ///
    /// # Errors
    /// Those of `BPF_PROG_TEST_RUN`.
    pub fn tc(&mut self, program: &str, frame: &[u8], repeat: u32) -> anyhow::Result<Ran> {
        let tc: &mut SchedClassifier = self.ebpf.program_mut(program).context("program")?.try_into()?;
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = tc.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok(Ran { action: result.return_value, frame: out, duration: result.duration })
    }
}

/// A value of a per-CPU array. aya reads the number of CPUs from a file each time, and a soak reads
/// billions of times.
fn look_up(map: BorrowedFd<'_>, index: u32, values: &mut [u64]) -> io::Result<()> {
    const LOOK_UP: libc::c_int = 1;
    // `union bpf_attr`: descriptor, key, value, flags.
    let (key, to) = (&raw const index as u64, values.as_mut_ptr() as u64);
    let mut attr = [map.as_raw_fd() as u64, key, to, 0];
    // SAFETY: the pointers are to a live key and to room for one value of each CPU.
    let result = unsafe { libc::syscall(libc::SYS_bpf, LOOK_UP, &raw mut attr, size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
