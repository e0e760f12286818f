"""A version being received: hostile clients, and in which order things reach the disk."""

import os

import pytest

from ssfs.errors import CorruptStore, RemoteProtocolError, SsfsError
from ssfs.model.entry import Kind
from ssfs.protocol.messages import basis_number
from ssfs.store import staging as staging_parts
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.partials import Origin
from ssfs.store.staging import Staging
from tests.store.stagings import (
    BASE_TREE,
    ROOT,
    begin,
    directory,
    file,
    make_base,
    make_task,
    staged_tree,
    symlink,
    tree_of,
)

ORIGIN = Origin(0, 77)


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path / "store")


@pytest.fixture
def base(task):
    return make_base(task)


def version_tree(version):
    return tree_of(os.path.join(version.path, b"tree"))


# -- hostile clients ------------------------------------------------------------------------------

NOT_FILES = ROOT._replace(id=8, name=b"n", parent=1, kind=int(Kind.FILE), size=1, digest=b"short")
HOSTILE = {
    "name ..": lambda s: s.store(file(8, b"..", b"x"), b"x"),
    "name with slash": lambda s: s.store(file(8, b"../../victim/f", b"x"), b"x"),
    "absolute name": lambda s: s.make(directory(8, b"/victim")),
    "NUL": lambda s: s.make(symlink(8, b"n", b"a\0b")),
    "empty target": lambda s: s.make(symlink(8, b"n", b"")),
    "below a symlink": lambda s: s.store(file(8, b"f", b"x", 7), b"x"),
    "below a file": lambda s: s.store(file(8, b"f", b"x", 2), b"x"),
    "below nothing": lambda s: s.store(file(8, b"f", b"x", 99), b"x"),
    "below 0": lambda s: s.make(ROOT._replace(id=8, name=b"f", kind=int(Kind.FIFO))),
    "below the parked": lambda s: s.make(directory(8, b"d", -1)),
    "id of a directory": lambda s: s.store(file(3, b"d", b"x"), b"x"),
    "id of a file": lambda s: s.make(directory(2, b"a")),
    "id of a symlink": lambda s: s.make(directory(7, b"l", 3)),
    "id of the root": lambda s: s.make(directory(1, b"d", 3)),
    "id out of range": lambda s: s.store(file(1 << 40, b"f", b"x"), b"x"),
    "negative id": lambda s: s.store(file(-5, b"f", b"x"), b"x"),
    "below itself": lambda s: s.keep(directory(3, b"d", 5)),
    "keeps what is not there": lambda s: s.keep(file(99, b"f", b"x")),
    "keeps other content": lambda s: s.keep(file(2, b"a", b"x")),
    "keeps another target": lambda s: s.keep(symlink(7, b"l", b"/etc", 3)),
    "makes a file": lambda s: s.make(file(8, b"f", b"")),
    "stores a directory": lambda s: s.store(directory(8, b"f"), b""),
    "short digest": lambda s: s.store(NOT_FILES, b"x"),
    "negative size": lambda s: s.link(file(8, b"f", b"x")._replace(size=-1), 2),
    "removes the root": lambda s: s.remove(1),
    "removes nothing": lambda s: s.remove(99),
    "removes the parked": lambda s: s.remove(-1),
    "no basis": lambda s: s.begin_file(8, 99, ORIGIN),
    "directory as basis": lambda s: s.begin_file(8, 3, ORIGIN),
    "symlink as basis": lambda s: s.begin_file(8, 7, ORIGIN),
    "ends another file": lambda s: s.finish_file(s.begin_file(8, 0, ORIGIN), file(9, b"f", b"")),
    "file type in mode": lambda s: s.make(directory(8, b"f")._replace(mode=0o140755)),
    "kind": lambda s: s.make(directory(8, b"f")._replace(kind=9)),
    "delta without basis": lambda s: s.begin_file(8, 0, ORIGIN).patch(b"x", last=True),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_change_is_refused_and_reaches_nothing(task, base, tmp_path, change):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "f").write_bytes(b"mine")
    before = tree_of(bytes(tmp_path / "victim")), version_tree(base)
    staging = begin(task)
    with pytest.raises((SsfsError, OSError)) as caught:
        change(staging)
    assert isinstance(caught.value, RemoteProtocolError | CorruptStore | FileNotFoundError)
    staging.close()
    assert (tree_of(bytes(tmp_path / "victim")), version_tree(base)) == before
    # Nothing of it stays, and the next run is not disturbed.
    with begin(task) as again:
        assert staged_tree(task) == BASE_TREE
        assert again.wanted() == []


def test_symlink_sent_in_place_of_a_directory_does_not_lead_out(task, base, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    staging = begin(task)
    staging.make(symlink(8, b"d", bytes(victim)))
    # The directory is parked: what is sent below it goes there with it.
    staging.store(file(9, b"f", b"x", 3), b"x")
    with pytest.raises(RemoteProtocolError):
        staging.store(file(10, b"f", b"x", 8), b"x")
    staging.close()
    assert list(victim.iterdir()) == []


def test_two_entries_at_one_new_place_never_become_a_version(task, base):
    fifo = ROOT._replace(id=9, parent=8, name=b"f", kind=int(Kind.FIFO))
    staging = begin(task)
    staging.make(directory(8, b"n"))
    staging.make(fifo)
    staging.make(fifo._replace(id=10))
    with pytest.raises(RemoteProtocolError):
        staging.checkpoint()
    staging.close()


def test_client_never_opens_what_is_no_file(task, base):
    with begin(task) as staging:
        for entry_id in (0, -1, 1, 3, 7, 99, 1 << 62, basis_number(1, 2)):
            assert staging.open_basis(entry_id) is None
        with staging.open_basis(2) as basis:
            assert basis.size_bytes == 9


def test_catalog_copy_of_the_base_is_on_disk_before_the_record(task, base, monkeypatch):
    order = []
    real_fsync, real_write = staging_parts.fsync, staging_parts.write_text_file

    def fsync(fd):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real_fsync(fd)

    def write(name, value, **how):
        order.append(name.decode())
        real_write(name, value, **how)

    monkeypatch.setattr(staging_parts, "fsync", fsync)
    monkeypatch.setattr(staging_parts, "write_text_file", write)
    Staging(task, base).close()
    assert order == ["catalog.db", "staging.toml"]


def test_only_changed_directories_are_synced_where_syncfs_does_nothing(task, base, monkeypatch):
    synced = []
    original = staging_parts.fsync

    def fsync(fd):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        original(fd)

    monkeypatch.setattr(staging_parts, "needs_fsync_per_file", lambda fd: True)
    with begin(task) as staging:
        monkeypatch.setattr(staging_parts, "fsync", fsync)
        staging.checkpoint()
        assert sorted(synced) == ["d", "e", "tree"]
        steps = [
            (lambda: staging.store(file(8, b"n", b"x", 5), b"x"), ["e"]),
            (lambda: staging.store(file(4, b"b", b"new b", 3), b"new b"), ["d"]),
            (lambda: staging.keep(file(6, b"c", b"content c", 3)), ["d", "e"]),
            (lambda: staging.keep(file(2, b"b", b"content a", 3)), ["d", "parked", "tree"]),
            (lambda: staging.remove(5), ["d"]),
            (lambda: staging.make(directory(9, b"new")), ["new", "tree"]),
            (lambda: staging.make(symlink(10, b"l", b"x", 9)), ["new"]),
            (lambda: staging.link(file(11, b"copy", b"content a", 9), 2), ["new"]),
            (lambda: staging.keep(directory(9, b"newer")._replace(mode=0o700)), ["tree"]),
            (lambda: None, []),
        ]
        for change, wanted in steps:
            synced.clear()
            change()
            staging.checkpoint()
            assert sorted(synced) == wanted


def test_empty_catalog_is_made_only_where_there_is_no_base(task, base):
    staging = begin(task)
    staging.close()
    with CatalogWriter.open_writer(
        os.path.join(task.path, b"staging", b"catalog.db"), durable=True
    ) as catalog:
        assert catalog.root() is not None
