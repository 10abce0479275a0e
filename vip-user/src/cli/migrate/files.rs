//! Files of the move: the manifests of the kubelet, the backup, and what was done.

use crate::{
    migrate::{
        edit::parsed,
        rollback::{Place, place},
    },
    node::socket::is_trusted,
};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    },
    path::{Path, PathBuf},
};

/// The file with what was done.
const STATE: &str = "state.json";
/// kube-vip's manifest.
const BACKUP: &str = "kube-vip.yaml";
/// xvip's manifest, as it was last in the folder.
const MOVED: &str = "xvip.yaml";
/// A manifest that is neither, and was in the folder at a rollback.
const OTHER: &str = "other.yaml";
/// Only root may read them.
const MODE: u32 = 0o600;
/// Longer files are not read.
const LONGEST: u64 = 1 << 20;
/// Others may write to a folder, but not rename what they do not own.
const STICKY: u32 = 0o1000;

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
    /// The values of the sysctls before, in the order of `node/sysctl.rs`; `None`: not readable.
    #[serde(default)]
    pub(super) before: Vec<Option<u32>>,
    /// Mode and owner of kube-vip's manifest.
    #[serde(default)]
    pub(super) shape: Option<Shape>,
}

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Shape {
    /// That of a file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { mode: found.mode() & 0o777, uid: found.uid(), gid: found.gid() })
    }
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
        let Some(text) = self.text(STATE)? else { return Ok(None) };
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

    /// Keeps a manifest that is neither.
    pub(super) fn keep_other(&self, text: &str) -> anyhow::Result<()> {
        self.write(OTHER, text)
    }

    /// kube-vip's manifest; `None` if it is gone.
    pub(super) fn backup(&self) -> anyhow::Result<Option<String>> {
        self.text(BACKUP)
    }

    /// xvip's manifest; `None` if there is none.
    pub(super) fn moved(&self) -> anyhow::Result<Option<String>> {
        self.text(MOVED)
    }

    /// What is in the place of the manifest of a move.
    pub(super) fn place(&self, state: &State, backup: &str) -> anyhow::Result<Place> {
        let path = &state.manifest;
        let found = existing(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(place(found.as_deref(), backup, (self.moved()?.as_deref(), &state.image)))
    }

    /// One command at a time changes this host. The lock is held while this value lives.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        self.make()?;
        let shown = self.0.display();
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(&self.0);
        let folder = folder.with_context(|| format!("cannot open {shown}"))?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => {
                bail!("another xvip migrate is at work in {shown}: wait until it has ended")
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {shown}"))
            }
        }
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.0.join(name);
        let read = open(&path, libc::O_NOFOLLOW).and_then(read_open);
        absent(read).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Whoever can write here chooses what root puts into the folder of the kubelet.
    fn make(&self) -> anyhow::Result<()> {
        check_folders(&self.0)?;
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("cannot make {} (root is needed)", self.0.display()))?;
        check_folders(&self.0)
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
        self.make()?;
        let (new, path) = (self.0.join(format!(".{name}.new")), self.0.join(name));
        let written = write_new(&new, text, (MODE, None)).and_then(|()| fs::rename(&new, &path));
        written.and_then(|()| sync(&self.0)).with_context(|| format!("cannot write {dir}/{name}"))
    }
}

/// Refuses a folder that another user could exchange or write to. What does not exist is in order.
fn check_folders(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let path = std::path::absolute(path).with_context(|| format!("cannot resolve {shown}"))?;
    let folders: Vec<&Path> = path.ancestors().collect();
    for folder in folders.into_iter().rev() {
        let found = match fs::symlink_metadata(folder) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", folder.display()));
            }
        };
        let keeps = folder != path && found.mode() & STICKY != 0;
        let is_open = found.mode() & 0o022 != 0 && !keeps;
        if !found.is_dir() || !is_trusted(found.uid()) || is_open {
            bail!(
                "{} must be a folder of root to which nobody else can write, and no link: name another \
                 one with --state",
                folder.display()
            );
        }
    }
    Ok(())
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    // A pipe without a writer must not hold this up.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | flags).open(path)
}

fn read_open(file: File) -> io::Result<String> {
    let found = file.metadata()?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(io::Error::other("it is no plain file of at most 1 MiB"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a plain file of at most 1 MiB.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    open(path, 0).and_then(read_open)
}

/// The same; `None` if there is no such file.
fn existing(path: &Path) -> io::Result<Option<String>> {
    absent(read_text(path))
}

fn absent(read: io::Result<String>) -> io::Result<Option<String>> {
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that did not exist, or was left by a crash; its content is on the disk afterwards.
pub(super) fn write_new(
    path: &Path,
    text: &str,
    (mode, owner): (u32, Option<(u32, u32)>),
) -> io::Result<()> {
    remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn sync(folder: &Path) -> io::Result<()> {
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
        // The kubelet reads any plain file whose name begins with no dot.
        if name.starts_with('.') || fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            continue;
        }
        let shown = path.display().to_string();
        match read_text(&path) {
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

/// A manifest that is written beside its place, and not yet seen by the kubelet.
#[derive(Debug)]
pub(super) struct Prepared {
    new: PathBuf,
    path: PathBuf,
}

/// Writes a manifest beside its place. Afterwards one step is left that hardly fails.
pub(super) fn prepare(path: &Path, text: &str, shape: Option<Shape>) -> anyhow::Result<Prepared> {
    let shape = shape.or_else(|| Shape::of(path).ok());
    let prepared = Prepared { new: beside(path), path: path.to_owned() };
    let mode = shape.map_or(MODE, |shape| shape.mode);
    let owner = shape.map(|shape| (shape.uid, shape.gid));
    let written = write_new(&prepared.new, text, (mode, owner));
    written.with_context(|| format!("cannot write {}", prepared.new.display()))?;
    Ok(prepared)
}

impl Prepared {
    /// Puts it into its place in one step. The kubelet must never see half a file, nor a second one
    /// with the same pod.
    pub(super) fn put(self) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        fs::rename(&self.new, &self.path).with_context(failed)?;
        sync(folder_of(&self.path)).with_context(failed)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.new);
    }
}

/// Removes what a crash has left beside a manifest.
pub(super) fn sweep(path: &Path) -> anyhow::Result<()> {
    let new = beside(path);
    remove(&new).with_context(|| format!("cannot remove {}", new.display()))
}

/// The kubelet skips a name with a dot. Another folder may be another mount, from which no file moves.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder_of(path).join(format!(".{name}.xvip-new"))
}

/// The folder of a manifest.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Takes a manifest out of the folder.
pub(super) fn take_away(path: &Path) -> anyhow::Result<()> {
    let removed = fs::remove_file(path);
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    let folder = folder_of(path);
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
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
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
    fn a_manifest_is_replaced_in_one_step_and_keeps_its_shape() {
        let dir = Dir::new("put");
        let path = dir.0.join("manifests/kube-vip.yaml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let shape = Shape::of(&path).unwrap();
        fs::write(beside(&path), "of a crash").unwrap();
        let prepared = prepare(&path, "new", None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        // The kubelet does not see it.
        let all = manifests(path.parent().unwrap()).unwrap();
        assert_eq!((all.0.len(), all.1.len()), (1, 0));
        prepared.put().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(Shape::of(&path).unwrap(), shape);
        assert_eq!(names(path.parent().unwrap()), ["kube-vip.yaml"]);
        take_away(&path).unwrap();
        assert_eq!(existing(&path).unwrap(), None);
        // Nothing is there whose shape could be kept.
        drop(prepare(&path, "old", Some(shape)).unwrap());
        assert!(names(path.parent().unwrap()).is_empty());
        prepare(&path, "old", Some(shape)).unwrap().put().unwrap();
        assert_eq!(Shape::of(&path).unwrap(), shape);
        fs::write(beside(&path), "of a crash").unwrap();
        sweep(&path).unwrap();
        sweep(&path).unwrap();
        assert_eq!(names(path.parent().unwrap()), ["kube-vip.yaml"]);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = Dir::new("others");
        let inner = dir.0.join("open/state");
        fs::create_dir_all(&inner).unwrap();
        let open = inner.parent().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (of_open, of_state, is_accepted) in [
            (0o755, 0o700, true),
            (0o777, 0o700, false),
            (0o1777, 0o700, true),
            (0o755, 0o1777, false),
            (0o755, 0o720, false),
        ] {
            mode(open, of_open);
            mode(&inner, of_state);
            let is_made = Folder::new(&inner).lock().is_ok();
            assert_eq!(is_made, is_accepted, "{of_open:o} {of_state:o}");
        }
        let link = dir.0.join("link");
        std::os::unix::fs::symlink(dir.0.join("manifests"), &link).unwrap();
        assert!(Folder::new(&link).lock().is_err());
        assert!(Folder::new(&link.join("state")).lock().is_err());
        let folder = Folder::new(&dir.0.join("state"));
        let lock = folder.lock().unwrap();
        assert!(folder.lock().unwrap_err().to_string().contains("another xvip migrate"));
        drop(lock);
        folder.lock().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join(BACKUP)).unwrap();
        assert!(folder.backup().is_err());
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
            before: vec![Some(0), None],
            shape: None,
        };
        folder.keep_backup("old").unwrap();
        folder.note(&state).unwrap();
        assert_eq!(folder.state().unwrap(), Some(state));
        assert_eq!(folder.backup().unwrap().as_deref(), Some("old"));
        assert_eq!(folder.moved().unwrap(), None);
        // An earlier version knows neither the shape nor values that cannot be read.
        let text = fs::read_to_string(folder.path().join(STATE)).unwrap();
        let text = text.replace("null\n  ],\n  \"shape\": null", "1\n  ]");
        fs::write(folder.path().join(STATE), &text).unwrap();
        assert_eq!(folder.state().unwrap().map(|state| state.before), Some(vec![Some(0), Some(1)]));
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
        let pipe = std::ffi::CString::new(manifests_of.join("pipe").to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string that lives during the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        let (found, unread) = manifests(&manifests_of).unwrap();
        assert_eq!(found.iter().map(|file| &file.path).collect::<Vec<_>>(), [&pod]);
        assert_eq!(unread.len(), 1, "{unread:?}");
        check_plain(&pod).unwrap();
        let link = dir.0.join("link");
        std::os::unix::fs::symlink(&pod, &link).unwrap();
        assert!(check_plain(&link).is_err());
    }
}
