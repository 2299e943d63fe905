from pathlib import Path

import pytest

from builder import proc
from builder.image.filesystems import probe
from pipelines.artifact import ImageFile
from pipelines.kinds import load

MIB = 1 << 20
STEP = load("capture")


@pytest.mark.parametrize(
    ("told", "problems"),
    [
        ({}, []),
        ({"keep": ("logs",), "exclude": ("/srv/*",), "size": 64 * MIB}, []),
        ({"keep": ("cron-spool",)}, ["`keep`: cron-spool is not done by default"]),
        ({"also": ("boot",)}, ["'boot' is not an absolute path"]),
        ({"size": 5}, ["size must be whole MiB, at least 16"]),
    ],
)
def test_options_that_make_no_sense_are_refused(told, problems):
    assert list(STEP.check(STEP.options(**told))) == problems


def test_each_run_takes_its_own_image_unless_it_is_told_otherwise(desk):
    assert STEP.pin(STEP.options(), desk.outside)["taken"] > 1_700_000_000
    assert STEP.pin(STEP.options(again=False), desk.outside) == {}


def test_a_machine_s_filesystem_becomes_an_image(desk, loops, tmp_path):
    tree = tmp_path / "tree"
    for path, text in {"etc/hostname": "web", "root/.bash_history": "secret", "srv/data": "kept"}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    device = loops.attach(24 * MIB)
    proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root-of-web", "-d", tree, device])
    place = desk.there.directory / "captured"
    place.mkdir()
    shell = desk.there.shell()
    shell.run(["mount", device, str(place)])
    try:
        made = desk.run("capture", desk.helper, path=str(place), keep=("logs",))
    finally:
        shell.run(["umount", str(place)])
    assert isinstance(made, ImageFile)
    assert (made.format, made.virtual_size) == ("raw", 24 * MIB)
    with desk.store.open_image(made) as reader:
        assert probe(reader).label == "root-of-web"
    image = Path(desk.store.path(made))
    assert proc.run(["debugfs", "-R", "cat /srv/data", image]).stdout == b"kept"
    assert b"history" not in proc.run(["debugfs", "-R", "ls /root", image]).stdout
