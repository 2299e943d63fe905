"""Instance-store images end to end, on a cloud like Eucalyptus.

From a publisher's URL, or another cloud, to EKI, ERI and EMI; and back: fetched, unbundled, compared byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess  # noqa: TID251 - a web server of its own, and the tools that make what publishers have
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.bundle import check, keys
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.folder import parts_in
from builder.bundle.unbundle import unbundle
from builder.cloud.counterparts import counterpart
from builder.cloud.fetch_bundle import fetch_bundle
from builder.errors import BundleRefused, CloudConflict, CloudNotFound, UsageError
from builder.sandbox import lifecycle
from pipelines import cli
from pipelines.home import Home
from pipelines.targets import Target, open_target

RECIPES = Path(__file__).parents[2] / "recipes"
MIB = 1 << 20
LIKE_EUCALYPTUS = ("--cloud", "sandbox:eucalyptus")
MOVE = """
name: ami-to-emi
steps:
  - fetch-bundle: {manifest: amis/appscale.manifest.xml, cloud: sandbox}
  - migrate-manifest:
      cloud: sandbox
      kernels: {aki-9ba0f1de: "{kernel}"}
      ramdisks: {ari-9ba0f1de: "{ramdisk}"}
  - upload: {bucket: emis, prefix: from/aws}
  - register: {name: appscale, virtualization: paravirtual}
  - unbundle:
    from: migrate-manifest
outputs: {image: register.image_id, location: upload, bundle: migrate-manifest, fetched: fetch-bundle, inside: unbundle}
vars:
  kernel: {type: string}
  ramdisk: {type: string}
"""
AMI = """
name: ami
steps:
  - download: {url: "file://{disk}"}
  - bundle:
      name: appscale
      kernel_id: aki-9ba0f1de
      ramdisk_id: ari-9ba0f1de
      block_device_mappings: {ephemeral0: sdb}
  - upload: {bucket: amis}
outputs: {bundle: bundle}
vars:
  disk: {type: string}
"""


@pytest.fixture(scope="module")
def emi(shared_emi: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Emi with one home for the file, in which a cloud of each kind lives."""
    home = tmp_path_factory.mktemp("instance-store") / "home"
    yield type(shared_emi)(home)
    for sandbox in ("sandbox", "sandbox-eucalyptus"):
        lifecycle.stop(home / sandbox)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A web server on the loopback: its folder and its URL."""
    folder = tmp_path_factory.mktemp("web")
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[5]
        yield folder, f"http://127.0.0.1:{port}/"
        server.kill()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse disk of 40 MiB with a partition table and 11 MiB of data, in two parts when it is bundled."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    _write(path, 40 * MIB, seed=3)
    subprocess.run(["/sbin/sfdisk", "-q", path], input="label: dos\n2048,,83\n", text=True, check=True)
    return path


def _write(path: Path, size: int, *, seed: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(7 * MIB)
        file.write(random.Random(seed).randbytes(11 * MIB))


def tool(*command: str | Path, at: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, cwd=at)


def cloud(emi: Any, name: str = "sandbox:eucalyptus") -> Target:
    return open_target(name, Home(emi.home))


def back(emi: Any, location: str, place: Path) -> Path:
    """Return what is in the bundle that lies in the bucket, fetched and unbundled with the account's key, verified."""
    target = cloud(emi)
    bucket, _, key = location.partition("/")
    fetched = fetch_bundle(target.cloud.s3, bucket, key, place)
    who = target.bundling()
    assert who.user_certificate
    assert who.private_key
    check.require_signature(fetched.path.read_bytes(), Certificate.load(who.user_certificate, "user"), where=key)
    opened = keys.decrypt(fetched.manifest, PrivateKey.load(who.private_key, "user"))
    unbundle(fetched.manifest, parts_in(place, fetched.manifest), opened, place / "image")
    return place / "image"


def test_coreos_from_a_bz2_to_an_hvm_image(emi: Any, web: tuple[Path, str], disk: Path, tmp_path: Path) -> None:
    folder, url = web
    place = folder / "amd64-usr" / "current"
    place.mkdir(parents=True)
    packed = place / "flatcar_production_ami_image.bin.bz2"
    with open(packed, "wb") as out:
        subprocess.run(["bzip2", "-1", "-c", disk], stdout=out, check=True)
    digest = hashlib.sha512(packed.read_bytes()).hexdigest()
    packed.with_name(f"{packed.name}.DIGESTS").write_text(f"# SHA512 HASH\n{digest}  {packed.name}\n")
    recipe = RECIPES / "coreos-instance-store.yaml"
    words = ("--mirror", f"https://stable.release.flatcar-linux.net/={url}", *LIKE_EUCALYPTUS)
    outputs = emi.run(recipe, *words)["outputs"]
    record = cloud(emi).cloud.describe_image(outputs["image"])
    assert record is not None
    assert record.image_id.startswith("emi-")
    assert (record.name, record.state, record.architecture) == ("coreos-hvm", "available", "x86_64")
    assert (record.root_device_type, record.virtualization_type) == ("instance-store", "hvm")
    assert record.image_location == "coreos-production-ami/coreos-hvm.manifest.xml"
    tool("cmp", disk, back(emi, record.image_location, tmp_path / "back"))
    assert emi.run(recipe, *words)["mutations"] == 0


def test_ubuntus_tarball_becomes_kernel_ramdisk_and_image(emi: Any, web: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = web
    place = folder / "releases" / "14.04" / "release"
    place.mkdir(parents=True)
    inside = {role: tmp_path / f"trusty-server-cloudimg-amd64{end}" for role, end in _ENDS.items()}
    inside["kernel"].write_bytes(random.Random(7).randbytes(500_001))
    inside["ramdisk"].write_bytes(b"\x1f\x8b\x08" + bytes(70_000))  # packed with gzip, by its first bytes: left alone
    tool("mke2fs", "-q", "-t", "ext4", "-L", "cloudimg-rootfs", inside["root"], "24M")
    tarball = place / "ubuntu-14.04-server-cloudimg-amd64.tar.gz"
    names = (path.name for path in inside.values())
    tool("tar", "-czf", tarball, "--sparse", *names, at=tmp_path)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (place / "SHA256SUMS").write_text(f"{digest} *{tarball.name}\n")
    words = ("--mirror", f"https://cloud-images.ubuntu.com/={url}", *LIKE_EUCALYPTUS)
    outputs = emi.run(RECIPES / "ubuntu-instance-store.yaml", *words)["outputs"]
    found = {role: cloud(emi).cloud.describe_image(id_) for role, id_ in outputs.items()}
    types = {role: (record.image_id[:4], record.image_type, record.name) for role, record in found.items() if record}
    assert types == {
        "image": ("emi-", "machine", "ubuntu-14.04"),
        "kernel": ("eki-", "kernel", "ubuntu-14.04-kernel"),
        "ramdisk": ("eri-", "ramdisk", "ubuntu-14.04-ramdisk"),
    }
    image = found["image"]
    assert (image.kernel_id, image.ramdisk_id) == (outputs["kernel"], outputs["ramdisk"])
    assert image.virtualization_type == "paravirtual"
    for role, record in found.items():
        tool("cmp", inside["root" if role == "image" else role], back(emi, record.image_location, tmp_path / role))


_ENDS = {"root": ".img", "kernel": "-vmlinuz-generic", "ramdisk": "-loader"}


def test_an_image_is_installed_once_whatever_is_killed(emi: Any, disk: Path, tmp_path: Path) -> None:
    kernel, ramdisk = tmp_path / "vmlinuz", tmp_path / "initrd"
    kernel.write_bytes(b"kernel " * 999)
    ramdisk.write_bytes(b"ramdisk " * 999)
    words = ("install-image", disk, "-n", "web", "-b", "images/web", "--kernel", kernel, "--ramdisk", ramdisk)
    planned = json.loads(emi(*words, *LIKE_EUCALYPTUS, "--plan", "--json").out)
    assert [node["step"] for node in planned][-9:] == [
        f"install-{role}{step}".rstrip("-") for role in ("kernel-", "ramdisk-", "") for step in ("bundle", "upload", "")
    ]
    log = tmp_path / "moments"
    for moment in ("after ec2:RegisterImage", "after s3:PutObject@2"):
        cut = emi(*words, *LIKE_EUCALYPTUS, EMI_CRASH_AT=moment, EMI_CRASH_LOG=str(log))
        assert cut.code == -9, cut.err
    done = emi(*words, *LIKE_EUCALYPTUS, "--json", EMI_CRASH_LOG=str(log))
    assert done.code == 0, done.err
    moments = [line.partition("@")[0] for line in log.read_text().splitlines()]
    assert moments.count("after ec2:RegisterImage") == 3
    outputs = done.last()["outputs"]
    target = cloud(emi)
    assert {name: id_[:4] for name, id_ in outputs.items()} == {"image": "emi-", "kernel": "eki-", "ramdisk": "eri-"}
    for name, id_ in outputs.items():
        suffix = "" if name == "image" else f"-{name}"
        record = target.cloud.image_by_name(f"web{suffix}")
        assert record is not None
        assert (record.image_id, record.image_location) == (id_, f"images/web/web{suffix}.manifest.xml")
    stored = [found.key for found in target.cloud.s3.objects("images")]
    assert sorted(stored) == sorted(
        f"web/{name}"
        for name in (
            *("web.manifest.xml", "web.part.00", "web.part.01"),
            *(f"web-{role}.{part}" for role in ("kernel", "ramdisk") for part in ("manifest.xml", "part.00")),
        )
    )


def test_an_ami_becomes_an_emi_its_parts_untouched(emi: Any, disk: Path, tmp_path: Path) -> None:
    ami, move = tmp_path / "ami.yaml", tmp_path / "move.yaml"
    ami.write_text(AMI)
    move.write_text(MOVE)
    made = emi.run(ami, "--var", f"disk={disk}", "--cloud", "sandbox")["outputs"]["bundle"]
    here = _installed(emi, tmp_path)
    shutil.rmtree(emi.home / "store")  # nothing of it is here any more: all of it comes from the other cloud
    variables = [word for role, id_ in here.items() for word in ("--var", f"{role}={id_}")]
    outputs = emi.run(move, *variables, *LIKE_EUCALYPTUS)["outputs"]
    assert outputs["fetched"]["manifest"] == made["manifest"]
    assert outputs["bundle"]["parts"] == outputs["fetched"]["parts"] == made["parts"]
    assert outputs["bundle"]["manifest"]["digest"] != made["manifest"]["digest"]
    record = cloud(emi).cloud.describe_image(outputs["image"])
    assert record is not None
    assert record.image_location == "emis/from/aws/appscale.manifest.xml"
    assert record.image_id.startswith("emi-")
    tool("cmp", disk, back(emi, record.image_location, tmp_path / "back"))
    data = (tmp_path / "back" / "appscale.manifest.xml").read_text()
    assert f"<kernel_id>{here['kernel']}</kernel_id><ramdisk_id>{here['ramdisk']}</ramdisk_id>" in data
    assert "<mapping><virtual>ephemeral0</virtual><device>sdb</device></mapping>" in data
    inside = outputs["inside"]["digest"].replace(":", "-")
    (stored,) = (emi.home / "store" / "objects").glob(f"*/{inside}")
    tool("cmp", disk, stored)
    assert stored.stat().st_blocks * 512 < 16 * MIB


def test_without_a_recipe_and_with_a_cloud(emi: Any, disk: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMI_HOME", str(emi.home))

    def run(*words: str | Path) -> Any:
        capsys.readouterr()
        cli.app([*map(str, words), *LIKE_EUCALYPTUS, "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    run("bundle", disk, "-p", "plain")
    manifest = tmp_path / "plain.manifest.xml"
    cut = emi("upload", manifest, "plain/x/y", *LIKE_EUCALYPTUS, EMI_CRASH_AT="after s3:PutObject@2")
    assert cut.code == -9, cut.err
    location = "plain/x/y/plain.manifest.xml"
    assert run("upload", manifest, "plain/x/y") == {"location": location, "parts": 2, "sent": 0}
    assert run("upload", manifest, "plain/x/y")["sent"] == 0
    cli.app(["register", location, "-n", "plain", *LIKE_EUCALYPTUS], standalone_mode=False)
    record = cloud(emi).cloud.image_by_name("plain")
    assert record is not None
    assert (record.image_location, record.image_type, record.state) == (location, "machine", "available")
    again = Path("again")
    got = run("fetch-bundle", location, "-d", again)
    assert (got["kept"], sorted(path.name for path in again.iterdir())) == (
        0,
        ["plain.manifest.xml", "plain.part.00", "plain.part.01"],
    )
    assert run("bundle-info", again / "plain.manifest.xml")["problems"] == []
    run("unbundle", again / "plain.manifest.xml", "--to", "image")
    tool("cmp", disk, "image")
    for name in ("plain.manifest.xml", "plain.part.00", "plain.part.01"):
        Path(name).unlink()
    run("bundle", disk, "-p", "plain")  # another key, so another bundle
    with pytest.raises(CloudConflict, match=r"plain\.manifest\.xml exists already: the manifest of another bundle"):
        run("upload", manifest, "plain/x/y")
    os.truncate("plain.part.01", 100)
    with pytest.raises(BundleRefused, match=r"plain\.part\.01"):
        run("upload", manifest, "plain/elsewhere")
    cloud(emi).cloud.s3.delete("plain", "x/y/plain.part.01")
    with pytest.raises(BundleRefused, match=r"x/y/plain\.part\.01 is not there"):
        run("register", location, "-n", "plain-2")
    with pytest.raises(CloudNotFound, match=r"s3://plain/y\.manifest\.xml does not exist"):
        run("register", "plain/y.manifest.xml", "-n", "plain-2")
    moved = again / "plain.manifest.xml"
    cli.app(
        ["migrate-manifest", str(moved), "--from", "sandbox:eucalyptus", "--cloud", "sandbox"], standalone_mode=False
    )
    cli.app(["unbundle", str(moved), "--to", "moved", "--cloud", "sandbox"], standalone_mode=False)
    tool("cmp", disk, "moved")


@pytest.mark.sweep
def test_an_installation_is_cut_anywhere_and_run_again(emi: Any, disk: Path, tmp_path: Path) -> None:
    """After each change in the cloud of the nine steps; tests/crash/ has every other moment, for a bundle alone."""
    for role in ("kernel", "ramdisk"):
        (tmp_path / role).write_bytes(role.encode() * 999)
    log, target = tmp_path / "moments", cloud(emi)

    def words(name: str) -> list[str | Path]:
        beside = ("--kernel", tmp_path / "kernel", "--ramdisk", tmp_path / "ramdisk")
        return ["install-image", disk, "-n", name, "-b", f"sweep/{name}", *beside, *LIKE_EUCALYPTUS]

    assert emi(*words("whole"), EMI_CRASH_LOG=str(log)).code == 0
    changes = ("after s3:PutObject", "after ec2:CreateTags", "after ec2:RegisterImage", "bundle.part-sealed")
    moments = [line for line in log.read_text().splitlines() if line.startswith(changes)]
    assert len(moments) >= 17
    for number, moment in enumerate(moments):
        name = f"cut-{number}"
        assert emi(*words(name), EMI_CRASH_AT=moment).code in (-9, 0), moment  # threads may pass in another order
        done = emi(*words(name), "--json")
        assert done.code == 0, (moment, done.err)
        for role, id_ in done.last()["outputs"].items():
            record = target.cloud.image_by_name(name if role == "image" else f"{name}-{role}")
            assert record is not None, moment
            assert record.image_id == id_, moment
        keys_there = sorted(found.key.rpartition("/")[2] for found in target.cloud.s3.objects("sweep", f"{name}/"))
        assert keys_there == sorted([
            *(f"{name}.{end}" for end in ("manifest.xml", "part.00", "part.01")),
            *(f"{name}-{role}.{end}" for role in ("kernel", "ramdisk") for end in ("manifest.xml", "part.00")),
        ]), moment  # fmt: skip


@pytest.mark.sweep
def test_a_kernel_of_another_cloud_is_known_by_owner_type_and_key(emi: Any, tmp_path: Path) -> None:
    other = type(emi)(tmp_path / "home")
    try:
        there, here = (_installed(home, tmp_path) for home in (other, emi))
        clouds = [cloud(home).cloud for home in (other, emi)]
        for role in ("kernel", "ramdisk"):
            assert counterpart(there[role], *clouds) == here[role]
        with pytest.raises(UsageError, match="eki-00000000 is not to be found in the cloud that the bundle comes from"):
            counterpart("eki-00000000", *clouds)
        clouds[1].deregister_image(here["kernel"])
        with pytest.raises(UsageError, match=r"there is no kernel of account \d+ whose manifest has the key generic-"):
            counterpart(there["kernel"], *clouds)
    finally:
        lifecycle.stop(other.home / "sandbox-eucalyptus")


def _installed(emi: Any, place: Path) -> dict[str, str]:
    """Return the ids of a kernel and a ramdisk on the cloud like Eucalyptus, under the same keys each time."""
    steps = ""
    for role in ("kernel", "ramdisk"):
        (place / role).write_bytes(role.encode() * 1000)
        steps += f"""\
  - download: {{url: "{(place / role).as_uri()}"}}
  - bundle: {{name: generic-{role}, type: {role}}}
  - upload: {{bucket: boots}}
  - register: {{name: generic-{role}}}
    id: {role}
"""
    recipe = place / "boots.yaml"
    recipe.write_text(f"name: boots\nsteps:\n{steps}outputs: {{kernel: kernel.image_id, ramdisk: ramdisk.image_id}}\n")
    return dict(emi.run(recipe, *LIKE_EUCALYPTUS)["outputs"])
