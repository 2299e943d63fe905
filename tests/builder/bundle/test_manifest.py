"""Manifests as we write them: the text that the format's facts pin, signed so that every verifier sees it."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.dom import minidom

import pytest

from builder.bundle import manifest as manifests
from builder.bundle.markup import reserialised
from builder.bundle.records import Bundler, Encrypted, Manifest, Mapping, Part
from builder.errors import UsageError

TEXT = (
    "<?xml version='1.0'?><manifest><version>2007-10-10</version>"
    "<bundler><name>emi</name><version>0.1.0</version><release>0</release></bundler>"
    "<machine_configuration><architecture>x86_64</architecture>"
    "<block_device_mapping><mapping><virtual>ami</virtual><device>/dev/sda1</device></mapping>"
    "<mapping><virtual>swap</virtual><device>sda3</device></mapping></block_device_mapping>"
    "<product_codes><product_code>B2</product_code><product_code>A1</product_code></product_codes>"
    "<kernel_id>eki-3f2a1b4c</kernel_id><ramdisk_id>eri-9d8c7b6a</ramdisk_id></machine_configuration>"
    "<image><name>debian-12.img</name><user>000100729354</user><type>machine</type><kernel_name>vmlinuz</kernel_name>"
    "<ancestry><ancestor_ami_id>emi-1a2b3c4d</ancestor_ami_id></ancestry>"
    f"<digest algorithm='SHA1'>{'a' * 40}</digest><size>10737418240</size><bundled_size>32</bundled_size>"
    "<ec2_encrypted_key algorithm='AES-128-CBC'>CK</ec2_encrypted_key>"
    "<user_encrypted_key algorithm='AES-128-CBC'>UK</user_encrypted_key>"
    "<ec2_encrypted_iv>CV</ec2_encrypted_iv><user_encrypted_iv>UV</user_encrypted_iv><parts count='2'>"
    f"<part index='0'><filename>a.part.00</filename><digest algorithm='SHA1'>{0:040d}</digest></part>"
    f"<part index='1'><filename>a.part.01</filename><digest algorithm='SHA1'>{1:040d}</digest></part>"
    "</parts></image><signature>UNSIGNED</signature></manifest>"
)


def test_the_text_is_the_formats(manifest: Manifest) -> None:
    two = tuple(Part(filename=f"a.part.0{index}", sha1=f"{index:040d}") for index in range(2))
    fields = {"for_cloud": Encrypted(key="CK", iv="CV"), "for_user": Encrypted(key="UK", iv="UV")}
    assert manifests.write(replace(manifest, parts=two, **fields), None).decode() == TEXT


def test_what_is_written_is_read_again(manifest: Manifest, user) -> None:
    again = manifests.read(manifests.write(manifest, user.key), where="x")
    assert again == replace(manifests.as_written(manifest), signature=again.signature)
    assert [mapping.virtual for mapping in again.mappings] == ["ami", "swap"]
    assert re.fullmatch("[0-9a-f]{512}", again.signature)


def test_the_same_input_gives_the_same_bytes(manifest: Manifest, user) -> None:
    turned = replace(manifest, mappings=manifest.mappings[::-1], version="3", signature="00")
    assert manifests.write(turned, user.key) == manifests.write(manifest, user.key)


@pytest.mark.parametrize(("kind", "element"), [("kernel", "kernel_id"), ("ramdisk", "ramdisk_id")])
def test_kernels_and_ramdisks_have_the_id_true(manifest: Manifest, kind, element) -> None:
    alone = replace(manifest, type=kind, kernel_id=None, ramdisk_id=None, mappings=(), product_codes=())
    text = manifests.write(alone, None).decode()
    machine = text[text.index("<machine") : text.index("<image>")]
    inside = f"<architecture>x86_64</architecture><{element}>true</{element}>"
    assert machine == f"<machine_configuration>{inside}</machine_configuration>"
    assert manifests.read(text.encode(), where="x").type == kind


def test_without_a_user_the_fields_are_there_and_empty(manifest: Manifest) -> None:
    text = manifests.write(replace(manifest, for_user=Encrypted()), None)
    assert b"<user_encrypted_key algorithm='AES-128-CBC'/>" in text
    assert b"<user_encrypted_iv/>" in text
    assert b"<signature>UNSIGNED</signature>" in text
    assert manifests.read(text, where="x").for_user == Encrypted()


def test_a_manifest_written_again_by_an_xml_library_is_the_same_text(manifest: Manifest, user) -> None:
    without_user = replace(manifest, for_user=Encrypted(), bundler=Bundler(name="", version="", release=""))
    text = manifests.write(without_user, user.key).decode()
    again = minidom.parseString(text).documentElement.toxml()
    assert "<?xml version='1.0'?>" + again.replace('"', "'") == text == reserialised(text)


def test_reserialising_is_what_an_xml_library_does(made) -> None:
    text = made.data.decode()
    again = minidom.parseString(text).documentElement.toxml().replace('"', "'")
    assert reserialised(text[text.index("<manifest") :]) == again


ODD = ["", "a b", "a/b", "..\\b", "a&b", "a'b", "ä", "a\n", "a:b", "a+b", "~a"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_not_all_read_alike_are_refused(manifest: Manifest, name) -> None:
    with pytest.raises(UsageError, match=r"^the bundle's name .* has characters"):
        manifests.write(replace(manifest, name=name), None)
    with pytest.raises(UsageError, match=r"^the bundle's part 1 .* has characters"):
        manifests.write(replace(manifest, parts=(manifest.parts[0], Part(filename=name, sha1="0" * 40))), None)


def test_a_name_that_a_bundle_has_already_is_written_as_it_is(manifest: Manifest, user) -> None:
    named = replace(manifest, name="my image (1)+x")
    text = manifests.write(named, user.key, names_as_they_are=True)
    assert manifests.read(text, where="x").name == "my image (1)+x"
    for name in ("a&b", "a'b", 'a"b', "a<b", "ä"):
        with pytest.raises(UsageError, match="has characters"):
            manifests.write(replace(manifest, name=name), user.key, names_as_they_are=True)


WORDS = [
    {"user": "a&b"},
    {"architecture": "x<86"},
    {"kernel_id": "é"},
    {"ramdisk_id": "'"},
    {"kernel_name": "a\nb"},
    {"bundler": Bundler(name="emi", version='"', release="0")},
    {"product_codes": ("a", "b>")},
    {"ancestry": ("\x00",)},
    {"mappings": (Mapping(virtual="ami", device="\u202e"),)},
]


@pytest.mark.parametrize("change", WORDS, ids=lambda change: next(iter(change)))
def test_words_that_xml_would_escape_are_refused(manifest: Manifest, change) -> None:
    with pytest.raises(UsageError, match="XML escapes or ASCII lacks"):
        manifests.write(replace(manifest, **change), None)


def test_a_manifest_that_no_cloud_would_read_is_not_written(manifest: Manifest) -> None:
    many = tuple(Part(filename=f"debian-12.img.part.{index}", sha1=f"{index:040x}") for index in range(38_000))
    with pytest.raises(UsageError, match=r"with 38000 parts would have 5[0-9]{6} bytes; clouds read 5242880"):
        manifests.write(replace(manifest, parts=many), None)


def test_a_bundle_without_parts_is_refused(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="has no parts"):
        manifests.write(replace(manifest, parts=()), None)
