import pytest

from builder.errors import EmiError, GuestError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("caf\u00e9 \u2713 two\nlines\tand a tab", "caf\u00e9 \u2713 two\nlines\tand a tab"),
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("over\rwritten", "over\ufffdwritten"),
        ("caf\udce9", "caf\ufffd"),
        ("\u202egpj.exe", "\ufffdgpj.exe"),
        ("\x9b31m\x7f\0", "\ufffd31m\ufffd\ufffd"),
    ],
)
def test_a_message_steers_no_terminal_and_can_be_written_anywhere(message, expected):
    error = GuestError(message)
    assert (error.message, str(error)) == (expected, expected)
    assert error.message.encode()


def test_without_a_hint_of_its_own_a_class_gives_advice():
    assert EmiError("x").hint == EmiError.advice
    assert GuestError("x", hint="y").hint == "y"
