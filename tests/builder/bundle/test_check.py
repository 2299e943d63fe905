"""What is said of a bundle: of whole ones of every dialect, and of each thing that can be wrong with one."""

from __future__ import annotations

import hashlib
import random
import shutil
from dataclasses import replace

import pytest

from builder.bundle import keys, manifest
from builder.bundle.check import inspect, require_signature
from builder.bundle.folder import parts_in, surplus
from builder.bundle.records import Bundler, Manifest, Part, Shape
from builder.bundle.stream import write
from builder.errors import BundleRefused
from builder.image.raw import RawReader


def test_whole_bundles_of_every_dialect(made, user, cloud, other):
    says = manifest.read(made.data, where="fixture")
    opens = made.expected["opened_by"]
    found = inspect(
        made.data,
        where="fixture",
        certificates=[other.certificate, user.certificate],
        private_key=(user if "user" in opens else cloud).key,
        open_part=parts_in(made.directory, says),
        surplus=surplus(made.directory, says),
    )
    signed = bool(made.expected["signature"])
    assert found.manifest == says
    assert found.problems == (
        ()
        if signed
        else ("the manifest is not signed: nobody vouches for it, EC2 and Eucalyptus before 4.2 refuse it",)
    )
    assert found.unchecked == ()
    assert [part.filename for part in found.parts] == made.expected["parts"]
    assert sum(part.size or 0 for part in found.parts) == says.bundled_size
    if signed:
        assert found.signed_by is not None
        assert found.signed_by.certificate == user.certificate
        readings = [way for way in ("raw", "reserialised") if getattr(found.signed_by, way)]
        assert readings == made.expected["signature"]
        assert bool(found.remarks) == (len(readings) == 1)
    assert set(found.opened_by) <= set(opens)
    assert found.opened_by


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, user, cloud, content_key):
    """A bundle of ours in a directory, in four parts."""
    place = tmp_path_factory.mktemp("bundle")
    image = place / "image"
    image.write_bytes(random.Random(8).randbytes(3000) + bytes(100_000))
    shape = Shape(name="p", part_size=1024)
    with RawReader(image) as reader:
        stream = write(reader, place, shape, content_key)
    image.unlink()
    says = Manifest(
        bundler=Bundler(name="emi", version="1", release="0"),
        architecture="x86_64",
        name="p",
        user="000100729354",
        tar_sha1=stream.tar_sha1,
        size=stream.size,
        bundled_size=stream.bundled_size,
        for_cloud=keys.encrypt(content_key, cloud.certificate),
        for_user=keys.encrypt(content_key, user.certificate),
        parts=tuple(Part(filename=part.filename, sha1=part.sha1) for part in stream.parts),
    )
    assert len(says.parts) > 2
    return place, says


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of it that a test may damage."""
    place, says = bundle
    shutil.copytree(place, tmp_path / "copy")
    return tmp_path / "copy", says


def look(copy, user, *, data=None, key=None, certificates=None, says=None):
    place, original = copy
    says = says or original
    return inspect(
        data or manifest.write(says, user.key),
        where="p.manifest.xml",
        certificates=[user.certificate] if certificates is None else certificates,
        private_key=key or user.key,
        open_part=parts_in(place, says, alone=False),
        surplus=surplus(place, says),
    )


def test_ours_is_right_in_every_respect(copy, user):
    found = look(copy, user)
    assert (found.problems, found.remarks, found.unchecked) == ((), (), ())
    assert found.opened_by == ("user",)
    assert found.signed_by is not None
    assert str(found.signed_by).endswith("every verifier sees it")


def test_what_is_not_given_is_not_checked_and_said_so(copy, user):
    data = manifest.write(copy[1], user.key)
    found = inspect(data, where="m")
    assert found.problems == ()
    assert found.parts == ()
    assert found.unchecked == (
        "the signature: no certificate is given",
        "the encrypted key: no private key is given",
        "the parts: they were not looked at",
    )


def test_the_clouds_key_opens_it_too(copy, user, cloud):
    assert look(copy, user, key=cloud.key).opened_by == ("cloud",)


def test_every_part_that_is_wrong_is_named(copy, user):
    place, says = copy
    names = [part.filename for part in says.parts]
    (place / names[0]).unlink()
    damaged = b"?" + (place / names[1]).read_bytes()[1:]
    (place / names[1]).write_bytes(damaged)
    (place / "p.part.77").touch()
    found = look(copy, user)
    count = len(names)
    assert found.problems == (
        f"p.part.00 (index 0 of {count} parts) is missing",
        (
            f"p.part.01 (index 1 of {count} parts) is damaged: its SHA-1 is "
            f"{hashlib.sha1(damaged).hexdigest()}, the manifest says {says.parts[1].sha1}"
        ),
        "p.part.77 is named like a part, and the manifest does not list it",
    )
    assert [bool(part.problem) for part in found.parts] == [True, True] + [False] * (count - 2)
    assert found.parts[0].sha1 is None
    assert found.parts[1].size == 1024


def test_swapped_and_cut_off_parts(copy, user):
    place, says = copy
    first, second = (place / part.filename for part in says.parts[:2])
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    found = look(copy, user)
    count = len(says.parts)
    assert found.problems == (
        (
            f"p.part.00 (index 0 of {count} parts) holds the bytes of p.part.01 (index 1 of {count} parts), "
            f"the files were swapped: its SHA-1 is {says.parts[1].sha1}, the manifest says {says.parts[0].sha1}"
        ),
    )
    first.write_bytes(kept[:1000])
    assert "is cut off after 1000 of 1024 bytes" in look(copy, user).problems[0]


def test_sizes_and_order_of_the_manifest(copy, user):
    _, says = copy
    total = says.bundled_size
    other_size = replace(says, bundled_size=5)
    assert look(copy, user, says=other_size).problems == (
        f"the parts have their digests and {total} bytes in all, but the manifest's bundled_size is 5",
    )
    turned = replace(says, parts=(says.parts[1], says.parts[0], *says.parts[2:]))
    assert look(copy, user, says=turned).problems == (
        f"the manifest lists p.part.00 (index 1 of {len(says.parts)} parts) after p.part.01",
        "the key does not open the parts: what it decrypts does not begin as gzip does",
    )


def test_a_key_that_opens_nothing(copy, user, other):
    found = look(copy, user, key=other.key)
    assert found.opened_by == ()
    assert len(found.problems) == 1
    assert found.problems[0].startswith("the private key other.key does not open the bundle p: ")


def test_a_key_of_another_bundle(copy, user, content_key):
    _, says = copy
    changed = replace(content_key, key=bytes(16))
    found = look(copy, user, says=replace(says, for_user=keys.encrypt(changed, user.certificate)))
    assert found.problems == ("the key does not open the parts: what it decrypts does not begin as gzip does",)


def test_what_other_readers_refuse_is_a_remark(copy, user):
    _, says = copy
    large = replace(says, for_user=replace(says.for_user, key="", iv=""), size=31 << 30)
    found = inspect(manifest.write(large, user.key), where="m", certificates=[user.certificate])
    assert found.problems == ()
    assert found.remarks == (
        "the image has 31 GiB: Eucalyptus takes 30 GiB at most by default, EC2 10 GiB",
        "the key is not encrypted for the user: EC2 refuses it",
    )
    smaller = inspect(manifest.write(replace(large, size=11 << 30), user.key), where="m")
    assert smaller.remarks[0] == "the image has 11 GiB: EC2 takes 10 GiB at most"


UNSIGNED = "p.manifest.xml: the manifest is not signed"
OTHERS = (
    "p.manifest.xml: the manifest was signed by somebody else, not with user.crt ({fingerprint}), "
    "or its signature is damaged"
)
ALTERED = "p.manifest.xml: the manifest was altered after it was signed with user.crt ({fingerprint})"


def altered(data: bytes) -> bytes:
    return data.replace(b"<architecture>x86_64", b"<architecture>i386")


def without_a_digit(data: bytes) -> bytes:
    at = data.index(b"<signature>") + 20
    return data[:at] + (b"1" if data[at : at + 1] == b"0" else b"0") + data[at + 1 :]


@pytest.mark.parametrize(
    ("signed_with", "alter", "message"),
    [
        (None, bytes, UNSIGNED),
        ("other", bytes, OTHERS),
        ("cloud", bytes, OTHERS),
        ("user", altered, ALTERED),
        ("user", without_a_digit, OTHERS),
        ("other", altered, OTHERS),
    ],
)
def test_why_a_signature_does_not_hold(bundle, user, request, signed_with, alter, message):
    key = request.getfixturevalue(signed_with).key if signed_with else None
    data = alter(manifest.write(bundle[1], key))
    with pytest.raises(BundleRefused) as refused:
        require_signature(data, user.certificate, where="p.manifest.xml")
    assert refused.value.message == message.format(fingerprint=user.certificate.fingerprint)
    found = inspect(data, where="p.manifest.xml", certificates=[user.certificate])
    assert found.signed_by is None
    assert found.problems[0].startswith(refused.value.message.removeprefix("p.manifest.xml: "))


def test_who_signed_what_was_altered_is_told_and_not_that_others_did_not(bundle, user, cloud):
    data = altered(manifest.write(bundle[1], user.key))
    found = inspect(data, where="p.manifest.xml", certificates=[cloud.certificate, user.certificate])
    assert found.problems == (
        ALTERED.removeprefix("p.manifest.xml: ").format(fingerprint=user.certificate.fingerprint),
    )


def test_a_signature_that_holds(bundle, user):
    data = manifest.write(bundle[1], user.key)
    assert require_signature(data, user.certificate, where="m").holds
