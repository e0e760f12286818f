"""Extended attributes, ACLs and hard links seen through a real mount of a real backup."""

import errno
import os
import pwd
import struct
from pathlib import Path

import blake3
import pytest

from ssfs.model.xattrs import acl_owners
from tests.fakes.comparing import assert_same_tree
from tests.fakes.syncs import Backup
from tests.mount.mounts import errno_of, may_pass, mounted, run

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]
UNDEFINED = 2**32 - 1
DAEMON = 1
# Ordinary users that this machine need not know.
LET_IN, SHUT_OUT = 54321, 54322


def acl(user: int, permissions: int) -> bytes:
    entries = [
        (1, 6, UNDEFINED),
        (2, permissions, user),
        (4, 0, UNDEFINED),
        (16, 7, UNDEFINED),
        (32, 0, UNDEFINED),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def may_read(path, user: int) -> bool:
    """Whether a process of this user can open the file."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.close(os.open(path, os.O_RDONLY))
        except PermissionError:
            os._exit(1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "directory").mkdir(parents=True)
    (root / "directory/file").write_bytes(b"content")
    os.link(root / "directory/file", root / "other name")
    os.symlink("nowhere", root / "symlink")
    os.setxattr(root, "user.root", b"of the root")
    os.setxattr(root / "symlink", "trusted.link", b"its own", follow_symlinks=False)
    os.setxattr(root / "directory", "system.posix_acl_default", acl(DAEMON, 7))
    os.setxattr(root / "directory/file", "user.empty", b"")
    os.setxattr(root / "directory/file", "user.binary", bytes(range(256)) * 8)
    os.setxattr(root / "directory/file", "system.posix_acl_access", acl(LET_IN, 4))
    return root


@pytest.fixture
def backup(tmp_path, cache_dir):
    return Backup(tmp_path / "store")


def test_a_mount_shows_them_as_the_source_has_them(backup, source, tmp_path):
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    with mounted(backup.task(), mountpoint):
        assert_same_tree(source, (mountpoint / "latest").resolve(), ignoring={"holes elsewhere"})
        assert os.listxattr(mountpoint) == []
        file = mountpoint / "latest" / "directory/file"
        assert errno_of(lambda: os.getxattr(file, "user.none")) == errno.ENODATA
        assert errno_of(lambda: os.setxattr(file, "user.new", b"")) == errno.EROFS


def test_the_kernel_lets_in_whom_an_acl_lets_in(backup, source, tmp_path):
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    with mounted(backup.task(), mountpoint, "allow_other"):
        may_pass(*mountpoint.parents, mountpoint)
        file = (mountpoint / "latest").resolve() / "directory/file"
        assert may_read(file, LET_IN)
        assert not may_read(file, SHUT_OUT)


def named_users(path) -> list[int]:
    """Whom the ACL of a file names."""
    return [
        number
        for kind, number in acl_owners(os.getxattr(path, "system.posix_acl_access"))
        if not kind
    ]


def test_with_one_owner_everything_is_that_users(backup, source, tmp_path):
    os.chown(source / "directory", LET_IN, LET_IN)
    os.chmod(source / "directory", 0o700)
    os.chown(source / "symlink", SHUT_OUT, SHUT_OUT, follow_symlinks=False)
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    daemon = pwd.getpwuid(DAEMON)
    with mounted(backup.task(), mountpoint, "allow_other,owner=daemon"):
        may_pass(*mountpoint.parents)
        version = (mountpoint / "latest").resolve()
        paths = [mountpoint, mountpoint / "latest", version, *version.rglob("*")]
        assert len(paths) == 7
        assert {os.lstat(path)[4:6] for path in paths} == {(daemon.pw_uid, daemon.pw_gid)}
        file = version / "directory/file"
        assert named_users(file) == [DAEMON]
        assert may_read(file, DAEMON)
        assert not may_read(file, LET_IN), "whom the recorded ACL let in"
        assert_same_tree(source, version, ignoring={"holes", "owner", "group", "xattrs"})


def test_a_map_says_whose_everything_is_and_whom_acls_let_in(backup, source, tmp_path):
    os.chown(source / "directory", LET_IN, LET_IN)
    os.chmod(source / "directory", 0o711)
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    owners = tmp_path / "owners"
    owners.write_text(f"user {LET_IN} {SHUT_OUT}\ngroup {LET_IN} daemon\n")
    with mounted(backup.task(), mountpoint, f"allow_other,map={owners}"):
        may_pass(*mountpoint.parents, mountpoint)
        version = (mountpoint / "latest").resolve()
        assert os.lstat(version / "directory")[4:6] == (SHUT_OUT, DAEMON)
        assert os.lstat(version / "symlink")[4:6] == (0, 0), "what the map does not name"
        file = version / "directory/file"
        assert named_users(file) == [SHUT_OUT]
        assert may_read(file, SHUT_OUT)
        assert not may_read(file, LET_IN)


def test_others_are_never_let_in_without_the_kernels_checks(backup, source, tmp_path):
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    with mounted(backup.task(), mountpoint, "allow_other"):
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        (line,) = (line for line in lines if str(mountpoint) in line)
        assert {"allow_other", "default_permissions"} <= set(line.split()[-1].split(","))


def test_what_the_mount_tells_is_read_by_name_and_never_copied(backup, source, tmp_path):
    os.setxattr(source / "directory", "user.ssfs.digest", b"the source's own")
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    with mounted(backup.task(), mountpoint):
        version = (mountpoint / "latest").resolve()
        file = version / "directory/file"
        digest = blake3.blake3(b"content").hexdigest()
        assert os.getxattr(file, "user.ssfs.digest") == digest.encode()
        (backed_up,) = backup.task().versions()
        for path in (version, file.parent, file):
            assert os.getxattr(path, "user.ssfs.version") == str(backed_up.id).encode()
        assert errno_of(lambda: os.getxattr(file, "user.ssfs.stale")) == errno.ENODATA
        assert os.getxattr(file.parent, "user.ssfs.digest") == b"the source's own"
        run("cp", "-a", version, tmp_path / "cp")
        run("rsync", "-aHAX", "--modify-window=-1", f"{version}/", tmp_path / "rsync")
        (tmp_path / "tar").mkdir()
        tar = ("tar", "--xattrs", "--xattrs-include=*", "--acls")
        run(*tar, "-C", version, "-cf", tmp_path / "archive", ".")
        run(*tar, "-C", tmp_path / "tar", "-xpf", tmp_path / "archive")
    for copy in ("cp", "rsync", "tar"):
        assert_same_tree(source, tmp_path / copy, ignoring={"holes elsewhere"})
        read = tmp_path / copy / "directory/file"
        assert errno_of(lambda read=read: os.getxattr(read, "user.ssfs.digest")) == errno.ENODATA
