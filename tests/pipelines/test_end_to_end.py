"""From a publisher's URL to a registered image, each kind of step in between, judged by the snapshot's own bytes."""

from __future__ import annotations

import hashlib
import subprocess  # noqa: TID251 - a web server of its own, and the tools that look at what came out
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cloud.aws import Aws, Settings
from builder.digest import BLOCK
from builder.image.reader import open_image
from builder.sandbox import lifecycle

ROOT = Path(__file__).parents[2]
RECIPE = """
name: edited
steps:
  - download:
      url: "https://images.example/tiny.qcow2.xz"
      checksum: "https://images.example/SHA256SUMS"
  - decompress:
  - label: {label: rootfs}
  - fstab:
  - snapshot:
  - register: {name: edited}
outputs:
  image: register.image_id
  snapshot: snapshot.snapshot_id
"""


def cloud_of(emi) -> Aws:
    """Return a client of our own for the sandbox of `emi`'s home."""
    found = lifecycle.start(emi.home / "sandbox")
    keys = {"access_key": found.access_key, "secret_key": found.secret_key}
    return Aws(Settings(region=found.region, endpoint_url=found.url, **keys))


def restore(emi, snapshot: str, target: Path, size: int) -> Path:
    """Write the snapshot's bytes, read through the EBS direct APIs, to a sparse file."""
    cloud = cloud_of(emi)
    with open(target, "wb") as file:
        file.truncate(size)
        for block in cloud.list_blocks(snapshot):
            file.seek(block.index * BLOCK)
            file.write(cloud.get_block(snapshot, block))
        file.truncate(size)
    return target


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on the loopback: its folder and its URL."""
    folder = tmp_path / "web"
    folder.mkdir()
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[5]
        yield folder, f"http://127.0.0.1:{port}/"
        server.kill()


def tool(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_compressed_qcow2_is_downloaded_edited_and_published(emi, tiny_disk, tmp_path, web) -> None:
    folder, url = web
    tool("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", tiny_disk, folder / "tiny.qcow2")
    tool("xz", "-1", folder / "tiny.qcow2")
    digest = hashlib.sha256((folder / "tiny.qcow2.xz").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  other\n{digest} *tiny.qcow2.xz\n")
    recipe = tmp_path / "edited.yaml"
    recipe.write_text(RECIPE)
    mirror = ("--mirror", f"https://images.example/={url}")
    outputs = emi.run(recipe, *mirror)["outputs"]
    disk = restore(emi, outputs["snapshot"], tmp_path / "restored.raw", 256 << 20)
    assert tool("/sbin/blkid", "-p", "-O", str(1 << 20), "-o", "value", "-s", "LABEL", disk) == "rootfs\n"
    fstab = tool("/sbin/debugfs", "-R", "cat /etc/fstab", f"{disk}?offset={1 << 20}")
    assert fstab == "# tiny\nLABEL=rootfs / ext4 defaults 0 1\n"
    tool("/sbin/e2fsck", "-fn", f"{disk}?offset={1 << 20}")
    assert emi.run(recipe, *mirror)["mutations"] == 0


def test_an_upstream_recipe_runs_against_a_mirror(demo, emi, tmp_path, web) -> None:
    """Debian's own recipe, from the publisher's URLs to an image, the mirror serving the demo's disk as theirs."""
    folder, url = web
    place = folder / "cloud" / "bookworm" / "latest"
    place.mkdir(parents=True)
    image = place / "debian-12-genericcloud-amd64.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", demo.disk, image)
    digest = hashlib.sha512(image.read_bytes()).hexdigest()
    (place / "SHA512SUMS").write_text(f"{digest}  debian-12-genericcloud-amd64.qcow2\n")
    recipe = ROOT / "recipes" / "debian-12-cloud.yaml"
    last = emi.run(recipe, "--mirror", f"https://cloud.debian.org/images/={url}")
    record = cloud_of(emi).describe_image(last["outputs"]["image"])
    assert record is not None
    assert (record.name, record.state, record.boot_mode) == ("debian-12-amd64", "available", "uefi-preferred")


def test_the_demos_snapshot_is_its_disk_byte_for_byte(demo, tmp_path) -> None:
    snapshot = demo.last["outputs"]["snapshot"]
    restored = restore(demo.emi, snapshot, tmp_path / "restored.raw", demo.disk.stat().st_size)
    with open_image(demo.disk, "raw") as made, open(restored, "rb") as found:
        assert made.virtual_size == restored.stat().st_size
        for offset in range(0, made.virtual_size, BLOCK):
            assert made.pread(BLOCK, offset) == found.read(BLOCK), f"the block at byte {offset} differs"
    assert demo.result("snapshot")["verified"] is True
