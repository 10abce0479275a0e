#!/bin/sh
# The first process of the guest: mounts, modules, the tests; the verdict goes to the second serial port,
# because QEMU's exit status says nothing about a guest.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin RUST_BACKTRACE=0 XVIP_BIN=/t/xvip TMPDIR=/tmp XVIP_FRAMES=8000 XVIP_SLACK_MS=2000
RIGHTS=-all,+bpf,+net_admin,+net_raw
# docs/deploy.md: what older kernels need.
case $(uname -r) in 5.*) RIGHTS=$RIGHTS,+perfmon ;; esac
# Before 5.11 maps count against this limit (docs/deploy.md).
ulimit -l unlimited
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev 2>/dev/null
mount -t bpf none /sys/fs/bpf
# apparmor_parser loads profiles through it.
mount -t securityfs none /sys/kernel/security
mount -t tmpfs none /run
mount -t tmpfs none /tmp
mkdir -p /run/netns
exec >/dev/ttyS1 2>&1
for module in $(cat /modules); do modprobe "$module" || echo "no module $module"; done
ip link set lo up
cd /t
# With every right, and with those that the manifests ask for: the verifier is stricter then.
/t/verifier --debug && setpriv --bounding-set=$RIGHTS --inh-caps=$RIGHTS /t/verifier
echo "VERIFIER $?"
while read -r suite threads filters; do
  /t/$suite --test-threads=$threads $filters
done </suites
echo "EXIT"
sync
poweroff -f
