"""Files that change, vanish or turn into something else while they are read."""

import os

import blake3
import pytest

from ssfs.model.layout import Layout
from ssfs.source.reading import (
    READ_BYTES,
    NotAFileError,
    digest_file,
    is_same,
    open_file,
    read_stream,
)


@pytest.fixture
def place(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.timeout(10)
def test_fifo_in_place_of_a_file_does_not_hang(tmp_path, place):
    os.mkfifo(tmp_path / "f")
    with pytest.raises(NotAFileError), open_file(b"f", place):
        pass


def test_symlink_and_directory_are_not_read(tmp_path, place):
    (tmp_path / "real").touch()
    os.symlink("real", tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"), open_file(b"link", place):
        pass
    (tmp_path / "d").mkdir()
    with pytest.raises(NotAFileError), open_file(b"d", place):
        pass


def test_descriptor_is_closed_whatever_happens(tmp_path, place):
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotAFileError), open_file(b"d", place):
        pass
    with pytest.raises(RuntimeError), open_file(b"f", place):
        raise RuntimeError
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_file_of_somebody_else_is_read_without_o_noatime(tmp_path, place, monkeypatch):
    (tmp_path / "f").write_bytes(b"x")
    real = os.open

    def refuse_noatime(name, flags, **kwargs):
        if flags & os.O_NOATIME:
            raise PermissionError
        return real(name, flags, **kwargs)

    monkeypatch.setattr(os, "open", refuse_noatime)
    with open_file(b"f", place) as fd:
        assert read_stream(fd, Layout(1)) == b"x"


@pytest.mark.parametrize("size", [0, 1, 4096, READ_BYTES - 5])
@pytest.mark.parametrize("expected", [0, 1, 4095, 4096, READ_BYTES + 6])
def test_whole_content_is_read_whatever_size_was_expected(tmp_path, place, size, expected):
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    with open_file(b"f", place) as fd:
        assert read_stream(fd, Layout(expected)) == content
        heard: list[int] = []
        found = digest_file(fd, Layout(size), heard.append)
        assert found == (blake3.blake3(content).digest(), size)
        assert sum(heard) == size


@pytest.mark.parametrize("change", ["append", "times", "rewrite"])
def test_change_between_two_looks_is_seen(tmp_path, place, change):
    path = tmp_path / "f"
    path.write_bytes(b"before")
    os.utime(path, ns=(1, 1))
    with open_file(b"f", place) as fd:
        before = os.fstat(fd)
        assert is_same(before, os.fstat(fd))
        match change:
            case "append":
                path.write_bytes(b"before and after")
                os.utime(path, ns=(1, 1))
            case "times":
                os.utime(path, ns=(1, 2))
            case "rewrite":
                path.write_bytes(b"behind")
        assert not is_same(before, os.fstat(fd))
