import pytest
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest import sysprep
from builder.guest.edits import MakeLink, Remove, Truncate, Unchanged, WriteFile
from builder.guest.facts import KnownFacts, Stat
from pipelines.steps.sysprep import Sysprep, SysprepOptions

STEP = Sysprep()
SYSTEMD = {"/sbin/init": "/lib/systemd/systemd"}
PASSWD = b"root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/srv/ann:/bin/bash\nbad:x:9:9::relative/../..:/bin/sh\n"
KEYS = {f"/etc/ssh/ssh_host_{kind}_key{end}": b"k" for kind in ("rsa", "ed25519") for end in ("", ".pub")}
MAKER = {"/etc/systemd/system/ssh.service.d/keys.conf": b"[Service]\nExecStartPre=/usr/bin/ssh-keygen -A\n"}
ID = b"0123456789abcdef0123456789abcdef\n"


def decide(options: dict, files: dict, **facts):
    return STEP.edits(SysprepOptions.model_validate(options, strict=False), KnownFacts(files=files, **facts), {})


def after(files: dict, edits) -> dict:
    left = dict(files)
    for edit in edits:
        match edit:
            case WriteFile():
                left[edit.path] = edit.data
            case MakeLink():
                left[edit.path] = edit.target
            case Truncate():
                left |= dict.fromkeys(edit.paths, b"")
            case Remove():
                gone = tuple(f"{path}/" for path in edit.paths)
                left = {path: data for path, data in left.items() if not f"{path}/".startswith(gone)}
    return left


# For each operation: what it takes away, what it empties, and what beside it stays.
CASES = {
    "accounting": (["/var/account/pacct", "/var/account/pacct-20240101"], [], ["/var/account/x"]),
    "authorized-keys": (["/root/.ssh/authorized_keys", "/srv/ann/.ssh/authorized_keys"], [], ["/root/.ssh/config"]),
    "blkid-cache": (["/etc/blkid.tab", "/etc/blkid/blkid.tab.old"], [], ["/etc/blkid.conf"]),
    "cloud-init": (
        ["/var/lib/cloud/instances/i-1/x", "/var/log/cloud-init-output.log"],
        [],
        ["/var/lib/cloud/seed/nocloud/meta-data", "/etc/cloud/cloud.cfg"],
    ),
    "crash-dumps": (["/var/crash/2024/vmcore", "/var/lib/systemd/coredump/core.x.zst"], [], ["/var/crashes/x"]),
    "cron-spool": (["/var/spool/cron/root", "/var/spool/cron/crontabs/ann"], [], ["/etc/cron.d/x"]),
    "dhcp-leases": (
        ["/var/lib/dhcp/dhclient.eth0.leases", "/var/lib/NetworkManager/internal-1-eth0.lease"],
        [],
        ["/var/lib/NetworkManager/NetworkManager.state", "/etc/dhcp/dhclient.conf"],
    ),
    "enrolments": (["/etc/krb5.keytab", "/var/lib/sss/db/cache_x.ldb"], [], ["/etc/krb5.conf"]),
    "history": (["/root/.bash_history", "/srv/ann/.python_history", "/home/old/.zsh_history"], [], ["/root/.bashrc"]),
    "installer": (["/root/anaconda-ks.cfg", "/var/log/installer/syslog"], [], ["/root/notes"]),
    "logs": (
        ["/var/log/syslog.1", "/var/log/a/b.log.2.gz", "/var/log/messages-20240101", "/var/log/journal/01/x.journal"],
        ["/var/log/syslog", "/var/log/a/b.log", "/var/log/wtmp", "/var/log/.hidden"],
        ["/var/logs", "/var/log/[a]/empty"],
    ),
    "mail-spool": (["/var/mail/root", "/var/spool/mail/ann"], [], ["/var/spool/postfix/x"]),
    "package-cache": (
        ["/var/cache/apt/archives/a.deb", "/var/cache/apt/pkgcache.bin", "/var/cache/dnf/base-1/x", "/var/cache/apk/x"],
        [],
        ["/var/cache/apt/archives/lock", "/var/lib/dpkg/status"],
    ),
    "package-lists": (["/var/lib/apt/lists/deb.debian.org_x"], [], ["/var/lib/apt/lists/lock"]),
    "passwd-backups": (["/etc/shadow-", "/etc/passwd-"], [], ["/etc/shadow"]),
    "random-seed": (["/var/lib/systemd/random-seed", "/var/lib/NetworkManager/secret_key"], [], ["/var/lib/systemd/x"]),
    "rpm-db": (["/var/lib/rpm/__db.001"], [], ["/var/lib/rpm/Packages"]),
    "ssh-userdir": (["/root/.ssh/id_rsa", "/srv/ann/.ssh/authorized_keys"], [], ["/root/x"]),
    "subscriptions": (["/etc/pki/consumer/key.pem", "/var/lib/yum/uuid"], [], ["/etc/pki/tls/cert.pem"]),
    "tmp-files": (["/tmp/a/b", "/tmp/.X0-lock", "/var/tmp/..odd"], [], ["/tmpfiles"]),
    "udev-persistent-net": (["/etc/udev/rules.d/70-persistent-net.rules"], [], ["/etc/udev/rules.d/90-mine.rules"]),
}  # fmt: skip


@pytest.mark.parametrize("operation", CASES)
def test_an_operation_takes_its_own_and_nothing_else(operation):
    removed, emptied, kept = CASES[operation]
    files = {path: b"" if path.endswith("empty") else b"x" for path in (*removed, *emptied, *kept)}
    files |= {"/etc/passwd": PASSWD}
    left = after(files, decide({"only": [operation]}, files))
    assert left == {"/etc/passwd": PASSWD, **dict.fromkeys(emptied, b""), **{path: files[path] for path in kept}}
    assert decide({"only": [operation]}, left) == Unchanged(why="nothing of what it removes is there")


def test_every_operation_has_a_case():
    elsewhere = {"hostname", "machine-id", "ssh-hostkeys"}
    assert {*CASES, *elsewhere} == {*sysprep.OPERATIONS}
    described = Sysprep.__doc__ or ""
    assert all(f"`{name}`" in described for name in sysprep.OPERATIONS)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/etc/machine-id": ID}, {"/etc/machine-id": b""}),
        ({"/etc/machine-id": b"uninitialized\n"}, None),
        ({"/etc/machine-id": b""}, None),
        ({}, None),
        (
            {"/etc/machine-id": ID, "/var/lib/dbus/machine-id": ID, **SYSTEMD},
            {"/etc/machine-id": b"", "/var/lib/dbus/machine-id": "/etc/machine-id"},
        ),
        (
            {"/etc/machine-id": ID, "/var/lib/dbus/machine-id": "/etc/machine-id", **SYSTEMD},
            {"/etc/machine-id": b"", "/var/lib/dbus/machine-id": "/etc/machine-id"},
        ),
        ({"/var/lib/dbus/machine-id": ID, "/etc/inittab": b"", "/sbin/init": b""}, {}),  # old: made at boot when absent
    ],
)
def test_machine_id(files, expected):
    edits = decide({"only": ["machine-id"]}, files)
    if expected is None:
        assert isinstance(edits, Unchanged)
    else:
        around = {path: data for path, data in files.items() if not path.endswith("machine-id")}
        assert after(files, edits) == around | expected


@pytest.mark.parametrize(
    ("more", "maker"),
    [
        (MAKER, "/etc/systemd/system/ssh.service.d/keys.conf"),
        ({"/usr/lib/systemd/system/sshd-keygen@.service": b"ExecStart=/usr/sbin/sshd-keygen %i\n"}, "sshd-keygen@"),
        ({"/etc/init.d/sshd": b"do_rsa_keygen() {\n  $KEYGEN -q\n}\nKEYGEN=/usr/bin/ssh-keygen\n"}, "/etc/init.d/sshd"),
        ({"/usr/lib/systemd/system/sshd.service": b"ExecStartPre=/usr/sbin/sshd-gen-keys-start\n"}, "sshd.service"),
        ({"/etc/cloud/cloud.cfg": b""}, "cloud-init"),
        ({"/etc/rc.local": b"#!/bin/sh\nssh-keygen -A\n"}, None),  # not executable
        ({"/etc/cloud/cloud.cfg": b"", "/etc/cloud/cloud-init.disabled": b""}, None),
        ({"/usr/lib/systemd/system/ssh.service": b"# ssh-keygen is not run here\nExecStart=/usr/sbin/sshd -D\n"}, None),
        ({"/etc/systemd/system/sshd-keygen.service": "/dev/null", "/dev/null": b"ssh-keygen"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_host_keys_go_only_where_others_are_made(more, maker):
    files = KEYS | more
    if maker:
        (edit,) = decide({"only": ["ssh-hostkeys"]}, files)
        assert after(files, [edit]) == more
        assert maker in edit.why
        return
    kept = decide({}, files)
    assert isinstance(kept, Unchanged)
    assert "the ssh host keys stay: nothing in the guest would make others, and sshd not start" in kept.why
    with pytest.raises(GuestError, match="the ssh host keys stay"):
        decide({"only": ["ssh-hostkeys"]}, files)


def test_keys_that_stay_are_told_beside_what_was_done():
    *_, last = decide({}, KEYS | {"/etc/machine-id": ID})
    assert "emptied /etc/machine-id; the ssh host keys stay" in last.why


def test_an_executable_rc_local_counts():
    files = {**KEYS, "/etc/rc.local": b"#!/bin/sh\nssh-keygen -A\n"}
    (edit,) = decide({"only": ["ssh-hostkeys"]}, files, stats={"/etc/rc.local": Stat(mode=0o100755)})
    assert "/etc/rc.local makes others" in edit.why


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/etc/hostname": b"build-7\n"}, {"/etc/hostname": b"localhost\n"}),
        ({"/etc/hostname": b"localhost\n"}, None),
        (
            {"/etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=build\xff\n"},
            {"/etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=localhost.localdomain\n"},
        ),
    ],
)
def test_hostname_is_only_done_when_asked_for(files, expected):
    assert isinstance(decide({}, files), Unchanged)
    edits = decide({"also": ["hostname"]}, files)
    assert isinstance(edits, Unchanged) if expected is None else after(files, edits) == expected


def test_links_among_logs_are_not_followed():
    files = {"/var/log/link": "/etc", "/etc/passwd": PASSWD, "/var/log/f": "/etc/passwd", "/var/log/x": b"x"}
    (edit,) = decide({"only": ["logs"]}, files)
    assert edit.paths == ("/var/log/x",)


def test_the_default_list_and_what_changes_it():
    files = {"/etc/machine-id": ID, "/etc/hostname": b"a\n", "/tmp/x": b"", "/root/.ssh/authorized_keys": b""}

    def done(options: dict) -> list[str]:
        return [str(edit).partition(":")[0] for edit in decide(options, files)]

    assert done({}) == ["machine-id", "tmp-files"]
    assert done({"except": ["tmp-files"]}) == ["machine-id"]
    assert done({"also": ["hostname", "authorized-keys"]}) == ["machine-id", "tmp-files", "hostname", "authorized-keys"]
    assert done({"only": ["hostname"]}) == ["hostname"]


def test_many_paths_are_counted_not_listed():
    files = {f"/tmp/{number}": b"" for number in range(9)}
    (edit,) = decide({"only": ["tmp-files"]}, files)
    assert edit.why == "tmp-files: removed /tmp/0, /tmp/1, /tmp/2, /tmp/3, /tmp/4, /tmp/5 and 3 more"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": ["logs"], "except": ["logs"]}, ["`only` is a whole list"]),
        ({"except": ["hostname"]}, ["`except`: hostname is not done by default"]),
        ({"also": ["logs"]}, ["`also`: logs is done by default"]),
        ({"except": ["logs"], "also": ["hostname"]}, []),
        ({}, []),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(SysprepOptions.model_validate(options, strict=False))
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


@pytest.mark.parametrize("options", [{"only": []}, {"only": ["fs-uuids"]}, {"enable": ["logs"]}])
def test_options_are_closed(options):
    with pytest.raises(ValidationError):
        SysprepOptions.model_validate(options, strict=False)
