from pathlib import Path

import pytest

from builder import acceleration
from builder.acceleration import Acceleration
from builder.errors import ToolFailed


@pytest.fixture(autouse=True)
def _forget():
    acceleration._proven.cache_clear()
    yield
    acceleration._proven.cache_clear()


def qemus() -> list[str]:
    """Command lines of the probes that are running now and are ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"emi-boot-" in words:
            found.append(words.decode())
    return found


def test_the_boot_sector_says_its_word_under_tcg():
    acceleration.boot("tcg")


@pytest.mark.parametrize(
    ("sector", "expected"),
    [
        pytest.param(b"\xf4\xeb\xfd", "no end after 2 s", id="a guest that hangs"),
        pytest.param(b"\xb0\xfe\xe6\x64\xf4\xeb\xfd", "said b''", id="a guest that ends silent"),
        pytest.param(b"\xb0\x45\xe6\xe9\xb0\xfe\xe6\x64\xf4", "said b'E'", id="a guest that says something else"),
    ],
)
def test_anything_but_the_word_is_no_proof(monkeypatch, sector, expected):
    monkeypatch.setattr(acceleration, "_BOOT_SECTOR", sector.ljust(510, b"\0") + b"\x55\xaa")
    with pytest.raises(ToolFailed, match=expected):
        acceleration.boot("tcg", patience=2)
    assert not qemus()


def test_the_answer_is_what_a_guest_really_does_here():
    answer = acceleration.prove()
    try:
        acceleration.boot("kvm")
        boots = acceleration._KVM.exists()
    except ToolFailed:
        boots = False
    assert (answer.kind == "kvm") == boots
    assert answer.why
    assert not qemus()


def test_it_is_remembered_for_this_boot_of_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(acceleration, "_KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    first = acceleration.prove(tmp_path / "cache")
    note = tmp_path / "cache" / "acceleration"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert note.read_text().startswith(boot_id)
    note.write_text(note.read_text().replace(first.why, "as noted"))
    acceleration._proven.cache_clear()
    assert acceleration.prove(tmp_path / "cache") == Acceleration(kind=first.kind, why="as noted")


@pytest.mark.parametrize("note", [b"", b"other-boot /usr/bin/qemu 1\nkvm\nold\n", b"\xff\xfe\n", b"a\nb\nc\nd\n"])
def test_an_old_or_damaged_note_is_asked_again(tmp_path, monkeypatch, note):
    monkeypatch.setattr(acceleration, "_KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    (tmp_path / "acceleration").write_bytes(note)
    answer = acceleration.prove(tmp_path)
    assert answer.why != "old"
    assert (tmp_path / "acceleration").read_text().splitlines()[1:] == [answer.kind, answer.why]


def test_without_the_device_nothing_is_asked_or_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(acceleration, "_KVM", tmp_path / "absent")
    assert acceleration.prove(tmp_path) == Acceleration(kind="tcg", why="this host has no /dev/kvm")
    assert not list(tmp_path.iterdir())


def test_the_proof_runs_once_per_process(tmp_path, monkeypatch):
    monkeypatch.setattr(acceleration, "_KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    assert acceleration.prove() is acceleration.prove()
