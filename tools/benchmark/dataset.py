"""The tree that is backed up: real files of this machine, two images made of real files, and a database.

    small/   files of at most 64 KiB and symlinks, in the directories they have under /usr (and /opt, /var/lib);
             where the machine has too few, the same ones once more, each with a line of its own at its end
    big/     image-a, image-b and notes.sqlite

The choice is the same whenever the machine is the same.
"""

import contextlib
import os
import random
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.benchmark.ends import BenchmarkError
from tools.benchmark.results import Dataset

SMALL_BYTES = 64 << 10
SMALL = "small"
BIG = "big"
IMAGES = ("image-a", "image-b")
DATABASE = "notes.sqlite"

_ORIGINS = ("/usr", "/opt", "/var/lib")
_PIECE = 1 << 20
_DATABASE_PART = 0.1
_ROW_BYTES = 1000
_MB = 1_000_000


def build(source: Path, files: int, big_mb: int) -> Dataset:
    """Make the tree.

    Args:
        source: A directory that does not exist yet.
        files: How many small files.
        big_mb: Size of images and database together, in million bytes.

    Raises:
        BenchmarkError: This machine has no files to take.
    """
    source.mkdir()
    count, size = _build_small(source / SMALL, files)
    big = source / BIG
    big.mkdir()
    database_bytes = int(big_mb * _MB * _DATABASE_PART)
    image_bytes = (big_mb * _MB - database_bytes) // len(IMAGES)
    content = _large_content(source / SMALL)
    for name in IMAGES:
        _build_image(big / name, image_bytes, content)
    _build_database(big / DATABASE, database_bytes, source / SMALL)
    big_bytes = sum(each.stat().st_size for each in big.iterdir())
    return Dataset(entries(source), count, size, big_bytes)


def entries(tree: Path) -> int:
    """How many files, directories and symlinks are below a directory."""
    return sum(len(directories) + len(files) for _, directories, files in os.walk(tree))


def _candidates() -> Iterator[Path]:
    """Small files and symlinks of the machine, in a fixed order."""
    for origin in _ORIGINS:
        for directory, below, names in os.walk(origin):
            below.sort()
            for name in sorted(names):
                yield Path(directory, name)


def _build_small(target: Path, files: int) -> tuple[int, int]:
    target.mkdir()
    count = size = again = 0
    while count < files:
        before = count
        for path in _candidates():
            taken = _take(path, target / f"set-{again}" / str(path).lstrip("/"), again)
            if taken is not None:
                count += 1
                size += taken
                if count == files:
                    break
        if count == before:
            raise BenchmarkError(f"No files to take in {', '.join(_ORIGINS)}")
        again += 1
    return count, size


def _take(path: Path, target: Path, again: int) -> int | None:
    """Copy one; its size. None if it is not taken: too large, something else, or not readable."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = None
        elif stat.S_ISREG(status.st_mode) and 0 < status.st_size <= SMALL_BYTES:
            content = path.read_bytes()
        else:
            return None
    except OSError:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        target.symlink_to(os.readlink(path))
        return 0
    if again:
        content += b"\n# set %d\n" % again
    target.write_bytes(content)
    os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return len(content)


def _large_content(small: Path) -> Iterator[bytes]:
    """Pieces of what is in the large files of the machine, then of random bytes without end."""
    for path in _candidates():
        try:
            is_large = path.is_file() and not path.is_symlink() and path.stat().st_size > _PIECE
            if not is_large or small in path.parents:
                continue
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except OSError:
            continue
    while True:
        yield os.urandom(_PIECE)


def _build_image(path: Path, size: int, content: Iterator[bytes]) -> None:
    with open(path, "wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(next(content)[:left])


def _build_database(path: Path, size: int, small: Path) -> None:
    """A table of notes with an index, filled from small files."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, author TEXT, text BLOB)")
        connection.execute("CREATE INDEX note_author ON note (author)")
        connection.executemany("INSERT INTO note (author, text) VALUES (?, ?)", _rows(size, small))
    connection.close()


def _rows(size: int, small: Path) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(size)
    left = size
    while left > 0:
        for directory, below, names in os.walk(small):
            below.sort()
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_symlink():
                    continue
                content = path.read_bytes()
                for start in range(0, len(content), _ROW_BYTES):
                    row = content[start : start + _ROW_BYTES]
                    yield f"author {chance.randrange(1000)}", row
                    left -= len(row) + 40
                    if left <= 0:
                        return


def build_counted(target: Path, entries_wanted: int) -> None:
    """A tree of tiny files, a thousand entries in a directory: for growth, not for bytes."""
    target.mkdir()
    left = entries_wanted
    number = 0
    while left > 0:
        directory = target / f"{number // 100:03}" / f"{number:05}"
        left -= 1 if directory.parent.exists() else 2
        directory.mkdir(parents=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for name in range(min(999, left)):
            file = os.open(str(name), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
            os.write(file, b"%d of %d\n" % (name, number))
            os.close(file)
        os.close(descriptor)
        left -= 999
        number += 1


@contextlib.contextmanager
def workplace(where: Path | None) -> Iterator[Path]:
    """A new directory below `where` (/var/tmp, which is on a disk), for as long as the block lasts.

    Raises:
        BenchmarkError: It cannot be made there.
    """
    try:
        place = Path(tempfile.mkdtemp(prefix="ssfs-bench-", dir=where or "/var/tmp")).resolve()
    except OSError as error:
        raise BenchmarkError(f"Cannot work there: {error}") from error
    try:
        yield place
    finally:
        remove(place)


def remove(tree: Path) -> None:
    """Remove a tree, if it is there; by a program, which is faster with hundreds of thousands of files."""
    subprocess.run(["rm", "-rf", "--", tree], check=True)
