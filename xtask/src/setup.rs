//! Installs missing packages and tools, and only those.

use crate::shell::{output, run, run_command, succeeds};
use anyhow::{Context as _, bail};
use std::{path::Path, process::Command};

/// How much to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Building, and the lab.
    Build,
    /// The tests too.
    Tests,
    /// The checks of CI too.
    Lint,
}

/// A Debian package, and why it is needed.
type Package = (&'static str, &'static str);

const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";

/// Installs what nodes of the test cluster need.
pub fn cluster() -> anyhow::Result<()> {
    install(&[
        ("runc", "runs the containers of the test cluster"),
        ("procps", "the tests of the cluster end processes by name, on their own nodes"),
    ])
}

/// Installs kubectl, unless it exists.
pub fn kubectl() -> anyhow::Result<()> {
    if succeeds("kubectl", &["version", "--client"]) {
        return Ok(());
    }
    install(&[("kubernetes-client", "kubectl, to look at the cluster")])
}

/// Installs a program to compare xvip with.
pub fn peer(name: Option<&str>) -> anyhow::Result<()> {
    match name {
        None => Ok(()),
        Some("keepalived") => install(&[("keepalived", "is measured beside xvip in the same lab")]),
        Some(other) => bail!("--peer: {other} cannot be used: keepalived is the only one"),
    }
}

/// Installs what is missing.
pub fn setup(extent: Extent) -> anyhow::Result<()> {
    if std::env::var_os("XVIP_EBPF_OBJECT").is_none() {
        toolchain()?;
    }
    let mut packages: Vec<Package> = vec![
        ("iproute2", "makes the namespaces and links of the lab"),
        ("util-linux", "nsenter runs the nodes inside them"),
        ("llvm", "llvm-strip makes the eBPF object small"),
    ];
    if extent >= Extent::Tests {
        packages.push(("bpftool", "a test reads the pinned maps as users do"));
        packages.push(("g++", "compiles libFuzzer's loop"));
        packages.push(("iputils-arping", "a test claims a VIP with another program"));
        packages.push(("qemu-system-x86", "guests with other kernels: VLANs, bonds, no tcx"));
        packages.push(("ca-certificates", "the guests' API client wants some"));
        packages.push(("busybox-static", "the guests' shell"));
        packages.push(("apparmor", "the guests run a node under a container's profile"));
        packages.push(("cpio", "packs the guests' file system"));
        packages.push(("kmod", "finds and loads the modules of the guests' kernels"));
    }
    if extent >= Extent::Lint {
        packages.push(("rust-web-clippy", "lints the eBPF crate for its own target"));
    }
    install(&packages)?;
    if extent >= Extent::Lint && !succeeds("cargo", &["deny", "--version"]) {
        println!("setup: installing cargo-deny {CARGO_DENY}: keeps the list of dependencies honest");
        run("cargo", &["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY])?;
    }
    Ok(())
}

/// A compiler for the BPF target, and the linker.
fn toolchain() -> anyhow::Result<()> {
    let rustc: &[&str] = if nightly_has_rust_src() {
        &["rustup", "run", "nightly", "rustc"]
    } else {
        install(&[
            ("rustc-web", "a stable rustc that has the BPF target"),
            ("cargo-web", "its cargo"),
            ("libstd-rust-web-dev-bpf", "its prebuilt core for bpfel-unknown-none"),
        ])?;
        &["/usr/bin/rustc"]
    };
    if succeeds("bpf-linker", &["--version"])
        || installed_linker().is_some_and(|path| Path::new(&path).exists())
    {
        return Ok(());
    }
    let args: Vec<&str> = rustc[1..].iter().copied().chain(["-vV"]).collect();
    let version = output(rustc[0], &args).context("the BPF compiler does not run")?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .context("rustc -vV names no LLVM version")?;
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    install(&[
        (&dev, "bpf-linker links against the compiler's LLVM"),
        (&polly, "needed by the package before"),
    ])?;
    println!("setup: installing bpf-linker {BPF_LINKER}: links the eBPF object");
    run_command(
        Command::new("cargo")
            .args(["install", "--quiet", "bpf-linker", "--version", BPF_LINKER])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
            .env("RUSTFLAGS", format!("-L /usr/lib/llvm-{llvm}/lib")),
    )
}

/// The linker where `cargo install` puts it, which may not be in PATH.
#[expect(clippy::disallowed_methods, reason = "cargo's own directory is known by environment only")]
fn installed_linker() -> Option<String> {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    Some(format!("{}/bin/bpf-linker", home.ok()?))
}

fn nightly_has_rust_src() -> bool {
    let sysroot = output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]);
    sysroot
        .is_some_and(|path| Path::new(path.trim()).join("lib/rustlib/src/rust/library/core").exists())
}

fn install(packages: &[(&str, &str)]) -> anyhow::Result<()> {
    let installed = |name: &str| {
        output("dpkg-query", &["-W", "-f=${Status}", name])
            .is_some_and(|status| status.contains("ok installed"))
    };
    let missing: Vec<&(&str, &str)> = packages.iter().filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    if !succeeds("apt-get", &["--version"]) {
        bail!("missing: {}; this is not a Debian system, install them by hand", names.join(", "));
    }
    for (name, why) in &missing {
        println!("setup: installing {name}: {why}");
    }
    run("apt-get", &["update", "-qq"])?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-qq", "-y", "--no-install-recommends"]).args(&names);
    run_command(apt.env("DEBIAN_FRONTEND", "noninteractive"))
        .with_context(|| format!("cannot install {}; are you root?", names.join(", ")))
}
