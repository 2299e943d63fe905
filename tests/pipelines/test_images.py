"""`emi inspect` and `emi lint` as a user calls them: on the demo's own image, on a broken one, on what has no guest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder import proc
from builder.guest.lint.lint import lint
from builder.guest.lint.subject import TARGETS
from builder.guest.look import layer_of, look
from pipelines.recipe import load

MIB = 1 << 20
BROKEN = {
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian by code"\n',
    "etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n",
    "root/.bash_history": "mysql -phunter2\n",
    "etc/shadow": "root::1::::::\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A root filesystem with much wrong about it."""
    tree, image = tmp_path / "tree", tmp_path / "image.raw"
    for name, content in BROKEN.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    with open(image, "xb") as file:
        file.truncate(16 * MIB)
    proc.run(["mkfs.ext4", "-q", "-F", "-L", "bare", "-d", tree, image])
    return image


@pytest.mark.sweep
def test_the_demos_own_image_is_fit(demo, shared_emi) -> None:
    done = shared_emi("lint", demo.disk, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["findings"] == []


@pytest.mark.sweep
def test_the_demos_own_image_for_each_target(demo, tmp_path) -> None:
    # cloud-init of Debian, with no datasource chosen, does not know Eucalyptus: that is so, and no false alarm.
    wanted = {target: ["ec2-not-recognised"] if target.startswith("eucalyptus") else [] for target in TARGETS}
    with look(layer_of(demo.disk), scratch=tmp_path) as guest:
        assert {target: [one.rule for one in lint(guest, target)] for target in TARGETS} == wanted


@pytest.mark.sweep
def test_the_demos_own_image_is_shown(demo, shared_emi) -> None:
    done = shared_emi("inspect", demo.disk)
    assert done.code == 0, done.err
    for words in (
        "boots by BIOS (GRUB); UEFI (EFI/BOOT/BOOTX64.EFI on partition 15)",
        "guest on /dev/sda1: Debian GNU/Linux 12 (bookworm); x86_64, apt packages, systemd init",
        "in the initramfs: virtio_pci, virtio_blk",
        "boot loader: /boot/grub/grub.cfg",
        "fstab: LABEL=rootfs / ext4",
        "ds-identify decides by the firmware; default user debian",
        "user root (0): /root, /bin/bash, no password, no keys",
    ):
        assert words in done.out
    assert "not known" not in done.out


def test_a_broken_image_ends_with_its_own_code(bare: Path, shared_emi) -> None:
    before = bare.read_bytes()
    done = shared_emi("lint", bare, "--for", "eucalyptus-kvm", "--except", "no-sshd")
    assert done.code == 9
    assert f"{bare} has 4 errors for eucalyptus-kvm" in " ".join(done.err.split())
    assert "error: root logs in without a password\n    empty-password, /etc/shadow:1: root::\n" in done.out
    assert "    mended by `sysprep`; `emi lint --fix` prints the step\n" in done.out
    assert "hunter2" not in done.out + done.err
    assert "no-sshd" not in done.out
    assert bare.read_bytes() == before


@pytest.mark.sweep
def test_the_steps_that_mend_it_are_a_recipe(bare: Path, shared_emi, tmp_path: Path) -> None:
    before = bare.read_bytes()
    fixed = shared_emi("lint", bare, "--for", "eucalyptus-kvm", "--fix")
    assert fixed.code == 0, fixed.err
    recipe = tmp_path / "mended.yaml"
    source = "  - download: {url: 'https://images.example/x', checksum: 'sha256:%s'}\n" % ("0" * 64)
    recipe.write_text(f"name: x\nsteps:\n{source}" + "".join(f"  {line}\n" for line in fixed.out.splitlines()))
    assert {"fstab", "users", "sysprep"} <= {step.kind for step in load(recipe).steps}
    assert bare.read_bytes() == before


def test_without_an_appliance_the_disk_is_judged_and_shown(bare: Path, shared_emi) -> None:
    nowhere = {"LIBGUESTFS_PATH": "/nonexistent"}
    done = shared_emi("lint", bare, **nowhere)
    assert done.code == 6
    assert "note: of the guest nothing can be told" in done.out
    assert "error: the image is a filesystem without a disk around it" in done.out
    assert "the appliance did not start" in done.err
    os.truncate(bare, 3 << 30)
    large = json.loads(shared_emi("lint", bare, "--volume-size", "2", "--json", **nowhere).out)["findings"]
    assert [one["what"] for one in large if one["rule"] == "disk-larger-than-volume"] == [
        "the disk has 3 GiB, its volume is to have 2 GiB"
    ]
    shown = shared_emi("inspect", bare, **nowhere)
    assert shown.code == 0, shown.err
    assert "label 'bare'" in shown.out
    assert "no guest is shown: the appliance did not start" in shown.out
    said = json.loads(shared_emi("inspect", bare, "--json", **nowhere).out)
    assert said["volumes"][0]["filesystem"]["label"] == "bare"
    assert said["guest"] is None
    assert "did not start" in said["no_guest"]


def test_the_guest_can_be_left_out(bare: Path, shared_emi) -> None:
    done = shared_emi("inspect", bare, "--no-guest", LIBGUESTFS_PATH="/nonexistent")
    assert (done.code, "guest on" in done.out, "no guest" in done.out) == (0, False, False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lint", "/etc/passwd"], 3, "not a disk image"),
        (["lint", "/nonexistent"], 3, "/nonexistent"),
        (["lint", "/etc/passwd", "--except", "no-such"], 2, "no rule no-such"),
        (["lint", "/etc/passwd", "--for", "azure"], 2, "azure"),
    ],
)
def test_what_cannot_be_done_is_said(shared_emi, words: list[str], code: int, said: str) -> None:
    done = shared_emi(*words)
    assert done.code == code
    assert said in done.err
