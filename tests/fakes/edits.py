"""Edits of a tree, one at a time, chosen by numbers: what people, editors and programs do between two syncs.

    edits = Edits(root)
    edits.do("rename", 3, 7)        one of EDITS, on the things that the numbers choose

Numbers choose from what is there, in the order of paths, and names from a few, so that places are taken again and
again: by another file, by a directory, by a hard link of what is elsewhere. An edit for which there is nothing of
the kind does nothing. The same edits make the same tree.
"""

import os
import random
import shutil
import stat
from pathlib import Path
from typing import TypeVar

from tests.fakes.menagerie import ACCESS, DEFAULT, posix_acl

T = TypeVar("T")

_NAMES = (b"a", b"b", b"c", b"d", b"e.1", b"e", b"\xff\n", b"a-")
_SIZES = (0, 1, 100, 4096, 6000, 40_000, 131_072, 150_000, 700_000)
_MODES = (0o644, 0o600, 0o755, 0o4755, 0o000, 0o2770, 0o1777)
_OWNERS = ((0, 0), (1, 1), (54_321, 2))
_TIMES = (-1, 0, 1_500_000_000_123_456_789, -(10**18), 2**63 + 5)
_ACL = posix_acl((1, 7), (2, 5, 54_321), (4, 5), (16, 5), (32, 0))


class Edits:
    """A tree that is edited."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._made = 0

    def do(self, edit: str, first: int, second: int) -> None:
        getattr(self, f"_{edit}")(first, second)

    # -- choosing --------------------------------------------------------------------------------

    def _entries(self, *types: int) -> list[bytes]:
        """Everything below the root of these types (all, if none is named), in the order of paths."""
        found = []
        for place, below, names in os.walk(self._root):
            for name in below + names:
                path = os.path.join(place, name)
                if not types or stat.S_IFMT(os.lstat(path).st_mode) in types:
                    found.append(path)
        return sorted(found)

    def _files(self) -> list[bytes]:
        return self._entries(stat.S_IFREG)

    def _vacant(self, first: int, second: int, sparing: bytes | None = None) -> bytes | None:
        """A place for something, made free; None if that would take away what is to be spared."""
        directories = [self._root, *self._entries(stat.S_IFDIR)]
        path = os.path.join(_pick(directories, first), _pick(_NAMES, second))
        if sparing is not None and (
            (sparing + b"/").startswith(path + b"/") or path.startswith(sparing + b"/")
        ):
            return None
        _remove(path)
        return path

    def _content(self, number: int) -> bytes:
        """New bytes, of a size that the number chooses."""
        self._made += 1
        return random.Random(self._made).randbytes(_pick(_SIZES, number))

    # -- making ----------------------------------------------------------------------------------

    def _write(self, first: int, second: int) -> None:
        _write(self._vacant(first, second) or b"", self._content(first * 5 + second))

    def _make_directory(self, first: int, second: int) -> None:
        path = self._vacant(first, second) or b""
        os.mkdir(path)
        if second % 2:
            _write(os.path.join(path, b"inside"), b"content of a file inside" * 200)

    def _make_symlink(self, first: int, second: int) -> None:
        os.symlink(_pick((b"a", b"../b", b"/none", b"\xfe"), second), self._vacant(first, second))

    def _make_special(self, first: int, second: int) -> None:
        path = self._vacant(first, second) or b""
        if second % 2:
            os.mkfifo(path, 0o640)
        else:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3 + first % 3))

    def _copy(self, first: int, second: int) -> None:
        """A file of the same content."""
        for path in _chosen(self._files(), first):
            with open(path, "rb") as file:
                content = file.read()
            _write(self._vacant(second, first) or b"", content)

    # -- content ---------------------------------------------------------------------------------

    def _append(self, first: int, second: int) -> None:
        for path in _chosen(self._files(), first):
            with open(path, "ab") as file:
                file.write(self._content(second % 5))

    def _overwrite(self, first: int, second: int) -> None:
        """Some bytes in place; the size stays."""
        for path in _chosen(self._files(), first):
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                file.seek(size * (second % 10) // 10)
                file.write(self._content(2)[: size - file.tell()])

    def _overwrite_unnoticed(self, first: int, second: int) -> None:
        """In place, and the time put back: only ctime tells."""
        for path in _chosen(self._files(), first):
            mtime = os.stat(path).st_mtime_ns
            self._overwrite(first, second)
            os.utime(path, ns=(mtime, mtime))

    def _truncate(self, first: int, second: int) -> None:
        """Shorter, or longer by a hole."""
        for path in _chosen(self._files(), first):
            os.truncate(path, _pick(_SIZES, second))

    def _write_behind_a_hole(self, first: int, second: int) -> None:
        for path in _chosen(self._files(), first):
            with open(path, "r+b") as file:
                file.seek(_pick((8192, 262_144, 1 << 20), second))
                file.write(self._content(2))

    def _replace(self, first: int, second: int) -> None:
        """As editors save: a new file renamed over the old name, which other names do not see."""
        for path in _chosen(self._files(), first):
            beside = os.path.join(self._root, b".new")
            _write(beside, self._content(second))
            os.rename(beside, path)

    # -- names -----------------------------------------------------------------------------------

    def _rename(self, first: int, second: int) -> None:
        for path in _chosen(self._entries(), first):
            target = self._vacant(second, first, sparing=path)
            if target is not None:
                os.rename(path, target)

    def _swap(self, first: int, second: int) -> None:
        """Two entries of any types change places."""
        for one, other in zip(
            _chosen(self._entries(), first), _chosen(self._entries(), second), strict=True
        ):
            if not ((one + b"/").startswith(other + b"/") or (other + b"/").startswith(one + b"/")):
                aside = os.path.join(self._root, b".aside")
                os.rename(one, aside)
                os.rename(other, one)
                os.rename(aside, other)

    def _remove(self, first: int, second: int) -> None:
        for path in _chosen(self._entries(), first):
            _remove(path)

    def _link(self, first: int, second: int) -> None:
        others = [stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR]
        for path in _chosen(self._entries(*others), first):
            target = self._vacant(second, first, sparing=path)
            if target is not None:
                os.link(path, target, follow_symlinks=False)

    def _retarget(self, first: int, second: int) -> None:
        for path in _chosen(self._entries(stat.S_IFLNK), first):
            os.unlink(path)
            os.symlink(b"target-%d" % (second % 3), path)

    def _turn_around(self, first: int, second: int) -> None:
        """A file becomes a directory, a directory a file."""
        for path in _chosen(self._entries(stat.S_IFREG, stat.S_IFDIR), first):
            was_directory = os.path.isdir(path)
            _remove(path)
            if was_directory:
                _write(path, self._content(second))
            else:
                os.mkdir(path)

    # -- metadata --------------------------------------------------------------------------------

    def _chmod(self, first: int, second: int) -> None:
        for path in _chosen(
            [self._root, *self._entries(stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)], first
        ):
            os.chmod(path, _pick(_MODES, second))

    def _chown(self, first: int, second: int) -> None:
        for path in _chosen([self._root, *self._entries()], first):
            os.chown(path, *_pick(_OWNERS, second), follow_symlinks=False)

    def _touch(self, first: int, second: int) -> None:
        for path in _chosen([self._root, *self._entries()], first):
            time = _pick(_TIMES, second)
            os.utime(path, ns=(time, time), follow_symlinks=False)

    def _set_attribute(self, first: int, second: int) -> None:
        for path in _chosen([self._root, *self._entries()], first):
            space = "user" if _has_user_attributes(path) and second % 3 else "trusted"
            key, value = f"{space}.{second % 2}", _pick((b"", b"x", b"\0\xff" * 500), second)
            os.setxattr(path, key, value, follow_symlinks=False)

    def _set_acl(self, first: int, second: int) -> None:
        for path in _chosen([self._root, *self._entries(stat.S_IFREG, stat.S_IFDIR)], first):
            key = DEFAULT if os.path.isdir(path) and second % 2 else ACCESS
            os.setxattr(path, key, _ACL)

    def _remove_attribute(self, first: int, second: int) -> None:
        for path in _chosen([self._root, *self._entries()], first):
            for key in _chosen(sorted(os.listxattr(path, follow_symlinks=False)), second):
                os.removexattr(path, key, follow_symlinks=False)


EDITS = (
    *("write", "write", "make_directory", "make_directory", "make_symlink", "make_special", "copy"),
    *("append", "overwrite", "overwrite_unnoticed", "truncate", "write_behind_a_hole", "replace"),
    *("rename", "rename", "swap", "remove", "link", "link", "retarget", "turn_around"),
    *("chmod", "chown", "touch", "set_attribute", "set_acl", "remove_attribute"),
)
"""What `Edits.do` can do. What adds is there more than once, or a tree would shrink edit by edit."""


def _pick(choices: "list[T] | tuple[T, ...]", number: int) -> T:
    return choices[number % len(choices)]


def _chosen(choices: list[T], number: int) -> list[T]:
    """The one that is chosen, or none if there is none to choose from."""
    return [_pick(choices, number)] if choices else []


def _has_user_attributes(path: bytes) -> bool:
    return stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR)


def _write(path: bytes, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _remove(path: bytes) -> None:
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
