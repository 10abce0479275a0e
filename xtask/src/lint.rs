//! Format, lints and dependencies.

use crate::{
    shell::{run, run_command},
    tidy,
};
use std::process::Command;

/// Runs all checks.
pub fn lint() -> anyhow::Result<()> {
    println!("=== format");
    run("cargo", &["fmt", "--all", "--check"])?;
    println!("=== clippy, host");
    let host =
        ["clippy", "--quiet", "--locked", "--workspace", "--exclude", "vip-ebpf", "--all-targets"];
    run_command(Command::new("cargo").args(host).args(["--", "-D", "warnings"]))?;
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

/// Debian's clippy with Debian's rustc: the same compiler that builds the object.
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
