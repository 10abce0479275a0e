//! Debian's kernels, from the mirror of this machine.

use crate::shell::run_command;
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A kernel that is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Debian 11's: 5.10, without tcx and without native XDP as xvip needs it.
    Bullseye,
    /// Debian 12's: 6.1, without tcx.
    Bookworm,
    /// Debian 13's: 6.12.
    Trixie,
    /// The newest that Debian has packaged for its stable release.
    Backports,
    /// The same with PREEMPT_RT, where one program may interrupt another of its CPU.
    Realtime,
}

impl Kernel {
    const fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Backports | Self::Realtime => "trixie-backports",
        }
    }

    /// The package that depends on the kernel's image. The cloud kernels are smaller, but none has
    /// PREEMPT_RT.
    const fn package(self) -> &'static str {
        match self {
            Self::Realtime => "linux-image-rt-amd64",
            _ => "linux-image-cloud-amd64",
        }
    }
}

/// A kernel on disk.
#[derive(Debug)]
pub struct Unpacked {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The file `vmlinuz`.
    pub image: PathBuf,
    /// The directory that contains `lib/modules`.
    pub root: PathBuf,
}

/// Separate package lists, so that the machine's apt stays unchanged.
#[derive(Debug)]
pub struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Fetches the lists.
    pub fn update(dir: &Path, kernels: &[Kernel]) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let mirror = mirror()?;
        let mut sources = String::new();
        let suites: BTreeSet<&str> = kernels.iter().map(|kernel| kernel.suite()).collect();
        for suite in suites {
            writeln!(sources, "deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main")?;
        }
        fs::write(dir.join("sources.list"), sources)?;
        let at = dir.display();
        let none = ["SourceParts", "PreferencesParts", "Preferences"]
            .map(|name| format!("Dir::Etc::{name} \"/dev/null\";\n"));
        fs::write(
            dir.join("apt.conf"),
            format!(
                "Dir::Etc::SourceList \"{at}/sources.list\";\n{}Dir::State::Lists \"{at}/lists\";\n\
                 Dir::Cache \"{at}/cache\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n",
                none.concat()
            ),
        )?;
        let packages = Self { dir: dir.into() };
        run_command(packages.command("apt-get").args(["-qq", "update"]))?;
        Ok(packages)
    }

    /// Downloads and unpacks a kernel, unless that was done before.
    pub fn kernel(&self, kernel: Kernel) -> anyhow::Result<Unpacked> {
        let meta = format!("{}/{}", kernel.package(), kernel.suite());
        let image = self
            .depends(&meta)?
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .with_context(|| format!("{meta} names no kernel"))?;
        let root = self.dir.join("kernels").join(&image);
        if !root.join("done").exists() {
            println!("vm: downloading {image}");
            fs::create_dir_all(&root)?;
            // From 7 on the image package is empty, and depends on one with the binary and one with
            // the modules.
            let parts = self.depends(&image)?.into_iter().filter(|name| {
                ["linux-binary-", "linux-modules-"].iter().any(|part| name.starts_with(part))
            });
            for package in parts.chain([image]) {
                self.unpack(&package, &root)?;
            }
            fs::write(root.join("done"), "")?;
        }
        if !root.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
        }
        let release = only_entry(&root.join("lib/modules"))?;
        let vmlinuz = ["boot", "usr/lib/modules"].map(|dir| root.join(dir));
        let images =
            [vmlinuz[0].join(format!("vmlinuz-{release}")), vmlinuz[1].join(&release).join("vmlinuz")];
        let image =
            images.into_iter().find(|path| path.exists()).context("the package has no vmlinuz")?;
        Ok(Unpacked { release, image, root })
    }

    fn unpack(&self, package: &str, into: &Path) -> anyhow::Result<()> {
        let debs = self.dir.join("debs");
        fs::create_dir_all(&debs)?;
        run_command(self.command("apt-get").args(["-qq", "download", package]).current_dir(&debs))?;
        for entry in fs::read_dir(&debs)? {
            let path = entry?.path();
            run_command(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn depends(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let output = self.command("apt-cache").args(["show", "--no-all-versions", package]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        let Some(line) = line else { bail!("there is no package {package}") };
        Ok(line.split(", ").filter_map(|one| one.split(' ').next()).map(Into::into).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The machine's Debian mirror, from either format of apt's sources.
fn mirror() -> anyhow::Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        let urls = text.lines().filter_map(|line| {
            let words = line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb "))?;
            words.split_whitespace().find(|word| word.contains("://"))
        });
        if let Some(url) =
            urls.map(|url| url.trim_end_matches('/')).find(|url| url.ends_with("/debian"))
        {
            return Ok(url.into());
        }
    }
    bail!("no mirror of Debian is configured in /etc/apt")
}

fn only_entry(dir: &Path) -> anyhow::Result<String> {
    let entry = fs::read_dir(dir)?.next().with_context(|| format!("{} is empty", dir.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
