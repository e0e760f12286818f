"""The comparison tool sees each single difference, says what differs, and sees nothing where nothing differs."""

import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.comparing import assert_same_tree, data_extents, differences

MIB = 1 << 20
# POSIX ACL in the kernel's form: version 2; tag, permissions, id of each entry.
_ANY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, _ANY), (2, 4, 1234), (4, 4, _ANY), (16, 6, _ANY), (32, 0, _ANY))
)


def build(root: Path) -> Path:
    """One entry of every type, and a file with holes."""
    (root / "dir" / "below").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "dir" / "inside").write_bytes(b"")
    (root / "dir" / "below" / "deep").write_bytes(b"x" * 3000)
    os.symlink(b"tar\xffget", root / "symlink")
    os.mkfifo(root / "fifo")
    os.link(root / "file", root / "dir" / "linked")
    os.link(root / "file", root / "linked-too")
    with open(root / "holes", "wb") as file:
        file.write(b"start")
        file.truncate(4 * MIB)
        file.seek(2 * MIB)
        file.write(b"middle")
    os.setxattr(root / "file", "user.one", b"\x00value")
    os.setxattr(root / "dir", "user.of-directory", b"")
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(1, 1_500_000_000_123_456_789), follow_symlinks=False)
    return root


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return build(tmp_path / "left"), build(tmp_path / "right")


def test_equal_trees_have_no_differences(trees: tuple[Path, Path]) -> None:
    assert differences(*trees) == []
    assert_same_tree(*trees)


def _edit_file(root: Path) -> None:
    before = os.stat(root / "holes")
    with open(root / "holes", "r+b") as file:
        file.seek(2 * MIB + 3)
        file.write(b"D")
    os.utime(root / "holes", ns=(0, before.st_mtime_ns))


def _kept_time(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The change, with the times of all directories as they were."""

    def wrapped(root: Path) -> None:
        places = [root, root / "dir", root / "dir" / "below"]
        before = [os.stat(place).st_mtime_ns for place in places]
        change(root)
        for place, mtime in zip(places, before, strict=True):
            os.utime(place, ns=(0, mtime))

    return wrapped


def _relink(root: Path) -> None:
    """The same content and metadata, but an inode of its own."""
    status = os.stat(root / "file")
    os.unlink(root / "linked-too")
    (root / "linked-too").write_bytes(b"content")
    os.setxattr(root / "linked-too", "user.one", b"\x00value")
    os.utime(root / "linked-too", ns=(0, status.st_mtime_ns))


def _fill_hole(root: Path) -> None:
    status = os.stat(root / "holes")
    with open(root / "holes", "r+b") as file:
        file.seek(MIB)
        file.write(bytes(4096))
    os.utime(root / "holes", ns=(0, status.st_mtime_ns))


def _retarget(root: Path) -> None:
    status = os.lstat(root / "symlink")
    os.unlink(root / "symlink")
    os.symlink(b"tar\xfeget", root / "symlink")
    os.utime(root / "symlink", ns=(0, status.st_mtime_ns), follow_symlinks=False)


def _another_type(root: Path) -> None:
    os.unlink(root / "fifo")
    (root / "fifo").write_bytes(b"")


def _shrink(root: Path) -> None:
    status = os.stat(root / "holes")
    os.truncate(root / "holes", 4 * MIB - 1)
    os.utime(root / "holes", ns=(0, status.st_mtime_ns))


def _touch(root: Path, name: str) -> None:
    os.utime(root / name, ns=(0, 1_500_000_000_123_456_790), follow_symlinks=False)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one name more": (lambda r: (r / "dir" / "z").touch(), "b'dir/z': names: nothing | file"),
    "one name less": (lambda r: os.unlink(r / "dir" / "inside"), "b'dir/inside': names: file |"),
    "another type": (_another_type, "b'fifo': type: FIFO | file"),
    "permissions": (
        lambda r: os.chmod(r / "dir" / "inside", 0o600),
        "b'dir/inside': mode: 0o644 |",
    ),
    "setuid": (lambda r: os.chmod(r / "dir/inside", 0o4644), "b'dir/inside': mode: 0o644 | 0o4644"),
    "setgid": (lambda r: os.chmod(r / "dir", 0o2755), "b'dir': mode: 0o755 | 0o2755"),
    "sticky": (lambda r: os.chmod(r / "dir" / "below", 0o1755), "b'dir/below': mode:"),
    "mode of a FIFO": (lambda r: os.chmod(r / "fifo", 0o600), "b'fifo': mode:"),
    "mode of the root": (lambda r: os.chmod(r, 0o700), "b'': mode: 0o755 | 0o700"),
    "one nanosecond": (lambda r: _touch(r, "holes"), "b'holes': mtime: 1500000000123456789 | 15"),
    "mtime of a symlink": (lambda r: _touch(r, "symlink"), "b'symlink': mtime:"),
    "mtime of a directory": (lambda r: _touch(r, "dir"), "b'dir': mtime:"),
    "mtime of the root": (lambda r: _touch(r, "."), "b'': mtime:"),
    "size": (_shrink, "b'holes': size: 4194304 | 4194303"),
    "content": (_edit_file, "b'holes': content: differs from byte 2097155 on |"),
    "holes": (_fill_hole, "b'holes': holes: data at [(0, 4096), (2097152, 2101248)] | data at"),
    "target": (_retarget, "b'symlink': target: b'tar\\xffget' | b'tar\\xfeget'"),
    "hard links": (_relink, "b'linked-too': hard links: b'file' | b'linked-too'"),
    "an attribute more": (
        lambda r: os.setxattr(r / "file", "user.two", b""),
        "b'file': xattrs 'user.two': none | b''",
    ),
    "an attribute less": (
        lambda r: os.removexattr(r / "dir", "user.of-directory"),
        "b'dir': xattrs 'user.of-directory': b'' | none",
    ),
    "value of an attribute": (
        lambda r: os.setxattr(r / "dir", "user.of-directory", b"\xff"),
        "b'dir': xattrs 'user.of-directory': b'' | b'\\xff'",
    ),
    "attribute of the root": (lambda r: os.setxattr(r, "user.x", b"y"), "b'': xattrs 'user.x':"),
    "access ACL": (
        lambda r: os.setxattr(r / "dir" / "inside", "system.posix_acl_access", ACL),
        "b'dir/inside': xattrs 'system.posix_acl_access': none |",
    ),
    "default ACL": (
        lambda r: os.setxattr(r / "dir", "system.posix_acl_default", ACL),
        "b'dir': xattrs 'system.posix_acl_default': none |",
    ),
}
# Changes that must touch something else too: the other lines that they cause.
_ALSO = {
    "an attribute more": 2,  # the file's other two names
    "access ACL": 1,  # its mask shows as the mode of the group
    "another type": 1,  # the time of a new file
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_single_difference_is_seen(trees: tuple[Path, Path], change: str) -> None:
    edit, expected = CHANGES[change]
    wrapped = edit if change.startswith("mtime of ") else _kept_time(edit)
    wrapped(trees[1])
    found = differences(*trees)
    assert any(line.startswith(expected) for line in found), found
    assert len(found) <= 1 + _ALSO.get(change, 0), found
    with pytest.raises(AssertionError, match=r"differences:\n  b'"):
        assert_same_tree(*trees)


@pytest.mark.parametrize(
    "change", ["setuid", "one nanosecond", "size", "content", "holes", "target"]
)
def test_ignored_field_is_no_difference(trees: tuple[Path, Path], change: str) -> None:
    edit, line = CHANGES[change]
    _kept_time(edit)(trees[1])
    field = line.split(": ")[1].rstrip(":")
    assert differences(*trees, ignoring={field}) == []


def test_ignored_links_attributes_and_roots_are_no_difference(trees: tuple[Path, Path]) -> None:
    _kept_time(_relink)(trees[1])
    os.removexattr(trees[1] / "dir", "user.of-directory")
    os.chmod(trees[1], 0o711)
    assert differences(*trees, ignoring={"hard links", "xattrs", "root"}) == []


def test_unknown_field_is_refused(trees: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="'modes'"):
        differences(*trees, ignoring={"modes"})


def test_names_that_share_other_inodes_are_seen_also_when_all_counts_agree(tmp_path: Path) -> None:
    """Pairs a-b and c-d against a-c and b-d: every file has two names in both."""
    for side, pairs in (("left", ("ab", "cd")), ("right", ("ac", "bd"))):
        (tmp_path / side).mkdir()
        for first, second in pairs:
            (tmp_path / side / first).touch()
            os.link(tmp_path / side / first, tmp_path / side / second)
    found = differences(tmp_path / "left", tmp_path / "right", ignoring={"mtime"})
    assert found == [
        "b'b': hard links: b'a' | b'b'",
        "b'c': hard links: b'c' | b'a'",
        "b'd': hard links: b'c' | b'b'",
    ]


def test_names_outside_the_tree_do_not_count(trees: tuple[Path, Path], tmp_path: Path) -> None:
    os.link(trees[1] / "holes", tmp_path / "outside")
    assert differences(*trees) == []


def test_socket_in_the_left_tree_does_not_count(trees: tuple[Path, Path]) -> None:
    def add(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "socket"))

    _kept_time(add)(trees[0])
    assert differences(*trees) == []
    _kept_time(add)(trees[1])
    assert differences(*trees) == ["b'socket': names: nothing | socket"]
    assert differences(*trees, ignoring={"sockets"}) == []


@pytest.mark.needs_root
def test_owners_devices_and_attributes_of_other_types_are_seen(tmp_path: Path) -> None:
    for side, number in (("left", 3), ("right", 5)):
        root = tmp_path / side
        root.mkdir()
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, number))
        os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
        os.symlink("x", root / "symlink")
        os.chown(root / "symlink", 1000 + number, number, follow_symlinks=False)
        os.mkfifo(root / "fifo")
        for name in ("null", "symlink", "fifo"):
            os.setxattr(root / name, "trusted.t", b"%d" % number, follow_symlinks=False)
    assert differences(tmp_path / "left", tmp_path / "right", ignoring={"mtime"}) == [
        "b'fifo': xattrs 'trusted.t': b'3' | b'5'",
        "b'null': device: (1, 3) | (1, 5)",
        "b'null': xattrs 'trusted.t': b'3' | b'5'",
        "b'symlink': owner: 1003 | 1005",
        "b'symlink': group: 3 | 5",
        "b'symlink': xattrs 'trusted.t': b'3' | b'5'",
    ]


def test_paths_of_any_length_and_depth_are_compared(tmp_path: Path) -> None:
    """1,200 levels, 300,000 bytes: more than a path, or a process's descriptors, could hold."""
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        fd = os.open(tmp_path / side, os.O_RDONLY)
        for _ in range(1200):
            os.mkdir(b"d" * 250, dir_fd=fd)
            below = os.open(b"d" * 250, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.symlink(side, b"end", dir_fd=fd)
        os.close(fd)
    (line,) = differences(tmp_path / "left", tmp_path / "right", ignoring={"mtime"})
    assert line.startswith("b'ddd")
    assert line.endswith("/end': target: b'left' | b'right'")
    subprocess.run(["rm", "-rf", tmp_path / "left", tmp_path / "right"], check=True)


def test_terabytes_of_hole_are_not_read(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        with open(tmp_path / side / "image", "wb") as file:
            file.truncate(8 << 40)
            file.seek(5 << 40)
            file.write(side.encode())
    found = differences(tmp_path / "left", tmp_path / "right", ignoring={"mtime"})
    assert found == [f"b'image': content: differs from byte {5 << 40} on | differs"]


def test_holes_of_one_side_are_read_as_zeros(tmp_path: Path) -> None:
    """Copies without holes have the same content; which extents there are does not matter."""
    for side, extents in (("left", [0, 40_960]), ("right", [8192, 40_960])):
        (tmp_path / side).mkdir()
        with open(tmp_path / side / "f", "wb") as file:
            file.truncate(MIB)
            for offset in extents:
                file.seek(offset)
                file.write(bytes(4096) if offset < 40_960 else b"data")
    trees = tmp_path / "left", tmp_path / "right"
    assert differences(*trees, ignoring={"mtime", "holes"}) == []
    with open(tmp_path / "left" / "f", "rb") as file:
        assert data_extents(file.fileno(), MIB) == [(0, 4096), (40_960, 45_056)]
    with open(tmp_path / "right" / "f", "r+b") as file:
        file.seek(8195)
        file.write(b"x")
    assert differences(*trees, ignoring={"mtime", "holes"}) == [
        "b'f': content: differs from byte 8195 on | differs"
    ]


def test_holes_elsewhere_are_ignored_on_another_file_system_only(tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "right").mkdir()
    for side in ("left", "right"):
        (tmp_path / side / "f").write_bytes(bytes(8192))
    os.truncate(tmp_path / "left" / "f", 0)
    os.truncate(tmp_path / "left" / "f", 8192)
    (line,) = differences(
        tmp_path / "left", tmp_path / "right", ignoring={"mtime", "holes elsewhere"}
    )
    assert line == "b'f': holes: data at [] | data at [(0, 8192)]"


def test_symlinks_in_a_tree_are_not_followed(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        (tmp_path / f"{side}-elsewhere").mkdir()
        (tmp_path / f"{side}-elsewhere" / side).touch()
        os.symlink(f"../{side}-elsewhere"[:3], tmp_path / side / "link")
    assert differences(tmp_path / "left", tmp_path / "right", ignoring={"mtime"}) == []
