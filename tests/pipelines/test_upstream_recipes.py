"""The recipes for publishers' images: each asks for the files that its publisher has, and is planned from a mirror.

The checksum files have their publishers' own forms: GNU lines, BSD lines in a clearsigned file, DIGESTS by sections.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"
IMAGE = b"stands in for an image\n"

Listing = Callable[[str], str]


def gnu(algorithm: str, mark: str) -> Listing:
    return lambda name: f"{_hash(algorithm)} {mark}{name}\n"


def clearsigned_bsd(name: str) -> str:
    return (
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        f"# {name}: {len(IMAGE)} bytes\nSHA256 ({name}) = {_hash('sha256')}\n"
        "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
    )


def sections(name: str) -> str:
    algorithms = ("md5", "sha1", "sha512")
    return "".join(f"# {algorithm.upper()} HASH\n{_hash(algorithm)}  {name}\n" for algorithm in algorithms)


def _hash(algorithm: str) -> str:
    return hashlib.new(algorithm, IMAGE, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Publisher:
    recipe: str
    directory: str
    image: str
    sums: str
    listing: Listing
    algorithm: str
    nodes: tuple[str, ...] = ("download", "fstab", "snapshot", "register")


PUBLISHERS = (
    Publisher(
        recipe="debian-12-cloud",
        directory="cloud.debian.org/images/cloud/bookworm/latest",
        image="debian-12-genericcloud-amd64.qcow2",
        sums="SHA512SUMS",
        listing=gnu("sha512", " "),
        algorithm="sha512",
    ),
    Publisher(
        recipe="ubuntu-24.04",
        directory="cloud-images.ubuntu.com/releases/24.04/release",
        image="ubuntu-24.04-server-cloudimg-amd64.img",
        sums="SHA256SUMS",
        listing=gnu("sha256", "*"),
        algorithm="sha256",
    ),
    Publisher(
        recipe="fedora",
        directory="download.fedoraproject.org/pub/fedora/linux/releases/43/Cloud/x86_64/images",
        image="Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2",
        sums="Fedora-Cloud-43-1.6-x86_64-CHECKSUM",
        listing=clearsigned_bsd,
        algorithm="sha256",
    ),
    Publisher(
        recipe="almalinux",
        directory="repo.almalinux.org/almalinux/9/cloud/x86_64/images",
        image="AlmaLinux-9-GenericCloud-latest.x86_64.qcow2",
        sums="CHECKSUM",
        listing=gnu("sha256", " "),
        algorithm="sha256",
    ),
    Publisher(
        recipe="flatcar",
        directory="stable.release.flatcar-linux.net/amd64-usr/current",
        image="flatcar_production_ami_image.bin.bz2",
        sums="flatcar_production_ami_image.bin.bz2.DIGESTS",
        listing=sections,
        algorithm="sha512",
        nodes=("download", "decompress", "snapshot", "register"),
    ),
)
ANY_PUBLISHER = pytest.mark.parametrize("publisher", PUBLISHERS, ids=lambda publisher: publisher.recipe)


@ANY_PUBLISHER
def test_it_asks_for_the_publishers_own_files(publisher: Publisher) -> None:
    recipe = load(RECIPES / f"{publisher.recipe}.yaml")
    options: Any = recipe.step("download").options
    assert options.url == f"https://{publisher.directory}/{publisher.image}"
    assert options.checksum == f"https://{publisher.directory}/{publisher.sums}"
    assert recipe.name == publisher.recipe
    assert set(recipe.outputs) == {"image", "snapshot"}


@ANY_PUBLISHER
def test_it_is_planned_from_a_mirror(publisher: Publisher, shared_emi: Any, tmp_path: Path) -> None:
    directory = tmp_path / publisher.directory
    directory.mkdir(parents=True)
    (directory / publisher.image).write_bytes(IMAGE)
    (directory / publisher.sums).write_text(publisher.listing(publisher.image))
    host = publisher.directory.split("/", 1)[0]
    mirror = f"https://{host}/={(tmp_path / host).as_uri()}/"
    done = shared_emi("plan", RECIPES / f"{publisher.recipe}.yaml", "--mirror", mirror, "--json")
    assert done.code == 0, done.err
    prospects = json.loads(done.out)
    assert tuple(prospect["step"] for prospect in prospects) == publisher.nodes
    assert {prospect["verdict"] for prospect in prospects} == {"will run"}
    assert prospects[0]["expected"] == len(IMAGE)
    assert "ec2:RegisterImage" in json.dumps(prospects[-1])


@ANY_PUBLISHER
def test_a_checksum_file_without_the_image_stops_the_plan(
    publisher: Publisher, shared_emi: Any, tmp_path: Path
) -> None:
    directory = tmp_path / publisher.directory
    directory.mkdir(parents=True)
    (directory / publisher.image).write_bytes(IMAGE)
    (directory / publisher.sums).write_text(publisher.listing("another.img"))
    host = publisher.directory.split("/", 1)[0]
    mirror = f"https://{host}/={(tmp_path / host).as_uri()}/"
    done = shared_emi("plan", RECIPES / f"{publisher.recipe}.yaml", "--mirror", mirror)
    assert done.code == 3
    assert publisher.image in done.err


def test_every_recipe_is_planned_by_some_test() -> None:
    # tests/conftest.py, tests/boot/test_partition_image.py, test_instance_store.py, tests/recipes/.
    elsewhere = {"debian-12", "partition-image", "coreos-instance-store", "ubuntu-instance-store"}
    elsewhere |= {"helper", "helper-instance-store", "ebs-via-helper"}
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {publisher.recipe for publisher in PUBLISHERS} | elsewhere


def test_a_disk_is_taken_apart_with_one_launch_planned(shared_emi: Any, tmp_path: Path) -> None:
    disk = tmp_path / "vendor.raw"
    disk.write_bytes(IMAGE)
    done = shared_emi("plan", RECIPES / "partition-image.yaml", "--var", f"image={disk.as_uri()}", "--json")
    assert done.code == 0, done.err
    planned = [prospect["step"] for prospect in json.loads(done.out)]
    assert planned == ["download", "kernel + label + fstab + cloud-init", "root", "assemble", "snapshot", "register"]
