//! An OCI image, built without a registry: one layer with one static program.

use crate::shell::run_command;
use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fs, io::Write as _, path::Path, process::Command};

const DIR: &str = "target/image";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The name that the manifests of `deploy/` use.
const NAME: &str = concat!("xvip:", env!("CARGO_PKG_VERSION"));
/// The maximum size of the image, in bytes.
const LIMIT: usize = 25 * 1024 * 1024;

/// Builds `target/image/xvip.tar` and prints its contents.
pub fn image() -> anyhow::Result<()> {
    let program = static_program(&[])?;
    let path = write(NAME, "xvip", "xvip", &program, "docker.io/library/")?;
    let size = fs::metadata(&path)?.len() as usize;
    println!("{path}: {NAME}, {} KiB", size / 1024);
    anyhow::ensure!(size < LIMIT, "the image has {size} bytes, at most {LIMIT}");
    Ok(())
}

/// Builds the version to which the test cluster upgrades: the same code with other map layouts.
pub fn next() -> anyhow::Result<()> {
    let program = static_program(&["--features", "abi-next"])?;
    write("xvip:next", "xvip-next", "xvip", &program, "docker.io/library/").map(drop)
}

fn static_program(features: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--locked", "--release", "-p", "vip-user", "--bin", "xvip"]);
    build.args(["--target", TARGET, "--target-dir", "target/static"]).args(features);
    run_command(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    Ok(fs::read(format!("target/static/{TARGET}/release/xvip"))?)
}

/// Builds the pause image, which holds the namespaces of a pod in the test cluster.
pub fn pause() -> anyhow::Result<()> {
    let program = fs::read("target/kube/pause").context("run `cargo xtask setup --kube`")?;
    write("xvip.local/pause:1", "pause", "pause", &program, "").map(drop)
}

/// Writes the archive of an image with `program` as its only program and its entry point. The result
/// depends only on the program.
fn write(
    name: &str,
    archive: &str,
    file: &str,
    program: &[u8],
    registry: &str,
) -> anyhow::Result<String> {
    fs::create_dir_all(DIR)?;
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut blob = |media: &str, bytes: Vec<u8>| -> Value {
        let digest = hex(&Sha256::digest(&bytes));
        let about =
            json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        blobs.push((digest, bytes));
        about
    };
    let kind = |what: &str| format!("application/vnd.oci.image.{what}");
    let layer = blob(&kind("layer.v1.tar"), layer(file, program)?);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": [format!("/{file}")]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(&kind("config.v1+json"), serde_json::to_vec(&config)?);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind("manifest.v1+json"), "config": config, "layers": [layer],
    });
    let mut entry = blob(&kind("manifest.v1+json"), serde_json::to_vec(&manifest)?);
    let tag = name.rsplit(':').next().unwrap_or_default();
    entry["annotations"] = json!({
        "io.containerd.image.name": format!("{registry}{name}"), "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let path = format!("{DIR}/{archive}.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path)?);
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut archive, "index.json", &serde_json::to_vec(&index)?, 0o644)?;
    for (digest, bytes) in &blobs {
        append(&mut archive, format!("blobs/sha256/{digest}"), bytes, 0o644)?;
    }
    archive.into_inner()?.flush()?;
    Ok(path)
}

/// The root file system: the program, a link with the name of kube-vip's, and the mount points.
fn layer(file: &str, program: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for dir in ["proc", "sys", "dev", "etc", "tmp"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, format!("{dir}/"), std::io::empty())?;
    }
    append(&mut archive, file, program, 0o755)?;
    if file == "xvip" {
        // Manifests and guides run kube-vip by this path.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, "kube-vip", file)?;
    }
    Ok(archive.into_inner()?)
}

fn append<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: u32,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(&mut header, path, bytes)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_contains_the_path_of_kube_vip() {
        let links = |file: &str| {
            let layer = layer(file, b"program").unwrap();
            let mut archive = tar::Archive::new(layer.as_slice());
            let links = archive.entries().unwrap().filter_map(|entry| {
                let entry = entry.unwrap();
                let to = entry.link_name().unwrap()?.display().to_string();
                Some((entry.path().unwrap().display().to_string(), to))
            });
            links.collect::<Vec<_>>()
        };
        assert_eq!(links("xvip"), [("kube-vip".to_owned(), "xvip".to_owned())]);
        assert!(links("pause").is_empty());
    }
}
