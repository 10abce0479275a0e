//! Guests with other kernels than this machine's: `cargo xtask vm`.

mod image;
mod kernels;

use crate::{shell::run, test::Count};
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

/// Runs the tests of devices in a guest for each kernel; returns how many passed and failed.
pub fn vm(kernels: &[Kernel], filter: &str) -> anyhow::Result<Count> {
    let dir = std::env::current_dir()?.join("target/vm");
    let bins = ["-p", "vip-user", "-p", "vip-tests", "--bin", "xvip", "--bin", "xvip-verifier"];
    run("cargo", &[&["build", "--quiet", "--locked"], &bins[..]].concat())?;
    let tests = test_binary()?;
    let packages = Packages::update(&dir.join("apt"), kernels)?;
    let mut total = Count::default();
    for kernel in kernels {
        let kernel = packages.kernel(*kernel)?;
        println!("\n=== kernel {}", kernel.release);
        let at = dir.join(&kernel.release);
        fs::create_dir_all(&at)?;
        image::build(&at.join("root"), &at.join("initrd"), &kernel, &tests, filter)?;
        fs::remove_dir_all(at.join("root"))?;
        total += boot(&at, &kernel)?;
    }
    Ok(total)
}

/// Builds the tests and returns the path of their program.
fn test_binary() -> anyhow::Result<String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "-p", "vip-tests", "--test", "devices", "--no-run"]);
    let built = cargo.arg("--message-format=json").stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let path = text
        .lines()
        .filter(|line| line.contains("\"name\":\"devices\""))
        .find_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next().map(str::to_owned));
    path.context("cargo built no tests of devices")
}

fn boot(at: &Path, kernel: &Unpacked) -> anyhow::Result<Count> {
    let (console, result) = (at.join("console"), at.join("result"));
    let serial = |path: &Path| format!("file:{}", path.display());
    let mut qemu = Command::new("timeout");
    qemu.args(["-k", "5", &LIMIT.as_secs().to_string(), "qemu-system-x86_64"]);
    qemu.args(["-accel", accelerator(), "-cpu", if accelerator() == "kvm" { "host" } else { "max" }]);
    qemu.args(["-m", "1024", "-smp", "2", "-display", "none", "-monitor", "none", "-nodefaults"]);
    qemu.args(["-no-reboot", "-serial", &serial(&console), "-serial", &serial(&result)]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(at.join("initrd"));
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet net.ifnames=0"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::null());
    let status = qemu.status().context("cannot run timeout and qemu-system-x86_64")?;
    let said = fs::read(&result).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    for line in said.lines().filter(|line| !line.starts_with("EXIT ")) {
        println!("{line}");
    }
    if !said.lines().any(|line| line.starts_with("EXIT ")) {
        let console = fs::read(console).unwrap_or_default();
        println!("{}", String::from_utf8_lossy(&console));
        bail!("the guest with kernel {} did not come to its end ({status})", kernel.release);
    }
    said.lines().find_map(Count::parse).context("the tests in the guest did not come to their end")
}

/// KVM only where its module is loaded: the device file alone promises nothing.
fn accelerator() -> &'static str {
    let kvm = ["kvm_intel", "kvm_amd"].iter().any(|name| Path::new("/sys/module").join(name).exists());
    if kvm && Path::new("/dev/kvm").exists() { "kvm" } else { "tcg" }
}
