//! The pin directory keeps maps and links beyond the life of the process. This file also has the checks
//! before they are used again. Layout: `<pin_root>/<instance>/v<ABI>/` with one file per map and per
//! link.

use super::{bpf, confined::Confinement, socket};
use aya::maps::{MapInfo, MapType};
use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};
use vip_common::{
    abi::{
        ABI_VERSION, CLAIM_RING_BYTES, Claimant, FAST_IFINDEX, Fence, Holder, HostAddr, Identity,
        Iface, Ip, MAX_ADDRS, MAX_IFACES, MAX_SLOTS, MAX_VIPS, Port, TenureRecord, Vip,
    },
    counter::Counter,
};

/// Magic number of a BPF file system (`statfs(2)`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// What a pinned map must look like: name, type, key bytes, value bytes, entries.
type Geometry = (&'static str, MapType, usize, usize, u32);

const GEOMETRY: [Geometry; 12] = [
    ("VIPS", MapType::Hash, size_of::<Ip>(), size_of::<Vip>(), MAX_VIPS),
    ("FENCES", MapType::Array, 4, size_of::<Fence>(), MAX_SLOTS),
    ("IFACES", MapType::Hash, size_of::<Port>(), size_of::<Iface>(), MAX_IFACES),
    ("IFACES_BY_INDEX", MapType::Array, 4, size_of::<Iface>(), FAST_IFINDEX),
    ("COUNTERS", MapType::PerCpuArray, 4, 8, Counter::ALL.len() as u32),
    ("CLAIMS", MapType::RingBuf, 0, 0, CLAIM_RING_BYTES),
    ("CLAIM_SEEN", MapType::LruHash, size_of::<Claimant>(), 8, 1024),
    ("HOLDERS", MapType::Array, 4, size_of::<Holder>(), MAX_SLOTS),
    ("TENURES", MapType::Array, 4, size_of::<TenureRecord>(), MAX_SLOTS),
    ("IDENTITY", MapType::Array, 4, size_of::<Identity>(), 1),
    ("ADDRS", MapType::Hash, size_of::<HostAddr>(), 4, MAX_ADDRS),
    ("GRACE", MapType::ArrayOfMaps, 4, 4, 1),
];

/// The kind of program at a pinned link, and how it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Answers by XDP in the driver.
    Native,
    /// Answers by XDP in the network stack.
    Generic,
    /// Answers at TC ingress (tcx).
    TcIngress,
    /// The egress guard (tcx).
    Guard,
    /// Answers at TC ingress (clsact, kernels before 6.6).
    ClsactIngress,
    /// The egress guard (clsact, kernels before 6.6).
    ClsactGuard,
}

impl LinkKind {
    const ALL: [Self; 6] = [
        Self::Native,
        Self::Generic,
        Self::TcIngress,
        Self::Guard,
        Self::ClsactIngress,
        Self::ClsactGuard,
    ];

    /// The name in pins and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::TcIngress => "tc",
            Self::Guard => "guard",
            Self::ClsactIngress => "clsact-tc",
            Self::ClsactGuard => "clsact-guard",
        }
    }

    /// How this kind answers, for messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Native => "by native XDP",
            Self::Generic => "by generic XDP",
            Self::TcIngress | Self::ClsactIngress => "at TC ingress",
            Self::Guard | Self::ClsactGuard => "not at all",
        }
    }

    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Native | Self::Generic => "xvip_xdp",
            Self::TcIngress | Self::ClsactIngress => "xvip_ingress",
            Self::Guard | Self::ClsactGuard => "xvip_egress",
        }
    }

    /// Whether it stops claims at egress.
    pub const fn is_guard(self) -> bool {
        matches!(self, Self::Guard | Self::ClsactGuard)
    }

    /// Whether it is a filter of the clsact qdisc. Its pin only records it and keeps nothing alive.
    pub const fn is_clsact(self) -> bool {
        matches!(self, Self::ClsactIngress | Self::ClsactGuard)
    }

    /// The kind that replaces this one on a kernel without tcx.
    #[must_use]
    pub const fn on_clsact(self) -> Self {
        match self {
            Self::Guard => Self::ClsactGuard,
            Self::TcIngress => Self::ClsactIngress,
            other => other,
        }
    }
}

/// A pinned link, as described by its file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkPin {
    /// The name that the interface had when it was attached.
    pub interface: String,
    /// The interface's index.
    pub ifindex: u32,
    /// The kind of program.
    pub kind: LinkKind,
}

/// Why a pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The root is not on a BPF file system.
    #[error(
        "configuration field `pin_root`: {path} is not on a BPF file system; \
         mount one with `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`"
    )]
    NotBpffs {
        /// The configured path.
        path: PathBuf,
    },
    /// The kernel does not let this process write there.
    #[error("configuration field `pin_root`: nothing can be written below {path}: {why}")]
    Refused {
        /// The directory in which it was tried.
        path: PathBuf,
        /// What refuses it, and what helps.
        why: String,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// bpf(2) is refused.
    #[error("cannot use BPF: {why}")]
    Bpf {
        /// What refuses it, and what helps.
        why: String,
    },
    /// Another user could remove the pins, or put others there.
    #[error(
        "{path} cannot be used: {what}; remove it, or mount the BPF file system with `-o mode=0700`"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A pinned map has another layout.
    #[error(
        "pinned map {path} is not what this version expects ({found}, expected {expected}); \
         run `xvip cleanup` first"
    )]
    Geometry {
        /// The path of the map.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// The layout of this version.
        expected: String,
    },
}

/// The pin directory of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    dir: PathBuf,
}

impl Pins {
    /// The directory of `instance` for this version's layouts. Does not access the file system.
    pub fn new(root: &Path, instance: &str) -> Self {
        let dir = root.join(instance).join(format!("v{ABI_VERSION}"));
        Self { root: root.into(), dir }
    }

    /// The pin directories of other versions of xvip for the same instance.
    pub fn other_versions(&self) -> Vec<Self> {
        let versions = self.dir.parent().map(sub_paths).unwrap_or_default();
        let others = versions.into_iter().filter(|dir| *dir != self.dir);
        others.map(|dir| Self { root: self.root.clone(), dir }).collect()
    }

    /// The pin directories of the other instances on this host.
    pub fn other_instances(&self) -> Vec<Self> {
        let mine = self.dir.parent();
        let others = sub_paths(&self.root).into_iter().filter(|path| Some(path.as_path()) != mine);
        others
            .flat_map(|path| sub_paths(&path))
            .map(|dir| Self { root: self.root.clone(), dir })
            .collect()
    }

    /// The paths of all pins in the directory.
    pub fn files(&self) -> Vec<PathBuf> {
        sub_paths(&self.dir)
    }

    /// The path of the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path at which a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The path at which a link is pinned. bpffs refuses names with a dot, which VLAN devices have.
    pub fn link(&self, pin: &LinkPin) -> PathBuf {
        let interface = pin.interface.replace('%', "%25").replace('.', "%2e");
        self.dir.join(format!("link:{}:{}:{interface}", pin.kind.name(), pin.ifindex))
    }

    /// Names of all maps.
    pub fn map_names() -> impl Iterator<Item = &'static str> {
        GEOMETRY.iter().map(|(name, ..)| *name)
    }

    /// The directory that is the lock of this instance in a network namespace (its cookie). It is
    /// beside the directories of the instances: inside one of them it would count as a version.
    pub fn lock(&self, netns: u64) -> PathBuf {
        self.root.join(format!("lock:{}:{netns}", self.instance()))
    }

    /// The name of the instance.
    pub fn instance(&self) -> &str {
        let name = self.dir.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        name.unwrap_or_default()
    }

    /// Whether anything is pinned for this instance.
    pub fn exist(&self) -> bool {
        self.try_exist().unwrap_or(false)
    }

    /// The same, but with an error if this process may not look.
    pub fn try_exist(&self) -> io::Result<bool> {
        self.dir.join("IDENTITY").try_exists()
    }

    /// Refuses a root that is not on a bpffs. Changes nothing.
    pub fn check_bpffs(&self) -> Result<(), PinsError> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let not_bpffs = || PinsError::NotBpffs { path: self.root.clone() };
        let path = CString::new(existing.as_os_str().as_encoded_bytes()).map_err(|_| not_bpffs())?;
        // SAFETY: an all-zero statfs is valid, and the pointers are to live values.
        let (result, stat) = unsafe {
            let mut stat: libc::statfs = std::mem::zeroed();
            (libc::statfs(path.as_ptr(), &raw mut stat), stat)
        };
        if result == 0 && stat.f_type == BPF_FS_MAGIC { Ok(()) } else { Err(not_bpffs()) }
    }

    /// Refuses directories that belong to a user without rights, because their pins may be anything.
    pub fn check_strangers(&self) -> Result<(), PinsError> {
        for path in self.dir.ancestors().take_while(|path| path.starts_with(&self.root)) {
            let Ok(found) = fs::symlink_metadata(path) else { continue };
            if !socket::is_trusted(found.uid()) {
                let what = format!("it belongs to user {}", found.uid());
                return Err(PinsError::Open { path: path.into(), what });
            }
        }
        Ok(())
    }

    /// Refuses directories that a user without rights owns or may change. Such a user could rename the
    /// pins away, or may have put others there. The root of a BPF file system is writable for all by
    /// default, but sticky: only root can move what root has put there.
    pub fn check_owners(&self) -> Result<(), PinsError> {
        self.check_strangers()?;
        for path in self.dir.ancestors().take_while(|path| path.starts_with(&self.root)) {
            let Ok(found) = fs::symlink_metadata(path) else { continue };
            let refuse = |what| Err(PinsError::Open { path: path.into(), what });
            let (open, sticky) = (found.mode() & 0o022 != 0, found.mode() & 0o1000 != 0);
            if open && !sticky {
                return refuse(format!("its mode {:o} lets others change it", found.mode() & 0o7777));
            }
        }
        Ok(())
    }

    /// Checks that this process may use bpf(2), and create and remove a directory where the pins will
    /// be. Otherwise a seccomp, AppArmor or SELinux profile would fail some later step. Leaves nothing
    /// behind.
    pub fn check_allowed(&self) -> Result<(), PinsError> {
        // This pin does not exist. If bpf(2) is allowed, the kernel says so.
        let refused = bpf::get(&self.dir.join("none")).err().and_then(|error| bpf::refusal(&error));
        if let Some(why) = refused {
            return Err(PinsError::Bpf { why });
        }
        let existing = self.dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let probe = existing.join(format!("xvip-writable-{}", std::process::id()));
        let made = match fs::create_dir(&probe) {
            // A process in another pid namespace may have the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        made.and_then(|()| fs::remove_dir(&probe)).or_else(|source| match source.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(PinsError::Refused {
                path: existing.into(),
                why: Confinement::of_this_process().why_pins_are_refused(),
                source,
            }),
        })
    }

    /// Compares every pinned map with this version's layout, because the loader would use any map with
    /// the right name.
    pub fn check_geometry(&self) -> Result<(), PinsError> {
        for (name, map_type, key, value, entries) in GEOMETRY {
            let path = self.map(name);
            if !path.exists() {
                continue;
            }
            let expected = format!("{map_type:?}, {key}+{value} bytes, {entries} entries");
            let found = match MapInfo::from_pin(&path) {
                Ok(info) => format!(
                    "{:?}, {}+{} bytes, {} entries",
                    info.map_type().unwrap_or(MapType::Unspecified),
                    info.key_size(),
                    info.value_size(),
                    info.max_entries()
                ),
                Err(error) => match bpf::refusal(&error) {
                    Some(why) => return Err(PinsError::Bpf { why }),
                    None => error.to_string(),
                },
            };
            if found != expected {
                return Err(PinsError::Geometry { path, found, expected });
            }
        }
        Ok(())
    }

    /// Creates the directory.
    pub fn create(&self) -> Result<(), PinsError> {
        create_all(&self.dir).map_err(|source| PinsError::Io {
            what: "create",
            path: self.dir.clone(),
            source,
        })?;
        // Another process may have created it first, where all users may create directories.
        self.check_owners()
    }

    /// All pinned links.
    pub fn links(&self) -> Vec<LinkPin> {
        let mut links: Vec<LinkPin> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| parse_link(entry.ok()?.file_name().to_str()?))
            .collect();
        links.sort();
        links
    }

    /// All pins of this kind under the root, of every instance and version, each with the index of its
    /// interface.
    pub fn everyones(&self, kind: LinkKind) -> Vec<(u32, PathBuf)> {
        let pins = sub_paths(&self.root).into_iter().flat_map(|instance| sub_paths(&instance));
        let pins = pins.flat_map(|version| sub_paths(&version));
        let wanted = |path: PathBuf| {
            let pin = parse_link(path.file_name()?.to_str()?)?;
            (pin.kind == kind).then_some((pin.ifindex, path))
        };
        pins.filter_map(wanted).collect()
    }

    /// Removes one pin, which detaches a link. A missing pin is not an error.
    pub fn remove(&self, path: &Path) -> Result<(), PinsError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PinsError::Io { what: "remove", path: path.into(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Removes the maps of this version.
    pub fn remove_maps(&self) -> Result<(), PinsError> {
        Self::map_names().try_for_each(|name| self.remove(&self.map(name)))
    }

    /// Removes the [proofs](super::proof) that clients have left in the lock when they died.
    pub fn sweep_lock(&self, netns: u64) {
        for entry in fs::read_dir(self.lock(netns)).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
    }

    /// Removes the directory of the lock, and the root if it is empty. A process that holds the lock
    /// keeps it, but the next process locks another directory. So this is only for the end of a
    /// cleanup.
    pub fn remove_lock(&self, netns: u64) {
        self.sweep_lock(netns);
        let _ = fs::remove_dir(self.lock(netns));
        let _ = fs::remove_dir(&self.root);
    }

    /// Removes the directories of the instance, and the root if nothing else is in it.
    pub fn remove_dirs(&self) {
        let mut dir = self.dir.as_path();
        while dir.starts_with(&self.root) && fs::remove_dir(dir).is_ok() {
            match dir.parent() {
                Some(parent) if parent != dir => dir = parent,
                _ => break,
            }
        }
    }
}

/// Creates a directory and its parents, writable only for root whatever the umask is.
pub fn create_all(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// The paths in a directory, sorted. Symbolic links are left out: they are not ours, and lead
/// elsewhere.
fn sub_paths(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    let mut paths: Vec<PathBuf> = ours.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn parse_link(file_name: &str) -> Option<LinkPin> {
    let mut parts = file_name.strip_prefix("link:")?.splitn(3, ':');
    let (kind, ifindex, interface) = (parts.next()?, parts.next()?, parts.next()?);
    Some(LinkPin {
        interface: interface.replace("%2e", ".").replace("%25", "%"),
        ifindex: ifindex.parse().ok()?,
        kind: LinkKind::ALL.into_iter().find(|known| known.name() == kind)?,
    })
}

#[cfg(test)]
mod tests;
