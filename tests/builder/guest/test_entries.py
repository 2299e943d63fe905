import pytest

from builder.guest.entries import parse, places


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("linux /vmlinuz-6.1\n", ("/vmlinuz-6.1", 1, (), (), "")),
        ("title A B\nversion\t6.1\nlinux  /a\ninitrd /b $x\n", ("/a", 3, ("/b",), (), "6.1")),
        ("linux /a\r\ninitrd /amd-ucode.img\r\ninitrd /b\r\n", ("/a", 1, ("/amd-ucode.img", "/b"), (), "")),
        ("# linux /no\n  linux /a  \ninitrd /b /c", ("/a", 2, ("/b", "/c"), (), "")),
        ("linux /a\noptions ro  $k\noptions\tb=\u00fc\n", ("/a", 1, (), ("ro", "$k", "b=\u00fc"), "")),
        ("title Windows\nefi /EFI/Microsoft/Boot/bootmgfw.efi\n", None),
        ("linux\n", None),
        ("linux /a\x1b[2J\n", None),
        ("", None),
        ("\udcff\udcfe", None),
    ],
)  # fmt: skip
def test_entries(text, entry):
    found = parse(text)
    said = found and (found.linux, found.number, found.initrds, found.options, found.version)
    assert said == entry
    assert found is None or found.text == text.splitlines()[found.number - 1]


def test_the_processors_microcode_is_no_ramdisk():
    found = parse("linux /a\ninitrd /intel-ucode.img /b\n")
    assert found is not None
    assert (found.initrds, found.ramdisks) == (("/intel-ucode.img", "/b"), ("/b",))


def test_paths_are_looked_for_on_boot_first_and_never_leave_the_guest():
    assert places("/vmlinuz") == ("/boot/vmlinuz", "/efi/vmlinuz", "/boot/efi/vmlinuz", "/vmlinuz")
    assert places("../../etc/shadow")[0] == "/boot/etc/shadow"
