//! What confines this process besides its capabilities: a seccomp filter, an AppArmor profile, an
//! SELinux type. Container runtimes apply them by default, and the kernel only says "not permitted".

use std::{fs, io};

/// The capabilities that the manifests ask for, by their numbers in capability(7).
const NEEDED: [u32; 3] = [CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF];
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The rights that loading needs, for messages.
const RIGHTS: &str =
    "the process needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, on Linux 5.x CAP_PERFMON too (or root)";

/// How this process is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The effective capabilities, one bit each.
    capabilities: u64,
    /// Whether a seccomp filter is in force.
    seccomp: bool,
    /// The AppArmor profile or the SELinux context; `None` if there is neither.
    label: Option<String>,
}

impl Confinement {
    /// Reads the confinement of this process. Anything that cannot be read counts as absent.
    pub fn of_this_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        // Since Linux 5.8 both modules may be active; the common file then belongs to the first one.
        let label = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"].map(read);
        let label = label.iter().find(|label| !label.is_empty());
        Self::parse(&read("/proc/self/status"), label.map_or("", String::as_str))
    }

    /// The capabilities that this process lacks, by their names in a manifest. `CAP_SYS_ADMIN` includes
    /// `CAP_BPF` and `CAP_PERFMON`.
    pub fn lacks(&self, perfmon: bool) -> Vec<&'static str> {
        let has = |bit: u32| self.capabilities >> bit & 1 == 1;
        let wanted: [(&'static str, bool); 4] = [
            ("BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
            ("PERFMON", !perfmon || has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
            ("NET_ADMIN", has(CAP_NET_ADMIN)),
            ("NET_RAW", has(CAP_NET_RAW)),
        ];
        wanted.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// Whether a filter of system calls is in force.
    pub const fn has_filter(&self) -> bool {
        self.seccomp
    }

    /// Whether SELinux has given this process a type. A context has colons: user, role, type,
    /// level.
    pub fn has_selinux_type(&self) -> bool {
        self.label.as_ref().is_some_and(|label| label.contains(':'))
    }

    fn parse(status: &str, label: &str) -> Self {
        let field = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let capabilities = field("CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let label = label.trim_end_matches(['\n', '\0']);
        Self {
            capabilities: capabilities.unwrap_or(0),
            // Mode 2 means a filter.
            seccomp: field("Seccomp") == Some("2"),
            label: (!label.is_empty() && label != "unconfined")
                .then(|| label.escape_debug().to_string()),
        }
    }

    /// Why bpf(2) was refused, and what helps. EPERM comes from a missing capability or from a filter;
    /// EACCES can also come from the verifier.
    pub fn why_bpf_is_refused(&self, error: &io::Error) -> String {
        let has_rights = NEEDED.iter().all(|bit| self.capabilities >> bit & 1 == 1);
        if !has_rights || error.raw_os_error() != Some(libc::EPERM) {
            return RIGHTS.into();
        }
        let filter = if self.seccomp {
            "a seccomp filter is in force, and the default profiles of CRI-O and podman allow bpf with \
             CAP_SYS_ADMIN only: use `deploy/crio`, or seccompProfile `Unconfined`"
        } else {
            "no seccomp filter is in force: before Linux 5.11 the limit on locked memory may be too low"
        };
        format!(
            "bpf(2) is refused although the process has CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; {filter}{}",
            self.label.as_ref().map(|label| format!("; it runs under {label}")).unwrap_or_default()
        )
    }

    /// Which mechanism may have refused to write below the pin root, and what helps.
    pub fn why_pins_are_refused(&self) -> String {
        let by = match &self.label {
            Some(label) if self.has_selinux_type() => format!(
                "SELinux refuses it to {label}: the container needs a type that may write there, \
                 for example `seLinuxOptions: {{type: spc_t}}`"
            ),
            Some(label) => format!(
                "AppArmor refuses it to the profile {label}: mount the host's /sys/fs/bpf outside /sys, for \
                 example at /run/xvip/bpf, and set XVIP_PIN_ROOT=/run/xvip/bpf/xvip"
            ),
            None => "the process needs root, and a file system that is not read-only".into(),
        };
        format!("{by} (docs/deploy.md)")
    }
}

#[cfg(test)]
mod tests;
