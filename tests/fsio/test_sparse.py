"""Files with holes, read and written by their layout."""

import os

import pytest

from ssfs.fsio.disk import copy_file
from ssfs.fsio.sparse import find_layout, is_empty_in_holes, read_at, write_at
from ssfs.model.layout import MAX_EXTENTS, Layout

BLOCK = 4096


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def layout_of(fd: int) -> Layout:
    return find_layout(fd, os.fstat(fd))


def read_all(fd: int, layout: Layout) -> bytes:
    view = memoryview(bytearray(layout.data_bytes))
    assert read_at(fd, layout, view, 0) == len(view)
    return bytes(view)


@pytest.mark.parametrize(
    ("size", "extents"),
    [
        (10 * BLOCK, [(0, BLOCK), (5 * BLOCK, 2 * BLOCK)]),
        (10 * BLOCK, [(9 * BLOCK, BLOCK)]),
        (10 * BLOCK + 7, [(2 * BLOCK, BLOCK)]),
        (1 << 43, [(1 << 42, BLOCK)]),
        (1 << 43, []),
    ],
)
def test_what_is_written_by_a_layout_has_it(file, size, extents):
    layout = Layout(size, extents)
    content = os.urandom(layout.data_bytes)
    half = len(content) // 3
    write_at(file, layout, content[:half], 0)
    write_at(file, layout, content[half:], half)
    os.ftruncate(file, size)
    found = layout_of(file)
    assert (found.size, found.extents()) == (size, extents)
    assert read_all(file, found) == content
    assert is_empty_in_holes(file, layout)


def test_a_file_without_holes_costs_one_call(file, monkeypatch):
    os.write(file, b"x" * 100_000)
    status, calls, lseek = os.fstat(file), [], os.lseek
    monkeypatch.setattr(
        os, "lseek", lambda *arguments: calls.append(arguments) or lseek(*arguments)
    )
    assert find_layout(file, status).holes == b""
    assert len(calls) == 1


def test_a_file_that_was_emptied_meanwhile_has_nothing_but_a_hole(file):
    os.write(file, b"x" * 100_000)
    status = os.fstat(file)
    os.ftruncate(file, 0)
    assert list(find_layout(file, status).extents()) == []


def test_blocks_that_are_no_data_hide_no_holes(file):
    """Three blocks by its size, three by its status: two of data, and one of attributes."""
    os.ftruncate(file, 2 * BLOCK + 100)
    os.pwrite(file, b"x" * BLOCK, 0)
    os.pwrite(file, b"y" * 100, 2 * BLOCK)
    os.setxattr(file, "user.large", bytes(1000))
    assert list(layout_of(file).extents()) == [(0, BLOCK), (2 * BLOCK, 100)]


def test_reading_ends_where_the_file_does(file):
    layout = Layout(10 * BLOCK, [(0, BLOCK), (9 * BLOCK, BLOCK)])
    os.write(file, b"x" * BLOCK)
    view = memoryview(bytearray(2 * BLOCK))
    assert read_at(file, layout, view, 0) == BLOCK
    assert read_at(file, layout, view, 2 * BLOCK) == 0


def test_of_very_many_holes_the_smallest_are_taken_for_data(file):
    count = MAX_EXTENTS + 500
    for number in range(count):
        os.pwrite(file, b"x", 2 * BLOCK * number + (BLOCK if number > count // 2 else 0))
    os.ftruncate(file, 2 * BLOCK * (count + 2))
    layout = layout_of(file)
    assert 1 <= len(layout.extents()) <= MAX_EXTENTS
    assert Layout.of(layout.size, layout.holes).extents() == layout.extents()
    assert sum(read_all(file, layout)) == count * ord("x")
    assert is_empty_in_holes(file, layout)


def test_bytes_where_holes_should_be_are_seen(file):
    layout = Layout(100 * BLOCK, [(50 * BLOCK, BLOCK)])
    os.ftruncate(file, layout.size)
    assert is_empty_in_holes(file, layout)
    os.pwrite(file, bytes(BLOCK), 10 * BLOCK)
    os.pwrite(file, b"data", 50 * BLOCK)
    assert is_empty_in_holes(file, layout)
    os.pwrite(file, b"\1", 70 * BLOCK + 5)
    assert not is_empty_in_holes(file, layout)


def test_a_copy_has_the_same_holes(tmp_path, file):
    layout = Layout(1 << 43, [(0, BLOCK), (1 << 40, 3 * BLOCK)])
    write_at(file, layout, os.urandom(4 * BLOCK), 0)
    os.ftruncate(file, layout.size)
    directory = os.open(tmp_path, os.O_RDONLY)
    assert copy_file(b"f", directory, b"copy", directory) == 4 * BLOCK
    copy = os.open(b"copy", os.O_RDONLY, dir_fd=directory)
    os.close(directory)
    assert layout_of(copy).extents() == layout.extents()
    assert read_all(copy, layout) == read_all(file, layout)
    os.close(copy)
