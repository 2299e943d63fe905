"""Guests whose files hold anything: the steps on text formats refuse in words or do their work, and are done then."""

import random
from contextlib import suppress

import pytest

from builder.errors import EmiError
from builder.guest.edits import MakeDirectory, MakeLink, Remove, Truncate, Unchanged, WriteFile
from builder.guest.facts import Filesystem, KnownFacts
from pipelines import kinds

OLD = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx2gVvS5nBqzE8vHc0V0yM7b9cO5v0mT7x3tq1bVd3y"
ROOT = (Filesystem(device="/dev/sda1", type="ext4", uuid=OLD),)
PATHS = """
/etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/login.defs /etc/sudoers /usr/bin/sudo /bin/bash
/etc/os-release /etc/lsb-release /etc/redhat-release /bin/true /etc/fstab /boot/grub/grub.cfg /etc/hostname
/etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/99-emi-ec2.cfg /etc/cloud/cloud.cfg.d/99_z.cfg /etc/cloud/ds-identify.cfg
/usr/lib/cloud-init/ds-identify /usr/bin/growpart /etc/netplan/a.yaml /usr/sbin/netplan /etc/network/interfaces
/sbin/ifup /sbin/dhclient /etc/sysconfig/network-scripts/ifcfg-eth0 /etc/sysconfig/network /etc/machine-id /var/log/a
/etc/NetworkManager/system-connections/a /etc/systemd/network/a.network /etc/systemd/network/a.link
/etc/systemd/system/a.wants/NetworkManager.service /etc/udev/rules.d/70-persistent-net.rules /etc/ssh/sshd_config
/root/.ssh/authorized_keys /etc/selinux/config /etc/selinux/targeted/contexts/files/file_contexts
/usr/lib/systemd/system-generators/selinux-autorelabel-generator.sh
""".split()  # noqa: SIM905 - forty paths read best like this
PIECES = [
    *(
        b"root:x:0:0::/root:/bin/bash\n",
        b"ann:x:1000:1000::/home/ann:/bin/sh\n",
        b"a:b\n",
        b":::::::\n",
        b"UID_MIN 9e9\n",
    ),
    *(
        b"\xff\xfe",
        b"\0",
        b"\r\n",
        b"  ",
        b"\xe2\x80\xa8",
        b'"\n',
        b"- 1\n",
        b"\x7fELF",
        b"SUB_UID_COUNT 99999999999\n",
    ),
    *(b"datasource_list: [Ec2]\n", b"datasource: {Ec2: 5}\n", b"datasource: []\n", b"policy: x\n", b"a: &a [*a]\n"),
    *(b"network: {ethernets: {a: {match: 5, addresses: 7}}}\n", b"network: {config: disabled}\n", b"2020-99-99: 1\n"),
    *(
        b"network: {ethernets: {a: {addresses: [{x: y}], match: {macaddress: 1}}}}\n",
        b"? [a]\n: b\n",
        b"!!python/x {}\n",
    ),
    *(
        b"BOOTPROTO=static\nIPADDR=1\n",
        b"HWADDR=1\n",
        b"[Match]\nMACAddress=1\n",
        b"[ipv4]\nmethod=manual\naddress1=1\n",
    ),
    *(
        b"iface eth0 inet static\n address 1\n",
        b"iface\n",
        f"UUID={OLD} / ext4\n".encode(),
        b"ID=debian\nVERSION_ID=12\n",
    ),
    *(
        b"ID=sles\n",
        b"Include /etc/ssh/*\n",
        b"PasswordAuthentication yes\n",
        b"SELINUX=enforcing\n",
        b"SELINUXTYPE='\n",
    ),
    *(b"@includedir /etc/sudoers.d\n", KEY.encode() + b"\n"),
]
STEPS = {
    "cloud-init": {"datasources": ["Ec2"], "ec2": {"strict_id": False}, "growpart": True, "purge": True},
    "network": {"static": "replace", "cloud_init": "disable"},
    "users": {"create": [{"name": "ann", "sudo": []}, {"name": "bob"}], "lock": ["root"], "remove": ["eve"]},
    "ssh-keys": {"user": "root", "keys": [KEY], "password_authentication": False},
    "selinux": {},
    "sysprep": {"also": ["hostname", "authorized-keys", "cron-spool", "ssh-userdir"]},
    "uuid": {"seed": "x"},
}


def guest(chance: random.Random) -> dict[str, bytes | str]:
    paths = chance.sample(PATHS, chance.randint(0, len(PATHS)))
    return {path: b"".join(chance.choices(PIECES, k=chance.randint(0, 6))) for path in paths}


def after(files: dict, edits) -> dict:
    left = dict(files)
    for edit in edits:
        match edit:
            case WriteFile():
                left[edit.path] = edit.data
            case MakeLink():
                left[edit.path] = edit.target
            case MakeDirectory():
                left.setdefault(f"{edit.path}/", b"")
            case Truncate():
                left |= dict.fromkeys(edit.paths, b"")
            case Remove():
                gone = tuple(f"{path}/" for path in edit.paths)
                left = {path: data for path, data in left.items() if not f"{path}/".startswith(gone)}
    return left


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_refuses_in_words_or_does_its_work_once(kind):
    step = kinds.load(kind)
    options = step.options.model_validate(STEPS[kind], strict=False)
    chance = random.Random(kind)
    done = 0
    for _ in range(150):
        files = guest(chance)
        try:
            edits = step.edits(options, KnownFacts(files=files, filesystems=ROOT), {})
        except EmiError:
            continue
        if isinstance(edits, Unchanged) or kind == "uuid":  # the UUID is no file
            continue
        done += 1
        again = step.edits(options, KnownFacts(files=after(files, edits), filesystems=ROOT), {})
        # Owners and modes are not kept here.
        more = [] if isinstance(again, Unchanged) else [edit for edit in again if getattr(edit, "owner", None) is None]
        assert not more, files
    assert done or kind == "uuid"


@pytest.mark.parametrize("kind", STEPS)
def test_links_in_circles_and_to_anywhere_do_no_harm(kind):
    step = kinds.load(kind)
    options = step.options.model_validate(STEPS[kind], strict=False)
    chance = random.Random(f"links {kind}")
    for _ in range(100):
        links = {chance.choice(PATHS): chance.choice([*PATHS, "..", "/", ".", "loop"]) for _ in range(5)}
        with suppress(EmiError):
            assert step.edits(options, KnownFacts(files=guest(chance) | links, filesystems=ROOT), {})
