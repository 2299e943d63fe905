import hashlib
import random

import pytest

from builder import proc
from builder.errors import ChecksumMismatch, DeviceAbsent, InputError, RemoteError, UsageError
from builder.image.write import content_digest
from pipelines.kinds import load
from tests.serving import serve

MIB, GIB = 1 << 20, 1 << 30
STEP = load("write")
SUM = "sha256:" + "1" * 64
URL = {"url": "https://example.test/disk.qcow2", "checksum": SUM, "format": "qcow2"}
NOISE = random.Random(6).randbytes(3 * MIB)


@pytest.mark.parametrize(
    ("told", "problems"),
    [
        ({"image": "download"}, []),
        (URL, []),
        ({}, ["give `image` (the id of a step here) or `url` (the helper downloads it)"]),
        ({"image": "download", "format": "raw"}, ["`format` is not for `image`"]),
        ({"image": "download", "scratch": "/var/tmp"}, ["`scratch` is not for `image`"]),
        ({**URL, "checksum": None}, ["`url` needs a `checksum`: nothing else proves what the helper has got"]),
        ({**URL, "format": None}, ["`url` needs a `format`: what the image is must not be guessed"]),
        ({**URL, "url": "file:///x"}, ["`url` is read by the helper, which has http and https only"]),
        ({**URL, "keyring": "k"}, ["`signature` and `keyring` are for a checksum file: give its URL as `checksum`"]),
        ({**URL, "scratch": "tmp"}, ["`scratch` is not an absolute path"]),
        ({**URL, "connections": 4}, ["`connections` is not for `url`: the helper downloads, and nothing is sent"]),
    ],
)
def test_options_that_make_no_sense_are_refused(told, problems):
    assert list(STEP.check(STEP.options(**told))) == problems


def test_a_volume_becomes_the_image_and_says_so(desk, loops):
    image = desk.image({0: NOISE, 9 * MIB: b"more"}, 12 * MIB)
    volume = desk.volume(loops.attach(GIB))
    done = desk.run("write", volume, named={"image": image}, image="image")
    assert (done.content, done.blocks, done.content_size) == (image.digest, 7, 12 * MIB)
    assert (done.volume_id, done.device) == (volume.volume_id, volume.device)
    assert "all of it read back from the device of vol-0123456789abcdef0" in desk.notes.notes[-1]
    with open(volume.device, "rb") as disk:
        assert disk.read(3 * MIB) == NOISE
    desk.run("write", volume, named={"image": image}, image="image")
    assert desk.notes.notes[-1].startswith("0 bytes of 12 MiB written, 0 bytes sent")


def test_a_volume_that_is_in_use_or_nowhere_is_refused(desk, loops):
    image = desk.image({0: NOISE}, 4 * MIB)
    named = {"named": {"image": image}, "image": "image"}
    with pytest.raises(UsageError, match="is attached to no helper"):
        desk.run("write", desk.volume("").model_copy(update={"helper": None}), **named)
    with pytest.raises(DeviceAbsent, match="no device has the serial"):
        desk.run("write", desk.volume(""), **named)
    with pytest.raises(RemoteError, match="has 2097152 bytes, but the image has 4194304"):
        desk.run("write", desk.volume(loops.attach(2 * MIB)), **named)


@pytest.mark.parametrize("boot", ["", "11111111-2222"])
def test_a_name_of_another_boot_is_not_written_to(desk, loops, monkeypatch, boot):
    monkeypatch.setattr("pipelines.steps.write._APPEARS", 0)
    image, device = desk.image({0: NOISE}, 4 * MIB), loops.attach(8 * MIB)
    volume = desk.volume(device).model_copy(update={"boot": boot})
    with pytest.raises(DeviceAbsent, match="no device has the serial"):
        desk.run("write", volume, named={"image": image}, image="image")
    with open(device, "rb") as disk:
        assert not any(disk.read())


@pytest.fixture
def mirror(tmp_path):
    """An HTTP server on loopback: its directory, and its address."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    with serve(directory, "127.0.77.1") as port:
        yield directory, f"http://127.0.77.1:{port}"


def test_the_helper_downloads_what_the_publisher_s_checksum_file_lists(desk, loops, mirror):
    image = desk.image({0: NOISE, 9 * MIB: b"more"}, 12 * MIB)
    directory, address = mirror
    packed = directory / "disk.qcow2"
    proc.run(["qemu-img", "convert", "-c", "-O", "qcow2", desk.store.path(image), packed])
    sums = directory / "SHA512SUMS"
    sums.write_text(f"{hashlib.sha512(packed.read_bytes()).hexdigest()}  disk.qcow2\n")
    told = {"url": f"{address}/disk.qcow2", "checksum": f"{address}/SHA512SUMS", "format": "qcow2"}
    scratch = str(desk.there.directory)
    done = desk.run("write", desk.volume(loops.attach(GIB)), **told, scratch=scratch)
    with desk.store.open_image(image) as reader:
        assert done.content == content_digest(reader)
    assert (done.blocks, done.content_size) == (7, 12 * MIB)
    sums.write_text(f"{'0' * 128}  disk.qcow2\n")
    with pytest.raises(ChecksumMismatch, match=r"has sha512:.*, not sha512:000"):
        desk.run("write", desk.volume(loops.attach(GIB)), **told, scratch=scratch)
    sums.write_text(f"{'0' * 128}  another.qcow2\n")
    with pytest.raises(InputError, match=r"no checksum of 'disk\.qcow2'"):
        desk.run("write", desk.volume(""), **told)
