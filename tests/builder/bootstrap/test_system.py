"""What is installed and which files lie there before, as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.bootstrap.system import BASE, early_files


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_a_package_of_the_base_can_be_left_out(system, distribution):
    base = list(BASE[distribution])
    less = replace(system, distribution=distribution, packages=("vim", "cloud-init-", "nano-"))
    assert less.wanted == [name for name in base if name != "cloud-init"] + ["vim", "cloud-init-", "nano-"]
    assert replace(less, packages=()).wanted == base


def test_an_initramfs_of_few_drivers_has_its_filesystem_too(system):
    files = early_files(replace(system, drivers=("virtio_blk", "nvme")))
    assert files["etc/initramfs-tools/conf.d/modules"] == "MODULES=list\n"
    assert files["usr/share/initramfs-tools/modules.d/image"] == "ext4\nvirtio_blk\nnvme\n"
    assert not [path for path in early_files(system) if "modules" in path]
