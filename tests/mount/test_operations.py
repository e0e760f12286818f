"""The handlers, called as pyfuse3 calls them: nothing but FUSEError may come out."""

import errno
import inspect
import os
from pathlib import Path
from typing import cast

import pyfuse3
import pytest

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.operations import MountOperations
from ssfs.mount.owners import Owners
from ssfs.mount.refusals import ReadOnlyOperations
from ssfs.mount.tree import MountTree
from tests.mount.stores import HandClock, add_version, directory, make_task

CONTENT = os.urandom(3_000_000)
NOBODY = cast("pyfuse3.RequestContext", None)
"""Who asks; no handler looks."""


@pytest.fixture
def tree(tmp_path: Path) -> MountTree:
    task = make_task(tmp_path / "store")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(CONTENT)
    add_version(task, tmp_path / "source")
    return MountTree(task, HandClock(), owners=Owners(), idle_s=60)


@pytest.fixture
def operations(tree) -> MountOperations:
    return MountOperations(tree, lambda: None)


async def inode_of(operations: MountOperations, *names: bytes) -> int:
    inode = pyfuse3.ROOT_INODE
    for name in names:
        inode = (await operations.lookup(inode, name, NOBODY)).st_ino
    return inode


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (NoEntry(), errno.ENOENT),
        (Stale(), errno.ESTALE),
        (WrongKind(), errno.EINVAL),
        (CorruptStore("Catalog cannot be read"), errno.EIO),
        (OSError(errno.EMFILE, "Too many open files"), errno.EMFILE),
        (FileNotFoundError(errno.ENOENT, "in the store, not in the mount"), errno.EIO),
        (ValueError("a bug"), errno.EIO),
        (KeyError("a bug"), errno.EIO),
    ],
)
async def test_each_exception_has_its_errno(
    operations, tree, monkeypatch, error, number, expected_warnings
):
    def fail(*_):
        raise error

    monkeypatch.setattr(tree, "attributes", fail)
    for _ in range(3):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.getattr(1, NOBODY)
        assert caught.value.errno == number
    if isinstance(error, (NoEntry, Stale, WrongKind)):
        assert not expected_warnings
    elif isinstance(error, (CorruptStore, OSError)):
        assert len(expected_warnings) == 1, "said once, however often it is met"
    else:
        assert all(record.exc_info for record in expected_warnings)


async def test_numbers_and_handles_nobody_gave_out_are_refused(operations, expected_warnings):
    for call in (operations.getattr(99 << 40 | 1, NOBODY), operations.opendir(77, NOBODY)):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await call
        assert caught.value.errno == errno.ESTALE
    with pytest.raises(pyfuse3.FUSEError):
        await operations.read(123, 0, 10)
    assert expected_warnings


async def test_every_change_is_refused(operations):
    changes = [name for name in vars(ReadOnlyOperations) if not name.startswith("_")]
    assert len(changes) == 12
    for name in changes:
        change = getattr(operations, name)
        arguments = [None] * len(inspect.signature(change).parameters)
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await change(*arguments)
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opening_for_writing_is_refused(operations, flags):
    inode = await inode_of(operations, b"2024-05-01", b"f")
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.open(inode, flags, NOBODY)
    assert caught.value.errno == errno.EROFS


async def read_and_check(operations: MountOperations) -> None:
    inode = await inode_of(operations, b"2024-05-01", b"f")
    handle = (await operations.open(inode, os.O_RDONLY, NOBODY)).fh
    for offset, size in [
        (0, 10),
        (1, 1 << 20),
        (0, 2_000_000),
        (2_999_999, 100),
        (3_000_000, 1),
        (9_000_000, 1),
    ]:
        read = bytes(await operations.read(handle, offset, size))
        assert read == CONTENT[offset : offset + size]
    await operations.release(handle)


async def test_reads_are_exact(operations):
    await read_and_check(operations)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
async def test_reads_are_exact_when_the_disk_must_be_waited_for(operations, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", refuse)
    await read_and_check(operations)


async def test_reads_are_exact_when_only_a_part_is_cached(operations, monkeypatch):
    real = os.preadv

    def read_a_part(fd, buffers, offset, flags):
        return real(fd, [buffers[0][:5]], offset, flags)

    monkeypatch.setattr(os, "preadv", read_a_part)
    await read_and_check(operations)


async def test_file_cut_short_while_open_is_an_error_and_not_zeros(
    operations, tmp_path, expected_warnings
):
    inode = await inode_of(operations, b"2024-05-01", b"f")
    handle = (await operations.open(inode, os.O_RDONLY, NOBODY)).fh
    (data,) = (tmp_path / "store").rglob("tree/f")
    os.truncate(data, 1000)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.read(handle, 0, 4096)
    assert caught.value.errno == errno.EIO
    assert str(data.parent.parent) in expected_warnings[0].getMessage()
    await operations.release(handle)


async def test_negative_times_survive(tmp_path):
    task = make_task(tmp_path / "other")
    add_version(task, [directory(ROOT_ID, 0, b"", mtime_s=-1, mtime_ns=5)])
    tree = MountTree(task, HandClock(), owners=Owners(), idle_s=60)
    operations = MountOperations(tree, lambda: None)
    entry = await operations.lookup(pyfuse3.ROOT_INODE, b"2024-05-01", NOBODY)
    assert entry.st_mtime_ns == entry.st_ctime_ns == entry.st_atime_ns == -999_999_995
