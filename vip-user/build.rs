//! Builds the eBPF object and leaves it, stripped, where `node/programs.rs` embeds it from.
//!
//! Three ways, in this order: the object that `XVIP_EBPF_OBJECT` names, a rustup nightly with rust-src,
//! Debian's rustc-web, cargo-web and libstd-rust-web-dev-bpf. Where none works, one message names all.
#![expect(clippy::disallowed_methods, reason = "build scripts talk to cargo by environment")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<(), String> {
    if env::var_os("CARGO_FEATURE_HOST").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-env-changed=XVIP_EBPF_OBJECT");
    for path in ["../vip-ebpf/src", "../vip-ebpf/Cargo.toml", "../vip-common/src", "../Cargo.toml"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|error| error.to_string())?);
    let object = match env::var_os("XVIP_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => build(&out)?,
    };
    println!("cargo:rerun-if-changed={}", object.display());
    // Beside the shipped object lies the one of the packet bench, unless a ready one was named.
    let bench = object.with_file_name("vip-ebpf-bench");
    strip(if bench.exists() { &bench } else { &object }, &out.join("bench.bpf.o"))?;
    strip(&object, &out.join("xvip.bpf.o"))
}

fn build(out: &Path) -> Result<PathBuf, String> {
    // Cargo runs this script once for each choice of features and for clippy: all of them share what
    // was compiled.
    let next = env::var_os("CARGO_FEATURE_ABI_NEXT").is_some();
    let profile = out.ancestors().nth(3).unwrap_or(out);
    let target_dir = profile.join(if next { "ebpf-next" } else { "ebpf" });
    let mut cargo = if nightly_has_rust_src() {
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
        cargo
    } else if debian_has_bpf_core() {
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.arg("build").env("RUSTC", "/usr/bin/rustc");
        // They ask for one unstable feature; the crates' names open it for them alone.
        cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,vip_ebpf,vip_ebpf_bench");
        cargo
    } else {
        return Err(missing());
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Zeros are stored one by one and no loop over the stack is made of them: without CAP_PERFMON
        // the verifier refuses such a loop.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
    ];
    cargo
        .args(["--profile", "ebpf", "--locked", "-p", "vip-ebpf", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .args(next.then_some("--features=abi-next"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| home + "/.cargo"));
    let path = env::var("PATH").unwrap_or_default();
    if let Ok(home) = home {
        // `cargo install` puts bpf-linker there, which need not be in PATH.
        cargo.env("PATH", format!("{path}:{home}/bin"));
    }
    let output = cargo.output().map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        return Err(format!("building the eBPF object failed ({cargo:?}):\n{log}\n{}", missing()));
    }
    Ok(target_dir.join(TARGET).join("ebpf/vip-ebpf"))
}

/// Debug sections are most of the object; `.BTF` stays.
fn strip(from: &Path, to: &Path) -> Result<(), String> {
    let stripped = ["llvm-strip", "llvm-strip-22", "llvm-strip-21", "/usr/lib/llvm-22/bin/llvm-strip"]
        .iter()
        .any(|tool| succeeds(Command::new(tool).arg("-g").arg(from).arg("-o").arg(to)));
    if stripped {
        return Ok(());
    }
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("cannot copy the eBPF object {}: {error}", from.display()))
}

fn nightly_has_rust_src() -> bool {
    let sysroot =
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success()
            && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists()
    })
}

fn debian_has_bpf_core() -> bool {
    let libdir =
        Command::new("/usr/bin/rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    libdir.is_ok_and(|output| {
        let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&libdir).exists()
    })
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn missing() -> String {
    "the eBPF object needs bpf-linker and one of: a rustup nightly with rust-src \
     (`rustup component add rust-src --toolchain nightly`), Debian's rustc-web, cargo-web and \
     libstd-rust-web-dev-bpf, or XVIP_EBPF_OBJECT naming a ready object. \
     On Debian `cargo xtask setup` installs all that is missing."
        .into()
}
