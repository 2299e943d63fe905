"""The kernel's command line, edited word by word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.guest.kernel_arguments import Wish, edit, value, words


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        ("", Wish(add=("a", "b=1")), "a b=1"),
        ("ro quiet", Wish(add=("quiet", "a")), "ro quiet a"),
        ("ro\tquiet  ", Wish(add=("a",)), "ro\tquiet a  "),
        ("ro a=1", Wish(add=("a=2",)), "ro a=1 a=2"),
        ("quiet splash ro", Wish(remove=("quiet", "splash")), "ro"),
        (" quiet  splash=silent\tro ", Wish(remove=("quiet", "splash")), " ro "),
        ("console=tty0 console=ttyS0", Wish(remove=("console=tty0",)), "console=ttyS0"),
        ("quieter quiet.x=1", Wish(remove=("quiet",)), "quieter quiet.x=1"),
        ("a=1 b a=2", Wish(replace=("a=3",)), "a=3 b"),
        ("b", Wish(replace=("a=3", "a=4")), "b a=3 a=4"),
        ("a=1 b a=2", Wish(replace=("a=3", "a=4")), "a=3 b a=4"),
        ("nvme-core.x=1", Wish(replace=("nvme_core.x=2",)), "nvme_core.x=2"),
        ("ro -- init args", Wish(add=("a",)), "ro a -- init args"),
        ("--- splash", Wish(add=("a",)), "a --- splash"),
        ('dyndbg="file a +p" quiet', Wish(remove=("quiet",)), 'dyndbg="file a +p"'),
        ('dyndbg="quiet +p" ro', Wish(remove=("quiet",)), 'dyndbg="quiet +p" ro'),
        (r"a=\"b quiet c\" ro", Wish(remove=("a", "quiet")), "ro"),
        ("root='LABEL=x' \"quiet\"", Wish(remove=("quiet",), replace=("root=y",)), "root=y"),
        ("$kernelopts $tuned_params", Wish(add=("a",)), "$kernelopts $tuned_params a"),
        ("it's quiet", Wish(remove=("quiet",)), "it's"),
        ("ro", Wish(console="ttyS0,115200"), "ro console=tty0 console=ttyS0,115200"),
        ("console=tty1 x", Wish(console="ttyS0"), "console=tty1 x console=ttyS0"),
        ("console=ttyS0 console=tty0", Wish(console="ttyS0,115200"), "console=ttyS0,115200 console=tty0"),
        ("console=ttyS0,115200n8", Wish(console="ttyS0,115200"), "console=ttyS0,115200n8"),
        ("console=ttyS0", Wish(console="ttyS0,9600n8"), "console=ttyS0"),
        ("console=tty0 console=ttyS0 x", Wish(console="ttyS0,115200", remove=("console",)), "x console=ttyS0,115200"),
        (
            "console=tty0 console=ttyS0,115200n8",
            Wish(console="ttyS0,115200", remove=("console",)),
            "console=ttyS0,115200n8",
        ),
        ("a=1 a=2", Wish(add=("a=2",), remove=("a",)), "a=2"),
        ("console", Wish(console="hvc0"), "console console=hvc0"),
        ("root=a ro root=b", Wish(root=lambda old: (old.upper(), "")), "root=A ro root=B"),
        ("rootwait root", Wish(root=lambda old: ("x", "")), "rootwait root"),
    ],
)
def test_one_line(before, wish, after):
    edited = edit([before], wish)
    assert edited.parts == (after,)
    assert (edited.changes == ()) == (before == after)
    again = edit(edited.parts, Wish(**{**vars(wish), "root": None}))
    assert (again.parts, again.changes) == ((after,), ())


def test_lines_in_parts():
    edited = edit(["a", "console=tty1 quiet"], Wish(add=("b", "quiet"), console="ttyS0", remove=("a",)), end=0)
    assert edited.parts == ("b", "console=tty1 quiet console=ttyS0")
    assert edited.by_part == ((0, "removed a"), (0, "added b"), (1, "added console=ttyS0"))


def test_what_stays_is_said():
    assert edit(["root=x"], Wish(root=lambda old: (old, "it is so"))).kept == ("root=x stays: it is so",)


def test_values():
    assert value("root=a 'root=b c' ro", "root") == "b c"
    assert value("ro", "root") is None
    assert words("a\n b\\\n\tc") == ["a", "b", "c"]


ARGUMENT = st.text(alphabet="ab=-_.,\"'\\$ \t\n\udcff#", max_size=12)


@settings(deadline=None)
@given(st.lists(ARGUMENT, max_size=8).map(" ".join))
def test_whatever_it_is_it_stays_unless_meant(text):
    assert edit([text], Wish(remove=("zz",), add=())).parts == (text,)


@settings(deadline=None)
@given(st.lists(ARGUMENT, max_size=8).map(" ".join))
def test_once_is_enough(text):
    wish = Wish(add=("new=1",), replace=("a=b",), remove=("b",), console="ttyS0")
    once = edit([text], wish)
    assert edit(once.parts, wish).changes == ()
