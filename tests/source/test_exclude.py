"""What is left out, and what is not."""

import os

import pytest

from ssfs.errors import ConfigError
from ssfs.source.exclude import ExcludeOptions, Excluder, read_pattern_file

SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


@pytest.mark.parametrize(
    ("patterns", "path", "is_directory", "excluded"),
    [
        (("*.tmp",), b"a/b.tmp", False, True),
        (("*.tmp",), b"a/b.txt", False, False),
        (("cache/",), b"a/cache", True, True),
        (("cache/",), b"a/cache", False, False),
        (("/top",), b"top", False, True),
        (("/top",), b"a/top", False, False),
        (("*.log", "!keep.log"), b"keep.log", False, False),
        (("!keep.log", "*.log"), b"keep.log", False, True),
        (("a/**/z",), b"a/b/c/z", False, True),
        (("*.tmp",), b"\xff.tmp", False, True),
        (("caf\udce9",), b"caf\xe9", False, True),
        (("caf\udce9",), b"caf\xe8", False, False),
        (("*.tmp",), b"line\nbreak.tmp", False, True),
        (("#*",), b"#x", False, False),
        (("\\#*",), b"#x", False, True),
        (("back\\\\slash",), b"back\\slash", False, True),
        ((), b"anything", False, False),
        (("", "# comment"), b"anything", True, False),
    ],
)
def test_patterns_are_those_of_gitignore(patterns, path, is_directory, excluded):
    excluder = Excluder(ExcludeOptions(patterns))
    assert excluder.is_excluded(path, is_directory=is_directory) == excluded


def test_pattern_that_means_nothing_is_refused():
    with pytest.raises(ConfigError):
        Excluder(ExcludeOptions(("!",)))


@pytest.mark.parametrize(
    ("tag", "marked"),
    [
        (SIGNATURE, True),
        (SIGNATURE + b"\n# more", True),
        (SIGNATURE[:-1], False),
        (b"x" + SIGNATURE, False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("caches", [True, False])
def test_cache_is_left_out_only_by_the_right_mark(tmp_path, tag, marked, caches):
    (tmp_path / "CACHEDIR.TAG").write_bytes(tag)
    assert kept(tmp_path, caches=caches) == (
        [b"CACHEDIR.TAG"] if marked and caches else [b"CACHEDIR.TAG", b"x"]
    )


def test_fifo_or_symlink_as_mark_marks_nothing_and_hangs_nobody(tmp_path):
    os.mkfifo(tmp_path / "CACHEDIR.TAG")
    assert b"x" in kept(tmp_path)
    os.unlink(tmp_path / "CACHEDIR.TAG")
    (tmp_path / "tag").write_bytes(SIGNATURE)
    os.symlink("tag", tmp_path / "CACHEDIR.TAG")
    assert b"x" in kept(tmp_path)
    os.unlink(tmp_path / "CACHEDIR.TAG")
    os.mkdir(tmp_path / "CACHEDIR.TAG")
    assert b"x" in kept(tmp_path)


def kept(path, *, caches=True):
    fd = os.open(path, os.O_RDONLY)
    try:
        return Excluder(ExcludeOptions(caches=caches)).keep_in_cache([b"CACHEDIR.TAG", b"x"], fd)
    finally:
        os.close(fd)


def test_pattern_file_may_hold_any_bytes(tmp_path):
    (tmp_path / "patterns").write_bytes(b"*.tmp\r\ncaf\xe9\n\n# no\n")
    patterns = read_pattern_file(bytes(tmp_path / "patterns"))
    assert patterns == ["*.tmp", "caf\udce9", "", "# no"]
    excluder = Excluder(ExcludeOptions(tuple(patterns)))
    assert excluder.is_excluded(b"caf\xe9", is_directory=False)


def test_missing_pattern_file_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(ConfigError):
        read_pattern_file(bytes(tmp_path / "none"))
