//! `cargo xtask vm`: guests with other kernels.

mod image;
mod kernels;

use crate::{
    shell::run,
    test::{Count, PACKAGES},
};
use anyhow::{Context as _, bail};
pub use kernels::Kernel;
use kernels::{Packages, Unpacked};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Without hardware support a guest is many times slower than its host.
const LIMIT: Duration = Duration::from_mins(20);

/// How much runs in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every test of the suites whose name contains the filter.
    Whole,
    /// What a change may break on another kernel only: its verifier accepts every program, the
    /// programs decide correctly, guard and fence hold at its hooks. `cargo xtask nightly` runs the
    /// rest.
    Core,
}

impl Extent {
    /// The extent of `cargo xtask test`. A whole run in an emulated guest needs both cores of a
    /// small machine for nine minutes.
    pub fn of_a_change() -> Self {
        if accelerator() == "kvm" { Self::Whole } else { Self::Core }
    }
}

/// A test program, and the filters of its tests for the guests.
struct Suite {
    name: &'static str,
    program: String,
    /// Number of test threads. Labs that measure on the wire run one at a time.
    threads: u32,
    filters: String,
}

/// The tests that depend on the kernel: loading, frames, kinds of device, clocks, guard and fence.
/// Each entry: name, threads, the filters of [`Extent::Whole`] and of [`Extent::Core`].
const SUITES: [(&str, u32, &str, &str); 3] = [
    ("packets", 2, "", "in_the_kernel the_verifier"),
    ("devices", 2, "", "confined"),
    (
        "lab",
        1,
        "guard::nothing guard::a_claim guard::the_vip guard::every faults::killed faults::frozen_for leaving::after_a_crash",
        "guard::nothing",
    ),
];

/// Runs them in a guest for each kernel; returns how many passed and failed.
pub fn vm(kernels: &[Kernel], extent: Extent, filter: &str) -> anyhow::Result<Count> {
    let dir = std::env::current_dir()?.join("target/vm");
    let bins = ["--bin", "xvip", "--bin", "xvip-verifier"];
    run("cargo", &[&["build", "--quiet", "--locked"], &PACKAGES[..], &bins[..]].concat())?;
    let chosen = |whole, core| match (filter, extent) {
        ("", Extent::Whole) => whole,
        ("", Extent::Core) => core,
        (filter, _) => filter,
    };
    let suites = SUITES
        .map(|(name, threads, whole, core)| Suite::build(name, threads, chosen(whole, core)))
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    let packages = Packages::update(&dir.join("apt"), kernels)?;
    let mut total = Count::default();
    for kernel in kernels {
        let kernel = packages.kernel(*kernel)?;
        println!("\n=== kernel {}", kernel.release);
        let at = dir.join(&kernel.release);
        fs::create_dir_all(&at)?;
        image::build(&at.join("root"), &at.join("initrd"), &kernel, &suites)?;
        fs::remove_dir_all(at.join("root"))?;
        total += boot(&at, &kernel, suites.len())?;
    }
    Ok(total)
}

impl Suite {
    /// Builds a test program.
    fn build(name: &'static str, threads: u32, filters: &str) -> anyhow::Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--locked", "--test", name, "--no-run"]).args(PACKAGES);
        let built = cargo.arg("--message-format=json").stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&built.stdout).into_owned();
        let path = |line: &str| -> Option<String> {
            Some(line.split_once("\"executable\":\"")?.1.split('"').next()?.to_owned())
        };
        let named = format!("\"name\":\"{name}\"");
        let program = text.lines().filter(|line| line.contains(&named)).find_map(path);
        let program = program.with_context(|| format!("cargo built no suite {name}"))?;
        Ok(Self { name, program, threads, filters: filters.to_owned() })
    }
}

fn boot(at: &Path, kernel: &Unpacked, suites: usize) -> anyhow::Result<Count> {
    let (console, result) = (at.join("console"), at.join("result"));
    let serial = |path: &Path| format!("file:{}", path.display());
    let mut qemu = Command::new("timeout");
    qemu.args(["-k", "5", &LIMIT.as_secs().to_string(), "qemu-system-x86_64"]);
    qemu.args(["-accel", accelerator(), "-cpu", if accelerator() == "kvm" { "host" } else { "max" }]);
    qemu.args(["-m", "1024", "-smp", "2", "-display", "none", "-monitor", "none", "-nodefaults"]);
    qemu.args(["-no-reboot", "-serial", &serial(&console), "-serial", &serial(&result)]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(at.join("initrd"));
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet net.ifnames=0 apparmor=1 security=apparmor"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::null());
    let status = qemu.status().context("cannot run timeout and qemu-system-x86_64")?;
    let said = fs::read(&result).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    for line in said.lines() {
        println!("{line}");
    }
    if !said.lines().any(|line| line == "EXIT") {
        let console = fs::read(console).unwrap_or_default();
        println!("{}", String::from_utf8_lossy(&console));
        bail!("the guest with kernel {} did not come to its end ({status})", kernel.release);
    }
    if !said.lines().any(|line| line == "VERIFIER 0") {
        bail!("the verifier of kernel {} refuses a program", kernel.release);
    }
    let counts: Vec<Count> = said.lines().filter_map(Count::parse).collect();
    if counts.len() != suites {
        bail!("{} of {suites} suites came to their end in the guest", counts.len());
    }
    let mut total = Count::default();
    for count in counts {
        total += count;
    }
    Ok(total)
}

/// KVM only if its module is loaded: the device file alone does not show that it works.
fn accelerator() -> &'static str {
    let kvm = ["kvm_intel", "kvm_amd"].iter().any(|name| Path::new("/sys/module").join(name).exists());
    if kvm && Path::new("/dev/kvm").exists() { "kvm" } else { "tcg" }
}
