#!/bin/bash
# Process 1 of a cluster node: its own mounts over the host's, then containerd and the kubelet.
# usage: node-init.sh NAME IP DIR BIN KUBECONFIG
set -eu
name=$1 ip=$2 dir=$3 bin=$4 kubeconfig=$5
export PATH="$bin:$PATH"

mount --make-rprivate /
mount -t proc proc /proc
hostname "$name"
mkdir -p "$dir/cgroup" "$dir/var/lib/kubelet" "$dir/var/log" "$dir/var/tmp" "$dir/manifests" "$dir/sysctl"
# A sysfs of this network namespace, with the host's control groups and a BPF file system of its own.
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
umount -l "$dir/cgroup"
mount -t bpf bpf /sys/fs/bpf
# Nothing that the node writes reaches the host.
[ -d "$dir/etc" ] || cp -a /etc "$dir/etc"
mkdir -p "$dir/etc/xvip" "$dir/etc/kubernetes"
mount --bind "$dir/etc" /etc
mount --bind "$dir/var" /var
ln -sfn /run /var/run
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
  kernel/keys/root_maxbytes; do
  cat "/proc/sys/$setting" > "$dir/sysctl/${setting//\//.}"
  mount --bind "$dir/sysctl/${setting//\//.}" "/proc/sys/$setting"
done
# Only now: while it was shared, the lazy unmount would have taken the second copy of the control groups too.
mount --make-rshared /
mount -t tmpfs tmpfs /run
mkdir -p /run/containerd /run/lock

cat > "$dir/containerd.toml" <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[plugins."io.containerd.cri.v1.runtime"]
  # The lab has no CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "xvip.local/pause:1"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/nonexistent"]
  conf_dir = "$dir/cni"
TOML
mkdir -p "$dir/cni"
# The kubelet calls a node without any network configuration not ready. Pods of the tests use the host's network.
echo '{"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "loopback"}]}' > "$dir/cni/10-none.conflist"

cat > "$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /xvip-lab/$name
staticPodPath: $dir/manifests
fileCheckFrequency: 1s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 10
evictionHard: {memory.available: 50Mi, nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
imageGCHighThresholdPercent: 100
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
YAML

set +e
containerd -c "$dir/containerd.toml" > "$dir/containerd.log" 2>&1 &
for _ in $(seq 200); do ctr version > /dev/null 2>&1 && break; sleep 0.1; done
for image in "$bin"/../image/*.tar; do ctr -n k8s.io images import "$image" > "$dir/import.log" 2>&1; done
while :; do
  # Like `systemctl stop kubelet`.
  while [ -e "$dir/kubelet.stopped" ]; do sleep 0.2; done
  kubelet --config "$dir/kubelet.yaml" --kubeconfig "$kubeconfig" --hostname-override "$name" --node-ip "$ip" \
    --root-dir /var/lib/kubelet --cert-dir "$dir/pki" --v=1 >> "$dir/kubelet.log" 2>&1 &
  echo $! > "$dir/kubelet.pid"
  # Whoever ends the kubelet finds it started again, as systemd would.
  wait $!
  sleep 0.5
done
