//! Control groups that freeze or throttle one process, as a container runtime or an administrator
//! would. Both kinds of hierarchy work: the unified one (v2) and separate controllers (v1).

use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// A group with one process; dropping it removes the group.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Freezes a process until [`thaw`](Self::thaw) or the end of this value.
    ///
    /// # Errors
    /// Where control groups cannot be made.
    pub fn frozen(pid: u32) -> anyhow::Result<Self> {
        let root = [ROOT.to_owned(), format!("{ROOT}/unified")];
        let root = root.iter().find(|root| Path::new(root).join("cgroup.controllers").exists());
        let root = match root {
            Some(root) => root.clone(),
            None => format!("{ROOT}/freezer"),
        };
        let group = Self::with(&root, pid)?;
        group.freeze(true)?;
        Ok(group)
    }

    /// Resumes the process.
    ///
    /// # Errors
    /// If the group is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.freeze(false)
    }

    /// Limits a process to this share of one CPU, in percent.
    ///
    /// # Errors
    /// Where control groups cannot be made.
    pub fn throttled(pid: u32, percent: u32) -> anyhow::Result<Self> {
        let quota = percent * 1_000;
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            // Children have the controller only if the root enables it; it may be enabled already.
            let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+cpu");
            let group = Self::with(ROOT, pid)?;
            fs::write(group.dir.join("cpu.max"), format!("{quota} 100000")).context("cpu.max")?;
            return Ok(group);
        }
        let group = Self::with(&format!("{ROOT}/cpu"), pid)?;
        fs::write(group.dir.join("cpu.cfs_period_us"), "100000").context("cpu.cfs_period_us")?;
        fs::write(group.dir.join("cpu.cfs_quota_us"), quota.to_string()).context("cpu.cfs_quota_us")?;
        Ok(group)
    }

    /// Counts the memory that a process allocates from now on.
    ///
    /// # Errors
    /// Where control groups cannot be made.
    pub fn of_memory(pid: u32) -> anyhow::Result<Self> {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+memory");
            return Self::with(ROOT, pid);
        }
        Self::with(&format!("{ROOT}/memory"), pid)
    }

    /// Limits memory to the present use, so that the next allocation kills the process.
    ///
    /// The kernel first takes back what it charged in advance and cached pages, so one call may
    /// leave room. A caller repeats it until the process is gone.
    ///
    /// # Errors
    /// If the limit cannot be set.
    pub fn limit_to_what_is_used(&self) -> anyhow::Result<()> {
        let files =
            [("memory.current", "memory.max"), ("memory.usage_in_bytes", "memory.limit_in_bytes")];
        let here = files.into_iter().find(|(used, _)| self.dir.join(used).exists());
        let (used, limit) = here.context("no controller of memory")?;
        let used = fs::read_to_string(self.dir.join(used))?;
        fs::write(self.dir.join(limit), used.trim()).context(limit)
    }

    fn with(root: &str, pid: u32) -> anyhow::Result<Self> {
        let dir = Path::new(root).join(format!("xvip-lab-{pid}"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let group = Self { dir };
        fs::write(group.dir.join("cgroup.procs"), pid.to_string()).context("cgroup.procs")?;
        Ok(group)
    }

    fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let (v2, v1) = (self.dir.join("cgroup.freeze"), self.dir.join("freezer.state"));
        if v2.exists() {
            fs::write(v2, if frozen { "1" } else { "0" }).context("cgroup.freeze")
        } else {
            fs::write(v1, if frozen { "FROZEN" } else { "THAWED" }).context("freezer.state")
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.freeze(false);
        let root = self.dir.parent().map(|root| root.join("cgroup.procs"));
        if let (Some(root), Ok(pids)) = (root, fs::read_to_string(self.dir.join("cgroup.procs"))) {
            for pid in pids.lines() {
                let _ = fs::write(&root, pid);
            }
        }
        let _ = fs::remove_dir(&self.dir);
    }
}
