"""How things are printed."""

import msgspec
import pytest

from ssfs.cli.output import bytes_text, counted, path_text, safe_text, seconds_text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain/name", "plain/name"),
        ("sch\u00f6n".encode(), "sch\u00f6n"),
        (b"caf\xe9", "caf\\xe9"),
        (rb"caf\xe9", r"caf\\xe9"),
        (b"two\nlines", "two\nlines"),
    ],
)
def test_every_path_has_a_spelling_of_its_own(path, text):
    assert path_text(path) == text
    assert msgspec.json.decode(msgspec.json.encode(path_text(path))) == text


def test_names_do_not_drive_the_terminal():
    assert safe_text("a\x1b[31mb\nc\u2028d\udcff") == "a\\x1b[31mb\\x0ac\\u2028d\\udcff"
    assert safe_text("sch\u00f6n") == "sch\u00f6n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")],
)
def test_sizes(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1:00"), (3725, "1:02:05")],
)
def test_durations(seconds, text):
    assert seconds_text(seconds) == text


def test_counts_agree_with_their_noun():
    assert counted(1, "entry") == "1 entry"
    assert counted(2000, "entry") == "2,000 entries"
    assert counted(0, "day") == "0 days"
