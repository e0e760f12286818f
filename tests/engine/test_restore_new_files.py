"""What a small file gets when it is made: with what mode, and what its directory and process would have it get."""

import os
from pathlib import Path

import pytest

from ssfs.engine.restore import target as target_module
from tests.fakes.menagerie import DEFAULT, posix_acl
from tests.fakes.restores import backed_up

MODES = (0o600, 0o640, 0o644, 0o664, 0o666, 0o755, 0o4755, 0o2755, 0o1644, 0o000, 0o604)
NOBODY = 65534


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "new").mkdir(parents=True)
    for mode in MODES:
        (root / "new" / f"{mode:o}").write_text(f"{mode:o}")
        (root / "new" / f"{mode:o}").chmod(mode)
    return root


def modes(directory: Path) -> list[int]:
    return [(directory / "new" / f"{mode:o}").stat().st_mode & 0o7777 for mode in MODES]


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_modes_are_the_recorded_ones_whatever_the_umask(restore, tmp_path, source, umask):
    version = backed_up(tmp_path, source)
    before = os.umask(umask)
    try:
        assert restore(version, tmp_path / "out").problems == []
    finally:
        os.umask(before)
    assert modes(tmp_path / "out") == list(MODES)


@pytest.mark.parametrize("is_there", [False, True])
def test_default_acl_leaves_no_trace(restore, tmp_path, source, is_there):
    version = backed_up(tmp_path, source)
    out = tmp_path / "out"
    out.mkdir()
    acl = posix_acl((1, 7), (2, 7, NOBODY), (4, 5), (16, 7), (32, 5))
    os.setxattr(out, DEFAULT, acl)
    if is_there:
        (out / "new").mkdir()
    assert restore(version, out).problems == []
    assert modes(out) == list(MODES)
    for path in (out / "new").iterdir():
        assert os.listxattr(path) == []


@pytest.mark.needs_root
def test_group_of_the_directory_gets_nothing_meanwhile(
    restore, tmp_path, source, monkeypatch: pytest.MonkeyPatch
):
    version = backed_up(tmp_path, source)
    out = tmp_path / "out"
    (out / "new").mkdir(parents=True)
    os.chown(out / "new", 0, NOBODY)
    (out / "new").chmod(0o2755)
    seen: dict[str, int] = {}
    write_all = target_module.write_all

    def looking(fd: int, content: bytes) -> None:
        seen[bytes(content).decode()] = os.fstat(fd).st_mode & 0o7777
        write_all(fd, content)

    monkeypatch.setattr(target_module, "write_all", looking)
    assert restore(version, out).problems == []
    assert {(out / "new" / f"{mode:o}").stat().st_gid for mode in MODES} == {0}
    assert modes(out) == list(MODES)
    # Nobody is given what its end does not give to all others.
    for mode in MODES:
        made = seen[f"{mode:o}"]
        assert made == 0o600 or (made == mode and not (mode >> 3) & ~mode & 0o7)
        assert not made & 0o7022
