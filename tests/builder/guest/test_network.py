"""Network files of each kind, as systems and installers write them: freed of MAC addresses, by DHCP where asked."""

import pytest
import yaml

from builder.errors import GuestError
from builder.guest.network import eni, ifcfg, ini, netplan

# kind: (before, without MAC addresses, by DHCP, fixed addresses); None where it is as the one before.
IFCFG = {
    "el6, installed on a machine": (
        ('DEVICE="eth0"\nBOOTPROTO="dhcp"\nHWADDR="52:54:00:12:34:56"\nNM_CONTROLLED="yes"\nONBOOT="yes"\n'
        'UUID="9a29ab4f-aaaa"\n# HWADDR stays here\n'),
        'DEVICE="eth0"\nBOOTPROTO="dhcp"\nNM_CONTROLLED="yes"\nONBOOT="yes"\n# HWADDR stays here\n',
        None,
        (),
    ),
    "el5, fixed": (
        "DEVICE=eth0\nBOOTPROTO=none\nIPADDR=10.0.0.5\nNETMASK=255.255.255.0\nGATEWAY=10.0.0.1\nDNS1=10.0.0.1\nONBOOT=yes",
        None,
        "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n",
        ("10.0.0.5",),
    ),
    "without BOOTPROTO": (
        "DEVICE=eth0\nIPADDR0=10.0.0.5\nPREFIX0=24\nIPV6INIT=no\n",
        None,
        "DEVICE=eth0\nIPV6INIT=no\nBOOTPROTO=dhcp\n",
        ("10.0.0.5",),
    ),
    "wicked": (
        "BOOTPROTO='static'\nIPADDR='10.0.0.5/24'\nSTARTMODE='auto'\nLLADDR='52:54:00:12:34:56'\n",
        "BOOTPROTO='static'\nIPADDR='10.0.0.5/24'\nSTARTMODE='auto'\n",
        "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
        ("10.0.0.5/24",),
    ),
    "the loopback": ("DEVICE=lo\nIPADDR=127.0.0.1\nNETMASK=255.0.0.0\n", None, None, ("127.0.0.1",)),
    "a bridge is its maker's": (
        "DEVICE=br0\nTYPE=Bridge\nIPADDR=10.0.0.5\nUUID=9a29\n", None, None, ("10.0.0.5",)
    ),
    "bytes": ("DEVICE=eth0\nHWADDR=1\n# \udcff\n", "DEVICE=eth0\n# \udcff\n", None, ()),
    "empty": ("", None, None, ()),
}  # fmt: skip
KEYFILE = {
    "a machine's": (
        (
            "[connection]\nid=ens3\ntype=ethernet\ninterface-name=ens3\n\n[ethernet]\nmac-address=52:54:00:12:34:56\n"
            "[ipv4]\nmethod=auto\n"
        ),
        "[connection]\nid=ens3\ntype=ethernet\ninterface-name=ens3\n\n[ethernet]\n[ipv4]\nmethod=auto\n",
        None,
        (),
    ),
    "fixed": (
        "[ipv4]\naddress1=10.0.0.5/24,10.0.0.1\ndns=10.0.0.1;\nmay-fail=false\nmethod=manual\n[ipv6]\nmethod=auto\n",
        None,
        "[ipv4]\nmay-fail=false\nmethod=auto\n[ipv6]\nmethod=auto\n",
        ("10.0.0.5/24,10.0.0.1",),
    ),
    "a random address is no machine's": ("[ethernet]\ncloned-mac-address=random\n", None, None, ()),
    "wifi is not looked at": ("[wifi]\nmac-address=52:54:00:12:34:56\n", None, None, ()),
}
NETWORK = {
    "by mac alone": (
        "[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nDHCP=yes\n",
        "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
        None,
        (),
    ),
    "by name and mac": (
        "[Match]\nName=ens3\nMACAddress=52:54:00:12:34:56\n[Link]\nMACAddress=52:54:00:12:34:57\nMTUBytes=9000\n",
        "[Match]\nName=ens3\n[Link]\nMTUBytes=9000\n",
        None,
        (),
    ),
    "fixed": (
        "[Match]\nName=ens3\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nLLMNR=no\n[Route]\nGateway=10.0.0.2\n",
        None,
        "[Match]\nName=ens3\n[Network]\nDHCP=yes\nLLMNR=no\n",
        ("10.0.0.5/24",),
    ),
}
ENI = {
    "debian": (
        ("auto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet dhcp\n"
        "\thwaddress ether 52:54:00:12:34:56\n\tmtu 1450\n"),
        ("auto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet dhcp\n"
        "\tmtu 1450\n"),
        None,
        (),
    ),
    "fixed": (
        ("auto eth0\niface eth0 inet static\n  address 10.0.0.5/24\n  gateway 10.0.0.1\n  dns-search a.b\n  mtu 1450\n"
        "iface eth0 inet6 static\n  address fd00::5/64\nauto eth1\niface eth1 inet manual\n  address 1\n"),
        None,
        ("auto eth0\niface eth0 inet dhcp\n  mtu 1450\niface eth0 inet6 auto\n"
        "auto eth1\niface eth1 inet manual\n  address 1\n"),
        ("10.0.0.5/24", "fd00::5/64"),
    ),
}  # fmt: skip
MENDERS = {"ifcfg": ifcfg.mended, "keyfile": ini.keyfile, "network": ini.network, "eni": eni.mended}
CASES = [
    (kind, name)
    for kind, table in (("ifcfg", IFCFG), ("keyfile", KEYFILE), ("network", NETWORK), ("eni", ENI))
    for name in table
]
TABLES = {"ifcfg": IFCFG, "keyfile": KEYFILE, "network": NETWORK, "eni": ENI}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_mac_addresses_go_and_the_rest_stays(kind, name):
    before, freed, _, static = TABLES[kind][name]
    mended = MENDERS[kind](before, replace_static=False)
    assert mended.text == (before if freed is None else freed)
    assert bool(mended.changes) == (freed is not None)
    assert tuple(mended.static) == static
    assert MENDERS[kind](mended.text, replace_static=False).changes in ([], ())


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if TABLES[case[0]][case[1]][2] is not None])
def test_fixed_addresses_become_dhcp_where_asked(kind, name):
    before, _, dhcp, _ = TABLES[kind][name]
    mended = MENDERS[kind](before, replace_static=True)
    assert (mended.text, tuple(mended.static)) == (dhcp, ())
    assert MENDERS[kind](mended.text, replace_static=True).text == dhcp


@pytest.mark.parametrize(
    ("text", "freed", "dhcp"),
    [
        (
            (
                "network:\n  version: 2\n  ethernets:\n    ens3:\n      match: {macaddress: '52:54:00:12:34:56'}\n"
                "      set-name: ens3\n      dhcp4: true\n"
            ),
            {"ens3": {"dhcp4": True}},
            {"ens3": {"dhcp4": True}},
        ),
        (
            (
                "network:\n  ethernets:\n    a:\n      match: {name: 'en*', macaddress: '52'}\n"
                "      addresses: [10.0.0.5/24]\n"
                "      routes: [{to: default, via: 10.0.0.1}]\n      mtu: 1450\n"
            ),
            {
                "a": {
                    "match": {"name": "en*"},
                    "addresses": ["10.0.0.5/24"],
                    "routes": [{"to": "default", "via": "10.0.0.1"}],
                    "mtu": 1450,
                }
            },
            {"a": {"match": {"name": "en*"}, "mtu": 1450, "dhcp4": True}},
        ),
    ],
)
def test_netplan(text, freed, dhcp):
    for replace, expected in ((False, freed), (True, dhcp)):
        mended = netplan.mended("/etc/netplan/a.yaml", text, replace_static=replace)
        assert yaml.safe_load(mended.text)["network"]["ethernets"] == expected
        assert not netplan.mended("/etc/netplan/a.yaml", mended.text, replace_static=replace).changes


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "network: 5\n", "network: {ethernets: {a: null, b: [1], c: {addresses: 7}}}\n", "- 1\n"]
)
def test_netplan_that_says_nothing_stays_as_it_is(text):
    assert netplan.mended("/p", text, replace_static=True).text == text


@pytest.mark.parametrize("text", ["a: [", "\udcff", "[" * 3000])
def test_netplan_that_is_no_yaml_is_an_error(text):
    with pytest.raises(GuestError, match="/p in the guest is not YAML"):
        netplan.mended("/p", text, replace_static=False)


def test_links_by_mac():
    assert ini.names_by_mac("[Match]\nMACAddress=52:54:00:12:34:56\n[Link]\nName=lan0\n")
    assert not ini.names_by_mac(
        "[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=none\nMACAddress=52:54:00:12:34:56\n"
    )
