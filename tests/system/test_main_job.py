"""The main job, end to end, on the machine's own files: sync, browse, copy a file back."""

import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.fakes.comparing import assert_same_tree
from tests.system.programs import mounted, run, ssfs, sync

pytestmark = pytest.mark.slow

DOCUMENTS = Path("/usr/share/doc")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    ssfs("init", path, "--keep-last", "30", "--timezone", "UTC")
    return path


def trees(store: Path) -> list[Path]:
    """The trees of the store's only task, oldest first."""
    return sorted(store.glob("points/main/tasks/*/versions/*/tree"))


@pytest.mark.needs_fuse
@pytest.mark.needs_root
def test_documents_twice(store: Path, tmp_path: Path) -> None:
    first = sync(DOCUMENTS, store)
    second = sync(DOCUMENTS, store)
    assert first["problems"] == second["problems"] == []
    assert first["new"] == first["entries"] > 1000
    assert second["new"] == second["changed"] == second["new_bytes"] == 0
    assert second["bytes_sent"] < 2_000_000 < first["bytes_sent"]
    one, other = trees(store)
    for directory, _, files in os.walk(one):
        for name in files:
            path = Path(directory, name)
            assert os.lstat(path).st_ino == os.lstat(other / path.relative_to(one)).st_ino, path
    with mounted(store, tmp_path / "mnt") as mountpoint:
        (task,) = (mountpoint / "main").iterdir()
        assert_same_tree(DOCUMENTS, task / second["mount_name"])
        assert_same_tree(DOCUMENTS, (task / "latest").resolve())
    # A quiet run once every file has been seen to be settled: nothing is read, next to nothing sent.
    third = sync(DOCUMENTS, store)
    assert third["bytes_read"] == 0
    assert third["bytes_sent"] < 1000


@pytest.mark.needs_root
def test_restored_tree_equals_the_source(store: Path, tmp_path: Path) -> None:
    sync(DOCUMENTS, store)
    ssfs("restore", store, "latest", "--to", tmp_path / "out")
    assert_same_tree(DOCUMENTS, tmp_path / "out")


def test_large_file(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    image = source / "image"
    rng = random.Random(5)
    size = 200_000_000
    image.write_bytes(rng.randbytes(size))
    sync(source, store)
    with image.open("r+b") as file:
        for _ in range(10):
            file.seek(rng.randrange(size - 4096))
            file.write(rng.randbytes(4096))
    overwritten = sync(source, store)
    assert overwritten["bytes_sent"] + overwritten["bytes_received"] < size // 100
    with image.open("rb") as file:
        content = file.read()
    with image.open("wb") as file:
        file.write(b"i" * 100 + content)
    del content
    inserted = sync(source, store)
    assert inserted["bytes_sent"] + inserted["bytes_received"] < size // 100
    run("cmp", image, trees(store)[-1] / "image")
    # New content goes as it is, without a delta larger than itself (its speed: tests/bench).
    image.write_bytes(rng.randbytes(size))
    replaced = sync(source, store)
    assert size <= replaced["bytes_sent"] < size * 1.001
    run("cmp", image, trees(store)[-1] / "image")


@pytest.mark.needs_fuse
def test_mount_left_open_over_twenty_syncs(tmp_path: Path) -> None:
    """Versions come and go; concurrent readers see right bytes all along."""
    store, source = tmp_path / "store", tmp_path / "source"
    ssfs("init", store, "--keep-last", "4", "--timezone", "UTC")
    source.mkdir()
    for number in range(200):
        (source / f"{number:03}").write_text("version 0\n")
    sync(source, store)
    wrong: list[str] = []
    done = threading.Event()

    def read(task: Path) -> None:
        while not done.is_set():
            for name in set(os.listdir(task)) - {"latest", "yesterday"}:
                wrong.extend(_wrong_in(task / name))

    with mounted(store, tmp_path / "mnt") as mountpoint:
        (task,) = (mountpoint / "main").iterdir()
        readers = [threading.Thread(target=read, args=(task,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for step in range(1, 21):
                for number in range(200):
                    (source / f"{number:03}").write_text(f"version {step}\n")
                made = sync(source, store)
                deadline = time.monotonic() + 1
                while not _is_listed(task, made["version"]):
                    assert time.monotonic() < deadline, "a new version must show within a second"
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert wrong == []
        assert (task / "latest" / "000").read_text() == "version 20\n"
        assert len(list(trees(store))) <= 5


def _wrong_in(version: Path) -> list[str]:
    """All files of a version say the same."""
    try:
        texts = {(version / f"{number:03}").read_text() for number in range(0, 200, 7)}
    except FileNotFoundError:
        return []  # expired, and nobody was in it
    except OSError as error:
        return [f"{version}: {error}"]
    return [f"{version}: {texts}"] if len(texts) != 1 else []


def _is_listed(task: Path, version: str) -> bool:
    """Whether a version shows in the mount under its date or its time."""
    when = f"{version[7:17]}_{version[18:24]}"
    return any(name.startswith(when) or name == when[:10] for name in os.listdir(task))


@pytest.mark.needs_fuse
def test_copy_of_a_date_is_of_one_version(store: Path, tmp_path: Path) -> None:
    """While `cp -a` copies 2024-05-01, a new version of that day is made."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"{number:04}").write_text("old")
    first = sync(source, store)
    with mounted(store, tmp_path / "mnt") as mountpoint:
        (task,) = (mountpoint / "main").iterdir()
        copy = subprocess.Popen(["cp", "-a", task / first["mount_name"], tmp_path / "copy"])
        for number in range(3000):
            (source / f"{number:04}").write_text("new")
        second = sync(source, store)
        assert copy.wait(timeout=120) == 0
        assert second["mount_name"] == first["mount_name"]
        texts = {file.read_text() for file in (tmp_path / "copy").iterdir()}
        assert texts == {"old"}
        assert len(list((tmp_path / "copy").iterdir())) == 3000


def test_two_sources_never_share_a_task(store: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    sync(tmp_path / "one", store)
    sync(tmp_path / "two", store)
    assert len(list((store / "points/main/tasks").iterdir())) == 2
    sync(tmp_path / "one", f"{store}::main/named")
    ssfs("sync", tmp_path / "two", f"{store}::main/named", expect=2)
    # A snapshot under changing paths keeps one history if it has a name of its own.
    sync(tmp_path / "one", f"{store}::main/snapshot", "--source-id", "data")
    sync(tmp_path / "two", f"{store}::main/snapshot", "--source-id", "data")


def test_deleted_source_comes_back(store: Path, tmp_path: Path) -> None:
    source, kept = tmp_path / "source", tmp_path / "kept"
    for copy in (source, kept):
        run("cp", "-a", DOCUMENTS / "base-files", copy)
    sync(source, store)
    shutil.rmtree(source)
    ssfs("sync", source, store, expect=7)
    ssfs("restore", store, "latest", "--to", source)
    assert_same_tree(kept, source)
