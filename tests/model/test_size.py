"""Sizes as people write and read them."""

import pytest

from ssfs.model.size import bytes_text, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        ("1000000", 1_000_000),
        ("500G", 500 * 10**9),
        ("500 GB", 500 * 10**9),
        ("1.5T", 1_500 * 10**9),
        ("0.5k", 500),
        ("2Ki", 2048),
        ("1.5GiB", 3 << 29),
        ("1m", 10**6),
        ("3TI", 3 << 40),
        ("1P", 10**15),
        ("1E", 10**18),
    ],
)
def test_size_is_parsed(text: str, size_bytes: int):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.1", "-1", "+1", "G", "1X", "1i", "1 000", "1e3", ".5G", "5.G", "1,5T"),
        *("9E", "1GG", "\u0661G", "nan", "none", " 1", "1\n"),
    ],
    ids=repr,
)
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match=r"is no size|is out of range"):
        parse_size(text)


@pytest.mark.parametrize("text", ["5 B", "999 B", "1.0 kB", "500.0 GB", "1.5 TB", "1000.0 EB"])
def test_size_is_shown_in_its_largest_unit(text: str):
    number, unit = text.split()
    power = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert bytes_text(float(number) * 1000**power) == text
