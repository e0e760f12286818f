"""Each user is let in and refused by a mount exactly as by the source."""

import itertools
import json
import os
import struct
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.syncs import Backup
from tests.mount.mounts import may_pass, mounted

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]

# Numbers of nobody on this machine, so that they stay what they are.
STAFF, SALES, GUESTS = 54401, 54402, 54403
UNDEFINED = 2**32 - 1


class User(NamedTuple):
    number: int
    group: int
    others: tuple[int, ...] = ()


ANN = User(54321, STAFF)
BOB = User(54322, SALES, (STAFF,))
CAT = User(54323, GUESTS)
USERS = (ANN, BOB, CAT)


def acl(*entries: tuple[int, int, int]) -> bytes:
    packed = (struct.pack("<HHI", *entry) for entry in entries)
    return struct.pack("<I", 2) + b"".join(packed)


def named(user: int, group: int, mask: int) -> bytes:
    """Cat by name and the sales by theirs, as far as the mask lets them; nothing for others."""
    return acl(
        (1, 7, UNDEFINED),
        (2, user, CAT.number),
        (4, 0, UNDEFINED),
        (8, group, SALES),
        (16, mask, UNDEFINED),
        (32, 0, UNDEFINED),
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Everything that can be said by three digits, of files and of directories with a file; and ACLs."""
    root = tmp_path / "source"
    root.mkdir()
    root.chmod(0o755)
    for mode in (
        0o700,
        0o070,
        0o007,
        0o750,
        0o711,
        0o744,
        0o050,
        0o604,
        0o077,
        0o000,
        0o2770,
        0o1777,
    ):
        _file(root / f"file {mode:04o}", mode)
        _directory(root / f"directory {mode:04o}", mode)
    for user, group, mask in ((4, 0, 7), (0, 5, 7), (7, 7, 4), (7, 7, 0), (1, 4, 7), (5, 1, 5)):
        name = f"acl {user}{group}{mask}"
        _file(root / f"file {name}", 0o700)
        _directory(root / f"directory {name}", 0o700)
        for kind in ("file", "directory"):
            value = named(user, group, mask)
            os.setxattr(root / f"{kind} {name}", "system.posix_acl_access", value)
    return root


def _file(path: Path, mode: int) -> None:
    path.write_text("content")
    os.chown(path, ANN.number, STAFF)
    path.chmod(mode)


def _directory(path: Path, mode: int) -> None:
    path.mkdir()
    _file(path / "inside", 0o644)
    os.chown(path, ANN.number, STAFF)
    path.chmod(mode)


def allowed(user: User, root: Path, paths: list[str]) -> dict[str, list[str]]:
    """What a process of a user can do with each path: open it, list it, ask for its attributes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(user.others)
            os.setgid(user.group)
            os.setuid(user.number)
            found = {path: _tries(root / path) for path in paths}
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def _tries(path: Path) -> list[str]:
    done = []
    for name, attempt in (
        ("stat", lambda: os.stat(path)),
        ("open", lambda: os.close(os.open(path, os.O_RDONLY))),
        ("list", lambda: os.listdir(path)),
        ("read", path.read_bytes),
        ("may execute", lambda: _ask(path, os.X_OK)),
    ):
        try:
            attempt()
            done.append(name)
        except OSError:
            continue
    return done


def _ask(path: Path, right: int) -> None:
    if not os.access(path, right):
        raise PermissionError


def test_three_users_may_do_what_they_may_do_in_the_source(source, tmp_path, cache_dir):
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    mountpoint = tmp_path / "mnt"
    paths = sorted(os.fspath(path.relative_to(source)) for path in source.rglob("*"))
    with mounted(backup.task(), mountpoint, "allow_other"):
        may_pass(*mountpoint.parents)
        version = (mountpoint / "latest").resolve()
        answers = []
        for user in USERS:
            there, here = allowed(user, source, paths), allowed(user, version, paths)
            assert here == there
            answers.append(there)
    for one, other in itertools.combinations(answers, 2):
        told_apart = [path for path in paths if one[path] != other[path]]
        assert len(told_apart) >= 5, "the tree must tell them apart"
