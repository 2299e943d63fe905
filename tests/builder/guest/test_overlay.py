import json

import pytest

from builder import proc
from builder.errors import FormatRefused
from builder.guest.overlay import Layer, create, node, open_layer

MIB = 1 << 20


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "base.raw"
    with open(path, "wb") as image:
        image.truncate(3 * MIB)
    return Layer(path=path, format="raw")


def info(path):
    words = ["qemu-img", "info", "-f", "qcow2", "--output=json", path]
    return json.loads(proc.run(words).stdout)


def test_the_name_below_is_written_as_given_and_not_opened(raw, tmp_path):
    made = create(raw, tmp_path / "over.qcow2", backing_name="../ab/0123")
    assert made == Layer(path=tmp_path / "over.qcow2", format="qcow2", beneath=raw)
    told = info(made.path)
    assert told["backing-filename"] == "../ab/0123"
    assert told["backing-filename-format"] == "raw"
    assert told["virtual-size"] == 3 * MIB


def test_a_layer_on_a_layer_on_a_raw_image(raw, tmp_path):
    middle = create(raw, tmp_path / "middle.qcow2", backing_name="base.raw")
    top = create(middle, tmp_path / "top.qcow2", backing_name="middle.qcow2")
    assert info(top.path)["virtual-size"] == 3 * MIB
    stated = node(top)
    files = []
    while stated:
        files.append((stated["driver"], stated["file"]["filename"], stated.get("read-only", False)))
        stated = stated.get("backing")
    assert files == [
        ("qcow2", str(top.path), False),
        ("qcow2", str(middle.path), True),
        ("raw", str(raw.path), True),
    ]


def test_what_is_below_is_said_even_when_it_is_nothing(tmp_path):
    path = tmp_path / "alone.qcow2"
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"])
    assert node(Layer(path=path, format="qcow2"))["backing"] is None


def test_an_image_that_names_a_file_we_did_not_state_is_refused(raw, tmp_path):
    path = tmp_path / "hostile.qcow2"
    proc.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", path, "1M"])
    with pytest.raises(FormatRefused, match="/etc/passwd"):
        create(Layer(path=path, format="qcow2"), tmp_path / "over.qcow2", backing_name="x")
    assert not (tmp_path / "over.qcow2").exists()


def test_an_external_data_file_is_refused(tmp_path):
    path = tmp_path / "hostile.qcow2"
    options = f"data_file={tmp_path}/data.raw"
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1M"])
    with pytest.raises(FormatRefused, match="data"):
        create(Layer(path=path, format="qcow2"), tmp_path / "over.qcow2", backing_name="x")


def test_a_raw_image_said_to_be_qcow2_is_refused(raw, tmp_path):
    with pytest.raises(FormatRefused):
        create(Layer(path=raw.path, format="qcow2"), tmp_path / "over.qcow2", backing_name="x")


def test_a_layer_over_a_part_of_a_disk_names_the_disk_and_is_the_part(raw, tmp_path):
    part = Layer(path=raw.path, format="raw", window=(MIB, MIB))
    made = create(part, tmp_path / "over.qcow2", backing_name="base.raw")
    assert (made.window, made.beneath) == ((MIB, MIB), raw)
    assert info(made.path)["virtual-size"] == 3 * MIB
    stated = node(made)
    assert (stated["driver"], stated["offset"], stated["size"]) == ("raw", MIB, MIB)
    # Any tool reads the whole chain: here qemu, through the names in the headers.
    with open(raw.path, "r+b") as disk:
        disk.seek(MIB + 5)
        disk.write(b"below")
    proc.run(["qemu-io", "-f", "qcow2", "-c", "write -P 65 1536k 4k", made.path])
    flat = tmp_path / "flat.raw"
    proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", made.path, flat])
    with open_layer(made) as reader:
        assert reader.virtual_size == MIB
        assert reader.pread(MIB, 0) == flat.read_bytes()[MIB : 2 * MIB]
        assert reader.pread(8, 3) == b"\0\0below\0"
        assert reader.pread(4, MIB // 2) == b"AAAA"


def test_a_window_beyond_the_disk_is_refused(raw, tmp_path):
    part = Layer(path=raw.path, format="raw", window=(2 * MIB, 2 * MIB))
    with pytest.raises(FormatRefused, match="do not lie within"):
        create(part, tmp_path / "over.qcow2", backing_name="base.raw")
    assert not (tmp_path / "over.qcow2").exists()


def test_the_layer_counts_in_the_sectors_of_the_partition_table(raw, tmp_path):
    assert create(raw, tmp_path / "plain.qcow2", backing_name="x").sector_size == 512
    proc.run(["fdisk", "-b", "4096", raw.path], stdin=b"g\nn\n\n\n\nw\n")
    assert create(raw, tmp_path / "native.qcow2", backing_name="x").sector_size == 4096
