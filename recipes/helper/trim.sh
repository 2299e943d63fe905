#!/bin/sh
# What starts at boot, and what of Debian's does not: a helper lives for an hour, has one user and no screen, is never
# upgraded, and each process that starts takes its time under emulation.
set -eu

systemctl enable systemd-networkd systemd-resolved systemd-timesyncd ssh instance-setup instance-later
systemctl set-default multi-user.target

# Upkeep of a machine that stays.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer grub-common.service grub-initrd-fallback.service

# What is done again because files are newer than it, as all are in a new image, where it is done already.
systemctl mask ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-sysusers.service systemd-update-done.service

# Records that nobody reads, a screen, and file systems of the kernel's that nothing here uses.
systemctl mask systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service \
    systemd-journal-flush.service systemd-networkd-wait-online.service getty@tty1.service \
    modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service

# Programs that look at each boot for encrypted disks, old scripts and the like.
mkdir -p /etc/systemd/system-generators
for generator in bless-boot cryptsetup gpt-auto hibernate-resume integritysetup rc-local run system-update sysv \
    veritysetup; do
    ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
