"""What a light machine is made of: namespaces in which this host looks like a machine with volumes of its own.

Of its own are its processes, /run, /dev, /sys/block, the home of root, /tmp and /var/tmp, and the number of this boot;
everything else is the host's, to read and to write: a light machine confines nobody.
"""

from __future__ import annotations

from typing import Any

import yaml

# $1 is the machine's directory. Mounts are the namespace's alone and go with its last process; /proc is mounted by
# unshare. What the directory holds is kept by descriptor, since /tmp or /root may hide it. `systemctl poweroff` finds
# no systemd to talk to, in an empty /run; the scripts in /run/machine end the namespace's first process instead.
START = """\
set -e
cd "$1"
exec 3<"$1/home" 4<"$1/tmp"
mkdir -p tmp/machine tmp/dev
mount -n -t tmpfs -o mode=755,size=16m machine tmp/machine
mkdir -p tmp/machine/sshd tmp/machine/lock tmp/machine/machine
cp sshd_config host_key* authorized_keys shutdown boot_id tmp/machine/machine/
for name in poweroff halt; do ln -s shutdown tmp/machine/machine/$name; done
mount -n -t tmpfs -o mode=755,size=1m devices tmp/dev
for node in null zero full random urandom tty console kmsg; do
    [ ! -e /dev/$node ] || cp -a /dev/$node tmp/dev/$node
done
mkdir -p tmp/dev/disk/by-id tmp/dev/pts tmp/dev/shm
ln -s /proc/self/fd tmp/dev/fd
ln -s fd/0 tmp/dev/stdin
ln -s fd/1 tmp/dev/stdout
ln -s fd/2 tmp/dev/stderr
mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts tmp/dev/pts
ln -s pts/ptmx tmp/dev/ptmx
mount -n -t tmpfs -o mode=1777 shm tmp/dev/shm
mount -n -t tmpfs -o mode=755,size=4m block /sys/block
mount -n --bind boot_id /proc/sys/kernel/random/boot_id
mount -n --move tmp/dev /dev
mount -n --move tmp/machine /run
rmdir tmp/dev tmp/machine
if [ -e hidden ]; then
    for place in /root /tmp /var/tmp; do
        case $place in /root) kept=3 ;; *) kept=4 ;; esac
        mount -n --bind "/proc/self/fd/$kept" "$place"
    done
fi
cd /
exec 3<&- 4<&-
echo "-----BEGIN SSH HOST KEY KEYS-----"
cat /run/machine/host_key.pub
echo "-----END SSH HOST KEY KEYS-----"
exec /usr/sbin/sshd -D -e -f /run/machine/sshd_config
"""
CONFIG = """\
ListenAddress {address}:{port}
HostKey /run/machine/host_key
AuthorizedKeysFile /run/machine/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers root
UseDNS no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
SetEnv PATH=/run/machine:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
# shutdown [-h|-P] [now|+MINUTES], and -c, which takes it back.
SHUTDOWN = """\
#!/bin/sh
minutes=0
for word; do
    case $word in
    -c) kill "$(cat /run/shutdown.pid)"; exit ;;
    +*) minutes=${word#+} ;;
    esac
done
setsid sh -c 'echo $$ >/run/shutdown.pid; sleep "$1"; kill -TERM 1' sh $((60 * minutes)) >/dev/null 2>&1 </dev/null &
"""


def cloud_config(user_data: bytes | None) -> dict[str, Any]:
    """Return the user-data if it is a `#cloud-config`, the one kind that a light machine reads; else nothing."""
    text = (user_data or b"").decode(errors="replace")
    if not text.startswith("#cloud-config"):
        return {}
    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return told if isinstance(told, dict) else {}


def host_key(config: dict[str, Any]) -> str | None:
    """Return the private host key that a cloud-config installs, the best of them, or None."""
    keys = config.get("ssh_keys")
    if not isinstance(keys, dict):
        return None
    return next(
        (str(keys[f"{kind}_private"]) for kind in ("ed25519", "ecdsa", "rsa") if f"{kind}_private" in keys), None
    )
