"""The tree without a kernel: numbers, attributes, listings, use."""

import datetime
import gc
import os
import stat
from pathlib import Path

import pytest

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import CorruptStore
from ssfs.model.entry import GROUP, ROOT_ID, USER, Flag, Kind, Principal
from ssfs.model.policy import Policy
from ssfs.model.version import RootMetadata
from ssfs.mount.attributes import ABSENT, Attributes, DirectoryItem, split_inode_number
from ssfs.mount.handles import DirectoryHandle
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.owners import NOBODY, Owners
from ssfs.mount.tree import MountTree
from ssfs.store.damage import Damage, DamagedEntry, DamagedPart, change_damage, without
from ssfs.store.store import Store, Task
from ssfs.store.textfile import FORMAT
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

TOP = directory(ROOT_ID, 0, b"")
ROOT_INODE = 1


def open_descriptors() -> int:
    # Catalogs that earlier tests left to the garbage collector must not go while we count.
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def blocks(attributes: Attributes) -> Attributes:
    """As a listing says it: data in whole blocks."""
    return attributes._replace(data_bytes=-(-attributes.data_bytes // 512) * 512)


class Mount:
    """A tree and its clock."""

    def __init__(
        self, target: Store | Task, *, numeric_ids: bool = False, damaged_ok: bool = False
    ) -> None:
        self.clock = HandClock()
        owners = Owners(OwnerMap(numeric=numeric_ids))
        self.tree = MountTree(target, self.clock, owners=owners, idle_s=60, damaged_ok=damaged_ok)

    def at(self, path: str | bytes) -> int:
        """The inode number at a path below the root."""
        inode = ROOT_INODE
        for name in os.fsencode(path).split(b"/"):
            inode = self.tree.lookup(inode, name).inode
        return inode

    def items(self, inode: int, after: int = 0) -> list[DirectoryItem]:
        handle = self.tree.handles.open_directory(inode)
        try:
            return self.listed(handle, after)
        finally:
            self.tree.handles.close_directory(handle)

    def listed(self, handle: DirectoryHandle, after: int = 0) -> list[DirectoryItem]:
        return decode_items(self.tree.handles.list_directory(handle, after, 1 << 24, 1))

    def names(self, inode: int = ROOT_INODE) -> list[bytes]:
        return [item.name for item in self.items(inode)]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path / "store")


# -- levels ----------------------------------------------------------------------------------------


def test_store_shows_points_then_tasks_then_dates(tmp_path):
    store = make_store(tmp_path / "store")
    add_version(add_task(store, "main", "docs"), [TOP])
    add_version(add_task(store, "main", "mail"), [TOP])
    add_version(add_task(store, "photos", "nas1"), [TOP], NEXT_DAY)
    mount = Mount(store)
    assert mount.names() == [b"main", b"photos"]
    assert mount.names(mount.at("main")) == [b"docs", b"mail"]
    assert mount.names(mount.at("photos/nas1")) == [b"2024-05-02", b"latest", b"yesterday"]
    assert mount.tree.read_link(mount.at("photos/nas1/latest")) == b"2024-05-02"


def test_what_is_no_point_or_task_is_not_shown(tmp_path):
    store = make_store(tmp_path / "store")
    add_task(store)
    points = tmp_path / "store" / "points"
    (points / "lost+found").mkdir()
    (points / "half-made").mkdir()
    (points / "main" / "tasks" / "a file").touch()
    mount = Mount(store)
    assert mount.names() == [b"main"]
    (points / "half-made" / "point.toml").touch()
    assert b"half-made" in mount.names(), "its text file comes last and must be noticed"


def test_dot_and_dot_dot_lead_to_self_and_up(tmp_path):
    store = make_store(tmp_path / "store")
    add_version(add_task(store), [TOP, directory(2, 1, b"a"), directory(3, 2, b"b")])
    mount = Mount(store)
    path = "main/docs/2024-05-01/a/b"
    while "/" in path:
        above, _, _ = path.rpartition("/")
        inode = mount.at(path)
        assert mount.tree.lookup(inode, b".").inode == inode
        assert mount.tree.lookup(inode, b"..").inode == mount.at(above)
        path = above
    assert mount.tree.lookup(ROOT_INODE, b"..").inode == ROOT_INODE


def test_task_without_versions_is_empty(task):
    mount = Mount(task)
    assert mount.names() == []
    with pytest.raises(NoEntry):
        mount.at("latest")


def test_damaged_version_is_not_shown_and_named_once_in_the_log(task, expected_warnings):
    damaged = add_version(task, [TOP], DAY)
    add_version(task, [TOP], NEXT_DAY)
    record = Path(os.fsdecode(damaged.path)) / "version.toml"
    record.write_bytes(record.read_bytes().replace(b"2024", b"2023", 1))
    mount = Mount(task)
    for _ in range(3):
        assert mount.names() == [b"2024-05-02", b"latest", b"yesterday"]
    (record_of_log,) = expected_warnings
    assert str(damaged.id) in record_of_log.getMessage()


def test_listing_the_versions_opens_none(task):
    for day in (DAY, NEXT_DAY):
        add_version(task, [TOP], day)
    mount = Mount(task)
    before = open_descriptors()
    assert len(mount.items(ROOT_INODE)) == 4
    mount.at("2024-05-01")
    assert open_descriptors() == before


# -- yesterday -------------------------------------------------------------------------------------


def at(day: int, hour: int) -> datetime.datetime:
    return datetime.datetime(2024, 5, day, hour, tzinfo=datetime.UTC)


@pytest.fixture
def berlin(tmp_path: Path) -> Task:
    """A task of a store whose days begin two hours before those of UTC."""
    path = os.fsencode(tmp_path / "berlin")
    return add_task(Store.create(path, Policy(), "Europe/Berlin", HandClock()))


def test_yesterday_is_the_newest_version_before_today(task):
    for time in (at(1, 12), at(2, 12), at(2, 18), at(3, 12), at(3, 18)):
        add_version(task, [TOP], time)
    mount = Mount(task)
    mount.clock.time = at(3, 20)
    assert mount.names()[-2:] == [b"latest", b"yesterday"]
    assert mount.tree.read_link(mount.at("yesterday")) == b"2024-05-02"
    assert mount.tree.read_link(mount.at("latest")) == b"2024-05-03"
    assert mount.tree.attributes(mount.at("yesterday")).size == len("2024-05-02")
    mount.clock.time = at(20, 12)
    assert mount.tree.read_link(mount.at("yesterday")) == b"2024-05-03"


def test_yesterday_moves_at_midnight_of_the_stores_time_zone(berlin):
    add_version(berlin, [TOP], at(1, 12))
    add_version(berlin, [TOP], at(1, 22))
    mount = Mount(berlin)
    mount.clock.time = at(1, 21)
    assert mount.names() == [b"2024-05-01", b"2024-05-02", b"latest"]
    mount.clock.time = at(2, 21)
    link = mount.at("yesterday")
    assert mount.tree.read_link(link) == b"2024-05-01"
    mount.clock.time = at(2, 22)
    with pytest.raises(Stale):
        mount.tree.read_link(link)  # the kernel keeps what a number has said
    assert mount.tree.read_link(mount.at("yesterday")) == b"2024-05-02"


def test_without_a_version_before_today_there_is_no_yesterday(task):
    old = add_version(task, [TOP], at(1, 12))
    add_version(task, [TOP], at(2, 12))
    mount = Mount(task)
    mount.clock.time = at(2, 13)
    link = mount.at("yesterday")
    expire(task, old)
    assert mount.names() == [b"2024-05-02", b"latest"]
    with pytest.raises(NoEntry):
        mount.at("yesterday")
    with pytest.raises(Stale):
        mount.tree.read_link(link)


def test_version_of_a_day_to_come_is_not_yesterdays(task):
    for time in (at(1, 12), at(9, 12)):
        add_version(task, [TOP], time)
    mount = Mount(task)
    mount.clock.time = at(2, 12)
    assert mount.tree.read_link(mount.at("yesterday")) == b"2024-05-01"


# -- attributes ------------------------------------------------------------------------------------


def test_attributes_come_from_the_catalog(task):
    rows = [
        TOP,
        entry(2, 1, b"file", Kind.FILE, mode=0o4751, size=1025, mtime_s=-5, mtime_ns=999_999_999),
        entry(3, 1, b"link", Kind.SYMLINK, mode=0o777, target="nach drüben".encode()),
        entry(4, 1, b"pipe", Kind.FIFO),
        entry(5, 1, b"disk", Kind.BLOCK_DEVICE, rdev=os.makedev(259, 70_000)),
        entry(6, 1, b"late", Kind.FILE, mtime_s=1 << 40, mtime_ns=1),
        directory(7, 1, b"dir", mode=0o1777, mtime_s=3),
    ]
    add_version(task, rows)
    mount = Mount(task)
    of = {item.name: item.attributes for item in mount.items(mount.at("2024-05-01"))}
    assert of[b"file"].mode == stat.S_IFREG | 0o4751
    assert (of[b"file"].size, of[b"file"].mtime_ns) == (1025, -4_000_000_001)
    assert (of[b"link"].mode, of[b"link"].size) == (stat.S_IFLNK | 0o777, 12)
    assert of[b"pipe"].mode == stat.S_IFIFO | 0o644
    assert of[b"disk"].rdev == os.makedev(259, 70_000)
    assert of[b"late"].mtime_ns == (1 << 40) * 10**9 + 1
    assert (of[b"dir"].mode, of[b"dir"].size) == (stat.S_IFDIR | 0o1777, 4096)
    assert all(attributes.nlink == 1 for attributes in of.values())
    for name, attributes in of.items():
        assert blocks(mount.tree.lookup(mount.at("2024-05-01"), name)) == attributes
        assert blocks(mount.tree.attributes(attributes.inode)) == attributes


def test_root_of_a_version_shows_its_own_metadata(task):
    root = RootMetadata(0o2750, 4711, 0, "", "root", 7, 8)
    add_version(task, [TOP], root=root)
    mount = Mount(task)
    attributes = mount.tree.lookup(ROOT_INODE, b"2024-05-01")
    assert attributes.mode == stat.S_IFDIR | 0o2750
    assert (attributes.gid, attributes.mtime_ns) == (0, 7_000_000_008)


def test_owners_are_shown_by_name(task):
    rows = [
        TOP,
        entry(2, 1, b"named", Kind.FILE, uid=4711, gid=4711),
        entry(3, 1, b"unnamed", Kind.FILE, uid=0, gid=0),
    ]
    owners = (Principal(USER, 4711, b"root"), Principal(GROUP, 4711, b"root"))
    add_version(task, rows, owners=owners)
    mount, numeric = Mount(task), Mount(task, numeric_ids=True)
    named = mount.tree.attributes(mount.at("2024-05-01/named"))
    assert (named.uid, named.gid) == (0, 0)
    unnamed = mount.tree.attributes(mount.at("2024-05-01/unnamed"))
    assert (unnamed.uid, unnamed.gid) == (NOBODY, NOBODY)
    assert numeric.tree.attributes(numeric.at("2024-05-01/named")).uid == 4711


def test_hard_links_share_a_number_and_are_counted(task):
    rows = [
        TOP,
        entry(5, 1, b"a", Kind.FILE, link_group=9),
        entry(3, 1, b"b", Kind.FILE, link_group=9),
        entry(4, 1, b"c", Kind.FILE, link_group=2),
        entry(6, 1, b"d", Kind.FILE),
    ]
    add_version(task, rows)
    mount = Mount(task)
    of = {item.name: item.attributes for item in mount.items(mount.at("2024-05-01"))}
    assert of[b"a"] == of[b"b"]
    assert split_inode_number(of[b"a"].inode)[1] == 3
    assert [of[name].nlink for name in (b"a", b"c", b"d")] == [2, 1, 1]
    assert len({attributes.inode for attributes in of.values()}) == 3


def test_numbers_differ_between_versions_and_names(task):
    add_version(task, [TOP, entry(2, 1, b"f", Kind.FILE)], DAY)
    add_version(task, [TOP, entry(2, 1, b"f", Kind.FILE)], NEXT_DAY)
    mount = Mount(task)
    paths = [
        "2024-05-01",
        "2024-05-01_120000",
        "2024-05-02",
        "2024-05-02_120000",
        "latest",
        "yesterday",
    ]
    files = [mount.at(f"{path}/f") for path in paths[:-2]]
    assert len({ROOT_INODE, *map(mount.at, paths), *files}) == 11


def test_names_of_any_bytes(task):
    strange = [b"\xff\xfe", b"\n", b"x" * 255, "ü".encode(), b" ", b"-rf", b"a\\b"]
    rows = [entry(n, 1, name, Kind.FILE) for n, name in enumerate(strange, 2)]
    add_version(task, [TOP, *rows])
    mount = Mount(task)
    assert mount.names(mount.at("2024-05-01")) == sorted(strange)
    for name in strange:
        assert mount.tree.lookup(mount.at("2024-05-01"), name).inode


def test_absent_name_may_be_remembered_inside_a_version_but_not_above(task):
    add_version(task, [TOP])
    mount = Mount(task)
    assert mount.tree.lookup(mount.at("2024-05-01"), b"nothing") == ABSENT
    assert ABSENT.name_timeout_s >= 86400
    with pytest.raises(NoEntry):
        mount.tree.lookup(ROOT_INODE, b"2024-05-02")


def test_what_changes_is_believed_for_less_than_a_second(task):
    add_version(task, [TOP, entry(2, 1, b"f", Kind.FILE)])
    mount = Mount(task)
    for name in (b"2024-05-01", b"latest", b"yesterday"):
        assert mount.tree.lookup(ROOT_INODE, name).name_timeout_s < 1
    assert mount.tree.attributes(ROOT_INODE).timeout_s < 1
    inside = mount.tree.attributes(mount.at("2024-05-01/f"))
    assert min(inside.name_timeout_s, inside.timeout_s) >= 86400


# -- what the mount tells of itself ----------------------------------------------------------------


def told(mount: Mount, path: str) -> dict[str, bytes]:
    inode = mount.at(path)
    assert mount.tree.xattr_names(inode) == []
    found = {
        name: mount.tree.xattr(inode, f"user.ssfs.{name}".encode())
        for name in ("version", "digest", "stale", "damaged", "other", "")
    }
    return {name: value for name, value in found.items() if value is not None}


def test_entries_tell_version_digest_and_what_is_stale(task):
    rows = [
        TOP,
        entry(2, 1, b"file", Kind.FILE, digest=bytes(range(32))),
        directory(3, 1, b"dir", flags=Flag.STALE),
        entry(4, 3, b"old", Kind.FILE, digest=b"\xff" * 32, flags=Flag.STALE | Flag.RACY),
    ]
    version = str(add_version(task, rows).id).encode()
    mount = Mount(task)
    of_file = {"version": version, "digest": bytes(range(32)).hex().encode()}
    assert told(mount, "2024-05-01/file") == told(mount, "2024-05-01_120000/file") == of_file
    assert told(mount, "2024-05-01/dir") == {"version": version, "stale": b"1"}
    of_old = {"version": version, "digest": b"ff" * 32, "stale": b"1"}
    assert told(mount, "2024-05-01/dir/old") == of_old
    assert told(mount, "2024-05-01") == {"version": version}
    assert mount.tree.xattr(ROOT_INODE, b"user.ssfs.version") is None


@pytest.mark.parametrize("damaged_ok", [False, True])
def test_entries_tell_what_is_damaged_until_it_is_healed(task, damaged_ok):
    version = add_version(task, [TOP, *(entry(n, 1, b"%d" % n, Kind.FILE) for n in (2, 3))])
    mount = Mount(task, damaged_ok=damaged_ok)

    def damaged() -> list[str]:
        return [name for name in ("2", "3") if "damaged" in told(mount, f"2024-05-01/{name}")]

    assert damaged() == []
    bad = DamagedEntry(3, "3", "digest differs", DAY)
    with task.guard():
        change_damage(version.path, lambda _: Damage(FORMAT, (), (bad,)))
    assert damaged() == ["3"]
    with task.guard():
        change_damage(version.path, lambda damage: without(damage, [3]))
    assert damaged() == []
    with task.guard():
        part = DamagedPart("tree", "missing", DAY)
        change_damage(version.path, lambda _: Damage(FORMAT, (part,)))
    assert damaged() == ["2", "3"]


# -- listings --------------------------------------------------------------------------------------


@pytest.fixture
def wide(task) -> Mount:
    """A directory that needs several reads; ids run against the names' order."""
    rows = [entry(2000 - n, 1, b"%04d" % n, Kind.FILE) for n in range(1000)]
    add_version(task, [TOP, *rows])
    return Mount(task)


def test_listing_goes_on_after_any_line_through_any_handle(wide):
    inode = wide.at("2024-05-01")
    whole = wide.items(inode)
    assert [item.name for item in whole] == [b"%04d" % n for n in range(1000)]
    for index in (0, 1, 254, 255, 256, 511, 998, 999):
        assert wide.items(inode, whole[index].cookie) == whole[index + 1 :]


def test_one_handle_may_jump_about(wide):
    inode = wide.at("2024-05-01")
    whole = wide.items(inode)
    handle = wide.tree.handles.open_directory(inode)
    for index in (700, 3, 255, 256, 999, 0, 300):
        assert wide.listed(handle, whole[index].cookie) == whole[index + 1 :]
    assert wide.listed(handle) == whole


def test_listing_made_ahead_is_the_listing(task):
    """A walk with and without what is prepared between its requests, in any order of directories."""
    rows = [TOP]
    for number in range(2, 12):
        rows.append(directory(number, 1, b"%02d" % number))
        rows += [
            entry(number * 1000 + n, number, b"%d" % n, Kind.FILE) for n in range(number % 4 * 150)
        ]
        rows.append(directory(number * 1000 + 999, number, b"z"))
    add_version(task, rows)
    mount, ahead = Mount(task), Mount(task)
    inodes = [mount.at("2024-05-01")]
    inodes += [mount.at(b"2024-05-01/%02d" % number) for number in (2, 3, 4, 4, 9, 5, 6, 11, 10)]
    assert ahead.at("2024-05-01") == inodes[0]
    for inode in inodes:
        expected = mount.items(inode)
        handle = ahead.tree.handles.open_directory(inode)
        assert ahead.listed(handle) == expected
        ahead.tree.handles.prepare()
        assert ahead.listed(handle, expected[-1].cookie) == []
        assert ahead.listed(handle, expected[0].cookie) == expected[1:]
        ahead.tree.handles.close_directory(handle)


def test_listing_ahead_takes_no_request_in_and_no_error_out(task, tmp_path):
    version = add_version(task, [TOP, directory(2, 1, b"a"), directory(3, 2, b"b")])
    mount = Mount(task)
    assert mount.names(mount.at("2024-05-01")) == [b"a"]
    expire(task, version)
    collect(task)
    mount.tree.close()
    mount.tree.handles.prepare()
    mount.tree.handles.prepare()


def test_cookie_of_another_directory_is_refused(wide):
    with pytest.raises(WrongKind):
        wide.items(wide.at("2024-05-01"), 1)


def test_listing_of_names_is_one_moment_until_it_is_begun_anew(task):
    add_version(task, [TOP], DAY)
    mount = Mount(task)
    handle = mount.tree.handles.open_directory(ROOT_INODE)
    first = mount.listed(handle)[0]
    add_version(task, [TOP], NEXT_DAY)
    rest = mount.listed(handle, first.cookie)
    assert [item.name for item in rest] == [b"latest", b"yesterday"]
    anew = mount.listed(handle)
    assert [item.name for item in anew] == [b"2024-05-01", b"2024-05-02", b"latest", b"yesterday"]


# -- files -----------------------------------------------------------------------------------------


def test_what_is_no_file_cannot_be_opened(task):
    add_version(task, [TOP, directory(2, 1, b"d"), entry(3, 1, b"p", Kind.FIFO)])
    mount = Mount(task)
    for path in ("latest", "2024-05-01", "2024-05-01/d", "2024-05-01/p"):
        with pytest.raises(WrongKind):
            mount.tree.handles.open_file(mount.at(path))
    with pytest.raises(WrongKind):
        mount.tree.read_link(mount.at("2024-05-01/d"))


@pytest.mark.parametrize("damage", ["missing", "shorter", "symlink", "fifo", "parent"])
def test_file_that_is_not_what_the_catalog_says_is_damage(task, tmp_path, damage):
    (tmp_path / "source" / "d").mkdir(parents=True)
    (tmp_path / "source" / "d" / "f").write_bytes(b"12345")
    version = add_version(task, tmp_path / "source")
    data = Path(os.fsdecode(version.path)) / "tree" / "d" / "f"
    data.unlink()
    if damage == "shorter":
        data.write_bytes(b"1234")
    elif damage == "symlink":
        data.symlink_to("/etc/passwd")
    elif damage == "fifo":
        os.mkfifo(data)
    elif damage == "parent":
        data.parent.rmdir()
        data.parent.symlink_to("/etc")
    mount = Mount(task)
    with pytest.raises((CorruptStore, OSError)) as caught:
        mount.tree.handles.open_file(mount.at("2024-05-01/d/f"))
    assert not isinstance(caught.value, FileNotFoundError)


# -- use and expiry --------------------------------------------------------------------------------


@pytest.fixture
def two(task, tmp_path) -> tuple[Mount, Task]:
    """Two versions of real files."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(b"content")
    add_version(task, tmp_path / "source", DAY)
    add_version(task, tmp_path / "source", NEXT_DAY)
    return Mount(task), task


def test_version_not_in_use_can_be_deleted_and_costs_nothing(two):
    mount, task = two
    before = open_descriptors()
    inode = mount.at("2024-05-01/f")
    mount.tree.handles.close_file(mount.tree.handles.open_file(inode))
    assert open_descriptors() > before
    mount.clock.advance(60)
    mount.tree.close_idle()
    assert open_descriptors() == before
    expire(task, task.versions()[0])
    assert collect(task) == 1
    with pytest.raises(Stale):
        mount.tree.attributes(inode)
    assert mount.names() == [b"2024-05-02", b"latest", b"yesterday"]


def test_expired_version_in_use_stays_until_a_minute_after_the_last_request(two):
    mount, task = two
    directory_inode, inode = mount.at("2024-05-01"), mount.at("2024-05-01/f")
    expire(task, task.versions()[0])
    assert mount.names() == [b"2024-05-02", b"latest", b"yesterday"]
    for _ in range(3):
        mount.clock.advance(59)
        mount.tree.close_idle()
        assert collect(task) == 0
        assert mount.at("2024-05-01") == directory_inode
        assert mount.names(directory_inode) == [b"f"]
    mount.clock.advance(60)
    mount.tree.close_idle()
    assert collect(task) == 1
    with pytest.raises(NoEntry):
        mount.at("2024-05-01")
    with pytest.raises(Stale):
        mount.tree.attributes(inode)
    with pytest.raises(Stale):
        mount.items(directory_inode)


def test_open_file_keeps_an_expired_version_for_ever(two):
    mount, task = two
    handle = mount.tree.handles.open_file(mount.at("2024-05-01/f"))
    expire(task, task.versions()[0])
    mount.clock.advance(10_000)
    mount.tree.close_idle()
    assert collect(task) == 0
    assert os.pread(handle.fd, 100, 0) == b"content"
    mount.tree.handles.close_file(handle)
    mount.tree.close_idle()
    assert collect(task) == 0, "closing it was a request"
    mount.clock.advance(60)
    mount.tree.close_idle()
    assert collect(task) == 1


def test_moved_date_leaves_the_old_numbers_where_they_were(two):
    mount, task = two
    old_inode = mount.at("2024-05-02/f")
    old = mount.tree.attributes(old_inode)
    add_version(task, [directory(ROOT_ID, 0, b"")], NEXT_DAY.replace(hour=20))
    assert mount.at("2024-05-02/f") == old_inode, "in use"
    mount.clock.advance(60)
    assert mount.names() == [
        b"2024-05-01",
        b"2024-05-02_120000",
        b"2024-05-02",
        b"latest",
        b"yesterday",
    ]
    assert mount.names(mount.at("2024-05-02")) == []
    assert mount.tree.attributes(old_inode) == old


def test_many_versions_in_use_share_few_descriptors(task):
    count = 40
    days = [DAY + datetime.timedelta(days=day) for day in range(count)]
    for day in days:
        add_version(task, [TOP, entry(2, 1, b"f", Kind.FILE)], day)
    mount = Mount(task)
    before = open_descriptors()
    inodes = [mount.at(f"{day:%Y-%m-%d}/f") for day in days]
    assert open_descriptors() - before <= 2 * count + 32
    assert [mount.tree.attributes(inode).inode for inode in inodes] == inodes
    mount.tree.close()
    assert open_descriptors() == before


def test_dead_bindings_are_forgotten(two):
    mount, task = two
    for _ in range(5):
        mount.at("2024-05-01/f")
        expire(task, task.versions()[0])
        add_version(task, [TOP, entry(2, 1, b"f", Kind.FILE)], DAY)
        mount.clock.advance(100)
        mount.tree.close_idle()
        mount.names()
    mount.tree.close_idle()
    assert len(mount.tree._inodes.mounted.bindings) <= 4
