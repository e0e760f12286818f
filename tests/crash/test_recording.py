"""The order in which things become durable (FORMAT.md, "Durability"), from a recording of real syncs.

strace writes down what both processes ask of the disk and say to each other; a record here is (call, what
it is about). Orders that a power cut would need luck to expose fail here every time.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.support import Rig, checkpointing
from tests.fakes.trees import build_tree, edit_tree

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

_SYNCS = ("fsync", "fdatasync")
_CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2,sendmsg,pwrite64,ftruncate,openat"
# fsync(7</disk/store/points/main>) = 0
_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)")
_FD = re.compile(r"<([^>]*)>")
_RENAME = re.compile(r'<([^>]*)>, "([^"]*)", [^<]*<([^>]*)>, "([^"]*)"')


class Call(NamedTuple):
    """One system call that succeeded.

    Attributes:
        name: Which; all kinds of rename are "rename".
        path: The file of its descriptor; the old path of a rename.
        target: The new path of a rename.
    """

    name: str
    path: str
    target: str = ""


def _record(rig: Rig, before: str) -> list[Call]:
    """The calls of the receiver of one sync, paths below the task's directory ("" itself)."""
    log = rig.directory / "log"
    # A file for each process: in a common one their calls cut each other up.
    wrapper = ["strace", "-ff", "-y", "-s", "300", "-o", str(log), "-e", f"trace={_CALLS}"]
    ended = rig.run(*rig.sync_arguments, before=before, wrapper=wrapper)
    assert ended.returncode == 0, ended
    logs = [path.read_text() for path in rig.directory.glob("log.*")]
    (receivers,) = [text for text in logs if "syncfs(" in text]
    calls = [call for line in receivers.splitlines() if (call := _parse(line)) is not None]
    task = str(rig.task_path)
    return [Call(name, _below(path, task), _below(target, task)) for name, path, target in calls]


def _parse(line: str) -> Call | None:
    match = _LINE.match(line)
    if match is None or int(match[3]) < 0:
        return None
    name, arguments, outcome = match[1], match[2], match[4]
    if name.startswith("rename"):
        renamed = _RENAME.search(arguments)
        assert renamed, line
        old_place, old, new_place, new = renamed.groups()
        return Call("rename", str(Path(old_place, old)), str(Path(new_place, new)))
    # What was opened, not the directory it is in; else the file of the descriptor.
    place = _FD.search(outcome if name == "openat" else arguments)
    assert place, line
    return Call(name, place[1])


def _below(path: str, task: str) -> str:
    return path.removeprefix(task).removeprefix("/") if path.startswith(task) else path


def _find(calls: list[Call], start: int, *names: str, path: str) -> int:
    """Where the next such call is."""
    for index in range(start, len(calls)):
        if calls[index].name in names and calls[index].path == path:
            return index
    shown = "\n".join(map(str, calls[start:]))
    raise AssertionError(f"no {names} of {path!r} among:\n{shown}")


@pytest.fixture
def rig(tmp_path) -> Rig:
    """A store with one version, and a source that was edited since."""
    rig = Rig(tmp_path)
    build_tree(rig.source, 7)
    rig.init()
    rig.sync()
    edit_tree(rig.source, 7)
    (rig.source / "new").mkdir()
    (rig.source / "new" / "file").write_bytes(b"new" * 100_000)
    (rig.source / "new" / "small").write_bytes(b"new")
    return rig


def test_commit_makes_things_durable_in_the_order_of_the_format(rig):
    calls = _record(rig, checkpointing())
    version = str(rig.versions()[-1].id)
    renamed = calls.index(Call("rename", "staging", f"versions/{version}"))
    data = max(i for i in range(renamed) if calls[i].name == "syncfs")

    written = _find(calls, data, "pwrite64", path="staging/catalog.db")
    rows = _find(calls, written, *_SYNCS, path="staging/catalog.db")
    record = _find(calls, rows, *_SYNCS, path="staging/.version.toml.new")
    placed = _find(calls, record, "rename", path="staging/.version.toml.new")
    # Only when that says that all is there may the catalog forget what was received.
    assert not [
        call
        for call in calls[rows:placed]
        if call.name == "pwrite64" and call.path == "staging/catalog.db"
    ]
    forgotten = _find(calls, placed, "pwrite64", path="staging/catalog.db")
    catalog = _find(calls, forgotten, *_SYNCS, path="staging/catalog.db")
    assert not [
        call for call in calls[catalog:] if call.name == "pwrite64" and "catalog.db" in call.path
    ]
    staging = _find(calls, catalog, *_SYNCS, path="staging")
    assert staging < renamed
    versions = _find(calls, renamed, *_SYNCS, path="versions")
    task = _find(calls, renamed, *_SYNCS, path="")
    told = _find(calls, renamed, "sendmsg", path=_socket(calls))
    assert versions < told
    assert task < told


def test_catalog_is_not_written_between_the_data_and_their_sync(rig):
    """Rows of files that came during a syncfs are not of those it has synced."""
    calls = _record(rig, checkpointing(checkpoint_bytes=1))
    syncs = [i for i, call in enumerate(calls) if call.name == "syncfs"]
    assert len(syncs) > 2, "too few checkpoints to say anything"
    for sync in syncs:
        committed = _find(calls, sync, *_SYNCS, path="staging/catalog.db")
        made = [c for c in calls[sync:committed] if c.name == "openat" and "staging/tree" in c.path]
        assert made == []


def test_checkpoint_is_reported_only_when_its_rows_are_durable(rig):
    calls = _record(rig, checkpointing(checkpoint_bytes=1))
    syncs = [i for i, call in enumerate(calls) if call.name == "syncfs"]
    for sync in syncs[:-1]:
        committed = _find(calls, sync, *_SYNCS, path="staging/catalog.db")
        journal = _find(calls, committed, "ftruncate", path="staging/catalog.db-journal")
        told = _find(calls, sync, "sendmsg", path=_socket(calls))
        assert journal < told


def test_staging_counts_only_after_its_catalog_is_durable(rig):
    calls = _record(rig, checkpointing())
    settings = _find(calls, 0, "rename", path="staging/.staging.toml.new")
    assert _find(calls, 0, *_SYNCS, path="staging/catalog.db") < settings


def test_expired_version_leaves_durably_before_anything_of_it_is_deleted(rig):
    rig.set_policy(keep_last=1)
    first = str(rig.versions()[0].id)
    calls = _record(rig, checkpointing())
    moved = calls.index(Call("rename", f"versions/{first}", f"trash/{first}"))
    assert _find(calls, moved, "fsync", path="versions") < _find(
        calls, moved, "fsync", path="trash"
    )
    told = _find(calls, moved, "sendmsg", path=_socket(calls))
    assert _find(calls, moved, "fsync", path="trash") < told


def _socket(calls: list[Call]) -> str:
    (name,) = {call.path for call in calls if call.name == "sendmsg"}
    return name
