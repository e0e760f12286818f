"""Patterns of paths: what they match, and that none takes long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.engine.questions.pattern import PathPattern
from ssfs.errors import ConfigError

QUICK = {
    "": lambda name, literal: True,
    "whole": lambda name, literal: name == literal,
    "start": lambda name, literal: name.startswith(literal),
    "end": lambda name, literal: name.endswith(literal),
    "anywhere": lambda name, literal: literal in name,
    "any case": lambda name, literal: literal.lower() in name.lower(),
}


def matches(pattern: bytes, path: bytes, *, ignore_case: bool = False) -> bool:
    """As a search asks; the quick look must agree with the verdict."""
    compiled = PathPattern(pattern, ignore_case=ignore_case)
    directory, _, name = path.rpartition(b"/")
    verdict = compiled.matches_name(name) and (
        not compiled.has_place or compiled.matches_place(directory)
    )
    assert not verdict or QUICK[compiled.where](name, compiled.literal)
    return verdict


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"*.odt", b"a/b.odt"),
        (b"b.odt", b"a/b.odt"),
        (b"a/*.odt", b"a/b.odt"),
        (b"/b", b"b"),
        (b"./b/", b"b"),
        (b"**/a/*.odt", b"x/y/a/b.odt"),
        (b"**/a/*.odt", b"a/b.odt"),
        (b"**/b", b"b"),
        (b"a/**", b"a/b/c"),
        (b"a/**/c", b"a/c"),
        (b"a/**/c", b"a/b/d/c"),
        (b"**/b/**/d/*.c", b"a/b/b/d/d/x.c"),
        (b"[ab]?", b"b\xff"),
        (b"[!ab]*", b"c"),
        (b"[^ab]", b"c"),
        (b"[]x]", b"]"),
        (b"[a-]", b"-"),
        (b"[[]", b"["),
        (b"[--0]", b"0"),
        (b"[abc", b"[abc"),
        (rb"\*", b"*"),
        (rb"a\b", b"ab"),
        (b"*a*b*", b"xxaxxb"),
        (b"*aab", b"aaab"),
        (b"a*a", b"aa"),
        ("grü?e".encode(), "grüße".encode()),
        (b"\xff*", b"\xffx"),
        (b"new\nline", b"new\nline"),
        (b"*", b"..."),
        (b"*.txt", b".txt"),
    ],
)
def test_matches(pattern: bytes, path: bytes):
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"*.odt", b"a/b.odtx"),
        (b"b", b"b/c"),
        (b"a/*.odt", b"x/a/b.odt"),
        (b"a/*.odt", b"a/x/b.odt"),
        (b"a/*", b"ab/c"),
        (b"/b", b"a/b"),
        (b"a/**", b"a"),
        (b"[!ab]*", b"a"),
        (b"a*a", b"a"),
        (rb"\*", b"x"),
        (b"?", b"ab"),
        (b"ABC", b"abc"),
        (b"[", b"x"),
    ],
)
def test_does_not_match(pattern: bytes, path: bytes):
    assert not matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"REPORT*.odt", b"report 1.ODT"),
        (b"Docs/*_%.ODT", b"docs/50_%.odt"),
        ("GRÜ*".encode(), "grüße".encode()),
        ("ÄÖ".encode(), "äö".encode()),
    ],
)
def test_case_is_ignored_if_asked(pattern: bytes, path: bytes):
    assert matches(pattern, path, ignore_case=True)
    assert not matches(pattern, path)


def test_slash_at_the_end_wants_a_directory():
    assert PathPattern(b"old/").wants_directory
    assert not PathPattern(b"old/").has_place
    assert PathPattern(b"a/old/").has_place


@pytest.mark.parametrize("pattern", [b"", b"/", b"./", b"[z-a]"])
def test_senseless_pattern_is_refused(pattern: bytes):
    with pytest.raises(ConfigError):
        PathPattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"*a" * 400 + b"b", b"a" * 255),
        (b"**/a/" * 400 + b"b", b"a/" * 2000 + b"c"),
        (b"[ab]*" * 400, b"c" * 255),
    ],
)
def test_hostile_pattern_takes_no_time(pattern: bytes, path: bytes):
    started = time.process_time()
    assert not matches(pattern, path)
    assert time.process_time() - started < 1


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12), st.booleans())
def test_any_bytes_are_a_pattern_or_refused(pattern: bytes, name: bytes, ignore_case: bool):
    try:
        matches(pattern, name.replace(b"\0", b"x"), ignore_case=ignore_case)
    except ConfigError:
        return


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=8))
def test_agrees_with_fnmatch(pattern: str, name: str):
    import fnmatch

    if pattern == "**":
        pattern = "*"
    assert matches(pattern.encode(), name.encode()) == fnmatch.fnmatchcase(name, pattern)
