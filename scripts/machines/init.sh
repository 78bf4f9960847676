#!/usr/bin/env bash
# The first process of a machine (machines/lib.sh): makes a root file system of its overlay as a kernel and an initrd
# would, and becomes systemd.
set -euo pipefail
dir=$1 name=$2 share=$3
root=$dir/root
hostname "$name"
# lib.sh plugs the cable in.
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 -o nsdelegate cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$root/dev/"; done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do
    names=(stdin stdout stderr)
    ln -s "/proc/self/fd/$number" "$root/dev/${names[number]}"
done
: >"$root/dev/console"
mount --bind /dev/null "$root/dev/console"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Docker's own overlays cannot lie on an overlay.
mkdir -p "$root/var/lib/docker" "$root/lab"
mount --bind "$dir/docker" "$root/var/lib/docker"
mount --bind "$share" "$root/lab"
cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
mount --bind -o ro "$dir/boot_id" "$root/proc/sys/kernel/random/boot_id"
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=machine PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_time,-sys_module /lib/systemd/systemd --system systemd.unified_cgroup_hierarchy=1
