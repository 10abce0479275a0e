//! The guest's file system: an initramfs with the programs, and the libraries and modules that they
//! need.

use super::{Suite, kernels::Unpacked};
use crate::shell::{output, run_command};
use anyhow::Context as _;
use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

/// Kernel modules that the labs need.
const MODULES: &[&str] =
    &["veth", "bridge", "8021q", "bonding", "macvlan", "dummy", "sch_ingress", "cls_bpf", "virtio_net"];

/// Programs of this machine that busybox lacks, or has in a form that does not fit the labs. (Its
/// shell would prefer its own `ip`.)
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/usr/sbin/ip",
    "/usr/bin/nsenter",
    "/usr/bin/setpriv",
    "/usr/sbin/modprobe",
    "/usr/sbin/apparmor_parser",
];

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Stages the files under `stage` and packs them into `image`.
pub fn build(stage: &Path, image: &Path, kernel: &Unpacked, suites: &[Suite]) -> anyhow::Result<()> {
    if stage.exists() {
        fs::remove_dir_all(stage)?;
    }
    for dir in ["bin", "sbin", "proc", "sys", "dev", "run", "tmp", "etc", "usr/bin", "usr/sbin", "t"] {
        fs::create_dir_all(stage.join(dir))?;
    }
    install(stage, "/bin/busybox", "bin/busybox")?;
    for applet in output("/bin/busybox", &["--list"]).context("busybox does not run")?.lines() {
        let full = PROGRAMS.iter().any(|program| program.ends_with(&format!("/{applet}")));
        if applet != "busybox" && !full {
            symlink("busybox", stage.join("bin").join(applet))?;
        }
    }
    for program in PROGRAMS {
        install(stage, program, program.trim_start_matches('/'))?;
    }
    // The API client refuses to start without any trusted authority.
    fs::create_dir_all(stage.join("etc/ssl/certs"))?;
    fs::copy(AUTHORITIES, stage.join(AUTHORITIES.trim_start_matches('/')))
        .with_context(|| format!("cannot copy {AUTHORITIES}"))?;
    install(stage, "target/debug/xvip", "t/xvip")?;
    install(stage, "target/debug/xvip-verifier", "t/verifier")?;
    for suite in suites {
        install(stage, &suite.program, &format!("t/{}", suite.name))?;
    }
    fs::write(stage.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(stage.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(stage.join("modules"), MODULES.join(" "))?;
    let line = |suite: &Suite| format!("{} {} {}\n", suite.name, suite.threads, suite.filters);
    fs::write(stage.join("suites"), suites.iter().map(line).collect::<String>())?;
    modules(stage, kernel)?;
    pack(stage, image)
}

/// Copies a program, without symbols, and the shared libraries that it needs.
fn install(stage: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let target = stage.join(to);
    run_command(Command::new("llvm-strip").arg("-o").arg(&target).arg(from))
        .or_else(|_| fs::copy(from, &target).map(drop))
        .with_context(|| format!("cannot copy {from}"))?;
    for line in output("ldd", &[from]).unwrap_or_default().lines() {
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
            continue;
        };
        let target = stage.join(library.trim_start_matches('/'));
        if !target.exists() {
            fs::create_dir_all(target.parent().context("a library in /")?)?;
            fs::copy(library, &target).with_context(|| format!("cannot copy {library}"))?;
        }
    }
    Ok(())
}

/// Copies the modules, their dependencies, and the index of `modprobe`.
fn modules(stage: &Path, kernel: &Unpacked) -> anyhow::Result<()> {
    let release = &kernel.release;
    depmod(&kernel.root, release)?;
    let mut paths: Vec<String> = Vec::new();
    for module in MODULES {
        let mut command = Command::new("modprobe");
        command.arg("-d").arg(&kernel.root).args(["-S", release, "--show-depends", module]);
        let shown = command.output()?;
        anyhow::ensure!(shown.status.success(), "kernel {release} has no module {module}");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let files = shown.lines().filter_map(|line| line.strip_prefix("insmod "));
        paths.extend(files.filter_map(|line| line.split_whitespace().next()).map(Into::into));
    }
    let root = kernel.root.join("lib/modules").canonicalize()?;
    let index = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
    let lists = index.map(|name| root.join(release).join(name));
    let lists = lists.iter().filter(|path| path.exists()).map(|path| path.display().to_string());
    for path in paths.into_iter().chain(lists) {
        let from = Path::new(&path).canonicalize()?;
        let target = stage.join("lib/modules").join(from.strip_prefix(&root)?);
        fs::create_dir_all(target.parent().context("a module in /")?)?;
        fs::copy(&from, &target)?;
    }
    depmod(stage, release)
}

/// Discards its warnings: it warns, without harm, if a package lacks the lists of built-in modules.
fn depmod(root: &Path, release: &str) -> anyhow::Result<()> {
    let done = Command::new("depmod").arg("-b").arg(root).arg(release).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "depmod for {release} failed: {said}");
    Ok(())
}

fn pack(stage: &Path, image: &Path) -> anyhow::Result<()> {
    let list = image.with_extension("list");
    let find = Command::new("find").arg(".").current_dir(stage).output()?;
    fs::write(&list, find.stdout)?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc"]).current_dir(stage);
    run_command(cpio.stdin(File::open(&list)?).stdout(File::create(image)?))
}
