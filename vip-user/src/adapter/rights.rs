//! Which rights a manifest lacks, and the lines that add them. kube-vip's own manifests grant neither
//! CAP_BPF nor a BPF file system.

/// What this process lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Capabilities, by their names in a manifest.
    pub capabilities: Vec<&'static str>,
    /// Why the pin root cannot be used, if it cannot.
    pub pin_root: Option<String>,
    /// Whether CAP_PERFMON is needed too: on Linux 5.x.
    pub perfmon: bool,
}

/// Where the added lines mount the BPF file system. AppArmor's default profiles refuse writes in /sys.
pub const MOUNT: &str = "/run/xvip/bpf";
/// The pin root below it.
pub const PIN_ROOT: &str = "/run/xvip/bpf/xvip";

impl Lacks {
    /// Whether nothing is lacking.
    pub fn nothing(&self) -> bool {
        self.capabilities.is_empty() && self.pin_root.is_none()
    }

    /// The reasons, a sentence each.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.capabilities.is_empty() {
            reasons.push(format!("this container lacks {}", self.capabilities.join(", ")));
        }
        reasons.extend(self.pin_root.clone());
        reasons
    }

    /// The lines of a manifest that add what is lacking; those of the container first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.capabilities.is_empty() {
            let bpf = if self.perfmon { "BPF, PERFMON" } else { "BPF" };
            let rights = format!("{{add: [{bpf}, NET_ADMIN, NET_RAW], drop: [ALL]}}");
            lines.push(format!("securityContext: {{capabilities: {rights}}}"));
        }
        if self.pin_root.is_some() {
            lines.extend([
                format!("env: [{{name: XVIP_PIN_ROOT, value: {PIN_ROOT}}}]"),
                format!("volumeMounts: [{{name: bpf, mountPath: {MOUNT}}}]"),
                "volumes: [{name: bpf, hostPath: {path: /sys/fs/bpf, type: Directory}}]".to_owned(),
            ]);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lacking_is_printed() {
        assert!(Lacks::default().nothing());
        assert_eq!(Lacks::default().lines(), [""; 0]);
        let bpf = Lacks { capabilities: vec!["BPF"], ..Lacks::default() };
        let line = "securityContext: {capabilities: {add: [BPF, NET_ADMIN, NET_RAW], drop: [ALL]}}";
        assert_eq!(bpf.lines(), [line]);
        let old = Lacks { perfmon: true, ..bpf };
        assert!(old.lines()[0].contains("[BPF, PERFMON, NET_ADMIN, NET_RAW]"));
        let root = Lacks { pin_root: Some("no bpffs".into()), ..Lacks::default() };
        assert_eq!(root.lines().len(), 3);
        assert_eq!(root.reasons(), ["no bpffs"]);
        for line in old.lines().iter().chain(&root.lines()) {
            serde_norway::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
