"""Manifests of the old tools are read whole; the wrong, the damaged and the hostile are refused, each for its cause."""

from __future__ import annotations

import codecs
import re
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builder.bundle import manifest as manifests
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.reading import read
from builder.bundle.records import Encrypted, Manifest, Mapping, Part
from builder.errors import BundleRefused

REAL = (Path(__file__).parents[3] / "fixtures/bundles/ec2-ami-tools-1.5/image.manifest.xml").read_bytes()


def test_every_tools_manifest_says_what_it_says(made) -> None:
    says = made.expected["says"]
    found = read(made.data, where="x")
    assert [(mapping.virtual, mapping.device) for mapping in found.mappings] == [tuple(m) for m in says["mappings"]]
    assert list(found.product_codes) == says["codes"]
    assert list(found.ancestry) == says["ancestry"]
    for name in ("version", "name", "user", "type", "architecture", "size"):
        assert getattr(found, name) == says[name], name
    for name in ("kernel_id", "ramdisk_id", "kernel_name"):
        assert (getattr(found, name) or "") == says[name], name
    assert [part.filename for part in found.parts] == made.expected["parts"]
    sizes = [(made.directory / part.filename).stat().st_size for part in found.parts]
    assert found.bundled_size == sum(sizes)
    assert (found.signature == "UNSIGNED") == (made.expected["signature"] is None)
    assert (found.for_user == Encrypted()) == ("user" not in made.expected["opened_by"])


def test_the_bundler_is_told(made) -> None:
    bundler = read(made.data, where="x").bundler
    assert (bundler.name, bundler.version, bundler.release) in {
        ("euca2ools", "3.4.1", "0"),
        ("euca2ools", "3.1.0", "0"),
        ("euca2ools", "3.0.5", ""),
        ("euca-tools", "1.3.2", "31337"),
        ("ec2-ami-tools", "1.5", "3"),
        ("ec2-ami-tools", "1.3", "13081"),
        ("ec2-ami-tools", "1.2", "9739"),
    }


GOOD = (
    "<?xml version='1.0'?><manifest><version>2007-10-10</version>"
    "<bundler><name>b</name><version>1</version><release>0</release></bundler>"
    "<machine_configuration><architecture>x86_64</architecture><block_device_mapping><mapping><virtual>ami</virtual>"
    "<device>sda1</device></mapping></block_device_mapping><product_codes><product_code>A</product_code></product_codes>"
    "<kernel_id>eki-1</kernel_id><ramdisk_id>eri-1</ramdisk_id></machine_configuration>"
    "<image><name>img</name><user>000100729354</user><type>machine</type>"
    "<digest algorithm='SHA1'>" + "a" * 40 + "</digest>"
    "<size>20480</size><bundled_size>96</bundled_size>"
    "<ec2_encrypted_key algorithm='AES-128-CBC'>c0</ec2_encrypted_key>"
    "<user_encrypted_key algorithm='AES-128-CBC'>c1</user_encrypted_key>"
    "<ec2_encrypted_iv>c2</ec2_encrypted_iv><user_encrypted_iv>c3</user_encrypted_iv>"
    "<parts count='2'><part index='0'><filename>img.part.0</filename>"
    "<digest algorithm='SHA1'>" + "b" * 40 + "</digest></part>"
    "<part index='1'><filename>img.part.1</filename>"
    "<digest algorithm='SHA1'>" + "c" * 40 + "</digest></part></parts>"
    "</image><signature>d0</signature></manifest>"
)  # fmt: skip
FIRST = "<part index='0'><filename>img.part.0</filename><digest algorithm='SHA1'>" + "b" * 40 + "</digest></part>"
SECOND = FIRST.replace("index='0'", "index='1'").replace("part.0", "part.1").replace("b" * 40, "c" * 40)
DOCTYPE = "<!DOCTYPE manifest [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
IMAGE = GOOD[GOOD.index("<image>") : GOOD.index("<signature>")]

# What is replaced, by what, and what the refusal says.
HOSTILE = [
    ("<manifest>", DOCTYPE + "<manifest>", "the document holds a DOCTYPE"),
    ("<manifest>", "<!DOCTYPE manifest SYSTEM 'file:///etc/passwd'><manifest>", "the document holds a DOCTYPE"),
    ("<image>", "<!-- <image> --><image>", "manifest holds a comment"),
    ("20480", "<![CDATA[20480]]>", "manifest/image/size holds a CDATA section"),
    ("<image>", "<?php x?><image>", "manifest holds a processing instruction"),
    ("img.part.0", "&secret;", "not XML at line 1.*undefined entity"),
    ("<manifest>", "<manifest xmlns='urn:x'>", "uses a namespace .'xmlns'"),
    ("<manifest>", "<manifest xmlns:a='urn:x'>", "uses a namespace .'xmlns:a'"),
    ("<size>20480</size>", "<a:size>20480</a:size>", "uses a namespace .'a:size'"),
    ("manifest>", "bundle>", "bundle: the root element is not <manifest>"),
    ("</manifest>", "", "not XML at line 1"),
    ("</manifest>", "</manifest><manifest/>", "not XML at line 1.*junk after document element"),
    ("</image>", "</image></image>", "not XML at line 1.*mismatched tag"),
    ("version='1.0'", "version='1.0' encoding='UTF-7'", "declares the encoding 'UTF-7'"),
    ("version='1.0'", "version='1.0' encoding='UTF-16'", "declares the encoding 'UTF-16'"),
    ("<name>img", "<name>im\0g", "not XML at line 1"),
    ("<version>2007-10-10</version>", "", "manifest: <version> is missing"),
    ("2007-10-10", "2014-01-14", "manifest/version: '2014-01-14' is a version that no bundling tool wrote"),
    ("2007-10-10", "2", "manifest/version: '2' is a version that no"),
    ("2007-10-10", "3", "manifest/machine_configuration: a manifest of version 3 has none"),
    ("<version>2007", "<version/><version>2007", r"manifest/version\[2\]: it is there twice"),
    (IMAGE, "", "manifest: <image> is missing"),
    (IMAGE, IMAGE + IMAGE, r"manifest/image\[2\]: it is there twice"),
    ("</image>", IMAGE + "</image>", "manifest/image/image: no manifest has this element here"),
    ("<image>", "<image x='1'>", "manifest/image: no manifest has the attribute 'x' here"),
    ("<image>", "<image>words", "manifest/image: text between its elements: 'words'"),
    ("<signature>", "<extra/><signature>", "manifest/extra: no manifest has this element here"),
    ("<architecture>x86_64</architecture>", "", "machine_configuration: <architecture> is missing"),
    ("x86_64", "x86 64", "architecture: 'x86 64' is not one word"),
    ("x86_64", "", "architecture: '' is not one word"),
    ("block_device_mapping>", "block_device_mappings>", "block_device_mappings: no manifest has this element here"),
    ("product_codes>", "productcodes>", "productcodes: no manifest has this element here"),
    ("<mapping>", "<mapping><virtual>ami</virtual><device>sdb</device></mapping><mapping>", "ami is mapped twice"),
    ("<device>sda1</device>", "", "block_device_mapping/mapping: <device> is missing"),
    ("<device>sda1", "<device>sda1\u200b", r"mapping/device: .* is not one word"),
    ("eki-1", "eki-1<b/>", "kernel_id/b: an element where manifest/machine_configuration/kernel_id has text"),
    ("<type>machine", "<type>snapshot", "manifest/image/type: 'snapshot' is none of machine, kernel, ramdisk"),
    ("<type>machine", "<type>", "manifest/image/type: '' is none of"),
    ("<user>000100729354</user>", "", "manifest/image: <user> is missing"),
    ("000100729354", "0001 0072", "manifest/image/user: '0001 0072' is not one word"),
    ("<name>img</name>", "", "manifest/image: <name> is missing"),
    ("<name>img", "<name>../../etc/cron.d/x", "'../../etc/cron.d/x' is refused as a file name: it holds a dir"),
    ("<name>img", "<name>..", "image/name: '..' is refused as a file name: it names no file"),
    ("img.part.0", "", "parts/part/filename: '' is refused as a file name: it names no file"),
    ("img.part.1", ".", r"parts/part\[2\]/filename: '.' is refused as a file name: it names no file"),
    ("img.part.1", "/etc/shadow", r"part\[2\]/filename: '/etc/shadow' is refused as a file name: it holds a directory"),
    ("img.part.1", "sub/img.part.1", r"part\[2\]/filename: .* it holds a directory; parts lie beside their manifest"),
    ("img.part.1", "..\\img", r"part\[2\]/filename: .* it holds a directory"),
    ("img.part.1", "img&#10;part", r"part\[2\]/filename: 'img\\npart' is refused as a file name: it holds a control"),
    ("img.part.1", "img\u202egpj", r"part\[2\]/filename: .* it holds a control or invisible character"),
    ("img.part.1", "img.Manifest.XML", r"part\[2\]/filename: .* it is a manifest's"),
    ("img.part.1", "é" * 128, "it is longer than 255 bytes"),
    ("img.part.1", "img.part.0", r"part\[2\]: the parts 0 and 1 have the same file name 'img.part.0'"),
    ("img.part.1</filename>", "img.part.1</filename><filename>x</filename>", r"filename\[2\]: it is there twice"),
    ("<filename>img.part.1</filename>", "", r"manifest/image/parts/part\[2\]: <filename> is missing"),
    ("a" * 40, "a" * 39, "manifest/image/digest: 'a+' is not the 40 hex digits of a SHA-1"),
    ("a" * 40, "g" * 40, "manifest/image/digest: 'g+' is not the 40 hex digits"),
    ("c" * 40, "\uff41" * 40, r"parts/part\[2\]/digest: .* is not the 40 hex digits"),
    ("<digest algorithm='SHA1'>aaa", "<digest algorithm='MD5'>aaa", "the algorithm 'MD5' is not SHA1"),
    ("<digest algorithm='SHA1'>aaa", "<digest length='20'>aaa", "no manifest has the attribute 'length' here"),
    ("key algorithm='AES-128-CBC'>c0", "key algorithm='none'>c0", "the algorithm 'none' is not AES-128-CBC"),
    (">c0<", ">c<", "ec2_encrypted_key: 'c' is not hex"),
    (">c3<", ">zz<", "user_encrypted_iv: 'zz' is not hex"),
    (">c3<", "><", r"manifest/image/user_encrypted_\*: key and vector are of no use without each other"),
    (">c1<", ">" + "c1" * 4097 + "<", "user_encrypted_key: 8194 digits; no RSA key makes so many"),
    ("<ec2_encrypted_iv>c2</ec2_encrypted_iv>", "", "manifest/image: <ec2_encrypted_iv> is missing"),
    ("20480", "0", "manifest/image/size: 0 bytes"),
    ("20480", "-1", "manifest/image/size: '-1' is not a number"),
    ("20480", "1e9", "manifest/image/size: '1e9' is not a number"),
    ("20480", "\u0661\u0662", "manifest/image/size: .* is not a number"),
    ("20480", "9" * 15, "manifest/image/size: 999999999999999 bytes; between 1 and 70368744177664 are possible"),
    ("20480", "9" * 5000, "manifest/image/size: '9+...' is not a number of at most 15 digits"),
    ("<size>20480</size>", "", "manifest/image: <size> is missing"),
    ("<size>", "<size unit='GB'>", "manifest/image/size: no manifest has the attribute 'unit' here"),
    (">96<", ">96.0<", "manifest/image/bundled_size: '96.0' is not a number"),
    ("count='2'", "count='3'", "manifest/image/parts: count='3', but 2 parts are listed"),
    ("count='2'", "count='1'", "manifest/image/parts: count='1', but 2 parts are listed"),
    ("count='2'", "", "manifest/image/parts@count: '' is not a number"),
    ("count='2'", "count='-2'", "manifest/image/parts@count: '-2' is not a number"),
    ("count='2'", "count='2' size='4'", "manifest/image/parts: no manifest has the attribute 'size' here"),
    (FIRST + SECOND, "", "manifest/image/parts: count='2', but 0 parts are listed"),
    ("count='2'>" + FIRST + SECOND, "count='0'>", "manifest/image/parts: no parts"),
    ("index='1'", "index='0'", r"manifest/image/parts/part\[2\]: two parts have the index 0"),
    ("index='1'", "index='2'", "manifest/image/parts: no part has the index 1, though there are 2"),
    ("index='1'", "index='01x'", r"manifest/image/parts/part\[2\]@index: '01x' is not a number"),
    ("index='1'", "", r"manifest/image/parts/part\[2\]@index: '' is not a number"),
    (SECOND, SECOND.replace("part ", "chunk ").replace("part>", "chunk>"), "parts/chunk: no manifest has this element"),
    (">d0<", ">maybe<", "manifest/signature: 'maybe' is neither hex nor UNSIGNED"),
    (">d0<", ">d0d<", "manifest/signature: 'd0d' is neither hex nor UNSIGNED"),
    ("<release>0", "<release>" + "r" * 300, "manifest/bundler/release: .* is too long"),
    ("<bundler>", "<bundler><host>h</host>", "manifest/bundler/host: no manifest has this element"),
    ("<kernel_id>", "<a><a><a><a><a><a><a><kernel_id>", "lies 8 elements deep"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "why"), HOSTILE)
def test_what_no_tool_wrote_is_refused_with_its_cause(old, new, why) -> None:
    assert old in GOOD
    with pytest.raises(BundleRefused, match=rf"^img.manifest.xml: .*{why}") as refusal:
        read(GOOD.replace(old, new).encode(), where="img.manifest.xml")
    assert len(refusal.value.message) < 500
    assert "\n" not in refusal.value.message


def test_the_manifest_that_is_changed_above_is_read() -> None:
    found = read(GOOD.encode(), where="x")
    assert [part.filename for part in found.parts] == ["img.part.0", "img.part.1"]
    assert (found.size, found.bundled_size, found.signature) == (20480, 96, "d0")


BYTES = [
    (GOOD.encode("utf-16"), "byte 0 is not UTF-8"),
    (GOOD.replace("img", "im\xe9").encode("latin-1"), "byte .* is not UTF-8"),
    (b"", "not XML at line 1, column 1: no element found"),
    (b"\x1f\x8b\x08\0", "byte 1 is not UTF-8"),
    (b"<Error><Code>AccessDenied</Code></Error>", "Error: the root element is not <manifest>"),
    (GOOD.encode() + b" " * LARGEST_MANIFEST, "no cloud reads a manifest of more than 5242880"),
    (GOOD.encode()[:500], "not XML at line 1"),
    (b"<manifest>" + b"<a/>" * 1_000_000 + b"</manifest>", "more than 200000 elements"),
    (b"<a>" * 100_000, "lies 8 elements deep; no manifest does"),
]


@pytest.mark.parametrize(("data", "why"), BYTES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_manifest_is_refused(data, why) -> None:
    with pytest.raises(BundleRefused, match=why):
        read(data, where="x")


# What is replaced, by what, and what becomes of which field: odd, and of one meaning only.
TOLERATED = [
    ("2007-10-10", "\n 2007-10-10\t", {}),
    ("<image>", "\r\n  <image\n>", {}),
    ("a" * 40, "A" * 40, {}),
    ("'SHA1'", '"sha1"', {}),
    (" algorithm='SHA1'", "", {}),
    (FIRST + SECOND, SECOND + "\n" + FIRST, {}),
    ("<bundler><name>b</name><version>1</version><release>0</release></bundler>", "", {"bundler": ("", "", "")}),
    ("<signature>d0</signature>", "", {"signature": ""}),
    (">d0<", ">UNSIGNED<", {"signature": "UNSIGNED"}),
    ("<type>machine</type>", "", {}),
    ("<type>machine</type>", "<type> kernel </type>", {"type": "kernel"}),
    ("eki-1", "true", {"type": "kernel", "kernel_id": "true"}),
    ("eri-1", "yes", {"type": "ramdisk", "ramdisk_id": "yes"}),
    ("eki-1", "", {"kernel_id": None}),
    ("img", "my image \N{SNOWMAN}", {"name": "my image \N{SNOWMAN}", "parts": ("my image \N{SNOWMAN}.part.0",)}),
    ("<name>img", "<name>&#105;mg", {}),
]


@pytest.mark.parametrize(("old", "new", "changed"), TOLERATED)
def test_what_has_one_meaning_is_read(old, new, changed) -> None:
    assert old in GOOD
    usual, found = (read(text.encode(), where="x") for text in (GOOD, GOOD.replace(old, new)))
    for field in fields(Manifest):
        got = getattr(found, field.name)
        match field.name, changed.get(field.name):
            case _, None if field.name not in changed:
                assert got == getattr(usual, field.name)
            case "bundler", words:
                assert (got.name, got.version, got.release) == words
            case "parts", (first,):
                assert got[0].filename == first
            case _, value:
                assert got == value


def test_a_byte_order_mark_does_not_matter() -> None:
    assert read(codecs.BOM_UTF8 + GOOD.encode(), where="x") == read(GOOD.encode(), where="x")


def test_the_largest_manifest_is_read_soon(manifest: Manifest, user) -> None:
    many = tuple(Part(filename=f"debian-12.img.part.{index:02d}", sha1=f"{index:040x}") for index in range(35_000))
    data = manifests.write(replace(manifest, parts=many), user.key)
    assert 4_500_000 < len(data) < LARGEST_MANIFEST
    began = time.process_time()
    assert read(data, where="x").parts == many
    assert time.process_time() - began < 10


words = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="._-"), min_size=1, max_size=20)
names = words.filter(lambda name: name not in (".", ".."))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_written_is_read_again(data, manifest: Manifest) -> None:
    parts = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    drawn = replace(
        manifest,
        name=data.draw(names),
        architecture=data.draw(words),
        size=data.draw(st.integers(1, 64 << 40)),
        bundled_size=data.draw(st.integers(1, 64 << 40)),
        type=data.draw(st.sampled_from(["machine", "kernel", "ramdisk"])),
        kernel_id=data.draw(st.none() | words.filter(lambda word: word.lower() not in ("true", "yes"))),
        ramdisk_id=data.draw(st.none() | words.filter(lambda word: word.lower() not in ("true", "yes"))),
        mappings=tuple(Mapping(virtual=word, device=word) for word in data.draw(st.sets(words, max_size=4))),
        product_codes=tuple(data.draw(st.lists(words, max_size=3))),
        parts=tuple(Part(filename=part, sha1=f"{index:040x}") for index, part in enumerate(parts)),
    )
    written = manifests.write(drawn, None)
    assert read(written, where="x") == replace(manifests.as_written(drawn), signature="UNSIGNED")


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, 3000),
    length=st.integers(0, 40),
    insert=st.binary(max_size=12) | st.sampled_from([b"<image>", b"</part>", b"&#0;", b"<!--", b"]]>", b"'", b"&lt;"]),
)
@example(at=0, length=0, insert=b"\xef\xbb\xbf")
def test_a_damaged_manifest_is_read_or_refused_and_nothing_else(at, length, insert) -> None:
    damaged = REAL[:at] + insert + REAL[at + length :]
    try:
        found = read(damaged, where="x")
    except BundleRefused:
        return
    for part in found.parts:
        assert re.fullmatch("[0-9a-f]{40}", part.sha1)
        assert "/" not in part.filename
        assert part.filename.isprintable()
