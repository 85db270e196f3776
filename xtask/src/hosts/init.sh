#!/bin/busybox sh
# First process of a guest: shows it this machine's files, read-only and with folders of its own to write to, and goes on there.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
while read -r module; do
    insmod "/modules/$module" || echo "cannot load $module"
done < /modules/order
if ! mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host; then
    echo "there is no 9p in this kernel, or no device for it"
    poweroff -f
fi
for folder in tmp run var/tmp; do
    mount -t tmpfs -o mode=1777 tmpfs "/host/$folder"
done
mount -t proc proc /host/proc
mount -t sysfs sysfs /host/sys
mount -t devtmpfs dev /host/dev
mkdir -p /host/dev/pts /host/dev/shm
mount -t devpts devpts /host/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm
chmod 666 /host/dev/net/tun
ip link set lo up
cp /settings /checks.sh /host/run
exec switch_root /host /bin/sh /run/checks.sh
