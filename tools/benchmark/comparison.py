"""Whether a tool did its work: is what came back what was there?"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tools.benchmark.ends import BenchmarkError

SHOWN = 5
_PIECE = 1 << 20


def require_same(source: Path, other: Path, who: str) -> None:
    """Both trees are equal: names, types, modes, owners, times of files, targets and every byte.

    Raises:
        BenchmarkError: They are not; the first differences.
    """
    found = differences(source, other)
    first = [path for _, path in zip(range(SHOWN), found, strict=False)]
    if first:
        raise BenchmarkError(f"{who} did not bring back the tree: {'; '.join(first)}")


def differences(source: Path, other: Path) -> Iterator[str]:
    """What differs, a line for each path, as it is found."""
    pending = [b""]
    while pending:
        below = pending.pop()
        ours, theirs = (_listed(tree, below) for tree in (source, other))
        for name in sorted(ours.keys() | theirs.keys()):
            path = os.path.join(below, name)
            one, two = ours.get(name), theirs.get(name)
            if one is None or two is None:
                yield f"{path!r} is only in {source if two is None else other}"
            elif stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
                yield f"{path!r} is of another type"
            elif fields := [name for name, mine, yours in _fields(one, two) if mine != yours]:
                yield f"{path!r} differs in {', '.join(fields)}"
            elif stat.S_ISDIR(one.st_mode):
                pending.append(path)
            elif not _same_content(_joined(source, path), _joined(other, path), one.st_mode):
                yield f"{path!r} has other content"


def _joined(tree: Path, path: bytes) -> bytes:
    return os.path.join(os.fsencode(tree), path)


def _listed(tree: Path, below: bytes) -> dict[bytes, os.stat_result]:
    with os.scandir(_joined(tree, below)) as found:
        return {entry.name: entry.stat(follow_symlinks=False) for entry in found}


def _fields(one: os.stat_result, two: os.stat_result) -> Iterator[tuple[str, int, int]]:
    yield "mode", stat.S_IMODE(one.st_mode), stat.S_IMODE(two.st_mode)
    yield "owner", one.st_uid, two.st_uid
    yield "group", one.st_gid, two.st_gid
    if stat.S_ISREG(one.st_mode):
        yield "size", one.st_size, two.st_size
        yield "mtime", one.st_mtime_ns, two.st_mtime_ns


def _same_content(one: bytes, two: bytes, mode: int) -> bool:
    if stat.S_ISLNK(mode):
        return os.readlink(one) == os.readlink(two)
    with open(one, "rb", buffering=0) as ours, open(two, "rb", buffering=0) as theirs:
        while True:
            mine, yours = ours.read(_PIECE), theirs.read(_PIECE)
            if mine != yours:
                return False
            if not mine:
                return True
