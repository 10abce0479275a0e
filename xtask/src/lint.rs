//! Format, lints and dependencies.

use crate::{
    shell::{run, run_command},
    test::PACKAGES,
    tidy,
};
use std::process::Command;

/// Runs all checks.
pub fn lint() -> anyhow::Result<()> {
    println!("=== format");
    run("cargo", &["fmt", "--all", "--check"])?;
    println!("=== clippy, host");
    clippy_host()?;
    println!("=== clippy, bpf");
    clippy_bpf()?;
    println!("=== dependencies");
    run(
        "cargo",
        &["deny", "--log-level", "error", "--locked", "check", "bans", "licenses", "sources"],
    )?;
    println!("=== tidy");
    tidy::tidy()
}

/// As `cargo clippy -- -D warnings` does it, but in a build and not in a check: the tests then have their
/// dependencies already, which are most of what there is to compile.
fn clippy_host() -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--locked", "--all-targets", "-p", "vip-common", "-p", "vip-fuzz"])
        .args(PACKAGES)
        .env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver")
        .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    run_command(&mut cargo)
}

/// Debian's clippy beside Debian's rustc: the same compiler that builds the object.
fn clippy_bpf() -> anyhow::Result<()> {
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo
        .args(["check", "--quiet", "--locked", "-p", "vip-ebpf"])
        .args(["--target", "bpfel-unknown-none", "--target-dir", "target/bpf-clippy"])
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_WORKSPACE_WRAPPER", "/usr/bin/clippy-driver")
        .env("RUSTC_BOOTSTRAP", "aya_ebpf,vip_ebpf,vip_ebpf_bench")
        .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__")
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS");
    run_command(&mut cargo)
}
