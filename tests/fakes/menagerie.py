"""A tree with one of everything that a source can hold, case by case, each in a directory of its name.

    build_menagerie(root)       make it; says which cases this file system or this process cannot make

What is in each case stands at its function. The checklist were the metadata tests of rsync (acls, acls-default,
chgrp, chmod, chown, devices, dir-sgid, duplicates, executability, hardlinks, longdir, sparse, symlinks, unicode
names, xattrs), of borg (hard links of symlinks, sparse files, sockets, capabilities, times before 1970), of
bup (sparse runs at buffer boundaries, ACLs, owners without names), of restic (sparse restores, setuid after
chown, long paths) and of GNU tar (many extents, holes at the end, long link targets, default ACLs, attributes
of symlinks). Not here, because nobody restores them: access, change and birth times, and chattr's flags.
"""

import contextlib
import errno
import grp
import os
import pwd
import random
import socket
import stat
import struct
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096
HUGE = 8 << 40
WIDE = 1500
# Files up to this size travel inside a batch.
SMALL = 128 * 1024

_CANNOT = {
    *(errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EFBIG, errno.ENOSPC, errno.EINVAL),
    *(errno.ERANGE, errno.E2BIG, errno.EOVERFLOW, errno.ENAMETOOLONG),
}

# Of a POSIX ACL's entries: tags, and the id of those that name nobody.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
# cap_net_raw+ep, as setcap writes it (revision 2).
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def build_menagerie(root: Path, *, without: Collection[str] = (), wide: int = WIDE) -> list[str]:
    """Make the tree in the new directory `root`. Beside it, `root`.outside holds a name of one of its files.

    Args:
        root: Where; its parent exists.
        without: Cases to leave out.
        wide: How many entries the large directory has.

    Returns:
        What could not be made here, as "CASE: what".
    """
    root.mkdir()
    left_out: list[str] = []
    for case, build in CASES.items():
        if case not in without:
            place = root / case
            place.mkdir()
            build(_Case(place, left_out, wide))
    _root(_Case(root, left_out))
    return left_out


def posix_acl(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel takes it: entries of tag, permissions and, of USER and GROUP, the id."""
    filled = [(*entry, NOBODY)[:3] for entry in entries]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in filled)


class _Case:
    """Where a case is built, and the ways to make things there."""

    def __init__(self, place: Path, left_out: list[str], wide: int = WIDE) -> None:
        self.place = place
        self.wide = wide
        self.random = random.Random(place.name)
        self.left_out = left_out

    def __truediv__(self, name: str) -> Path:
        return self.place / name

    def file(self, name: str, content: bytes = b"content") -> Path:
        path = self.place / name
        path.write_bytes(content)
        return path

    def directory(self, name: str) -> Path:
        path = self.place / name
        path.mkdir()
        return path

    def attempt(self, what: str, make: Callable[[], object]) -> None:
        """Make something that not every file system or process can make."""
        try:
            make()
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self.left_out.append(f"{self.place.name}: {what}")

    def xattr(self, path: Path, key: str | bytes, value: bytes) -> None:
        self.attempt(
            f"{key!r} of {path.name!r}",
            lambda: os.setxattr(path, key, value, follow_symlinks=False),
        )

    def every_type(self) -> list[Path]:
        """One entry of every type but sockets; devices where the process may."""
        made = [self.file("file"), self.directory("directory"), self / "symlink", self / "fifo"]
        os.symlink("file", made[2])
        os.mkfifo(made[3])
        for name, kind, number in (("null", stat.S_IFCHR, (1, 3)), ("loop", stat.S_IFBLK, (7, 0))):
            device = os.makedev(*number)
            self.attempt(name, lambda n=name, k=kind, d=device: os.mknod(self / n, k | 0o640, d))
        return made + [self / name for name in ("null", "loop") if os.path.lexists(self / name)]


def _types(case: _Case) -> None:
    """Every type; a socket; devices whose numbers are large; a directory without anything in it."""
    case.every_type()
    os.makedirs(case / "empty" / "in" / "empty")
    with socket.socket(socket.AF_UNIX) as listener:
        # The address of a socket has room for 107 bytes only.
        fd = os.open(case.place, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    for number in ((0, 0), (4095, 1_048_575), (259, 300)):
        for kind, name in ((stat.S_IFCHR, "c"), (stat.S_IFBLK, "b")):
            path = case / f"{name}-{number[0]}-{number[1]}"
            make = (path, kind | 0o600, os.makedev(*number))
            # Character 0:0 is what overlay file systems take for "deleted".
            case.attempt(path.name, lambda make=make: os.mknod(*make))


def _sizes(case: _Case) -> None:
    """Around the sizes at which something changes: blocks, links by digest, batches, segments."""
    for size in (0, 1, 4095, 4096, 4097, SMALL - 1, SMALL, SMALL + 1, MIB, 9 * MIB + 1):
        case.file(f"{size}", case.random.randbytes(size))
    # The same content again: files of their own, which must not become hard links.
    for name in ("twin-1", "twin-2"):
        case.file(name, random.Random(5).randbytes(200_000))
    for name in ("small-twin-1", "small-twin-2"):
        case.file(name, random.Random(6).randbytes(6000))
    os.chmod(case / "twin-2", 0o600)


def _symlinks(case: _Case) -> None:
    """Any bytes; relative, absolute, dangling, to directories, to itself, longer than a name can be."""
    case.directory("directory")
    targets = [b"directory", b"directory/", b".", b"..", b"/", b"/nowhere", b"../../up", b"loop-8"]
    targets += [b"\xff\xfe", b"new\nline", b" ", b"a//b/./c", b"\\", b"x" * 4095, b"e\xcc\x81"]
    for number, target in enumerate(targets):
        link = case / f"to-{number}"
        # xfs has room for 1024 bytes.
        case.attempt(
            link.name, lambda link=link, target=target: os.symlink(target, os.fsencode(link))
        )
    os.symlink("loop", case / "loop")
    os.utime(case / "loop", ns=(0, -1_234_567_891), follow_symlinks=False)


def _modes(case: _Case) -> None:
    """Every permission bit, alone and together, on files and directories, and on what is in them."""
    modes = [0, 0o7777, 0o777, 0o4755, 0o2755, 0o1777, 0o6711, 0o2644, 0o4000, 0o555, 0o222]
    for mode in {*modes, *(1 << bit for bit in range(12))}:
        os.chmod(case.file(f"file-{mode:04o}"), mode)
        place = case.directory(f"directory-{mode:04o}")
        (place / "inside").write_bytes(b"x")
        os.chmod(place, mode)
    for mode in (0, 0o666, 0o7777):
        os.mkfifo(case / f"fifo-{mode:04o}")
        os.chmod(case / f"fifo-{mode:04o}", mode)


def _owners(case: _Case) -> None:
    """With and without a name, the largest number; on every type; with setuid, which chown takes away."""
    named = {(u.pw_uid, u.pw_gid) for u in pwd.getpwall()[:4]}
    groups = {(0, g.gr_gid) for g in grp.getgrall()[:6]}
    for uid, gid in sorted(named | groups | {(54_321, 0), (0, 65_432), (2**31, 2**32 - 2)}):
        place = case.directory(f"{uid}-{gid}")
        below = _Case(place, case.left_out)
        for path in below.every_type():
            case.attempt(
                f"{uid}:{gid}",
                lambda p=path, u=uid, g=gid: os.chown(p, u, g, follow_symlinks=False),
            )
        os.chmod(place / "file", 0o6755)
        os.chmod(place / "directory", 0o3770)
        case.attempt(f"{uid}:{gid}", lambda p=place, u=uid, g=gid: os.chown(p, u, g))


def _times(case: _Case) -> None:
    """Before 1970, at its edges, after 2038, 2106 and 2262; on files, directories and symlinks."""
    seconds = (-86_400 * 20_000, -2, -1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**63 // 10**9 + 1)
    ends = [-(2**31) * 10**9, 15_032_385_535 * 10**9]  # of ext4
    fractions = (0, 1, 123_456_789, 999_999_999)
    for time in [*ends, *(second * 10**9 + ns for second in seconds for ns in fractions)]:
        made = [_touch(case / f"{time}f"), case.directory(f"{time}d"), case / f"{time}l"]
        os.symlink("x", made[2])
        for path in made:
            os.utime(path, ns=(time, time), follow_symlinks=False)
            if os.lstat(path).st_mtime_ns != time:  # clamped
                os.rmdir(path) if path.is_dir() else os.unlink(path)
                case.left_out.append(f"{case.place.name}: {time}")


def _names(case: _Case) -> None:
    """Every byte, every encoding, what shells, tables and this program might trip over."""
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"./"]
    names += [b"..a", b"...", b"-rf", b"--help", b" ", b"  lead", b"trail ", b"*", b"$(x)", b"a\\b"]
    names += [b"\n", b"a\nb", b"a\tb", b"\xff\xfe", b"\xc3", b"caf\xe9", b"CON", b"a:b", b"x" * 255]
    names += [
        b"\xff" * 255,
        "ü".encode(),
        b"u\xcc\x88",
        "\U0001f41f".encode() * 63,
        b"%s%n",
        b".new",
    ]
    names += [b"version.toml", b"catalog.db", b"tree", b".git", b"lost+found", b"Case", b"case"]
    # In the order of names `dir` is before `dir-`; in the order of paths `dir-` is before `dir/x`.
    names += [b"dir-", b"dir.", b"dir0"]
    for name in names:
        case.file(os.fsdecode(name), name)
    for name in (b"dir", b"\xff\xfe dir", b"-d", b"new\nline dir", b"z" * 255):
        place = case.directory(os.fsdecode(name))
        (place / "x").write_bytes(name)


def _deep(case: _Case) -> None:
    """Longer than PATH_MAX: 22 names of 255 bytes; and 400 levels. At the ends a file, links, attributes."""
    for name, levels in ((b"d" * 254, 22), (b"level-", 400)):
        fd = os.open(case.place, os.O_RDONLY)
        for level in range(levels):
            below = name + b"%d" % (level % 10)
            os.mkdir(below, dir_fd=fd)
            inside = os.open(below, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inside
        here = Path(f"/proc/self/fd/{fd}")
        end = _Case(here, case.left_out)
        end.file("file", b"deep down")
        end.file("large", end.random.randbytes(SMALL + 1000))
        os.symlink("../" * 30 + "up", here / "symlink")
        os.link("file", "linked", src_dir_fd=fd, dst_dir_fd=fd)
        os.mkfifo("fifo", dir_fd=fd)
        case.xattr(here / "file", "user.deep", b"down")
        os.utime("file", ns=(0, 987_654_321), dir_fd=fd)
        os.close(fd)


def _wide(case: _Case) -> None:
    """Many entries, made in no order; build_menagerie() is told how many."""
    for number in range(case.wide):
        _touch(case / f"{number * 7919 % 1_000_003:07d}")


def _hard_links(case: _Case) -> None:
    """In one directory, across directories, up and down; of every type; with names outside; many names."""
    first, second, third = [case.directory(name) for name in ("a", "m", "z")]
    for size in (0, 10, 5000, SMALL + 1, 2 * MIB):
        name = f"{size}"
        (second / name).write_bytes(case.random.randbytes(size))
        for place in (first, third):
            os.link(second / name, place / name)
        os.link(second / name, second / f"{name}-again")
    # Two groups of the same content, and that content on its own: three inodes.
    for name in ("pair-1", "pair-2", "single"):
        (first / name).write_bytes(b"same" * 5000)
    for name in ("pair-1", "pair-2"):
        os.link(first / name, third / name)
    special = _Case(case.directory("types"), case.left_out)
    for path in special.every_type():
        if not path.is_dir() or path.is_symlink():
            os.link(path, second / path.name, follow_symlinks=False)
    os.link(special / "symlink", special / "symlink-again", follow_symlinks=False)
    os.chmod(special / "fifo", 0o604)
    many = case.file("many", b"one of 300")
    for number in range(300):
        os.link(many, (first, second, third)[number % 3] / f"many-{number}")
    # Metadata that is set once for all names.
    dressed = case.file("dressed", b"#!/bin/sh\n")
    os.link(dressed, third / "dressed")
    case.attempt("owner", lambda: os.chown(dressed, 1, 2))
    os.chmod(dressed, 0o4711)
    case.xattr(dressed, "user.once", b"for all")
    os.utime(dressed, ns=(0, -5))
    with open(case / "sparse", "wb") as file:
        file.truncate(MIB)
    os.link(case / "sparse", first / "sparse")
    outside = case.file("also outside", b"its other name is not in the tree")
    os.link(outside, f"{case.place.parent}.outside")
    inside = case.file("inside and outside", b"two names here, one elsewhere")
    os.link(inside, third / "inside and outside")
    os.link(inside, f"{case.place.parent}.outside-2")


def _sparse(path: Path, size: int, extents: Iterable[tuple[int, bytes]]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in extents:
            file.seek(offset)
            file.write(data)


def _holes(case: _Case) -> None:
    """At the start, in the middle, at the end, everywhere; small and many; and zeros that are no hole."""
    data = case.random.randbytes(3 * BLOCK)
    long = case.random.randbytes(SMALL * 2)
    _sparse(case / "at the start", 2 * MIB, [(2 * MIB - BLOCK, data[:BLOCK])])
    _sparse(case / "in the middle", 2 * MIB + 100, [(0, data), (2 * MIB - BLOCK, data[:BLOCK])])
    _sparse(case / "at the end", 3 * MIB + 1, [(0, data)])
    _sparse(case / "start and end", 2 * MIB, [(MIB, data)])
    _sparse(case / "no byte of data", MIB, [])
    _sparse(case / "no block", 1, [])
    _sparse(case / "no block but one", BLOCK + 1, [])
    _sparse(case / "small", 64 * 1024, [(32 * 1024, data[:BLOCK])])
    _sparse(case / "small, all hole", SMALL, [])
    _sparse(case / "small, unaligned", 50_001, [(30_001, b"odd")])
    _sparse(case / "many", 16 * MIB, [(n * 32_768, data[n : n + BLOCK]) for n in range(512)])
    _sparse(case / "long data", 4 * MIB, [(BLOCK * 7, long), (3 * MIB + 17, long)])
    _sparse(case / "twin", 3 * MIB + 1, [(0, data)])
    case.file("zeros that are written", bytes(MIB))
    case.file("small zeros that are written", bytes(3 * BLOCK))
    _sparse(case / "zeros among data and holes", MIB, [(0, data + bytes(8 * BLOCK) + data)])
    # Zero runs at the edges of what a buffer may be.
    _sparse(case / "zeros at edges", MIB, [(65_535, bytes(2)), (MIB // 2, b"x" * 65_536 + b"\0")])


def _huge_hole(case: _Case) -> None:
    """8 TB, of which a few bytes at the start, in the middle and at the end are data; and 6 GB likewise."""
    _sparse(case / "far", 6 << 30, [(5 << 30, b"alone")])

    def make() -> None:
        _sparse(case / "image", HUGE, [(0, b"s"), (5 << 40, b"middle"), (HUGE - 3, b"end")])

    case.attempt("image", make)
    if (case / "image").exists() and (case / "image").stat().st_size != HUGE:
        os.unlink(case / "image")


def _attributes(case: _Case) -> None:
    """user on files and directories; trusted and security on every type; empty, binary, long, many, shared."""
    for path in case.every_type():
        plain = path.is_file() and not path.is_symlink()
        if plain or (path.is_dir() and not path.is_symlink()):
            case.xattr(path, "user.text", b"value")
            case.xattr(path, "user.empty", b"")
            case.xattr(path, "user.binary", bytes(range(256)))
            case.xattr(path, b"user.\xff\n name", b"\0")
            case.xattr(path, "user." + "n" * 250, b"long name")
        case.xattr(path, "trusted.ssfs", b"of " + os.fsencode(path.name))
        case.xattr(path, "security.ssfs", b"\0\xff")
    for number in range(40):
        case.xattr(case / "file", f"user.many-{number:02d}", b"%d" % number)
    # ext4 has room for one block, xfs for 64 KiB.
    case.xattr(case.file("large"), "user.large", case.random.randbytes(3000))
    with contextlib.suppress(OSError):
        os.setxattr(case.file("very large"), "user.large", case.random.randbytes(65_536))
    for number in range(20):  # equal sets
        case.xattr(case.file(f"equal-{number}"), "user.mime_type", b"text/plain")
    for mode in (0o000, 0o444, 0o4755, 0o1777):
        path = case.file(f"mode-{mode:04o}")
        case.xattr(path, "user.mode", b"%o" % mode)
        os.chmod(path, mode)
    program = case.file("with capabilities", b"#!/bin/sh\n")
    os.chmod(program, 0o755)
    case.attempt("owner", lambda: os.chown(program, 1, 1))
    case.xattr(program, "security.capability", CAPABILITY)  # chown would take it away
    on_link = case / "another symlink"
    os.symlink("file", on_link)
    case.xattr(on_link, "trusted.on-symlink", b"not on the file")


def _acls(case: _Case) -> None:
    """Access and default ACLs; masks; on every type that has them; children that do not inherit."""
    full = posix_acl(
        *((USER_OBJ, 6), (USER, 7, 1), (USER, 4, 54_321), (GROUP_OBJ, 4), (GROUP, 0, 2)),
        *((GROUP, 5, 65_432), (MASK, 6), (OTHER, 0)),
    )
    default = posix_acl(
        (USER_OBJ, 7), (USER, 5, 1000), (GROUP_OBJ, 5), (GROUP, 7, 2), (MASK, 7), (OTHER, 0)
    )
    minimal = posix_acl((USER_OBJ, 7), (GROUP_OBJ, 0), (OTHER, 0))
    for path in case.every_type():
        if not path.is_symlink():
            case.xattr(path, ACCESS, full)
    # The mode of the group is the mask: no permission of it is the group's own.
    case.xattr(
        case.file("masked"),
        ACCESS,
        posix_acl((USER_OBJ, 6), (USER, 7, 1), (GROUP_OBJ, 7), (MASK, 0), (OTHER, 4)),
    )
    setuid = case.file("setuid")
    case.attempt("owner", lambda: os.chown(setuid, 1, 2))
    os.chmod(setuid, 0o6755)
    case.xattr(setuid, ACCESS, full)
    for name, acls in (
        ("default", [(DEFAULT, default)]),
        ("both", [(ACCESS, full), (DEFAULT, default)]),
        ("minimal", [(DEFAULT, minimal)]),
    ):
        place = case.directory(name)
        before = [(place / "plain file"), (place / "plain directory")]
        before[0].write_bytes(b"made before the ACL")
        before[1].mkdir()
        (before[1] / "file").write_bytes(b"")
        for key, acl in acls:
            case.xattr(place, key, acl)
        (place / "heir").write_bytes(b"made after it")
        (place / "heir directory").mkdir()
        os.mkfifo(place / "fifo")
        os.symlink("heir", place / "symlink")
    os.chmod(case / "both", 0o2770)


def _root(case: _Case) -> None:
    """Metadata of the root itself."""
    case.xattr(case.place, "user.root", b"of the tree")
    case.xattr(case.place, "trusted.root", b"too")
    case.xattr(
        case.place,
        ACCESS,
        posix_acl((USER_OBJ, 7), (USER, 5, 1), (GROUP_OBJ, 5), (MASK, 5), (OTHER, 1)),
    )
    case.attempt("owner", lambda: os.chown(case.place, 3, 4))
    os.utime(case.place, ns=(0, -86_400_000_000_001))


def _touch(path: Path) -> Path:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    return path


CASES: dict[str, Callable[[_Case], None]] = {
    "types": _types,
    "sizes": _sizes,
    "symlinks": _symlinks,
    "modes": _modes,
    "owners": _owners,
    "times": _times,
    "names": _names,
    "deep": _deep,
    "a wide directory": _wide,
    "hard links": _hard_links,
    "holes": _holes,
    "a huge hole": _huge_hole,
    "attributes": _attributes,
    "ACLs": _acls,
}
