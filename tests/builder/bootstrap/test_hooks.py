"""The scripts that run while the system is installed, run here on directories of our own."""

from __future__ import annotations

import hashlib
import os
import tarfile

import pytest

from builder import proc
from builder.bootstrap import hooks


@pytest.fixture
def place(tmp_path, system):
    """A root directory, a package cache and the hooks between them; paths with a space, as users have them."""
    cache, root, scripts = tmp_path / "a cache", tmp_path / "a root", tmp_path / "the hooks"
    for path in ("etc/apt/apt.conf.d", "var/lib/apt/lists", "var/cache/apt/archives"):
        (root / path).mkdir(parents=True)
    hooks.write(system, scripts, cache=cache)
    return cache, root, scripts


def sign(root, *packages):
    lines = [f"Package: x\nSHA256: {hashlib.sha256(data).hexdigest()}\n" for data in packages]
    (root / "var/lib/apt/lists/a_main_binary-amd64_Packages").write_text("\n".join(lines))


def test_only_what_the_signed_lists_name_comes_out_of_the_cache(place):
    cache, root, scripts = place
    (cache / "good_1_all.deb").write_bytes(b"good")
    (cache / "rotten_1_all.deb").write_bytes(b"rotten")
    (cache / "older_0_all.deb").write_bytes(b"older")
    sign(root, b"good", b"fresh")
    proc.run([scripts / "setup-cache", root])
    assert len(list((root / "var/cache/apt/archives").iterdir())) == 3
    (conf,) = (root / "etc/apt/apt.conf.d").iterdir()
    asked = proc.run(["apt-config", "dump"], environment={"APT_CONFIG": str(conf)}).stdout.decode()
    assert f"APT::Update::Post-Invoke:: \"sh '{scripts / 'keep-signed'}'\"" in asked
    proc.run(["sh", scripts / "keep-signed"])
    assert [path.name for path in (root / "var/cache/apt/archives").iterdir()] == ["good_1_all.deb"]
    proc.run([scripts / "essential-cache", root])
    assert list((root / "etc/apt/apt.conf.d").iterdir()) == []


def test_what_was_installed_is_kept_and_what_nobody_needs_is_dropped(place):
    cache, root, scripts = place
    (cache / "stale_1_all.deb").write_bytes(b"stale")
    (cache / "used_1_all.deb").write_bytes(b"used")
    (cache / "rotten_1_all.deb").write_bytes(b"rotten")
    for name in ("stale_1_all.deb", "used_1_all.deb"):
        os.utime(cache / name, (1, 1))
    for name, data in (("used_1_all.deb", b"used"), ("new_1_all.deb", b"new"), ("rotten_1_all.deb", b"sound")):
        (root / "var/cache/apt/archives" / name).write_bytes(data)
    proc.run([scripts / "customize-cache", root])
    kept = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert kept == {"used_1_all.deb": b"used", "new_1_all.deb": b"new", "rotten_1_all.deb": b"sound"}


def test_the_first_build_has_nothing_to_take(place):
    _, root, scripts = place
    sign(root, b"x")
    proc.run([scripts / "setup-cache", root])
    proc.run(["sh", scripts / "keep-signed"])
    assert list((root / "var/cache/apt/archives").iterdir()) == []
    proc.run([scripts / "customize-cache", root])  # nor has one from a file: archive anything to keep


def test_files_are_there_before_the_kernel_and_the_loader(place, tmp_path):
    _, root, scripts = place
    proc.run([scripts / "essential-files", root])
    with tarfile.open(scripts / "early.tar") as tar:
        assert {member.name for member in tar} == {
            str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()
        }
    assert "LABEL=rootfs / ext4" in (root / "etc/fstab").read_text()
    grub = (root / "etc/default/grub.d/50-console.cfg").read_text()
    assert proc.run(["sh", "-c", f"{grub} echo $GRUB_CMDLINE_LINUX"]).stdout == b"console=tty0 console=ttyS0,115200\n"


def test_without_a_cache_there_is_no_hook_for_one(tmp_path, system):
    hooks.write(system, tmp_path / "hooks", cache=None)
    assert sorted(path.name for path in (tmp_path / "hooks").iterdir()) == [
        "customize-loader", "early.tar", "essential-files", "loader",
    ]  # fmt: skip


@pytest.mark.parametrize("script", ["setup-cache", "essential-cache", "customize-cache", "customize-loader"])
def test_the_scripts_are_sound_shell(place, script):
    proc.run(["shellcheck", "-s", "sh", place[2] / script])
