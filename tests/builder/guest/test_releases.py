"""The order of kernel releases, from real ones."""

import random
from itertools import combinations

import pytest

from builder.guest.releases import in_order, newest, same

# Oldest first.
ORDERS = {
    "debian 12": ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-18-amd64", "6.1.0-21-amd64", "6.12.9+bpo-amd64"],
    "debian 13": ["6.12.9+deb13-amd64", "6.12.38+deb13-amd64", "6.12.41+deb13-amd64", "6.12.41+deb13.1-amd64"],
    "backports": ["5.10.0-26-amd64", "6.1.0-0.deb11.5-amd64", "6.1.0-0.deb11.11-amd64", "6.1.0-9-amd64"],
    "ubuntu": ["5.15.0-25-generic", "5.15.0-105-generic", "6.5.0-9-generic", "6.5.0-35-generic", "6.8.0-31-generic"],
    "ubuntu mainline": ["6.7.0-060700rc3-generic", "6.7.0-060700rc10-generic", "6.7.0-060700-generic"],
    "vanilla": ["6.6.9", "6.7.0-rc1", "6.7.0-rc3", "6.7.0-rc10", "6.7.0", "6.7.1-rc1", "6.7.1", "6.10.0"],
    "vanilla tags": ["6.6", "6.7-rc8", "6.7", "6.7.1", "6.10"],
    "fedora": [
        "6.5.6-300.fc39.x86_64",
        "6.5.11-300.fc39.x86_64",
        "6.7.0-0.rc3.20231130git1a2b3c4.28.fc40.x86_64",
        "6.7.0-0.rc10.69.fc40.x86_64",
        "6.7.0-68.fc40.x86_64",
        "6.7.0-68.fc41.x86_64",
        "6.7.0-200.fc40.x86_64",
    ],
    "el5": ["2.6.18-8.el5", "2.6.18-92.1.22.el5", "2.6.18-128.el5", "2.6.18-398.el5", "2.6.18-419.el5"],
    "el6": [
        "2.6.32-71.el6.x86_64",
        "2.6.32-431.el6.x86_64",
        "2.6.32-431.20.3.el6.x86_64",
        "2.6.32-754.35.1.el6.x86_64",
    ],
    "el7": [
        "3.10.0-957.el7.x86_64",
        "3.10.0-1160.el7.x86_64",
        "3.10.0-1160.6.1.el7.x86_64",
        "3.10.0-1160.76.1.el7.x86_64",
    ],
    "el8": [
        "4.18.0-80.el8.x86_64",
        "4.18.0-553.el8.x86_64",
        "4.18.0-553.el8_9.x86_64",
        "4.18.0-553.el8_10.x86_64",
        "4.18.0-553.5.1.el8_10.x86_64",
        "4.18.0-553.16.1.el8_10.x86_64",
    ],
    "suse": [
        "5.14.21-150500.55.7-default",
        "5.14.21-150500.55.62-default",
        "6.4.0-150600.9-default",
        "6.4.0-150600.21-default",
    ],
    "arch": ["6.6-arch1-1", "6.6.1-arch1-1", "6.6.1-arch1-2", "6.6.1-arch2-1", "6.6.10-arch1-1"],
    "amazon": [
        "4.14.9-61.amzn1.x86_64",
        "4.14.10-61.amzn2.x86_64",
        "6.1.9-99.amzn2023.x86_64",
        "6.1.79-99.164.amzn2023.x86_64",
    ],
    "debian rc": ["6.6.15-amd64", "6.7-rc5-amd64", "6.7-amd64", "6.7.1-amd64"],
    "very long numbers": ["1.0-99999999999999999", "1.0-100000000000000000"],
}

FLAVOURS = [
    ["6.1.0-18-amd64", "6.1.0-18-cloud-amd64", "6.1.0-18-rt-amd64"],
    ["5.15.0-105-generic", "5.15.0-105-lowlatency"],
    ["2.6.18-398.el5", "2.6.18-398.el5xen", "2.6.18-398.el5PAE"],
    ["6.5.6-300.fc39.x86_64", "6.5.6-300.fc39.x86_64+debug"],
    ["6.4.0-150600.21-default", "6.4.0-150600.21-azure"],
    ["6.6.8-arch1-1", "6.6.8-zen1-1-zen", "6.6.8-hardened1-1-hardened"],
    ["6.1.0", "6.1.0-custom"],
]


@pytest.mark.parametrize("name", ORDERS)
def test_releases_are_sorted_as_people_do(name):
    order = ORDERS[name]
    for seed in range(5):
        shuffled = random.Random(seed).sample(order, len(order))
        assert in_order(shuffled) == order
        assert newest(shuffled)[0] == order[-1]


@pytest.mark.parametrize("flavours", FLAVOURS)
def test_flavours_of_one_release_are_equally_new(flavours):
    assert set(newest(flavours)) == set(flavours)
    assert all(same(one, other) and same(other, one) for one, other in combinations(flavours, 2))


@pytest.mark.parametrize("name", ORDERS)
def test_releases_are_no_flavours_of_each_other(name):
    assert not any(same(one, other) for one, other in combinations(ORDERS[name], 2))


@pytest.mark.parametrize("odd", ["", "-", "linux", "6", "\u0663.\u0661", "9" * 5000, "a" * 5000, "~~~"])
def test_anything_has_its_place(odd):
    assert newest([odd]) == [odd]
    assert len(in_order([odd, "6.1.0-9-amd64"])) == 2
