"""Signatures: ours as openssl sees them, the old tools' where they hold, and none that covers too little."""

from __future__ import annotations

import re
import subprocess  # noqa: TID251 - openssl verifies, with none of our code
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.bundle import manifest as manifests
from builder.bundle import signature
from builder.bundle.records import Manifest
from builder.errors import BundleRefused


def between(text: str, name: str) -> str:
    found = re.search(f"<{name}>.*</{name}>", text, re.DOTALL)
    return found[0] if found else ""


def openssl_verifies(text: str, certificate: Path, tmp_path: Path) -> bool:
    """Ask openssl about what stands between the tags in the file."""
    claimed = re.search("<signature>([0-9a-f]+)</signature>", text)
    assert claimed
    (tmp_path / "signature").write_bytes(bytes.fromhex(claimed[1]))
    public = subprocess.run(
        ["openssl", "x509", "-pubkey", "-noout", "-in", certificate], capture_output=True, check=True
    )
    (tmp_path / "public").write_bytes(public.stdout)
    command = ["openssl", "dgst", "-sha1", "-verify", tmp_path / "public", "-signature", tmp_path / "signature"]
    signed = between(text, "machine_configuration") + between(text, "image")
    answer = subprocess.run(command, input=signed.encode(), capture_output=True, check=False)
    assert answer.stdout.strip() in (b"Verified OK", b"Verification failure", b"Verification Failure")
    return answer.returncode == 0


def test_openssl_verifies_what_we_sign(manifest: Manifest, user, other, tmp_path) -> None:
    data = manifests.write(manifest, user.key)
    assert openssl_verifies(data.decode(), user.certificate_file, tmp_path)
    assert not openssl_verifies(data.decode(), other.certificate_file, tmp_path)
    altered = data.replace(b"eki-3f2a1b4c", b"eki-00000000")
    assert not openssl_verifies(altered.decode(), user.certificate_file, tmp_path)


def test_what_we_sign_holds_in_both_readings(manifest: Manifest, user, other) -> None:
    data = manifests.write(manifest, user.key)
    found = signature.verify(data, user.certificate)
    assert (found.signed, found.raw, found.reserialised, found.holds) == (True, True, True, True)
    assert str(found) == f"signed with user.crt ({user.certificate.fingerprint}); every verifier sees it"
    assert signature.seen_by_all(data, user.key)
    not_theirs = signature.verify(data, other.certificate)
    assert (not_theirs.signed, not_theirs.raw, not_theirs.reserialised, not_theirs.holds) == (True, False, False, False)
    assert str(not_theirs).startswith("not signed with other.crt")
    assert not signature.made_by(data, other.key)


def test_the_old_tools_signatures_hold_where_they_should(made, user, tmp_path) -> None:
    found = signature.verify(made.data, user.certificate)
    expected = made.expected["signature"]
    assert found.signed == (expected is not None)
    assert [name for name in ("raw", "reserialised") if getattr(found, name)] == (expected or [])
    assert signature.made_by(made.data, user.key) == found.holds
    assert signature.seen_by_all(made.data, user.key) == (found.raw and found.reserialised)
    if expected:
        assert openssl_verifies(made.data.decode(), user.certificate_file, tmp_path) == found.raw
    else:
        assert str(found) == "the manifest is not signed"


def test_each_reading_that_fails_is_told(manifest: Manifest, user) -> None:
    text = manifests.write(manifest, user.key).decode()
    doubled = text.replace("'", '"')
    assert "take the text as it stands refuse it" in str(signature.verify(doubled.encode(), user.certificate))
    assert signature.made_by(doubled.encode(), user.key)
    assert not signature.seen_by_all(doubled.encode(), user.key)
    signed = signature.sign(doubled[: doubled.index("<signature>")], user.key)
    resigned = f"{doubled[: doubled.index('<signature>')]}<signature>{signed}</signature></manifest>"
    found = signature.verify(resigned.encode(), user.certificate)
    assert (found.raw, found.reserialised) == (True, False)
    assert "ec2-ami-tools" in str(found)


ALTERED = [
    ("eki-3f2a1b4c", "eki-3f2a1b4d"),
    ("<kernel_id>eki-3f2a1b4c</kernel_id>", ""),
    ("000100729354", "000100729355"),
    ("10737418240", "10737418241"),
    ("0" * 39 + "1", "0" * 39 + "3"),
    ("part.02", "part.03"),
    ("<image>", "<image> "),
    ("x86_64", "x86_64 "),
]


@pytest.mark.parametrize(("old", "new"), ALTERED)
def test_what_was_altered_is_not_signed(manifest: Manifest, user, old, new) -> None:
    text = manifests.write(manifest, user.key).decode()
    assert old in text
    found = signature.verify(text.replace(old, new).encode(), user.certificate)
    assert (found.signed, found.holds) == (True, False)


def test_what_lies_outside_is_not_covered(manifest: Manifest, user) -> None:
    """The bundler and the version are nobody's word."""
    data = manifests.write(manifest, user.key).replace(b"<name>emi</name>", b"<name>anybody</name>")
    assert signature.verify(data, user.certificate).raw


@pytest.mark.parametrize("tag", ["<machine_configuration >", "<machine_configuration\n>"])
def test_a_signature_of_the_image_alone_does_not_cover_a_configuration_with_an_odd_tag(user, tag) -> None:
    """A verifier that looks for literal tags would find none, and take the older versions' signature for enough."""
    data = (Path(__file__).parents[3] / "fixtures/bundles/v3/getting-started.manifest.xml").read_bytes()
    inside = f"{tag}<architecture>x86_64</architecture><kernel_id>eki-evil</kernel_id></machine_configuration><image>"
    forged = data.replace(b"<version>3<", b"<version>2007-10-10<").replace(b"<image>", inside.encode(), 1)
    assert signature.verify(data, user.certificate).holds
    assert manifests.read(forged, where="x").kernel_id == "eki-evil"
    assert not signature.verify(forged, user.certificate).holds


def test_a_closing_tag_of_another_shape_hides_nothing(manifest: Manifest, user) -> None:
    data = manifests.write(manifest, user.key)
    for name in (b"machine_configuration", b"image"):
        found = signature.verify(data.replace(b"</" + name + b">", b"</" + name + b" >"), user.certificate)
        assert (found.raw, found.reserialised) == (False, True)


def test_two_images_are_refused_and_not_verified(manifest: Manifest, user) -> None:
    text = manifests.write(manifest, user.key).decode()
    twice = text.replace("<signature>", between(text, "image").replace("machine<", "kernel<") + "<signature>")
    with pytest.raises(BundleRefused, match=r"manifest/image\[2\]: it is there twice"):
        signature.verify(twice.encode(), user.certificate, where="x")


def test_who_signed_is_found_among_several(manifest: Manifest, user, cloud, other) -> None:
    everyone = [other.certificate, cloud.certificate, user.certificate]
    for who in (user, cloud):
        found = signature.signer(manifests.write(manifest, who.key), everyone)
        assert found is not None
        assert found.certificate == who.certificate
    assert signature.signer(manifests.write(manifest, user.key), everyone[:2]) is None
    assert signature.signer(manifests.write(manifest, None), everyone) is None


def test_a_signature_of_another_length_is_no_error(manifest: Manifest, user) -> None:
    text = manifests.write(manifest, user.key).decode()
    for claimed in ("00", "ff" * 256, "ab" * 1000):
        data = re.sub("<signature>.*</signature>", f"<signature>{claimed}</signature>", text).encode()
        assert not signature.verify(data, user.certificate).holds


def test_spaces_around_the_signature_are_none_of_it(manifest: Manifest, user) -> None:
    data = manifests.write(replace(manifest, mappings=()), user.key)
    spaced = data.replace(b"<signature>", b"<signature >\n  ").replace(b"</signature>", b"\n</signature>")
    assert signature.verify(spaced, user.certificate).raw


PIECES = [
    "",
    " ",
    "\n",
    "<image>",
    "</image>",
    "<image >",
    "<machine_configuration>",
    "</machine_configuration >",
    "<kernel_id>eki-00000000</kernel_id>",
    "<version>3</version>",
    "<type>kernel</type>",
    "<!-- -->",
    "&#48;",
    "'",
    '"',
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tags=st.tuples(st.integers(0, 60), st.integers(0, 60)), pieces=st.tuples(*[st.sampled_from(PIECES)] * 2))
def test_what_is_signed_is_what_is_read(tags, pieces, manifest: Manifest, user) -> None:
    """Whatever is put between, after or instead of tags: refused, not signed, or of the meaning that was signed."""
    data = manifests.write(manifest, user.key)
    words = re.split("(<[^>]*>)", data.decode())
    for at, piece in zip(tags, pieces, strict=True):
        words[at % len(words)] = piece if at % 3 else words[at % len(words)] + piece
    changed = "".join(words).encode()
    try:
        found = manifests.read(changed, where="x")
    except BundleRefused:
        return
    if signature.verify(changed, user.certificate).holds:
        before = manifests.read(data, where="x")
        outside = {"bundler": before.bundler, "version": before.version, "signature": before.signature}
        assert replace(found, **outside) == before
