"""Extended attributes and ACLs: from the source into the catalog, and back."""

import os
import shutil
import struct

import msgspec
import pytest

from ssfs.clock import SystemClock
from ssfs.engine.restore.local import restore_version
from ssfs.errors import ConnectionLost, RemoteProtocolError
from ssfs.model.entry import Entry, Kind
from ssfs.model.xattrs import encode_set, set_key
from ssfs.monitor import NullMonitor
from ssfs.store.catalog.writer import CatalogWriter
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import restore_remotely
from tests.fakes.syncs import Backup, row
from tests.fakes.trees import verify_version

pytestmark = pytest.mark.needs_root
UNDEFINED = 2**32 - 1
DAEMON = 1


def acl(user: int, permissions: int = 7) -> bytes:
    entries = [
        (1, 7, UNDEFINED),
        (2, permissions, user),
        (4, 5, UNDEFINED),
        (8, 5, 12345),
        (16, 7, UNDEFINED),
        (32, 5, UNDEFINED),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "directory/below").mkdir(parents=True)
    (root / "directory/file").write_bytes(b"small")
    (root / "large").write_bytes(os.urandom(200_000))
    (root / "plain").write_bytes(b"without any")
    os.symlink("nowhere", root / "symlink")
    os.mkfifo(root / "fifo")
    os.setxattr(root, "user.root", b"of the root itself")
    os.setxattr(root / "directory/file", "user.empty", b"")
    os.setxattr(root / "large", "user.binary", bytes(range(256)) * 8)
    os.setxattr(root / "large", "trusted.ours", b"1")
    os.setxattr(root / "symlink", "trusted.link", b"its own", follow_symlinks=False)
    os.setxattr(root / "fifo", "trusted.fifo", b"x")
    os.setxattr(root / "directory", "system.posix_acl_access", acl(DAEMON))
    os.setxattr(root / "directory", "system.posix_acl_default", acl(DAEMON, 4))
    os.setxattr(root / "directory/file", "system.posix_acl_access", acl(77777))
    return root


@pytest.fixture
def backup(tmp_path, cache_dir):
    return Backup(tmp_path / "store")


def restore(backup: Backup, target) -> list:
    result = restore_version(backup.newest(), (), os.fsencode(target), NullMonitor(), SystemClock())
    return [*result.problems, *[None] * result.xattrs_not_set]


def check(backup: Backup, source, tmp_path) -> None:
    verify_version(backup.newest())
    number = backup.newest().id.sequence
    assert restore(backup, tmp_path / f"local-{number}") == []
    assert_same_tree(source, tmp_path / f"local-{number}")
    assert restore_remotely(backup.newest(), tmp_path / f"remote-{number}").problems == []
    assert_same_tree(source, tmp_path / f"remote-{number}")


def test_attributes_of_every_kind_come_back(backup, source, tmp_path):
    assert backup.sync(source).problems == []
    check(backup, source, tmp_path)


def test_a_changed_attribute_is_a_row_and_no_content(backup, source, tmp_path):
    backup.sync(source)
    before = row(backup.newest(), "large")
    os.setxattr(source / "large", "user.binary", b"another")
    os.removexattr(source / "directory/file", "system.posix_acl_access")
    os.setxattr(source / "directory/below", "user.new", b"v")
    result = backup.sync(source)
    assert result.counts.metadata_only == 3
    assert result.counts.bytes_sent < 3000
    after = row(backup.newest(), "large")
    assert (after.digest, after.id) == (before.digest, before.id)
    assert after.xattrs != before.xattrs
    check(backup, source, tmp_path)


def test_sets_that_no_row_names_leave_the_catalog(backup, source, tmp_path):
    def sets() -> int:
        with backup.newest().catalog() as catalog:
            return len(catalog._database.execute("SELECT digest FROM xattr_set").fetchall())

    backup.sync(source)
    first = sets()
    for name in os.listxattr(source / "large"):
        os.removexattr(source / "large", name)
    (source / "fifo").unlink()
    backup.sync(source)
    assert sets() == first - 2
    check(backup, source, tmp_path)


def test_equal_attributes_travel_once(backup, source):
    for number in range(200):
        (source / f"file-{number}").write_bytes(b"%d" % number)
        os.setxattr(source / f"file-{number}", "user.same", b"x" * 2000)
    assert backup.sync(source).counts.bytes_sent < 300_000


def test_a_cache_that_was_lost_is_fetched_with_them(backup, source, tmp_path, cache_dir):
    backup.sync(source)
    for task in os.listdir(cache_dir):
        for name in os.listdir(cache_dir / task):
            (cache_dir / task / name).unlink()
    (source / "one-more").write_bytes(b"1")
    backup.sync(source)
    check(backup, source, tmp_path)


def test_a_default_acl_of_the_target_leaves_no_trace(backup, source, tmp_path):
    backup.sync(source)
    target = tmp_path / "target"
    target.mkdir()
    os.setxattr(target, "system.posix_acl_default", acl(DAEMON))
    assert restore(backup, target) == []
    assert_same_tree(source, target, ignoring={"root"})


def test_attributes_that_cannot_be_set_are_counted_and_the_rest_is_done(backup, source, tmp_path):
    backup.sync(source)
    target = tmp_path / "target"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chmod(tmp_path, 0o777)
            for above in tmp_path.parents:
                if above.owner() == "root" and above.stat().st_mode & 0o1000 == 0:
                    os.chmod(above, above.stat().st_mode | 0o111)
            for directory, _, _ in os.walk(backup.path):
                os.chmod(directory, 0o755)
                for name in os.listdir(directory):
                    path = os.path.join(directory, name)
                    if os.path.isfile(path) and not os.path.islink(path):
                        os.chmod(path, 0o644)
            os.setgid(65534)
            os.setuid(65534)
            result = restore_version(
                backup.newest(), (), os.fsencode(target), NullMonitor(), SystemClock()
            )
            wanted = (3, [], b"")
            found = os.getxattr(target / "directory/file", "user.empty")
            status = int((result.xattrs_not_set, result.problems, found) != wanted)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_row_with_unknown_attributes_is_refused(tmp_path):
    path = os.fsencode(tmp_path / "catalog.db")
    with CatalogWriter.open_writer(path, durable=False) as catalog:
        entry = Entry(1, 0, b"", Kind.DIRECTORY, 0, 0, 0, 0, 0, 0, b"", b"", 0, 0, 0, 0, 0)
        with pytest.raises(RemoteProtocolError, match="unknown extended attributes"):
            catalog.put(entry._replace(xattrs=bytes(32)))
        encoded = encode_set([(b"user.x", b"")])
        for key, content in [
            (bytes(32), encoded),
            (set_key(b"nonsense"), b"nonsense"),
            (set_key(big := msgspec.msgpack.encode([(b"user.x", bytes(1 << 20))])), big),
        ]:
            with pytest.raises(RemoteProtocolError):
                catalog.put_xattrs(key, content)
        catalog.put_xattrs(set_key(encoded), encoded)
        catalog.put(entry._replace(xattrs=set_key(encoded)))
        assert catalog.xattrs(entry._replace(xattrs=set_key(encoded))) == {b"user.x": b""}


def test_attributes_of_a_file_that_was_cut_short_spoil_no_later_sync(backup, source, cache_dir):
    """What was said before the content is in the catalog of the interrupted run, and no row names it."""
    (source / "small").write_bytes(b"arrives")
    (source / "very large").write_bytes(os.urandom(3_000_000))
    os.setxattr(source / "very large", "user.before", b"the content")
    with pytest.raises(ConnectionLost):
        backup.sync(source, cut_after=2_000_000)
    os.removexattr(source / "very large", "user.before")
    shutil.rmtree(cache_dir, ignore_errors=True)
    assert not backup.sync(source).problems
    verify_version(backup.newest())
    # The next client has nothing cached and fetches that version's catalog.
    shutil.rmtree(cache_dir)
    assert not backup.sync(source).problems
