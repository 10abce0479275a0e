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
    /// What the container runtime forbids although the capabilities are there.
    pub forbidden: Option<Forbidden>,
}

/// What a container runtime forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// What is refused, and by whom.
    pub why: String,
    /// Which of its profiles refuses it, if a manifest can change that.
    pub by: Option<Profile>,
}

/// A profile that confines a container besides its capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A filter of system calls.
    Seccomp,
    /// An SELinux type.
    Selinux,
}

impl Profile {
    /// What a container's `securityContext` says without it.
    const fn lifted(self) -> &'static str {
        match self {
            Self::Seccomp => "seccompProfile: {type: Unconfined}",
            Self::Selinux => "seLinuxOptions: {type: spc_t}",
        }
    }
}

/// Where the added lines mount the BPF file system. AppArmor's default profiles refuse writes in /sys.
pub const MOUNT: &str = "/run/xvip/bpf";
/// The pin root below it.
pub const PIN_ROOT: &str = "/run/xvip/bpf/xvip";

impl Lacks {
    /// Whether nothing is lacking.
    pub fn nothing(&self) -> bool {
        self.capabilities.is_empty() && self.pin_root.is_none() && self.forbidden.is_none()
    }

    /// The reasons, a sentence each.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.capabilities.is_empty() {
            reasons.push(format!("this container lacks {}", self.capabilities.join(", ")));
        }
        reasons.extend(self.pin_root.clone());
        reasons.extend(self.forbidden.iter().map(|forbidden| forbidden.why.clone()));
        reasons
    }

    /// The lines of a manifest that add what is lacking; those of the container first.
    pub fn lines(&self) -> Vec<String> {
        let (mut lines, mut context) = (Vec::new(), Vec::new());
        if !self.capabilities.is_empty() {
            let bpf = if self.perfmon { "BPF, PERFMON" } else { "BPF" };
            context.push(format!("capabilities: {{add: [{bpf}, NET_ADMIN, NET_RAW], drop: [ALL]}}"));
        }
        let profile = self.forbidden.as_ref().and_then(|forbidden| forbidden.by);
        context.extend(profile.map(|profile| profile.lifted().to_owned()));
        if !context.is_empty() {
            lines.push(format!("securityContext: {{{}}}", context.join(", ")));
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
        let forbidden =
            |by| Lacks { forbidden: Some(Forbidden { why: "refused".into(), by }), ..Lacks::default() };
        assert_eq!(forbidden(None).lines(), [""; 0], "no line helps");
        assert!(!forbidden(None).nothing());
        let line = "securityContext: {seccompProfile: {type: Unconfined}}";
        assert_eq!(forbidden(Some(Profile::Seccomp)).lines(), [line]);
        let line = "securityContext: {seLinuxOptions: {type: spc_t}}";
        assert_eq!(forbidden(Some(Profile::Selinux)).lines(), [line]);
        for line in old.lines().iter().chain(&root.lines()) {
            serde_norway::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn the_lines_are_those_that_are_shipped_and_documented() {
        let lacks =
            Lacks { capabilities: vec!["BPF"], pin_root: Some("no bpffs".into()), ..Lacks::default() };
        let lines = lacks.lines();
        let printed: serde_json::Value = serde_norway::from_str(&lines.join("\n")).unwrap();
        let shipped = include_str!("../../../deploy/kube-vip/static-pod.yaml");
        let shipped: serde_json::Value = serde_norway::from_str(shipped).unwrap();
        let pod = &shipped["spec"];
        for key in ["securityContext", "env", "volumeMounts"] {
            assert_eq!(printed[key], pod["containers"][0][key], "{key}");
        }
        assert_eq!(printed["volumes"], pod["volumes"]);
        let document = include_str!("../../../docs/from-kube-vip.md");
        for line in lines {
            assert!(document.contains(&format!("\n{line}\n")), "{line}");
        }
    }
}
