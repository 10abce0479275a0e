//! Files of the move: the manifests of the kubelet, the backup, and what was done.

use crate::migrate::{edit::parsed, rollback::Place};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The file with what was done.
const STATE: &str = "state.json";
/// kube-vip's manifest.
const BACKUP: &str = "kube-vip.yaml";
/// xvip's manifest, as it was last in the folder.
const MOVED: &str = "xvip.yaml";
/// Only root may read them.
const MODE: u32 = 0o600;

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// `apply` has begun.
    Applying,
    /// The node has arrived.
    Applied,
    /// `rollback` has begun.
    RollingBack,
}

/// What was done on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// How far.
    pub(super) stage: Stage,
    /// The node.
    pub(super) node: String,
    /// The path of the manifest.
    pub(super) manifest: PathBuf,
    /// The image.
    pub(super) image: String,
    /// The file with sysctls that was written, if one was.
    #[serde(default)]
    pub(super) sysctls: Option<PathBuf>,
    /// The values of the sysctls before, in the order of `node/sysctl.rs`.
    #[serde(default)]
    pub(super) before: Vec<u32>,
}

/// The folder of the state.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// What was done; `None` if nothing was.
    pub(super) fn state(&self) -> anyhow::Result<Option<State>> {
        let path = self.0.join(STATE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| {
            format!("{} was not written by this version: see docs/from-kube-vip.md", path.display())
        })
    }

    /// Notes what is being done, before it is done.
    pub(super) fn note(&self, state: &State) -> anyhow::Result<()> {
        self.write(STATE, &serde_json::to_string_pretty(state)?)
    }

    /// Keeps kube-vip's manifest.
    pub(super) fn keep_backup(&self, text: &str) -> anyhow::Result<()> {
        self.write(BACKUP, text)
    }

    /// Keeps xvip's manifest.
    pub(super) fn keep_moved(&self, text: &str) -> anyhow::Result<()> {
        self.write(MOVED, text)
    }

    /// kube-vip's manifest.
    pub(super) fn backup(&self) -> anyhow::Result<String> {
        let path = self.0.join(BACKUP);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The move is over. The manifests stay.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        let path = self.0.join(STATE);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let dir = self.0.display();
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("cannot make {dir} (root is needed)"))?;
        let (new, path) = (self.0.join(format!(".{name}.new")), self.0.join(name));
        let written = write_new(&new, text, MODE).and_then(|()| fs::rename(&new, &path));
        written.and_then(|()| sync(&self.0)).with_context(|| format!("cannot write {dir}/{name}"))
    }
}

/// A file that did not exist, or was left by a crash; its content is on the disk afterwards.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file of the folder of the kubelet.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) object: Value,
}

/// Manifests, and the files that cannot be read, each with the reason.
pub(super) type Listed = (Vec<Manifest>, Vec<(String, String)>);

/// Every file that the kubelet would run, and those that cannot be read, with the reason.
pub(super) fn manifests(folder: &Path) -> anyhow::Result<Listed> {
    let listed = fs::read_dir(folder);
    let listed = listed.with_context(|| format!("cannot list {}", folder.display()))?;
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for entry in listed {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The kubelet reads any file whose name begins with no dot.
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        let shown = path.display().to_string();
        match fs::read_to_string(&path) {
            Err(error) => unread.push((shown, error.to_string())),
            Ok(text) => match parsed(&text) {
                Ok(object) => found.push(Manifest { path, text, object }),
                // Another pod's file, such as a template with two documents, is none of ours.
                Err(error) if text.contains("vip") => unread.push((shown, error.to_string())),
                Err(_) => {}
            },
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((found, unread))
}

/// What is in the place of a manifest.
pub(super) fn place(path: &Path, backup: &str) -> anyhow::Result<Place> {
    match fs::read_to_string(path) {
        Ok(text) if text == backup => Ok(Place::Original),
        Ok(_) => Ok(Place::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::Nothing),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Puts a manifest into the folder of the kubelet in one step. The kubelet must never see half a file,
/// nor a second one with the same pod.
pub(super) fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a manifest is in a folder")?;
    let new = beside(folder, path)?;
    let failed = || format!("cannot write {}", path.display());
    let mode = fs::metadata(path).map_or(MODE, |found| found.mode() & 0o777);
    write_new(&new, text, mode).with_context(failed)?;
    if let Err(error) = fs::rename(&new, path) {
        let _ = fs::remove_file(&new);
        return Err(error).with_context(failed);
    }
    sync(folder).with_context(failed)
}

/// A path on the same file system that the kubelet does not read: above the folder, or with a dot if the
/// folder is a file system of its own.
fn beside(folder: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let failed = || format!("cannot look at {}", folder.display());
    let own = device(folder).with_context(failed)?;
    let above = folder.parent().filter(|above| device(above).is_ok_and(|device| device == own));
    Ok(above.unwrap_or(folder).join(format!(".{name}.xvip-new")))
}

/// Takes a manifest out of the folder.
pub(super) fn take_away(path: &Path) -> anyhow::Result<()> {
    let removed = fs::remove_file(path);
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    let folder = path.parent().context("a manifest is in a folder")?;
    sync(folder).with_context(|| format!("cannot write {}", folder.display()))
}

/// Refuses a manifest that is no plain file: a rename would put a file into the place of the link.
pub(super) fn check_plain(path: &Path) -> anyhow::Result<()> {
    let found = fs::symlink_metadata(path);
    let found = found.with_context(|| format!("cannot look at {}", path.display()))?;
    if !found.is_file() {
        bail!("{} is a link or no plain file", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xvip-files-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("manifests")).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_manifest_is_replaced_in_one_step_and_keeps_its_mode() {
        let dir = Dir::new("put");
        let path = dir.0.join("manifests/kube-vip.yaml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(place(&path, "old").unwrap(), Place::Original);
        // The kubelet never sees the new file under another name.
        assert_eq!(beside(path.parent().unwrap(), &path).unwrap().parent(), Some(dir.0.as_path()));
        fs::write(dir.0.join(".kube-vip.yaml.xvip-new"), "of a crash").unwrap();
        put(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(names(&dir.0), ["manifests"]);
        assert_eq!(place(&path, "old").unwrap(), Place::Other);
        take_away(&path).unwrap();
        assert_eq!(place(&path, "old").unwrap(), Place::Nothing);
    }

    #[test]
    fn the_state_is_for_root_alone_and_survives() {
        let dir = Dir::new("state");
        let folder = Folder::new(&dir.0.join("state"));
        assert_eq!(folder.state().unwrap(), None);
        let state = State {
            stage: Stage::Applying,
            node: "a".into(),
            manifest: "/x".into(),
            image: "xvip:1".into(),
            sysctls: None,
            before: vec![],
        };
        folder.keep_backup("old").unwrap();
        folder.note(&state).unwrap();
        assert_eq!(folder.state().unwrap(), Some(state));
        assert_eq!(folder.backup().unwrap(), "old");
        for name in names(folder.path()) {
            let mode = fs::metadata(folder.path().join(&name)).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        fs::write(folder.path().join(STATE), "{}").unwrap();
        assert!(folder.state().is_err());
    }

    #[test]
    fn links_are_refused_and_what_the_kubelet_ignores_is_ignored() {
        let dir = Dir::new("list");
        let manifests_of = dir.0.join("manifests");
        let pod = manifests_of.join("kube-vip.yaml");
        fs::write(&pod, "kind: Pod").unwrap();
        fs::write(manifests_of.join(".kube-vip.yaml.swp"), "kind: Pod").unwrap();
        fs::write(manifests_of.join("broken-vip"), "# vip\na: b: c").unwrap();
        fs::write(manifests_of.join("broken"), "a: b: c").unwrap();
        let (found, unread) = manifests(&manifests_of).unwrap();
        assert_eq!(found.iter().map(|file| file.path.clone()).collect::<Vec<_>>(), [pod.clone()]);
        assert_eq!(unread.len(), 1, "{unread:?}");
        check_plain(&pod).unwrap();
        let link = dir.0.join("link");
        std::os::unix::fs::symlink(&pod, &link).unwrap();
        assert!(check_plain(&link).is_err());
    }
}
