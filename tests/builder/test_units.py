"""Sizes as people write them."""

import pytest

from builder.units import format_size, parse_size

GIB = 1 << 30


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("10 GiB", 10 * GIB),
        ("512MiB", 512 << 20),
        ("4G", 4 * GIB),
        ("1.5 GiB", 3 << 29),
        ("20GB", 20 * 10**9),
        ("7 kB", 7000),
        ("  1 TiB ", 1 << 40),
        ("0", 0),
        ("100 B", 100),
        (4096, 4096),
        ("8388607TiB", 8388607 << 40),
    ],
)
def test_sizes(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "'' is not a size: write it like 10 GiB, 512MiB or 4G"),
        ("large", "'large' is not a size: write it like 10 GiB, 512MiB or 4G"),
        ("-1 GiB", "'-1 GiB' is not a size: write it like 10 GiB, 512MiB or 4G"),
        (-1, "-1 is not a size: write it like 10 GiB, 512MiB or 4G"),
        (True, "True is not a size: write it like 10 GiB, 512MiB or 4G"),
        (1.5, "1.5 is not a size: write it like 10 GiB, 512MiB or 4G"),
        ("٤ GiB", "'٤ GiB' is not a size: write it like 10 GiB, 512MiB or 4G"),
        (
            "10 Gigs",
            "'10 Gigs' has the unknown unit 'Gigs': use B, KiB, MiB, GiB or TiB (or KB, MB, GB, TB)",
        ),
        ("10 gib", "'10 gib' has the unknown unit 'gib': use B, KiB, MiB, GiB or TiB (or KB, MB, GB, TB)"),
        ("0.3 B", "'0.3 B' is not a whole number of bytes"),
        ("9000000 TiB", "'9000000 TiB' is larger than any disk: 8388608 TiB is the limit"),
    ],
)
def test_what_is_no_size(written, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
        parse_size(written)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (1500, "1.5 KiB"), (10 * GIB, "10 GiB")],
)
def test_shown(size, shown):
    assert format_size(size) == shown
