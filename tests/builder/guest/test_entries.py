import pytest

from builder.guest.entries import Entry, parse, places


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("linux /vmlinuz-6.1\n", Entry(linux="/vmlinuz-6.1")),
        ("title A B\nversion\t6.1\nlinux  /a\ninitrd /b $x\n", Entry(linux="/a", initrds=("/b",), version="6.1")),
        ("linux /a\r\ninitrd /amd-ucode.img\r\ninitrd /b\r\n", Entry(linux="/a", initrds=("/b",))),
        ("# linux /no\n  linux /a  \ninitrd /b /c", Entry(linux="/a", initrds=("/b", "/c"))),
        ("title Windows\nefi /EFI/Microsoft/Boot/bootmgfw.efi\n", None),
        ("linux\n", None),
        ("linux /a\x1b[2J\n", None),
        ("", None),
        ("\udcff\udcfe", None),
    ],
)  # fmt: skip
def test_entries(text, entry):
    assert parse(text) == entry


def test_paths_are_looked_for_on_boot_first_and_never_leave_the_guest():
    assert places("/vmlinuz") == ("/boot/vmlinuz", "/efi/vmlinuz", "/boot/efi/vmlinuz", "/vmlinuz")
    assert places("../../etc/shadow")[0] == "/boot/etc/shadow"
