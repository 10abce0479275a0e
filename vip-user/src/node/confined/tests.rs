use super::*;

const ALL: &str = "CapEff:\t0000008000003000\nSeccomp:\t2\nSeccomp_filters:\t1\n";

fn refused(status: &str, label: &str, errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno);
    Confinement::parse(status, label).why_bpf_is_refused(&error)
}

#[test]
fn a_refused_bpf_names_what_refuses_it() {
    let filtered = refused(ALL, "cri-o.default (enforce)\n", libc::EPERM);
    assert!(filtered.contains("seccomp filter is in force"), "{filtered}");
    assert!(filtered.contains("`deploy/crio`"), "{filtered}");
    assert!(filtered.ends_with("under cri-o.default (enforce)"), "{filtered}");
    let unfiltered = refused(&ALL.replace("Seccomp:\t2", "Seccomp:\t0"), "unconfined\n", libc::EPERM);
    assert!(unfiltered.contains("locked memory"), "{unfiltered}");
    assert!(!unfiltered.contains("runs under"), "{unfiltered}");
}

#[test]
fn a_missing_capability_and_the_verifier_are_not_blamed_on_a_filter() {
    for bit in NEEDED {
        let less = 0x80_0000_3000_u64 & !(1 << bit);
        let status = format!("CapEff:\t{less:016x}\nSeccomp:\t2\n");
        assert_eq!(refused(&status, "", libc::EPERM), RIGHTS, "without {bit}");
    }
    assert_eq!(refused(ALL, "", libc::EACCES), RIGHTS);
    assert_eq!(refused("", "", libc::EPERM), RIGHTS);
}

#[test]
fn refused_pins_name_the_profile_and_the_remedy() {
    let why = |label| Confinement::parse(ALL, label).why_pins_are_refused();
    let apparmor = why("cri-containerd.apparmor.d (enforce)\n");
    assert!(apparmor.contains("AppArmor refuses it to the profile cri-containerd.apparmor.d"));
    assert!(apparmor.contains("XVIP_PIN_ROOT=/run/xvip/bpf/xvip"), "{apparmor}");
    let selinux = why("system_u:system_r:container_t:s0:c1,c2\0");
    assert!(selinux.contains("container_t:s0:c1,c2: the container needs a type"), "{selinux}");
    assert!(why("unconfined\n").contains("needs root"));
    assert!(why("a\u{1b}[31mb").contains("a\\u{1b}[31mb"));
}

#[test]
fn profiles_are_told_apart() {
    let has = |status, label| {
        let found = Confinement::parse(status, label);
        (found.has_filter(), found.has_selinux_type())
    };
    assert_eq!(has(ALL, "system_u:system_r:container_t:s0\0"), (true, true));
    assert_eq!(has(ALL, "cri-containerd.apparmor.d (enforce)\n"), (true, false));
    assert_eq!(has("CapEff:\t0000008000003000\nSeccomp:\t0\n", "unconfined\n"), (false, false));
}

#[test]
fn lacking_capabilities_are_named_as_in_a_manifest() {
    let lacks =
        |bits: u64, perfmon| Confinement::parse(&format!("CapEff:\t{bits:016x}\n"), "").lacks(perfmon);
    let bits = |all: &[u32]| all.iter().map(|bit| 1_u64 << bit).sum::<u64>();
    assert_eq!(lacks(0, false), ["BPF", "NET_ADMIN", "NET_RAW"]);
    // What kube-vip's own manifests grant.
    let of_kube_vip = bits(&[CAP_NET_ADMIN, CAP_NET_RAW]);
    assert_eq!(lacks(of_kube_vip, false), ["BPF"]);
    assert_eq!(lacks(of_kube_vip, true), ["BPF", "PERFMON"]);
    assert_eq!(lacks(of_kube_vip | bits(&[CAP_SYS_ADMIN]), true), [""; 0]);
    assert_eq!(lacks(bits(&NEEDED), true), ["PERFMON"]);
    assert_eq!(lacks(u64::MAX, true), [""; 0]);
}
