"""The `.history` of a task, without a kernel: what is listed, under which names and numbers."""

import contextlib
import datetime
import os
import random
import shutil
from pathlib import Path

import blake3
import msgspec
import pytest

from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.mount.attributes import Attributes, DirectoryItem, split_inode_number
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.owners import Owners
from ssfs.mount.tree import MountTree
from ssfs.store.catalog.reader import CatalogReader, NamedIds
from ssfs.store.checked import CatalogUnchecked
from ssfs.store.store import Store, Task
from ssfs.store.version import encode_record
from tests.mount.asking import decode_items
from tests.mount.stores import (
    DAY,
    NEXT_DAY,
    HandClock,
    add_task,
    add_version,
    collect,
    directory,
    entry,
    expire,
    make_store,
    make_task,
)

TOP = directory(ROOT_ID, 0, b"", mode=0o755)
ROOT_INODE = 1
ROOM = 1 << 24
HOUR = datetime.timedelta(hours=1)


class History:
    """A mounted task's `.history`."""

    def __init__(self, target: Task | Store, *, listed: bool = False) -> None:
        self.clock = HandClock()
        self.tree = MountTree(target, self.clock, owners=Owners(), idle_s=60)
        self.tree.offer_history(listed=listed)

    def lookup(self, path: str) -> Attributes:
        """What is at a path below `.history`; of a file in `FILE/STATE` form too."""
        found = self.tree.lookup(ROOT_INODE, b".history")
        for name in path.encode().split(b"/") if path else ():
            found = self.tree.lookup(found.inode, name)
        return found

    def items(self, inode: int, after: int = 0) -> list[DirectoryItem]:
        handle = self.tree.handles.open_directory(inode)
        try:
            return decode_items(self.tree.handles.list_directory(handle, after, ROOM, 1))
        finally:
            self.tree.handles.close_directory(handle)

    def names(self, path: str) -> list[str]:
        return [item.name.decode() for item in self.items(self.lookup(path).inode)]


def file(entry_id: int, parent: int, name: bytes, size: int = 1, **fields: object) -> Entry:
    """A file whose content is its size."""
    fields = {"digest": bytes([size]) * 32, **fields}
    return entry(entry_id, parent, name, Kind.FILE, size=size, **fields)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path / "store")


def add_days(task: Task, *versions: list[Entry]) -> list:
    """A version a day, each with a root beside these rows."""
    return [
        add_version(task, [TOP, *rows], DAY + datetime.timedelta(days=day))
        for day, rows in enumerate(versions)
    ]


def test_a_file_is_a_directory_of_its_distinct_states(task):
    add_days(task, [file(2, 1, b"a.txt")], [file(2, 1, b"a.txt")], [file(2, 1, b"a.txt", 3)])
    history = History(task)
    assert history.names("") == ["a.txt"]
    assert history.names("a.txt") == ["2024-05-01.txt", "2024-05-03.txt"]
    assert [history.lookup(f"a.txt/{name}").size for name in history.names("a.txt")] == [1, 3]


def test_history_is_reached_by_name_and_listed_only_if_wanted(task):
    add_days(task, [file(2, 1, b"a")])
    hidden, shown = History(task), History(task, listed=True)
    assert b".history" not in [item.name for item in hidden.items(ROOT_INODE)]
    items = shown.items(ROOT_INODE)
    assert items[-1].name == b".history"
    assert items[-1].attributes.inode == shown.lookup("").inode
    assert shown.items(ROOT_INODE, items[-2].cookie) == items[-1:]
    assert shown.items(ROOT_INODE, items[-1].cookie) == []


def test_there_is_none_unless_offered_or_without_versions(task):
    clock = HandClock()
    tree = MountTree(task, clock, owners=Owners(), idle_s=60)
    empty = History(task, listed=True)
    assert empty.items(ROOT_INODE) == []
    with pytest.raises(NoEntry):
        empty.lookup("")
    add_days(task, [file(2, 1, b"a")])
    with pytest.raises(NoEntry):
        tree.lookup(ROOT_INODE, b".history")


def test_only_a_task_has_a_history(tmp_path):
    store = make_store(tmp_path / "store")
    add_days(add_task(store), [file(2, 1, b"a")])
    history = History(store)
    with pytest.raises(NoEntry):
        history.lookup("")
    point = history.tree.lookup(ROOT_INODE, b"main")
    with pytest.raises(NoEntry):
        history.tree.lookup(point.inode, b".history")
    task = history.tree.lookup(point.inode, b"docs")
    found = history.tree.lookup(task.inode, b".history")
    assert [item.name for item in history.items(found.inode)] == [b"a"]
    assert history.tree.lookup(found.inode, b"..").inode == task.inode


def test_directories_unite_all_versions(task):
    add_days(
        task,
        [directory(2, 1, b"d"), file(3, 2, b"old"), directory(4, 2, b"deep"), file(5, 4, b"x")],
        [directory(2, 1, b"d"), file(6, 2, b"new")],
    )
    history = History(task)
    assert history.names("d") == ["deep", "new", "old"]
    assert history.names("d/deep") == ["x"]
    assert history.names("d/deep/x") == ["2024-05-01"]
    assert history.names("d/old") == ["2024-05-01"]
    with pytest.raises(NoEntry):
        history.lookup("d/never")


def test_a_directory_that_was_deleted_is_still_there(task):
    add_days(task, [directory(2, 1, b"d"), file(3, 2, b"a")], [])
    history = History(task)
    assert history.names("d/a") == ["2024-05-01"]
    assert (
        history.tree.lookup(history.lookup("d/a").inode, b"..").inode == history.lookup("d").inode
    )


def test_a_renamed_file_has_all_its_states_under_both_names(task):
    add_days(
        task,
        [directory(2, 1, b"d"), directory(3, 1, b"e"), file(4, 2, b"a.txt", 1)],
        [directory(2, 1, b"d"), directory(3, 1, b"e"), file(4, 3, b"b.md", 2)],
    )
    history = History(task)
    assert history.names("d/a.txt") == history.names("e/b.md")
    assert history.names("d/a.txt") == ["2024-05-01.txt", "2024-05-02.md"]
    # No directory is in two places: a kernel would have to move it.
    assert history.lookup("d/a.txt").inode != history.lookup("e/b.md").inode
    for path in ("d/a.txt", "e/b.md"):
        inode = history.lookup(path).inode
        assert history.tree.attributes(inode).inode == inode
        above = history.lookup(path.rpartition("/")[0]).inode
        assert history.tree.lookup(inode, b"..").inode == above


def test_moving_alone_makes_no_state(task):
    add_days(task, [file(2, 1, b"a")], [file(2, 1, b"b")])
    assert History(task).names("b") == ["2024-05-01"]


def test_what_lies_in_a_renamed_directory_keeps_its_states(task):
    add_days(
        task,
        [directory(2, 1, b"photos"), directory(3, 2, b"may"), file(4, 3, b"1.jpg", 1)],
        [directory(2, 1, b"pictures"), directory(3, 2, b"may"), file(4, 3, b"1.jpg", 2)],
    )
    history = History(task)
    assert history.names("") == ["photos", "pictures"]
    assert history.names("photos/may/1.jpg") == ["2024-05-01.jpg", "2024-05-02.jpg"]
    assert history.names("pictures/may/1.jpg") == ["2024-05-01.jpg", "2024-05-02.jpg"]
    inodes = {history.lookup(f"{path}/may").inode for path in ("photos", "pictures")}
    assert len(inodes) == 2


def test_the_newest_version_says_whether_a_path_is_a_directory(task):
    add_days(
        task,
        [file(2, 1, b"x"), directory(3, 1, b"y"), file(4, 3, b"in")],
        [directory(5, 1, b"x"), file(6, 5, b"in"), file(7, 1, b"y")],
    )
    history = History(task)
    assert history.names("x") == ["in"]
    assert history.names("y") == ["2024-05-02"]


def test_several_states_of_a_day_have_their_times(task):
    for hours, size in ((0, 1), (1, 2), (24, 3)):
        add_version(task, [TOP, file(2, 1, b"a.txt", size)], DAY + hours * HOUR)
    history = History(task)
    names = history.names("a.txt")
    assert names == ["2024-05-01_120000.txt", "2024-05-01_130000.txt", "2024-05-02.txt"]
    assert [history.lookup(f"a.txt/{name}").size for name in names] == [1, 2, 3]


def test_a_name_never_comes_to_mean_a_newer_state(task):
    add_version(task, [TOP, file(2, 1, b"a.txt", 1)], DAY)
    history = History(task)
    assert history.names("a.txt") == ["2024-05-01.txt"]
    before = history.lookup("a.txt/2024-05-01.txt")
    add_version(task, [TOP, file(2, 1, b"a.txt", 2)], DAY + HOUR)
    assert "2024-05-01.txt" not in history.names("a.txt")
    assert history.lookup("a.txt/2024-05-01.txt") == before
    assert history.lookup("a.txt/2024-05-01_120000.txt").inode == before.inode


def test_numbers_stay_when_versions_come_and_go(task):
    rows = [directory(2, 1, b"d"), file(3, 2, b"a", 1)]
    first, _ = add_days(task, rows, rows)
    history = History(task)
    paths = ("", "d", "d/a")
    before = [history.lookup(path).inode for path in paths]
    add_version(task, [TOP, rows[0], file(3, 2, b"a", 2)], NEXT_DAY + 24 * HOUR)
    assert [history.lookup(path).inode for path in paths] == before
    expire(task, first)
    history.clock.advance(100)
    history.tree.close_idle()
    assert [history.lookup(path).inode for path in paths] == before
    assert history.names("d/a") == ["2024-05-02", "2024-05-03"]
    assert [history.tree.attributes(inode).inode for inode in before] == before


def test_a_state_whose_version_expired_moves_to_the_next_that_has_it(task):
    first, _, _ = add_days(task, *([file(2, 1, b"a.txt", size)] for size in (1, 1, 2)))
    history = History(task)
    old = history.lookup("a.txt/2024-05-01.txt")
    expire(task, first)
    assert history.names("a.txt") == ["2024-05-02.txt", "2024-05-03.txt"]
    assert history.lookup("a.txt/2024-05-02.txt").size == old.size
    # Whoever was at the old one may go on for a minute.
    assert history.tree.attributes(old.inode).size == 1
    history.clock.advance(100)
    history.tree.close_idle()
    with pytest.raises(Stale):
        history.tree.attributes(old.inode)


def test_what_no_version_has_any_more_is_stale(task):
    first, _ = add_days(task, [directory(2, 1, b"d"), file(3, 2, b"a")], [])
    history = History(task)
    inode = history.lookup("d/a").inode
    expire(task, first)
    with pytest.raises(NoEntry):
        history.lookup("d")
    with pytest.raises(Stale):
        history.tree.attributes(inode)
    with pytest.raises(Stale):
        history.tree.handles.open_directory(inode)


def test_looking_does_not_keep_names_or_versions_from_going(task):
    first, _ = add_days(task, [file(2, 1, b"a", 1)], [file(2, 1, b"a", 2)])
    history = History(task)
    assert len(history.names("a")) == 2
    expire(task, first)
    history.clock.advance(61)
    assert len(history.names("a")) == 1
    history.tree.close_idle()
    assert collect(task) == 1


def test_states_of_all_kinds_but_directories(task):
    add_days(
        task,
        [entry(2, 1, b"x", Kind.SYMLINK, target=b"old"), entry(3, 1, b"p", Kind.FIFO)],
        [entry(2, 1, b"x", Kind.SYMLINK, target=b"new"), entry(3, 1, b"p", Kind.FIFO)],
        [file(4, 1, b"x"), entry(3, 1, b"p", Kind.FIFO)],
    )
    history = History(task)
    names = history.names("x")
    assert names == ["2024-05-01", "2024-05-02", "2024-05-03"]
    assert history.tree.read_link(history.lookup(f"x/{names[0]}").inode) == b"old"
    assert history.names("p") == ["2024-05-01"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.txt", "2024-05-01.txt"),
        ("a.tar.gz", "2024-05-01.tar.gz"),
        (".profile", "2024-05-01"),
        (".tar.gz", "2024-05-01.gz"),
        ("a.", "2024-05-01"),
        ("Mr. Smith", "2024-05-01"),
        ("a." + "b" * 200, "2024-05-01"),
        ("none", "2024-05-01"),
    ],
)
def test_states_have_the_extension_of_the_file(task, name, shown):
    add_days(task, [file(2, 1, name.encode())])
    assert History(task).names(name) == [shown]


def test_a_state_is_shown_with_its_last_mode(task):
    rows = ([file(2, 1, b"a", mode=mode)] for mode in (0o644, 0o600, 0o600))
    add_days(task, *rows, [file(2, 1, b"a", 2)])
    history = History(task)
    assert history.names("a") == ["2024-05-01", "2024-05-04"]
    found = history.lookup("a/2024-05-01")
    assert found.mode & 0o777 == 0o600
    second = history.tree.lookup(ROOT_INODE, b"2024-05-02_120000")
    assert found.inode == history.tree.lookup(second.inode, b"a").inode


def test_a_directory_never_grants_more_than_it_did_in_any_version(task):
    add_days(
        task,
        [directory(2, 1, b"d", mode=0o700), file(3, 2, b"a")],
        [directory(2, 1, b"d", mode=0o755), file(3, 2, b"a")],
    )
    history = History(task)
    assert history.lookup("d").mode & 0o777 == 0o700
    (item,) = history.items(history.lookup("").inode)
    assert item.attributes.mode & 0o777 == 0o700


def test_where_a_file_was_less_open_its_states_are_shown_there_only(task):
    def rows(file_row: Entry) -> list[Entry]:
        return [
            directory(2, 1, b"shared", mode=0o755),
            directory(3, 1, b"private", mode=0o700),
            file_row,
        ]

    add_days(task, rows(file(4, 3, b"a", 1)), rows(file(4, 2, b"a", 2)))
    history = History(task)
    assert history.names("shared/a") == ["2024-05-02"]
    assert history.names("private/a") == ["2024-05-01", "2024-05-02"]


def test_long_directories_are_listed_some_at_a_time_and_can_be_resumed(task):
    count = 1000
    even = [file(2 + n, 1, b"%04d" % n) for n in range(0, count, 2)]
    odd = [file(2 + n, 1, b"%04d" % n) for n in range(1, count, 2)]
    add_days(task, even, odd)
    history = History(task)
    handle = history.tree.handles.open_directory(history.lookup("").inode)
    items = decode_items(history.tree.handles.list_directory(handle, 0, ROOM, 1))
    assert [item.name for item in items] == [b"%04d" % n for n in range(count)]
    assert len({item.attributes.inode for item in items}) == count
    for at in (999, 0, 255, 256, 511, 700, 1):
        rest = decode_items(history.tree.handles.list_directory(handle, items[at].cookie, ROOM, 1))
        assert rest == items[at + 1 :]
    with pytest.raises(WrongKind):
        history.tree.handles.list_directory(handle, count + 1, ROOM, 1)


def test_a_listing_goes_on_while_versions_come(task):
    rows = [file(2 + n, 1, b"%04d" % n) for n in range(600)]
    add_days(task, rows)
    history = History(task)
    handle = history.tree.handles.open_directory(history.lookup("").inode)
    first = decode_items(history.tree.handles.list_directory(handle, 0, 1600, 1))
    assert 0 < len(first) < 20
    add_version(task, [TOP, *rows[:-1], file(900, 1, b"0000 new"), file(901, 1, b"9")], NEXT_DAY)
    more = decode_items(history.tree.handles.list_directory(handle, first[-1].cookie, ROOM, 1))
    assert [item.name for item in first + more] == [row.name for row in rows] + [b"9"]


def test_a_damaged_catalog_is_left_out_and_said_once(task, expected_warnings):
    _, damaged, _ = add_days(task, *([file(2, 1, b"a", size)] for size in (1, 2, 3)))
    Path(damaged.path.decode(), "catalog.db").write_bytes(b"not one" * 1000)
    history = History(task)
    for _ in range(2):
        assert history.names("a") == ["2024-05-01", "2024-05-03"]
    (record,) = expected_warnings
    assert str(damaged.id) in record.getMessage()


def test_a_deleted_task_takes_its_history_along(tmp_path):
    store = make_store(tmp_path / "store")
    task = add_task(store)
    add_days(task, [file(2, 1, b"a")])
    history = History(store)
    point = history.tree.lookup(ROOT_INODE, b"main").inode
    found = history.tree.lookup(history.tree.lookup(point, b"docs").inode, b".history")
    shutil.rmtree(task.path)
    assert history.items(point) == []
    history.tree.close_idle()
    with pytest.raises(Stale):
        history.tree.attributes(found.inode)


def test_numbers_are_of_no_version(task):
    add_days(task, [directory(2, 1, b"d"), file(3, 2, b"a")])
    history = History(task)
    version = history.tree.lookup(ROOT_INODE, b"2024-05-01")
    numbers = {split_inode_number(history.lookup(path).inode)[0] for path in ("", "d", "d/a")}
    assert split_inode_number(version.inode)[0] not in numbers


def test_first_use_asks_no_catalog_more_often_for_each_that_is_to_be_compared(task, monkeypatch):
    count = 40
    versions = add_days(task, *[[file(2, 1, b"a")]] * count)
    for version in versions:
        path = Path(os.fsdecode(version.path))
        digest = blake3.blake3((path / "catalog.db").read_bytes()).hexdigest()
        record = msgspec.structs.replace(version.record(), catalog_file=digest)
        (path / "version.toml").write_bytes(encode_record(record))
    history = History(task)
    opened = compared = 0
    real = CatalogReader.open

    def counted(path: bytes) -> CatalogReader:
        nonlocal opened
        opened += 1
        return real(path)

    monkeypatch.setattr(CatalogReader, "open", counted)
    while True:
        try:
            history.lookup("")
        except CatalogUnchecked as unchecked:
            compared += 1
            with contextlib.closing(unchecked.check) as check:
                check.run()
        else:
            break
    assert compared == count
    # Once to find that it can be used, once for the answer.
    assert opened <= 2 * count


def named_in(history: History, path: str) -> list[tuple[str, int]]:
    items = history.items(history.lookup(path).inode)
    return [(item.name.decode(), item.attributes.inode) for item in items]


def test_names_of_all_versions_are_those_that_are_looked_up_one_by_one(task):
    rng = random.Random(7)
    names = [b"%03d" % number for number in range(300)]
    versions = []
    for _ in range(5):
        rows = []
        for number, name in enumerate(names):
            match rng.randrange(6):
                case 0:
                    continue
                case 1:
                    rows.append(file(3000 + number, 1, b"other " + name))
                case 2:
                    rows.append(directory(6000 + number, 1, name, mode=rng.choice([0o755, 0o700])))
                case _:
                    rows.append(file(3000 + number, 1, name))
        # Most nights change nothing here.
        versions += [rows] * rng.randrange(1, 4)
    add_days(task, *versions)
    listed, asked = History(task), History(task)
    found = named_in(listed, "")
    everything = sorted({row.name.decode() for rows in versions for row in rows})
    assert [name for name, _ in found] == everything
    numbers = [asked.lookup(name).inode for name in everything]
    assert len(set(numbers)) == len(numbers) == len({inode for _, inode in found})
    # Upper halves are given out as they are needed; entry ids are the same.
    assert [inode & 0xFF_FFFF for _, inode in found] == [inode & 0xFF_FFFF for inode in numbers]
    for name, inode in found:
        assert listed.lookup(name).inode == inode


def test_names_are_taken_apart_only_where_versions_differ(task, monkeypatch):
    rows = [file(2 + number, 1, b"%04d" % number) for number in range(600)]
    add_days(task, *[rows] * 10, rows[1:])
    asked = 0
    real = NamedIds.by_name

    def counted(named: NamedIds) -> dict[bytes, int]:
        nonlocal asked
        asked += 1
        return real(named)

    monkeypatch.setattr(NamedIds, "by_name", counted)
    history = History(task)
    assert len(history.names("")) == 600
    # Two versions for the first 256 names, one for each of the others.
    assert asked <= 4
