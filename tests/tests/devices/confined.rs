//! A node under AppArmor, like a container on Ubuntu and Debian. Few build machines have AppArmor
//! on; a guest has.

use super::LONG;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use vip_tests::{
    lab::{Lab, Options},
    netns::sh,
};

const DAEMONSET: &str = include_str!("../../../deploy/base/daemonset.yaml");
const STATIC_POD: &str = include_str!("../../../deploy/static-pod/xvip.yaml");

/// What the default profiles of containerd (`cri-containerd.apparmor.d`) and Docker
/// (`docker-default`) say about files, mounts and signals. Below /sys they allow writes only to
/// /sys/fs/cgroup.
const PROFILE: &str = "profile xvip-container flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer=xvip-container,
  deny mount,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Starts the following command under the profile, as runc does.
const CONFINED: [&str; 4] =
    ["sh", "-c", "echo exec xvip-container > /proc/self/attr/exec && exec \"$@\"", "sh"];

fn load_profile() {
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    assert_eq!(on.trim(), "Y", "this kernel has no AppArmor: only in a guest");
    let mut parser = Command::new("apparmor_parser");
    parser.args(["--replace", "--skip-cache"]).stdin(Stdio::piped());
    let mut parser = parser.spawn().unwrap();
    std::io::Write::write_all(&mut parser.stdin.take().unwrap(), PROFILE.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser takes the profile");
}

#[test]
fn apparmor_refuses_pins_below_sys_and_not_where_the_manifests_put_them() {
    load_profile();
    let mut lab = Lab::new(&Options { nodes: 1, duration_s: 10, ..Options::default() }).unwrap();
    let node = &mut lab.nodes[0];

    // Mounted at the same path as on the host. One message names what refuses, and what helps.
    let said = node.refusal_under(&CONFINED, &node.config_without_pin_root().unwrap()).unwrap();
    assert!(said.contains("nothing can be written below /sys/fs/bpf"), "{said}");
    assert!(said.contains("AppArmor refuses it to the profile xvip-container (enforce)"), "{said}");
    assert!(said.contains("set XVIP_PIN_ROOT=/run/xvip/bpf/xvip"), "{said}");

    // Mounted where the manifests put it.
    for manifest in [DAEMONSET, STATIC_POD] {
        assert!(manifest.contains("{name: XVIP_PIN_ROOT, value: /run/xvip/bpf/xvip}"));
        assert!(manifest.contains("{name: bpf, mountPath: /run/xvip/bpf}"));
        assert!(manifest.contains("hostPath: {path: /sys/fs/bpf, type: Directory}"));
    }
    sh("mkdir -p /run/xvip/bpf && mount --bind /sys/fs/bpf /run/xvip/bpf").unwrap();
    node.run_through(&CONFINED);
    node.pin_by_environment(Path::new("/run/xvip/bpf/xvip")).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    // It is the host's file system, so the pins are visible there.
    let instance = lab.nodes[0].instance.clone();
    let found = sh(&format!("find /sys/fs/bpf/xvip/{instance} -name VIPS")).unwrap();
    assert!(found.contains("VIPS"), "{found}");
    let pid = lab.nodes[0].pid().unwrap();
    let label = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    assert_eq!(label.trim(), "xvip-container (enforce)");
    lab.nodes[0].kill();
    lab.nodes[0].xvip("cleanup", &[]).unwrap();
    drop(lab);
    sh("umount /run/xvip/bpf").unwrap();
}
