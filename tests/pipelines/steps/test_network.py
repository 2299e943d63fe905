import pytest
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest import cloudinit
from builder.guest.edits import MakeLink, Remove, Unchanged, WriteFile
from builder.guest.facts import KnownFacts
from pipelines.steps.network import Network, NetworkOptions

STEP = Network()


def release(text: str) -> dict[str, bytes]:
    return {"/etc/os-release": text.encode(), "/sbin/dhclient": b""}


def enabled(unit: str) -> dict[str, str]:
    return {f"/etc/systemd/system/multi-user.target.wants/{unit}": f"/usr/lib/systemd/system/{unit}"}


SCRIPTS, WICKED, ENI = "/etc/sysconfig/network-scripts", "/etc/sysconfig/network", "/etc/network/interfaces"
LOOPBACK = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n"
DEBIAN = release("ID=debian\nVERSION_ID=12\n") | {ENI: LOOPBACK.encode(), "/sbin/ifup": b""}
NETPLAN = {"/usr/sbin/netplan": b""}
HEAD = "network:\n  version: 2\n  ethernets:\n"
E_ALL = f"{HEAD}    zz-emi:\n      match:\n        name: e*\n      dhcp4: true\n"
CLOUD = {"/etc/cloud/cloud.cfg": b"", "/usr/bin/cloud-init": b""}

# By system: its files, the options, and the files that are to have it ask DHCP.
SYSTEMS = {
    "debian 12 with ifupdown, netplan only lying about": (
        DEBIAN | NETPLAN,
        {},
        {f"{ENI}.d/90-emi": "auto /e*=emi-dhcp\niface emi-dhcp inet dhcp\niface emi-dhcp inet6 auto\n"},
    ),
    "debian 12, the first card, without IPv6": (
        DEBIAN,
        {"interfaces": "first", "ipv6": False},
        {f"{ENI}.d/90-emi": "auto /e*/1=emi-dhcp\niface emi-dhcp inet dhcp\n"},
    ),
    "debian 12, by name": (
        DEBIAN,
        {"interfaces": ["ens3"], "ipv6": False},
        {f"{ENI}.d/90-emi": "auto ens3\niface ens3 inet dhcp\n"},
    ),
    "debian 7, which includes nothing and knows no patterns": (
        {"/etc/debian_version": b"7.11\n", ENI: b"auto lo\niface lo inet loopback\n"}
        | {"/sbin/ifup": b"", "/sbin/dhclient": b""},
        {"ipv6": False},
        {ENI: "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n"},
    ),
    "debian with eth0 by DHCP already": (
        release("ID=debian\nVERSION_ID=8\n") | {ENI: b"auto eth0\niface eth0 inet dhcp\n", "/sbin/ifup": b""},
        {},
        {},
    ),
    "alpine": (
        release("ID=alpine\nVERSION_ID=3.20\n") | {ENI: b"", "/sbin/ifup": "/bin/busybox", "/bin/busybox": b""},
        {"ipv6": False},
        {ENI: "auto eth0\niface eth0 inet dhcp\n"},
    ),
    "ubuntu 24.04": (
        release("ID=ubuntu\nVERSION_ID=24.04\n")
        | NETPLAN
        | {"/etc/netplan/01-a.yaml": b""}
        | enabled("systemd-networkd.service"),
        {},
        {"/etc/netplan/90-emi.yaml": f"{E_ALL}      dhcp6: true\n"},
    ),
    "an image with nothing but netplan": (
        release("ID=ubuntu\nVERSION_ID=22.04\n") | NETPLAN,
        {"interfaces": ["ens5"], "ipv6": False},
        {"/etc/netplan/90-emi.yaml": f"{HEAD}    ens5:\n      dhcp4: true\n      dhcp6: false\n"},
    ),
    "alma 9": (
        release("ID=almalinux\nVERSION_ID=9.4\nID_LIKE=rhel\n")
        | enabled("NetworkManager.service")
        | {f"{SCRIPTS}/readme-ifcfg-rh.txt": b""},
        {},
        {
            "/etc/NetworkManager/system-connections/emi-dhcp.nmconnection": (
                "[connection]\nid=emi-dhcp\nuuid=d91bd79d-1477-5dae-a8ad-247ebadbcee6\ntype=ethernet\n"
                "autoconnect-priority=-100\nmulti-connect=3\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
            )
        },
    ),
    "centos 6": (
        {"/etc/centos-release": b"CentOS release 6.10\n", f"{SCRIPTS}/ifcfg-lo": b"DEVICE=lo\nBOOTPROTO=dhcp\n"},
        {},
        {
            f"{SCRIPTS}/ifcfg-eth0": (
                "DEVICE=eth0\nTYPE=Ethernet\nBOOTPROTO=dhcp\nONBOOT=yes\nPERSISTENT_DHCLIENT=yes\n"
            ),
            WICKED: "NETWORKING=yes\n",
        },
    ),
    "centos 5 with a card of a machine, which asks DHCP": (
        {
            "/etc/redhat-release": b"CentOS release 5.11\n",
            f"{SCRIPTS}/ifcfg-eth0": b"DEVICE=eth0\nBOOTPROTO=dhcp\nHWADDR=52:54:00:12:34:56\nONBOOT=yes\n",
            WICKED: b"NETWORKING=yes\nHOSTNAME=a\n",
        },
        {},
        {f"{SCRIPTS}/ifcfg-eth0": "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n"},
    ),
    "sles 15": (
        release('ID="sles"\nVERSION_ID="15.5"\n') | {f"{WICKED}/config": b""},
        {},
        {f"{WICKED}/ifcfg-eth0": "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n"},
    ),
    "arch": (
        release("ID=arch\n") | enabled("systemd-networkd.service"),
        {"ipv6": False},
        {"/etc/systemd/network/90-emi.network": "[Match]\nName=e*\n\n[Network]\nDHCP=ipv4\n"},
    ),
}  # fmt: skip


def decide(options: dict, files: dict):
    return STEP.edits(NetworkOptions.model_validate(options, strict=False), KnownFacts(files=files), {})


def after(files: dict, edits) -> dict:
    left = dict(files)
    for edit in [] if isinstance(edits, Unchanged) else edits:
        match edit:
            case WriteFile():
                left[edit.path] = edit.data
            case MakeLink():
                left[edit.path] = edit.target
            case Remove():
                left = {path: data for path, data in left.items() if path not in edit.paths}
    return left


@pytest.mark.parametrize("case", SYSTEMS)
def test_dhcp_is_asked_by_what_the_system_has(case):
    files, options, expected = SYSTEMS[case]
    edits = decide(options, files)
    made = [] if isinstance(edits, Unchanged) else edits
    written = {edit.path: edit.data.decode() for edit in made}
    assert written == expected
    assert isinstance(decide(options, after(files, edits)), Unchanged)


MACS = {
    "/etc/udev/rules.d/70-persistent-net.rules": b'SUBSYSTEM=="net", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n',
    "/etc/systemd/network/10-lan.link": b"[Match]\nMACAddress=52:54:00:12:34:56\n[Link]\nName=lan0\n",
    "/etc/systemd/network/99-default.link": b"[Match]\nOriginalName=*\n",
    "/lib/udev/rules.d/75-persistent-net-generator.rules": b"x\n",
    "/etc/NetworkManager/system-connections/a.nmconnection": b"[ethernet]\nmac-address=52:54:00:12:34:56\n",
    f"{SCRIPTS}/ifcfg-eth0": b"DEVICE=eth0\nBOOTPROTO=dhcp\nHWADDR=52:54:00:12:34:56\n",
    f"{SCRIPTS}/ifcfg-eth0.rpmsave": b"HWADDR=52:54:00:12:34:56\n",
    f"{SCRIPTS}/ifcfg-link": "/etc/passwd",
    "/etc/netplan/50-cloud-init.yaml": b"network: {ethernets: {ens3: {match: {macaddress: '52:54:00:12:34:56'}}}}\n",
}


def test_mac_addresses_are_forgotten_and_cloud_init_keeps_the_network():
    files = DEBIAN | CLOUD | MACS
    edits = decide({}, files)
    left = after(files, edits)
    assert left["/etc/udev/rules.d/75-persistent-net-generator.rules"] == "/dev/null"
    kept = {"/etc/systemd/network/99-default.link", f"{SCRIPTS}/ifcfg-link", f"{SCRIPTS}/ifcfg-eth0.rpmsave"}
    holds = {path for path, data in left.items() if isinstance(data, bytes) and b"52:54" in data}
    assert holds == {f"{SCRIPTS}/ifcfg-eth0.rpmsave"}
    assert kept <= set(left)
    assert "/etc/udev/rules.d/70-persistent-net.rules" not in left
    assert f"{ENI}.d/90-emi" not in left
    assert str(edits[-1]).endswith("; cloud-init sets up DHCP at boot")
    why = "no MAC addresses, and DHCP is asked already; cloud-init sets up DHCP at boot"
    assert decide({}, left) == Unchanged(why=why)


def test_cloud_init_can_be_told_to_leave_the_network_alone():
    files = DEBIAN | CLOUD
    left = after(files, decide({"cloud_init": "disable"}, files))
    assert not cloudinit.writes_network(KnownFacts(files=left))
    assert f"{ENI}.d/90-emi" in left
    assert isinstance(decide({"cloud_init": "disable"}, left), Unchanged)


def test_fixed_addresses_are_told_and_replaced_where_asked():
    files = DEBIAN | {f"{ENI}.d/eth0": b"auto eth0\niface eth0 inet static\n address 10.0.0.5/24\n"}
    told = decide({}, files)
    assert str(told[-1]).endswith(f"fixed addresses stay: 10.0.0.5/24 in {ENI}.d/eth0")
    assert after(files, told)[f"{ENI}.d/eth0"] == files[f"{ENI}.d/eth0"]
    assert after(files, decide({"static": "replace"}, files))[f"{ENI}.d/eth0"] == b"auto eth0\niface eth0 inet dhcp\n"


def test_a_card_file_that_says_nothing_of_addresses_is_written_once():
    files = SYSTEMS["centos 6"][0] | {f"{SCRIPTS}/ifcfg-eth0": b"DEVICE=eth0\nHWADDR=52:54:00:12:34:56\n"}
    edits = decide({}, files)
    assert [edit.path for edit in edits] == [f"{SCRIPTS}/ifcfg-eth0", WICKED]
    assert b"BOOTPROTO=dhcp" in edits[0].data
    assert isinstance(decide({}, after(files, edits)), Unchanged)


@pytest.mark.parametrize(
    ("options", "files", "expected"),
    [
        ({}, release("ID=flatcar\nNAME=Flatcar\n"), "nothing that sets up a network was found in the guest .Flatcar."),
        ({}, {path: data for path, data in DEBIAN.items() if "dhclient" not in path}, "ifupdown but no DHCP client"),
        ({"interfaces": "first"}, SYSTEMS["arch"][0], "systemd-networkd, .* cannot be told to take the first"),
        ({}, DEBIAN | {"/etc/netplan/a.yaml": b"a: [\n"}, "/etc/netplan/a.yaml in the guest is not YAML"),
    ],
)
def test_what_cannot_be_is_an_error(options, files, expected):
    with pytest.raises(GuestError, match=expected):
        decide(options, files)


def test_options_are_checked():
    assert STEP.check(NetworkOptions(interfaces=())) == ("`interfaces` is an empty list",)
    assert not STEP.check(NetworkOptions(interfaces=("eth0",)))
    for wrong in ("second", ("-x",), ("a" * 16,)):
        with pytest.raises(ValidationError):
            NetworkOptions(interfaces=wrong)
