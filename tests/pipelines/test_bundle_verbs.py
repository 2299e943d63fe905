"""The verbs on bundles as a person types them, with files alone: nothing is configured and no cloud is asked."""

from __future__ import annotations

import json
import os
import random
import subprocess  # noqa: TID251 - openssl, tar and gzip judge what the verbs made
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import typer

from builder.errors import EmiError
from pipelines import cli, cli_bundles
from pipelines.kinds import load

MIB = 1 << 20
Here = Callable[..., str]


@pytest.fixture(scope="module")
def pairs() -> Path:
    """The directory of the key pairs: user.crt and user.key, cloud.crt and cloud.key, other.key."""
    return Path(__file__).parents[2] / "fixtures" / "bundles" / "keys"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse disk of 40 MiB with a partition table and 12 MiB of data: two parts."""
    path = tmp_path_factory.mktemp("disk") / "web server.raw"
    with open(path, "wb") as file:
        file.truncate(40 * MIB)
        file.seek(9 * MIB)
        file.write(random.Random(5).randbytes(12 * MIB))
    subprocess.run(["/sbin/sfdisk", "-q", path], input="label: dos\n2048,,83\n", text=True, check=True)
    return path


@pytest.fixture
def here(tmp_path: Path, pairs: Path, monkeypatch, capsys) -> Here:
    """Run `emi WORDS` in an empty directory; `-CK` stands for the user's certificate and key. Raises as it fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EMI_CLOUD", raising=False)
    identity = ["-c", str(pairs / "user.crt"), "-k", str(pairs / "user.key")]

    def run(*words: str | Path) -> str:
        said = [part for word in map(str, words) for part in (identity if word == "-CK" else [word])]
        capsys.readouterr()
        cli.app(said, standalone_mode=False)
        assert not (tmp_path / "home" / "sandbox").exists()  # no cloud was needed
        return str(capsys.readouterr().out)

    return run


@pytest.fixture
def bundled(here: Here, disk: Path, pairs: Path) -> Path:
    """The disk's bundle, in the working directory; its manifest."""
    here("bundle", disk, "-p", "web", "-u", "1234-5678-9012", "-CK", "--ec2cert", pairs / "cloud.crt",
         "-B", "ephemeral0=/dev/sdb", "--kernel", "eki-12345678")  # fmt: skip
    return Path("web.manifest.xml")


def tool(*command: str | Path, at: Path | None = None) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, cwd=at).stdout


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name != "home")


def test_there_and_back(here: Here, bundled: Path, disk: Path, pairs: Path) -> None:
    assert files() == ["web.manifest.xml", "web.part.00", "web.part.01"]
    assert Path("web.part.00").stat().st_size == 10 * MIB
    said = here("unbundle", bundled, "-CK", "--json")
    assert json.loads(said) == {"file": "web", "size": 40 * MIB, "type": "machine", "architecture": "x86_64"}
    tool("cmp", disk, "web")
    assert Path("web").stat().st_blocks * 512 < 16 * MIB
    here("unbundle", bundled, "-k", pairs / "cloud.key", "-c", pairs / "user.crt", "--to", "by-the-cloud")
    tool("cmp", disk, "by-the-cloud")


def test_the_old_tools_pipeline_opens_it(bundled: Path, disk: Path, pairs: Path) -> None:
    text = bundled.read_text()

    def opened(element: str) -> str:
        hexed = (
            text.partition(f"<{element}>")[2].partition("<")[0]
            or text.partition(f"<{element} algorithm='AES-128-CBC'>")[2].partition("<")[0]
        )
        Path("secret").write_bytes(bytes.fromhex(hexed))
        return tool("openssl", "pkeyutl", "-decrypt", "-inkey", pairs / "user.key", "-in", "secret").decode()

    key, iv = opened("user_encrypted_key"), opened("user_encrypted_iv")
    pipeline = f"cat web.part.* | openssl enc -d -aes-128-cbc -K {key} -iv {iv} | gunzip | tar -xf -"
    tool("bash", "-o", "pipefail", "-c", pipeline)
    tool("cmp", disk, "web")


def test_info_says_what_holds(here: Here, bundled: Path, pairs: Path) -> None:
    told = json.loads(here("bundle-info", bundled, "-CK", "--json"))
    assert (told["manifest"]["user"], told["manifest"]["kernel_id"]) == ("123456789012", "eki-12345678")
    assert told["manifest"]["mappings"] == [{"virtual": "ephemeral0", "device": "sdb"}]
    assert (told["problems"], told["unchecked"], told["opened_by"]) == ([], [], ["user"])
    assert told["signed_by"]["raw"] is told["signed_by"]["reserialised"] is True
    lines = here("bundle-info", bundled)
    assert "not checked: the signature: no certificate is given" in lines
    assert "digests        right, of all 2 parts" in lines
    assert "note: " not in lines


def test_info_says_what_some_readers_refuse(here: Here, pairs: Path) -> None:
    Path("boot").write_bytes(b"kernel")
    here("bundle", "boot", "--type", "kernel", "-u", "123456789012", "-k", pairs / "user.key", "--ec2cert",
         pairs / "cloud.crt")  # fmt: skip
    assert "  note: the key is not encrypted for the user: EC2 refuses it" in here("bundle-info", "boot.manifest.xml")
    told = json.loads(here("bundle-info", "boot.manifest.xml", "--json"))
    assert told["remarks"] == ["the key is not encrypted for the user: EC2 refuses it"]


def test_info_waits_for_no_pipe_that_lies_in_a_parts_place(here: Here, bundled: Path, capsys) -> None:
    Path("web.part.01").unlink()
    os.mkfifo("web.part.01")
    Path("web.part.02").touch()
    with pytest.raises(EmiError, match="of its claims do not hold"):
        here("bundle-info", bundled)
    said = capsys.readouterr().out
    assert "web.part.01 (index 1 of 2 parts) cannot be read" in said
    assert "WRONG: web.part.02 is named like a part, and the manifest does not list it" in said


def test_a_file_without_end_is_no_certificate(here: Here, bundled: Path) -> None:
    with pytest.raises(EmiError, match="/dev/zero holds no certificate"):
        here("bundle-info", bundled, "-c", "/dev/zero")


def test_info_names_what_does_not_hold(here: Here, bundled: Path, capsys) -> None:
    with open("web.part.01", "r+b") as part:
        part.write(b"x")
    bundled.write_text(bundled.read_text().replace("eki-12345678", "eki-87654321"))
    with pytest.raises(EmiError, match="2 of its claims do not hold") as caught:
        here("bundle-info", bundled, "-CK")
    assert caught.value.exit_code == 3
    said = capsys.readouterr().out
    assert "WRONG: the manifest was altered after it was signed" in said
    assert "WRONG: " in said
    assert "web.part.01" in said


def test_a_manifest_goes_to_another_cloud_and_the_parts_stay(
    here: Here, bundled: Path, disk: Path, pairs: Path
) -> None:
    before, parts = bundled.read_bytes(), [Path(f"web.part.0{number}").read_bytes() for number in (0, 1)]
    other = pairs / "user.crt"  # stands for the other cloud's
    here("migrate-manifest", bundled, "-CK", "--ec2cert", other, "-u", "210987654321", "--kernel", "aki-00c0ffee")
    assert Path("web.manifest.xml.bak").read_bytes() == before
    assert [Path(f"web.part.0{number}").read_bytes() for number in (0, 1)] == parts
    told = json.loads(here("bundle-info", bundled, "-CK", "--json"))
    assert (told["manifest"]["user"], told["manifest"]["kernel_id"]) == ("210987654321", "aki-00c0ffee")
    assert (told["problems"], told["opened_by"]) == ([], ["user", "cloud"])
    with pytest.raises(EmiError, match=r"\.bak exists already"):
        here("migrate-manifest", bundled, "-CK", "--no-mapping")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kernel", "eki-87654321", "--no-mapping"), "--no-mapping leaves kernel and ramdisk as they are"),
        (("--ramdisk", "eri-87654321"), "names no ramdisk whose place it could take"),
        (("--kernel", "eri-87654321"), "no kernel's id"),
        (("--kernel", "eki-1 2"), "no kernel's id"),
    ],
)
def test_no_kernel_or_ramdisk_is_named_for_nothing(
    words: tuple[str, ...], says: str, here: Here, bundled: Path
) -> None:
    before = bundled.read_bytes()
    with pytest.raises(EmiError) as caught:
        here("migrate-manifest", bundled, "-CK", *words)
    assert says in caught.value.message
    assert bundled.read_bytes() == before
    assert not Path("web.manifest.xml.bak").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("unbundle", "web.manifest.xml"), 3, "cannot be read: No such file"),
        (("bundle", "{disk}", "-u", "123456789012", "-CK"), 2, "no certificate of the cloud is given"),
        (("bundle", "{disk}", "-u", "1234", "-CK", "--ec2cert", "{pairs}/cloud.crt"), 2, "1234 is no account id"),
        (
            ("bundle", "{disk}", "-u", "123456789012", "-c", "{pairs}/cloud.crt", "-k", "{pairs}/user.key", "--ec2cert",
             "{pairs}/cloud.crt"),
            2,
            "user.key does not belong to",
        ),
        (
            ("bundle", "{disk}", "-d", "no/where", "-u", "123456789012", "-CK", "--ec2cert", "{pairs}/cloud.crt"),
            2,
            "no/where cannot be written",
        ),
        (("bundle", "none", "-u", "123456789012", "-CK", "--ec2cert", "{pairs}/cloud.crt"), 3, "there is no such file"),
        (
            ("bundle", "{disk}", "--kernel", "yeah", "-u", "123456789012", "-CK", "--ec2cert", "{pairs}/cloud.crt"),
            2,
            "no kernel's id",
        ),
        (("bundle", "{disk}", "-p", "vmlinuz-5"), 2, "Eucalyptus would register the machine image as a kernel"),
        (("bundle", "{disk}", "-p", "a", "-B", "disk=sdb"), 2, "'disk': 'sdb' is no mapping"),
        (("bundle", "{disk}", "-p", "a", "--product-code", "a b"), 2, "'a b' cannot be a product code"),
        (("bundle", "{disk}", "-p", "a", "--part-size", "1K"), 2, "`part_size` is 64 KiB to 5 GiB"),
        (("bundle", "{disk}", "-p", "a", "--part-size", "some"), 2, "--part-size: 'some' is not a size"),
        (("install-image", "{disk}", "-n", "a", "-b", "images"), 2, "'a' cannot be an image's name"),
        (
            ("install-image", "{disk}", "-n", "web", "-b", "images", "--kernel", "eki-11111111",
             "--virtualization-type", "hvm"),
            2,
            "--kernel",
        ),
        (("bundle", "{disk}", "--kernel", "true", "--ramdisk", "yes"), 2, "the file is one of both"),
        (("bundle", ".", "-u", "123456789012", "-CK", "--ec2cert", "{pairs}/cloud.crt", "-p", "a"), 3, "is no regular"),
        (("upload", "web.manifest.xml", "images/../other"), 2, "'../other' cannot be a prefix"),
        (("upload", "web.manifest.xml", "-"), 2, "'-' cannot be a bucket's name"),
        (
            ("bundle", "{disk}", "-B", "sdb", "-u", "123456789012", "-CK", "--ec2cert", "{pairs}/cloud.crt"),
            2,
            "not VIRTUAL=DEVICE",
        ),
    ],
)  # fmt: skip
def test_refusals_are_plain_and_leave_nothing(words, code, says, here: Here, disk: Path, pairs: Path) -> None:
    with pytest.raises(EmiError) as caught:
        here(*(word.format(disk=disk, pairs=pairs) for word in words))
    assert says in caught.value.message
    assert caught.value.exit_code == code
    assert ".yaml" not in caught.value.message
    assert files() == []


def test_the_verb_and_the_step_know_the_same_acls() -> None:
    in_recipes = load("upload").options.model_fields["acl"].annotation
    assert set(get_args(cli_bundles.Acl)) == set(get_args(in_recipes)) >= {"aws-exec-read"}
    assert set(get_args(cli_bundles.Compression)) == set(
        get_args(load("bundle").options.model_fields["compression"].annotation)
    )


def test_no_bucket_is_made_for_an_acl_that_is_none(here: Here, bundled: Path) -> None:
    with pytest.raises(typer.BadParameter, match="bogus"):
        here("upload", bundled, "images", "--acl", "bogus")


def test_what_is_there_already_is_left_alone(here: Here, bundled: Path, disk: Path, pairs: Path) -> None:
    before = {name: Path(name).stat().st_mtime_ns for name in files()}
    with pytest.raises(EmiError, match=r"web\.manifest\.xml is there already"):
        here("bundle", disk, "-p", "web", "-u", "123456789012", "-CK", "--ec2cert", pairs / "cloud.crt")
    bundled.rename("renamed")
    Path("web.part.00").rename("first")
    with pytest.raises(EmiError, match=r"web\.part\.01 is there already"):
        here("bundle", disk, "-p", "web", "-u", "123456789012", "-CK", "--ec2cert", pairs / "cloud.crt")
    assert files() == ["first", "renamed", "web.part.01"]  # no part of the new one beside those of the old one
    Path("first").rename("web.part.00")
    with pytest.raises(EmiError, match=r"web\.part\.00 is there already"):
        here("bundle", disk, "-p", "web", "-u", "123456789012", "-CK", "--ec2cert", pairs / "cloud.crt")
    Path("renamed").rename(bundled)
    assert {name: Path(name).stat().st_mtime_ns for name in files()} == before
    Path("web").write_text("mine")
    with pytest.raises(EmiError, match="web is there already"):
        here("unbundle", bundled, "-CK")
    assert Path("web").read_text() == "mine"


@pytest.mark.parametrize("harm", ["signed by another", "a part is cut", "a part is missing", "wrong key"])
def test_a_bundle_that_is_not_right_gives_no_image(harm: str, here: Here, bundled: Path, pairs: Path) -> None:
    identity = ["-CK"]
    match harm:
        case "signed by another":
            identity = ["-c", str(pairs / "cloud.crt"), "-k", str(pairs / "user.key")]
        case "a part is cut":
            os.truncate("web.part.01", 100)
        case "a part is missing":
            Path("web.part.00").unlink()
        case _:
            identity = ["-k", str(pairs / "other.key"), "--unsigned"]
    before = files()
    with pytest.raises(EmiError) as caught:
        here("unbundle", bundled, *identity)
    assert caught.value.exit_code == 3
    assert files() == before


def test_a_kernel_is_bundled_as_it_is(here: Here, pairs: Path) -> None:
    Path("vmlinuz").write_bytes(b"a kernel, of any length")
    here("bundle", "vmlinuz", "--kernel", "true", "-u", "123456789012", "-CK", "--ec2cert", pairs / "cloud.crt")
    manifest = Path("vmlinuz.manifest.xml").read_text()
    assert "<kernel_id>true</kernel_id>" in manifest
    assert "<type>kernel</type>" in manifest
    here("unbundle", "vmlinuz.manifest.xml", "-CK", "--to", "again")
    assert Path("again").read_bytes() == b"a kernel, of any length"


def test_reproducible_parts_are_the_same_each_time(here: Here, disk: Path, pairs: Path) -> None:
    for directory in ("one", "two"):
        Path(directory).mkdir()
        here(
            "bundle",
            disk,
            "-d",
            directory,
            "--reproducible",
            "-u",
            "123456789012",
            "-CK",
            "--ec2cert",
            pairs / "cloud.crt",
        )
    parts = sorted(path.name for path in Path("one").glob("*.part.*"))
    assert parts == ["web-server.raw.part.00", "web-server.raw.part.01"]
    for name in parts:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
