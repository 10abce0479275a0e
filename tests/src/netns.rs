//! Network namespaces, and work inside them.

use anyhow::{Context as _, bail};
use std::{
    fs::File,
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
};

/// A network namespace; dropping the value deletes it.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    owned: bool,
}

impl NetNs {
    /// Creates it with loopback up. Duplicate address detection is off, because the lab's addresses
    /// are unique.
    ///
    /// # Errors
    /// Where `ip netns` fails, which needs root.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        sh(&format!("ip netns add {name}"))?;
        let ns = Self { name: name.into(), owned: true };
        ns.ip("link set lo up")?;
        ns.run(|| {
            for scope in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").ok();
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/dad_transmits"), "0").ok();
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/router_solicitations"), "0")
                    .ok();
            }
        })?;
        Ok(ns)
    }

    /// A second handle of this namespace, which must not outlive this value.
    #[must_use]
    pub fn borrowed(&self) -> Self {
        Self { name: self.name.clone(), owned: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME …`.
    ///
    /// # Errors
    /// If the command fails.
    pub fn ip(&self, args: &str) -> anyhow::Result<String> {
        sh(&format!("ip -n {} {args}", self.name))
    }

    /// Runs `work` on a thread inside and returns its result.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let name = &self.name;
        thread::scope(|scope| {
            let inside = scope.spawn(move || enter(name).map(|()| work()));
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts `work` on a new thread inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> JoinHandle<anyhow::Result<T>> {
        let name = self.name.clone();
        thread::spawn(move || {
            enter(&name)?;
            work()
        })
    }

    /// A command that runs inside. It uses `nsenter`, because `ip netns exec` hides BPF file
    /// systems.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if self.owned {
            let _ = sh(&format!("ip netns del {}", self.name));
        }
    }
}

/// Moves the calling thread into a named namespace.
///
/// # Errors
/// If it does not exist or cannot be entered.
pub fn enter(name: &str) -> anyhow::Result<()> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    // SAFETY: the descriptor is open for the length of the call.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        bail!("cannot enter {path}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Runs a command line and returns its output.
///
/// # Errors
/// With the command and what it printed, if it fails.
pub fn sh(line: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
