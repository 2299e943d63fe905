"""Every rule with a guest that breaks it; a healthy one breaks none."""

from __future__ import annotations

import pytest

from builder.guest.facts import Stat
from builder.guest.lint import lint as catalogue
from builder.guest.lint.lint import RULES, lint
from builder.guest.lint.subject import TARGETS
from tests.builder.guest.lint import breaks

BREAKS, guests, broken, told = breaks.BREAKS, breaks.guests, breaks.broken, breaks.told
fstab, grub = breaks.fstab, breaks.grub
LINUX, KEY, SHADOW, SSH, POLICY, MIB = breaks.LINUX, breaks.KEY, breaks.SHADOW, breaks.SSH, breaks.POLICY, breaks.MIB


@pytest.mark.parametrize("target", TARGETS)
def test_a_healthy_guest_breaks_no_rule(target):
    assert lint(guests.HEALTHY, target) == ()


@pytest.mark.parametrize("row", BREAKS, ids=[f"{row[0]}-{row[1]}" for row in BREAKS])
def test_a_broken_guest_is_found_out(row):
    rule, _, _, severity, what, where = row
    found = [finding for finding in told(row) if finding.rule == rule]
    assert found, f"{rule} found nothing; there were {told(row)}"
    first = found[0]
    assert (first.severity, what in first.what, first.where.startswith(where)) == (severity, True, True), first
    assert first.mends or first.advice or first.severity == "note"


def test_every_rule_is_broken_by_one_of_the_guests():
    assert {row[0] for row in BREAKS} == set(RULES)
    assert len(RULES) >= 25
    reached = {(row[0], row[3]) for row in BREAKS}
    assert [rule.id for rule in RULES.values() if (rule.id, rule.worst) not in reached] == []


@pytest.mark.parametrize("row", BREAKS, ids=[f"{row[0]}-{row[1]}" for row in BREAKS])
def test_findings_keep_to_what_their_rule_declares(row):
    order = list(catalogue.SEVERITIES)
    for finding in told(row):
        rule = RULES[finding.rule]
        assert order.index(finding.severity) >= order.index(rule.worst)
        assert {mend.step for mend in finding.mends} <= set(rule.mended_by)


def test_a_rule_may_be_left_out():
    facts = broken({"/root/.bash_history": b"x"})
    assert lint(facts, "aws", exempt=["shell-history"]) == ()
    assert [finding.rule for finding in lint(facts, "aws", exempt=["machine-id"])] == ["shell-history"]


@pytest.mark.parametrize(
    ("files", "secret"),
    [
        ({"/etc/shadow": SHADOW.encode()}, "hashhash"),
        ({"/etc/apt/sources.list": b"deb https://me:hunter2@repo.example/ x main\n"}, "hunter2"),
        ({"/etc/yum.conf": b"proxy_password = hunter2\n"}, "hunter2"),
        ({"/root/.bash_history": b"mysql -phunter2\n"}, "hunter2"),
        ({"/root/.aws/credentials": b"[default]\naws_secret_access_key = hunter2\n"}, "hunter2"),
        ({"/home/me/.ssh/id_rsa": KEY}, "b3BlbnNz"),
        ({"/home/me/.ssh/authorized_keys": b"ssh-rsa " + b"QUFB" * 100 + b" me\n"}, "QUFBQUFB"),
    ],
)
def test_secrets_are_not_repeated(files, secret):
    found = lint(broken(files), "aws")
    assert found
    assert secret not in repr(found)


def test_what_a_terminal_would_obey_is_not_shown():
    found = lint(broken(fstab("LABEL=rootfs / ext4", "/dev/sdb\x1b[2J /mnt", "UUID=\x9b9 /x ext4")), "aws")
    assert len(found) == 2
    assert all(finding.quote.isprintable() and finding.what.isprintable() for finding in found)


def test_settings_that_are_no_yaml_are_a_note_of_the_rules_that_need_them():
    found = lint(broken({"/etc/cloud/cloud.cfg": b"a: [\n"}), "aws")
    assert found
    assert {finding.severity for finding in found} == {"note"}
    assert all("could not be told" in finding.what for finding in found)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b"a", b"password", b"://", b"passwd:\n", b"-"])
def test_long_lines_do_not_take_for_ever(unit):
    data = unit * (4 * MIB // len(unit))
    paths = [
        "/etc/apt/sources.list",
        "/etc/yum.conf",
        "/etc/fstab",
        "/etc/passwd",
        "/etc/sudoers",
        "/etc/netplan/x.yaml",
    ]
    assert lint(broken(dict.fromkeys(paths, data)), "aws")


DIGITS = b"1" * 5000  # more than int() takes


@pytest.mark.parametrize(
    "files",
    [
        {"/etc/os-release": b"ID=rhel\nVERSION_ID=%s\n" % DIGITS, **breaks.SSH, "/etc/ssh/sshd_config": b""},
        {"/etc/fstab": b"LABEL=rootfs / ext4\n/dev/sda%s /a ext4\n" % DIGITS},
        grub(f"{LINUX} root=/dev/sda{DIGITS.decode()} console=ttyS0"),
        {"/etc/passwd": b"root:x:0:0::/root:/bin/sh\na:x:%s:1::/a:/bin/sh\n" % DIGITS},
        {"/etc/cloud/cloud.cfg": b"a: %s\n" % DIGITS},
    ],
    ids=lambda files: next(iter(files)),
)
def test_numbers_without_end_are_told_or_passed_over(files):
    for target in TARGETS:
        assert all(finding.rule in RULES for finding in lint(broken(files), target))


@pytest.mark.timeout(60)
def test_many_accounts_do_not_take_for_ever():
    passwd = b"".join(b"u%05d:x:%d:1::/:/bin/sh\n" % (number, number) for number in range(1, 20000))
    shadow = b"".join(b"u%05d::::::::\n" % number for number in range(1, 20000))
    found = lint(broken(SSH | {"/etc/passwd": passwd, "/etc/shadow": shadow}), "aws")
    assert [finding.rule for finding in found] == ["empty-password"] * 11


def test_many_of_a_kind_are_told_together():
    keys = {f"/home/u{number:02}/.bash_history": b"x" for number in range(30)}
    found = [finding for finding in lint(broken(keys), "aws") if finding.rule == "shell-history"]
    assert len(found) == 11
    assert found[-1].what == "and 20 more of these"


def test_an_empty_history_is_none():
    assert lint(broken({"/root/.bash_history": b""}), "aws") == ()
    assert lint(broken(stats={"/root/.bash_history": Stat(mode=0o120777)}), "aws") == ()


FEDORA = """### BEGIN /etc/grub.d/00_header ###
if [ x$feature_timeout_style = xy ] ; then
  set timeout=%d
else
  set timeout=%d
fi
### END /etc/grub.d/00_header ###
### BEGIN /etc/grub.d/12_menu_auto_hide ###
  set timeout=1
### END /etc/grub.d/12_menu_auto_hide ###
### BEGIN /etc/grub.d/14_menu_show_once ###
  set timeout=60
"""
UBUNTU = "if recordfail\n  set timeout=30\nelse\n  set timeout=0\nfi"


@pytest.mark.parametrize(
    ("head", "found"), [(UBUNTU, []), (FEDORA % (5, 5), []), (FEDORA % (45, 45), ["waits 45 s"]), ("set timeout=x", [])]
)
def test_timeouts_of_branches_do_not_count(head, found):
    told = lint(broken(grub(f"{LINUX} console=ttyS0", head)), "aws")
    assert [finding.what.removeprefix("the boot menu ") for finding in told] == found


NOT_THE_RULES = [
    {"/etc/netplan/01.yaml": b"network:\n  ethernets:\n    a:\n      nameservers:\n        addresses: [8.8.8.8]\n"},
    {"/etc/network/interfaces": b"auto lo\niface lo inet loopback\n  address 127.0.0.1\n"},
    {"/etc/yum.repos.d/x.repo": b"[x]\nbaseurl=https://x.example/\ngpgkey=file:///etc/pki/rpm-gpg/x\n"},
    {"/etc/machine-id": b"uninitialized\n"},
    {"/etc/adjtime": b"0.0 0 0.0\n0\nUTC\n"},
    {"/etc/apt/apt.conf.d/50x": b'Acquire::http::Proxy-Auto-Detect "/usr/bin/x";\n// Acquire::http::Proxy "x";\n'},
    {"/root/.ssh/authorized_keys": b"\n# none\n"},
    {"/root/.ssh/known_hosts": b"x ssh-rsa AAAA\n"},
    {"/root/.npmrc": b"fund=false\n"},
    {"/etc/sudoers.d/x": b"# me ALL=(ALL) NOPASSWD: ALL\n%sudo ALL=(ALL) NOPASSWD: ALL\n"},
    {"/etc/shadow": b"root:!unprovisioned:1::::::\ndaemon:*:1::::::\n"},
    {"/etc/ssl/private/README": b"keys go here\n"},
    {"/etc/udev/rules.d/70-persistent-net.rules": b"# This file was automatically generated\n"},
    {"/etc/selinux/config": b"SELINUX=disabled\nSELINUXTYPE=targeted\n"},
    {"/var/log/wtmp": b"", "/var/log/dpkg.log": b""},
    {"/etc/cloud/cloud.cfg.d/90_dpkg.cfg": b"datasource_list: [ NoCloud, Ec2, None ]\n"},
    fstab("LABEL=rootfs / ext4", "tmpfs /tmp tmpfs", "UUID=9 /x xfs nofail", "nas:/v /n nfs", "/a /b none bind"),
    fstab("/dev/disk/by-label/rootfs / ext4", "PARTUUID=x /y ext4 noauto", "/swapfile none swap sw"),
]


@pytest.mark.parametrize("files", NOT_THE_RULES, ids=lambda files: next(iter(files)))
def test_what_looks_like_a_fault_and_is_none(files):
    assert lint(broken(files), "aws") == ()


ASKING = [
    {"/etc/netplan/x.yaml": b"network: {version: 2, ethernets: {a: {match: {name: e*}, dhcp4: true}}}\n"},
    {"/etc/systemd/network/x.network": b"[Match]\nType=ether\n\n[Network]\nDHCP=true\n"},
    {"/etc/systemd/network/x.network": b"[Network]\nDHCP=ipv4\n"},  # for every card
    {"/usr/lib/systemd/network/zz-default.network": b"[Match]\nName=*\nKind=!*\n\n[Network]\nDHCP=yes\n"},
    {"/etc/network/interfaces": b"allow-hotplug eth0\niface eth0 inet dhcp\n"},
    {"/etc/sysconfig/network-scripts/ifcfg-eth0": b"DEVICE=eth0\nBOOTPROTO=dhcp\n"},
    {"/usr/sbin/NetworkManager": b""},
    {"/usr/sbin/dhcpcd": b"", "/etc/network/interfaces": b"source interfaces.d/*\nauto lo\niface lo inet loopback\n"},
]


@pytest.mark.parametrize("files", ASKING, ids=lambda files: next(iter(files)))
def test_a_guest_that_asks_dhcp_by_itself(files):
    assert lint(broken(breaks.NO_CLOUD_NETWORK | files), "aws") == ()


def test_labelled_files_are_well():
    labels = {(path, "security.selinux"): b"system_u:object_r:etc_t:s0" for path in guests.FILES}
    facts = broken({"/etc/selinux/config": b"SELINUX=enforcing\n", POLICY: b"x"}, attributes=labels)
    assert lint(facts, "aws") == ()
