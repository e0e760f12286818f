"""Reading and writing once: the same bytes wherever pages begin, nothing left in the page cache, and kernels without the flag."""

import ctypes
import errno
import mmap
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssfs.fsio import uncached
from ssfs.fsio.uncached import read_uncached, write_uncached

KIB = 1 << 10
NOISE = random.Random(7).randbytes(2 << 20)
PAGE = mmap.PAGESIZE


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """An empty file."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def cached_pages(fd: int) -> int:
    """How many pages of a file are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size) as pages:
        there = (ctypes.c_ubyte * -(-size // PAGE))()
        begin = ctypes.c_char.from_buffer(pages)
        assert libc.mincore(ctypes.byref(begin), ctypes.c_size_t(size), there) == 0
        del begin
    return sum(page & 1 for page in there)


def come_to(fd: int, most_pages: int) -> bool:
    """Whether at most so many stay cached: pages leave once the disk has said that it has them."""
    deadline = time.monotonic() + 20
    while cached_pages(fd) > most_pages and time.monotonic() < deadline:
        time.sleep(0.05)
    return cached_pages(fd) <= most_pages


def skip_without_the_flag(fd: int) -> None:
    if not uncached._is_known:
        pytest.skip("Linux before 6.16")
    os.pwrite(fd, b"x", 0)
    try:
        os.preadv(fd, [bytearray(1)], 0, uncached._DONTCACHE)
    except OSError as error:
        pytest.skip(f"this file system does not know RWF_DONTCACHE: {error.strerror}")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 700 * KIB), min_size=1, max_size=5), st.integers(0, 3 * PAGE))
def test_pieces_of_any_length_come_to_the_same_file(tmp_path_factory, lengths, start):
    path = tmp_path_factory.mktemp("uncached") / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        position = start
        for length in lengths:
            write_uncached(fd, memoryview(NOISE)[:length], position)
            position += length
        whole = bytes(start) + b"".join(NOISE[:length] for length in lengths)
        assert path.read_bytes() == whole
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        view = memoryview(bytearray(700 * KIB))
        read = read_uncached(fd, view, start)
        assert view[:read] == whole[start : start + read]
        assert read == min(len(whole) - start, len(view))
        assert read_uncached(fd, view, position) == 0
    finally:
        os.close(fd)


def test_what_is_written_leaves_the_cache_but_for_pages_that_are_cut(fd):
    skip_without_the_flag(fd)
    for number in range(8):
        write_uncached(fd, memoryview(NOISE)[: 1000 * KIB + 10], number * (1000 * KIB + 10))
    os.fsync(fd)
    assert come_to(fd, 2 * 8)


def test_what_is_read_once_leaves_the_cache_and_what_was_cached_stays(fd):
    skip_without_the_flag(fd)
    os.pwrite(fd, NOISE, 0)
    os.fsync(fd)
    view = memoryview(bytearray(1 << 20))
    assert read_uncached(fd, view, 0) == len(view)
    assert cached_pages(fd) == len(NOISE) // PAGE
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert come_to(fd, 0)
    for position in range(0, len(NOISE), len(view)):
        assert read_uncached(fd, view, position) == len(view)
        assert view == NOISE[position : position + len(view)]
    assert come_to(fd, 0)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_the_flag_is_read_and_written_as_ever(fd, monkeypatch, number):
    asked = []
    preadv = os.preadv

    def refuse(*arguments):
        if len(arguments) == 4:
            asked.append(arguments)
            raise OSError(number, os.strerror(number))
        return preadv(*arguments)

    monkeypatch.setattr(uncached, "_is_known", True)
    monkeypatch.setattr(os, "pwritev", refuse)
    monkeypatch.setattr(os, "preadv", refuse)
    write_uncached(fd, NOISE, 0)
    view = memoryview(bytearray(len(NOISE)))
    assert read_uncached(fd, view, 0) == len(NOISE)
    assert view == NOISE
    assert len(asked) == 2


def test_other_errors_are_told(fd, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(uncached, "_is_known", True)
    monkeypatch.setattr(os, "pwritev", fail)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="broken"):
        write_uncached(fd, NOISE, 0)
    with pytest.raises(OSError, match="broken"):
        read_uncached(fd, memoryview(bytearray(len(NOISE))), 0)


def test_a_kernel_without_the_flag_is_not_asked(fd, monkeypatch):
    monkeypatch.setattr(uncached, "_is_known", False)
    monkeypatch.setattr(os, "pwritev", None)
    write_uncached(fd, NOISE, 0)
    view = memoryview(bytearray(len(NOISE)))
    assert read_uncached(fd, view, 0) == len(NOISE)
    assert view == NOISE


@pytest.mark.parametrize(
    ("release", "is_known"),
    [
        ("6.16.0", True),
        ("6.18.44-generic", True),
        ("7.0-rc1", True),
        ("10.2", True),
        ("6.14.11", False),
        ("6.15.9-arch1-1", False),
        ("6.1.0-28-amd64", False),
        ("5.19.0", False),
        ("6", False),
        ("", False),
        ("x.y", False),
    ],
)
def test_only_kernels_that_do_it_right_are_asked(release, is_known):
    assert uncached._knows_dontcache(release) is is_known
