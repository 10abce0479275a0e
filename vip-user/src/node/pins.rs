//! The pin directory: where maps and links survive the process, and the checks before they are
//! used again. Layout: `<pin_root>/<instance>/v<ABI>/` with one file per map and per link.

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

/// What a pinned link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// The same decision at TC ingress (tcx).
    TcIngress,
    /// The egress guard (tcx).
    Guard,
    /// The same decision at TC ingress (clsact, kernels before 6.6).
    ClsactIngress,
    /// The egress guard (clsact).
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

    /// The way in which it answers, in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Native => "by native XDP",
            Self::Generic => "by generic XDP",
            Self::TcIngress | Self::ClsactIngress => "at TC ingress",
            Self::Guard | Self::ClsactGuard => "not at all",
        }
    }

    /// The program that it runs.
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

    /// Whether it is a filter of the clsact qdisc; the pin is a note of it and keeps nothing alive.
    pub const fn is_clsact(self) -> bool {
        matches!(self, Self::ClsactIngress | Self::ClsactGuard)
    }

    /// The same on a kernel without tcx.
    #[must_use]
    pub const fn on_clsact(self) -> Self {
        match self {
            Self::Guard => Self::ClsactGuard,
            Self::TcIngress => Self::ClsactIngress,
            other => other,
        }
    }
}

/// A pinned link, as its file name tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkPin {
    /// The interface's name when it was attached.
    pub interface: String,
    /// The interface's index.
    pub ifindex: u32,
    /// What it does.
    pub kind: LinkKind,
}

/// Why a pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no BPF file system there.
    #[error(
        "configuration field `pin_root`: {path} is not on a BPF file system; \
         mount one with `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`"
    )]
    NotBpffs {
        /// The configured path.
        path: PathBuf,
    },
    /// The kernel lets this process write nothing there.
    #[error("configuration field `pin_root`: nothing can be written below {path}: {why}")]
    Refused {
        /// The directory that was tried.
        path: PathBuf,
        /// Who refuses it, and what helps.
        why: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// bpf(2) is refused.
    #[error("cannot use BPF: {why}")]
    Bpf {
        /// Who refuses it, and what helps.
        why: String,
    },
    /// Somebody else could take the pins away, or put others there.
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
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pinned map has another layout.
    #[error(
        "pinned map {path} is not what this version expects ({found}, expected {expected}); \
         run `xvip cleanup` first"
    )]
    Geometry {
        /// The map.
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
    /// The directory of `instance` for this version's layouts. Touches nothing.
    pub fn new(root: &Path, instance: &str) -> Self {
        let dir = root.join(instance).join(format!("v{ABI_VERSION}"));
        Self { root: root.into(), dir }
    }

    /// What other versions of xvip have pinned for the same instance.
    pub fn other_versions(&self) -> Vec<Self> {
        let versions = self.dir.parent().map(sub_paths).unwrap_or_default();
        let others = versions.into_iter().filter(|dir| *dir != self.dir);
        others.map(|dir| Self { root: self.root.clone(), dir }).collect()
    }

    /// The other instances of this host, one directory each.
    pub fn other_instances(&self) -> Vec<Self> {
        let mine = self.dir.parent();
        let others = sub_paths(&self.root).into_iter().filter(|path| Some(path.as_path()) != mine);
        others
            .flat_map(|path| sub_paths(&path))
            .map(|dir| Self { root: self.root.clone(), dir })
            .collect()
    }

    /// Everything that is pinned.
    pub fn files(&self) -> Vec<PathBuf> {
        sub_paths(&self.dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a link is pinned. bpffs refuses names with a dot, which VLAN devices have.
    pub fn link(&self, pin: &LinkPin) -> PathBuf {
        let interface = pin.interface.replace('%', "%25").replace('.', "%2e");
        self.dir.join(format!("link:{}:{}:{interface}", pin.kind.name(), pin.ifindex))
    }

    /// Names of all maps.
    pub fn map_names() -> impl Iterator<Item = &'static str> {
        GEOMETRY.iter().map(|(name, ..)| *name)
    }

    /// The directory that is the lock of this instance in a network namespace (its cookie). It lies
    /// beside the directories of the instances: what lies in such a directory is taken for a version.
    pub fn lock(&self, netns: u64) -> PathBuf {
        self.root.join(format!("lock:{}:{netns}", self.instance()))
    }

    /// The instance.
    pub fn instance(&self) -> &str {
        let name = self.dir.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        name.unwrap_or_default()
    }

    /// Whether anything is pinned for this instance.
    pub fn exist(&self) -> bool {
        self.try_exist().unwrap_or(false)
    }

    /// The same, and an error where this process may not look.
    pub fn try_exist(&self) -> io::Result<bool> {
        self.dir.join("IDENTITY").try_exists()
    }

    /// Refuses a root that is not on a bpffs. Touches nothing.
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

    /// Refuses directories that a process without rights owns: what lies there may be anything.
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

    /// Refuses directories that a process without rights owns or may change: it could rename the pins
    /// away, or have put its own there. The root of a BPF file system is open to all by default, and
    /// sticky: what root has put there nobody else can move.
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

    /// Whether this process may use bpf(2), and make and remove a directory where the pins will be. A
    /// profile of seccomp, AppArmor or SELinux that denies it would else show at whichever step came
    /// first. Leaves nothing behind.
    pub fn check_allowed(&self) -> Result<(), PinsError> {
        // There is no such pin: where bpf(2) is allowed, the kernel says that.
        let refused = bpf::get(&self.dir.join("none")).err().and_then(|error| bpf::refusal(&error));
        if let Some(why) = refused {
            return Err(PinsError::Bpf { why });
        }
        let existing = self.dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let probe = existing.join(format!("xvip-writable-{}", std::process::id()));
        let made = match fs::create_dir(&probe) {
            // Another pid namespace has the same numbers.
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

    /// Compares every map that is pinned with this version's layout: the loader would use any map
    /// of the right name.
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

    /// Makes the directory.
    pub fn create(&self) -> Result<(), PinsError> {
        create_all(&self.dir).map_err(|source| PinsError::Io {
            what: "create",
            path: self.dir.clone(),
            source,
        })?;
        // Somebody may have been faster, where everybody may make directories.
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

    /// Pins of this kind of every instance and version under the root, each with the index of its
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

    /// Removes one pin; a link is detached by that. Nothing there is fine.
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

    /// Removes the directory of the lock, and the root if nothing else is in it. Whoever holds the lock
    /// keeps it, and whoever takes the next one has another directory: for the end of a cleanup only.
    pub fn remove_lock(&self, netns: u64) {
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

/// Makes a directory and those above it, which only root may change whatever the umask is.
pub fn create_all(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// What lies in a directory. Symbolic links are not ours, and lead elsewhere.
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
