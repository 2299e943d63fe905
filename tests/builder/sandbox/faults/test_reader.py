"""The YAML of faults: what is taken, and how what is wrong is said at its line."""

from __future__ import annotations

import pytest

from builder.errors import UsageError
from builder.sandbox.faults.model import DEFAULTS, EFFECTS, Fault
from builder.sandbox.faults.reader import read

ACTIONS = {"ec2": ["DescribeImages", "RegisterImage"], "ebs": ["PutSnapshotBlock", "StartSnapshot"]}
WHOLE = """
faults:
  - effect: throttle
    service: ec2
    call: Describe*
    account: 123456789012
    first: 3
  - {effect: slow, seconds: 2, every: 5, after: 10, probability: 0.5, seed: 7}
  - effect: refuse
    code: TooBad
    status: 418
"""


def table(tmp_path, text):
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    return read(path, ACTIONS)


def test_a_table_is_read(tmp_path):
    first, second, third = table(tmp_path, WHOLE)
    assert first == Fault(effect="throttle", service="ec2", call="Describe*", account="123456789012", first=3)
    assert (second.seconds, second.every, second.after, second.probability, second.seed) == (2, 5, 10, 0.5, 7)
    assert (third.code, third.status) == ("TooBad", 418)


WRONG = [
    ("faults:\n  - efect: slow\n", 2, "`efect` is no key of a fault; did you mean `effect`?"),
    ("faults:\n  - effect: trottle\n", 2, "`trottle` is no effect; did you mean `throttle`?"),
    ("faults:\n  - call: RegisterImage\n", 2, "a fault needs `effect`"),
    ("faults:\n  - effect: slow\n    call: RegisterImages\n", 3, "did you mean `RegisterImage`?"),
    ("faults:\n  - effect: slow\n    service: ebs\n    call: RegisterImage\n", 4, "ebs has no call `RegisterImage`"),
    ("faults:\n  - effect: slow\n    service: ec3\n", 3, "the sandbox has no service `ec3`; did you mean `ec2`?"),
    ("faults:\n  - effect: slow\n    first: 0\n", 3, "`first` must be greater than or equal to 1"),
    ("faults:\n  - effect: slow\n    first: soon\n", 3, "`first` must be a valid integer"),
    ("faults:\n  - effect: slow\n    probability: 2\n", 3, "`probability` must be less than or equal to 1"),
    ("faults:\n  - effect: throttle\n    seconds: 3\n", 3, "`seconds` does not go with `effect: throttle`"),
    ("faults:\n  - effect: refuse\n", 2, "`effect: refuse` needs `code`"),
    ("faults:\n  - effect: lag\n    seconds: -1\n", 3, "`seconds` must be at least 0"),
    ("faults:\n  - effect: stuck\n    call: DescribeImages\n", 3, "needs a call that makes something"),
    ("faults:\n  - effect: slow\n    effect: slow\n", 3, "`effect` is given twice"),
    ("faults:\n  - effect: slow\n    call: [a]\n", 3, "`call` needs a single value"),
    ("faults:\n  - slow\n", 2, "a fault needs a mapping"),
    ("faults: slow\n", 1, "`faults` needs a list"),
    ("fault:\n  - effect: slow\n", 1, "`fault` is no key of the file; did you mean `faults`?"),
    ("- effect: slow\n", 1, "the file needs a mapping"),
    ("faults:\n  - &a {effect: slow}\n  - *a\n", 3, "aliases are not used"),
    ("faults:\n  - effect: slow\n   call: x\n", 3, "is not YAML"),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_what_is_wrong_is_said_at_its_line(tmp_path, text, line, words):
    with pytest.raises(UsageError) as caught:
        table(tmp_path, text)
    message = caught.value.message
    assert f"faults.yaml:{line}:" in message
    assert words in message
    assert f"{line:>5} | {text.splitlines()[line - 1]}" in message
    assert "docs/sandbox-faults.md" in caught.value.hint


def test_all_problems_are_said_at_once(tmp_path):
    with pytest.raises(UsageError) as caught:
        table(tmp_path, "faults:\n  - {effect: slo}\n  - {effect: lost, cal: x}\n")
    assert "faults.yaml:2:" in caught.value.message
    assert "faults.yaml:3:" in caught.value.message


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_says_how_to_clear(tmp_path, text):
    with pytest.raises(UsageError, match="--clear"):
        table(tmp_path, text)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (1 << 20) + b"##"])
def test_what_is_no_table_is_refused(tmp_path, data):
    path = tmp_path / "faults.yaml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"faults\.yaml"):
        read(path, ACTIONS)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot be read: No such file"):
        read(tmp_path / "absent.yaml", ACTIONS)


def test_every_effect_is_described_and_its_defaults_are_its_own():
    assert set(Fault.model_fields["effect"].annotation.__args__) == set(EFFECTS)
    for effect, defaults in DEFAULTS.items():
        assert set(defaults) <= EFFECTS[effect][1]
