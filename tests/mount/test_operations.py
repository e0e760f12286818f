"""Requests, asked as the pump asks them: nothing but answers may come out."""

import errno
import os
import struct
from pathlib import Path

import pytest

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.operations import MountOperations
from ssfs.mount.owners import Owners
from ssfs.mount.refusals import CHANGES
from ssfs.mount.tree import MountTree
from ssfs.mount.wire import Opcode, Request
from tests.mount.asking import (
    Refused,
    ask,
    decode_listing,
    look_up,
    open_handle,
    read,
    reading,
    releasing,
)
from tests.mount.stores import HandClock, add_version, directory, make_task

CONTENT = os.urandom(3_000_000)


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
        with pytest.raises(Refused) as caught:
            await ask(operations, Opcode.GETATTR)
        assert caught.value.errno == number
    if isinstance(error, (NoEntry, Stale, WrongKind)):
        assert not expected_warnings
    elif isinstance(error, (CorruptStore, OSError)):
        assert len(expected_warnings) == 1, "said once, however often it is met"
    else:
        assert all(record.exc_info for record in expected_warnings)


async def test_numbers_and_handles_nobody_gave_out_are_refused(operations, expected_warnings):
    for opcode, inode in ((Opcode.GETATTR, 99 << 40 | 1), (Opcode.OPENDIR, 77)):
        with pytest.raises(Refused) as caught:
            await ask(operations, opcode, inode)
        assert caught.value.errno == errno.ESTALE
    for opcode in (
        Opcode.READ,
        Opcode.READDIRPLUS,
        Opcode.RELEASE,
        Opcode.RELEASEDIR,
        Opcode.LSEEK,
    ):
        with pytest.raises(Refused) as caught:
            await ask(operations, opcode, 1, reading(123, 0, 10))
        assert caught.value.errno == errno.EIO
    assert expected_warnings


async def test_every_change_is_refused(operations):
    assert len(CHANGES) == 15
    for opcode in CHANGES:
        for body in (b"", bytes(100)):
            with pytest.raises(Refused) as caught:
                await ask(operations, opcode, 1, body)
            assert caught.value.errno == errno.EROFS


async def test_whatever_the_kernel_may_ask_one_day_is_answered(operations, expected_warnings):
    """Every opcode there is, known or not, with bodies too short for it: an answer, never an exception."""
    for opcode in range(200):
        for body in (b"", b"\xff", bytes(24), b"\xff" * 200):
            answer = await operations.answer(Request(opcode, 1, 1, body))
            assert answer is None or isinstance(answer, (bytes, memoryview)) or 0 < answer < 200
    assert await operations.answer(Request(4096, 1, 1, b"")) == errno.ENOSYS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opening_for_writing_is_refused(operations, flags):
    found = await look_up(operations, b"2024-05-01", b"f")
    with pytest.raises(Refused) as caught:
        await open_handle(operations, Opcode.OPEN, found.inode, flags)
    assert caught.value.errno == errno.EROFS


async def test_a_kernel_that_is_too_old_is_refused(operations, expected_warnings):
    for major, minor, flags in ((7, 20, 1 << 13), (8, 0, 1 << 13), (7, 31, 0)):
        with pytest.raises(Refused) as caught:
            await ask(operations, Opcode.INIT, 0, struct.pack("=IIII", major, minor, 0, flags))
        assert caught.value.errno == errno.EPROTO
    assert expected_warnings


async def test_a_listing_goes_on_where_it_was_and_ends(tmp_path):
    task = make_task(tmp_path / "many")
    rows = [directory(ROOT_ID, 0, b"")]
    rows += [
        directory(number, ROOT_ID, b"%06d" % number * (number % 20 + 1)) for number in range(2, 700)
    ]
    add_version(task, rows)
    operations = MountOperations(
        MountTree(task, HandClock(), owners=Owners(), idle_s=60), lambda: None
    )
    found = await look_up(operations, b"2024-05-01")
    handle = await open_handle(operations, Opcode.OPENDIR, found.inode)
    for size in (400, 4096, 32768):
        names, cookie = [], 0
        while payload := await ask(
            operations, Opcode.READDIRPLUS, 1, reading(handle, cookie, size)
        ):
            assert len(payload) <= size
            lines = decode_listing(payload)
            names += [name for _, name, _ in lines]
            cookie = lines[-1][0]
        assert names == sorted(row.name for row in rows[1:])
    await ask(operations, Opcode.RELEASEDIR, 1, releasing(handle))


async def read_and_check(operations: MountOperations) -> None:
    found = await look_up(operations, b"2024-05-01", b"f")
    handle = await open_handle(operations, Opcode.OPEN, found.inode)
    for offset, size in [
        (0, 10),
        (1, 1 << 20),
        (1_999_999, 1 << 20),
        (2_999_999, 100),
        (3_000_000, 1),
        (9_000_000, 1),
    ]:
        # A MiB at most, as agreed with the kernel.
        assert await read(operations, handle, offset, size) == CONTENT[offset : offset + size]
    await ask(operations, Opcode.RELEASE, 1, releasing(handle))


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
    found = await look_up(operations, b"2024-05-01", b"f")
    handle = await open_handle(operations, Opcode.OPEN, found.inode)
    (data,) = (tmp_path / "store").rglob("tree/f")
    os.truncate(data, 1000)
    with pytest.raises(Refused) as caught:
        await read(operations, handle, 0, 4096)
    assert caught.value.errno == errno.EIO
    assert str(data.parent.parent) in expected_warnings[0].getMessage()
    await ask(operations, Opcode.RELEASE, 1, releasing(handle))


async def test_negative_times_survive(tmp_path):
    task = make_task(tmp_path / "other")
    add_version(task, [directory(ROOT_ID, 0, b"", mtime_s=-1, mtime_ns=5)])
    tree = MountTree(task, HandClock(), owners=Owners(), idle_s=60)
    operations = MountOperations(tree, lambda: None)
    found = await look_up(operations, b"2024-05-01")
    assert found.times_ns == (-999_999_995,) * 3
