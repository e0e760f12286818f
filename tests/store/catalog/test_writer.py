"""The catalog being written: what it refuses, what it keeps, what a close undoes."""

import sqlite3

import pytest

from ssfs.errors import CorruptStore, RemoteProtocolError, StoreFull
from ssfs.model.entry import MAX_ENTRY_ID, Flag, Kind, Principal
from ssfs.store.catalog import writer
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import PARKED, write_error
from ssfs.store.catalog.writer import CatalogWriter
from tests.store.catalog.rows import ROOT, directory, row


@pytest.fixture
def path(tmp_path):
    return bytes(tmp_path / "catalog.db")


@pytest.fixture
def catalog(path):
    """A committed catalog, opened again: / a/ a/b/ a/b/f x."""
    with opened(path) as made:
        for entry in (
            ROOT,
            directory(2, b"a"),
            directory(3, b"b", 2),
            row(4, b"f", 3, size=10),
            row(5, b"x", size=7),
        ):
            made.put(entry)
        made.checkpoint()
    with opened(path) as writer:
        yield writer


def opened(path):
    return CatalogWriter.open_writer(path, durable=False)


def put_all(catalog, *entries):
    for entry in entries:
        catalog.put(entry)
    catalog.checkpoint()


def refused(catalog, entry, match=None):
    before = catalog.logical_digest(), list(catalog.entries())
    with pytest.raises(RemoteProtocolError, match=match):
        catalog.put(entry)
    assert (catalog.logical_digest(), list(catalog.entries())) == before


BAD_NAMES = [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"x" * 256]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_name_that_is_no_single_component_is_refused(catalog, name):
    refused(catalog, row(6, name), "name")
    refused(catalog, row(5, name), "name")


@pytest.mark.parametrize("name", [b"x" * 255, b"\xff\xfe", b"new\nline", b"...", b" ", b"-"])
def test_any_other_name_is_kept(catalog, name):
    catalog.put(row(6, name))
    assert catalog.child(1, name) == row(6, name)


@pytest.mark.parametrize("parent", [99, 5, 0, -1, -2, 1 << 63, 1 << 64], ids=str)
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.FIFO, Kind.DIRECTORY])
def test_parent_must_be_a_directory_of_the_catalog(catalog, parent, kind):
    refused(catalog, row(6, b"n", parent, kind=int(kind)), "no parent")


@pytest.mark.parametrize("parent", [99, 5, 0, -1])
def test_parent_is_checked_after_a_removed_one_too(catalog, parent):
    catalog.put(row(6, b"n", 3))
    catalog.remove(3)
    refused(catalog, row(7, b"n", parent))
    refused(catalog, row(7, b"n", 3))


@pytest.mark.parametrize("entry_id", [0, -1, MAX_ENTRY_ID, 1 << 63, 1 << 64], ids=str)
def test_id_out_of_range_is_refused(catalog, entry_id):
    refused(catalog, row(entry_id, b"n"), "range")


def test_largest_id_is_kept(catalog):
    catalog.put(row(MAX_ENTRY_ID - 1, b"n"))
    assert catalog.entry(MAX_ENTRY_ID - 1) is not None


def test_id_of_an_earlier_version_is_never_used_again(catalog, path):
    catalog.remove(5)
    refused(catalog, row(5, b"new"), "used before")
    catalog.checkpoint()
    catalog.close()
    with opened(path) as again:
        refused(again, row(5, b"new"), "used before")
        assert again.take_id() == 6


@pytest.mark.parametrize("entry_id", [6, 9])
def test_id_made_and_removed_in_one_session_is_not_used_again(catalog, entry_id):
    catalog.put(directory(9, b"d"))
    catalog.put(row(6, b"n", 9))
    catalog.remove(9)
    refused(catalog, row(entry_id, b"again"), "used before")


def test_client_that_makes_and_removes_without_end_is_refused(catalog, monkeypatch):
    monkeypatch.setattr(writer, "_MOST_USED_UP", 3)
    for number in range(6, 9):
        catalog.put(row(number, b"n"))
        catalog.remove(number)
    # What the version before had may go without end.
    assert catalog.remove(2) == 3
    catalog.put(row(9, b"n"))
    with pytest.raises(RemoteProtocolError, match="without end"):
        catalog.remove(9)


def test_fresh_directories_are_forgotten_at_no_cost(catalog, path, monkeypatch):
    monkeypatch.setattr(writer, "_MOST_FRESH", 3)
    for number in range(6, 26):
        catalog.put(directory(number, b"%d" % number, number - 1 if number > 6 else 1))
        catalog.put(row(number + 100, b"f", number))
        assert len(catalog._fresh_directories) <= 3
    # In one that is forgotten, what is in the way is parked as anywhere else.
    assert catalog.put(row(300, b"f", 6)).parked.id == 106
    assert catalog.entry(106).parent == PARKED


@pytest.mark.parametrize(
    "fields",
    [{"parent": 2}, {"name": b"root"}, {"kind": int(Kind.FILE)}, {"parent": -1}],
    ids=str,
)
def test_root_is_a_directory_without_a_name(catalog, fields):
    refused(catalog, ROOT._replace(**fields))


def test_root_cannot_be_removed(catalog):
    for entry_id in (1, 0, PARKED, 99, 1 << 64):
        with pytest.raises(RemoteProtocolError):
            catalog.remove(entry_id)


def test_kind_of_an_id_never_changes(catalog):
    refused(catalog, directory(5, b"x"), "kind")
    refused(catalog, row(2, b"a"), "kind")
    refused(catalog, row(3, b"elsewhere"), "kind")


@pytest.mark.parametrize("kind", [0, 7, -1, 1 << 64], ids=str)
def test_unknown_kind_is_refused(catalog, kind):
    refused(catalog, row(6, b"n", kind=kind), "kind")


@pytest.mark.parametrize("parent", [2, 3])
def test_directory_is_not_put_below_itself(catalog, parent):
    refused(catalog, directory(2, b"a", parent), "below itself")


def test_directory_made_just_now_is_not_put_below_itself(catalog):
    catalog.put(directory(6, b"n"))
    catalog.put(directory(7, b"m", 6))
    catalog.put(directory(8, b"o", 7))
    for parent in (6, 7, 8):
        refused(catalog, directory(6, b"n", parent), "below itself")


def test_directory_and_the_one_inside_it_may_change_places(catalog):
    # mv a/b x && mv a x/a: the inner one first, as a walk meets them.
    catalog.put(directory(3, b"a"))
    assert catalog.entry(2).parent == PARKED
    catalog.put(directory(2, b"b", 3))
    assert catalog.path_names(4) == [b"a", b"f"]
    assert catalog.path_names(2) == [b"a", b"b"]
    assert not catalog.has_parked()


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": 0o10000},
        {"mode": -1},
        {"mtime_ns": 10**9},
        {"mtime_ns": -1},
        {"ctime_ns": 10**9},
        {"size": -1},
        {"target": b"a\0b"},
    ],
    ids=str,
)
def test_metadata_that_no_file_has_is_refused(catalog, fields):
    refused(catalog, row(6, b"n", **fields), "metadata")


@pytest.mark.parametrize("field", ["uid", "mtime_s", "ino", "dev", "rdev", "link_group", "size"])
def test_number_of_more_than_64_bits_is_the_peers_fault(catalog, field):
    with pytest.raises(RemoteProtocolError):
        put_all(catalog, row(6, b"n", **{field: 1 << 63}))


@pytest.mark.parametrize("field", ["uid", "mtime_s"])
def test_number_of_more_than_64_bits_is_no_change_either(catalog, field):
    with pytest.raises(RemoteProtocolError):
        catalog.put(row(5, b"x", **{field: 1 << 63}))


def test_values_at_the_edge_come_back_as_they_were(catalog, path):
    edge = row(
        6,
        b"n",
        mtime_s=-(1 << 40),
        mtime_ns=999_999_999,
        ctime_s=(2400 - 1970) * 31_556_952,
        size=1 << 62,
        ino=-(1 << 63),
        dev=(1 << 63) - 1,
        uid=(1 << 32) - 2,
        flags=int(Flag.STALE | Flag.RACY),
    )
    catalog.put(edge)
    catalog.put(edge._replace(id=7, name=b"m", ino=(1 << 63) - 1, mtime_s=-1, size=0))
    catalog.checkpoint()
    catalog.create_search_indexes()
    with CatalogReader.open(path) as reader:
        assert reader.entry(6) == edge
        assert reader.number("bytes") == (1 << 62) + 17
        assert [found.id for found in reader.by_inode(-(1 << 63))] == [6]


def test_sizes_that_add_up_to_too_much_are_refused(catalog):
    with pytest.raises(RemoteProtocolError):
        put_all(catalog, row(6, b"n", size=1 << 62), row(7, b"m", size=1 << 62))


def test_flags_and_kinds_count_as_their_numbers(catalog):
    catalog.put(row(6, b"n", flags=Flag.STALE | Flag.RACY, kind=Kind.FILE))
    before = catalog.logical_digest()
    catalog.put(row(6, b"n", flags=5, kind=1))
    assert catalog.logical_digest() == before


def test_two_new_entries_at_one_place_of_a_new_directory_end_in_a_refusal(catalog):
    with pytest.raises(RemoteProtocolError):
        put_all(catalog, directory(6, b"d"), row(7, b"n", 6), row(8, b"n", 6))
    catalog.close()


def test_principals_are_users_or_groups(catalog):
    catalog.name(Principal(0, 1, b"eva"))
    catalog.name(Principal(0, 1, b"ada"))
    catalog.name(Principal(1, 1, b"staff"))
    catalog.name(Principal(1, 1, b""))
    assert catalog.principals() == [Principal(0, 1, b"ada")]
    for principal in (Principal(2, 1, b"x"), Principal(0, 1 << 63, b"x"), Principal(-1, 0, b"")):
        with pytest.raises(RemoteProtocolError):
            catalog.name(principal)


def test_close_undoes_what_was_not_in_a_checkpoint(catalog, path):
    before = catalog.logical_digest(), list(catalog.entries())
    catalog.put(row(6, b"n"))
    catalog.put(row(5, b"renamed"))
    catalog.remove(2)
    catalog.close()
    catalog.close()
    with CatalogReader.open(path) as reader:
        assert (reader.logical_digest(), list(reader.entries())) == before
        assert reader.number("next_id") == 6


def test_rows_not_yet_in_the_file_are_found(catalog):
    catalog.put(directory(6, b"d"))
    catalog.put(row(7, b"n", 6, size=5000))
    assert catalog.path_names(7) == [b"d", b"n"]
    catalog.put(row(8, b"m", 6))
    assert catalog.content_of(8) == 0
    catalog.put(row(9, b"o", 6), 44)
    assert catalog.content_of(9) == 44
    catalog.put(row(10, b"p", 6, size=5000))
    assert catalog.has_size(5000)


def test_content_number_stays_unless_a_new_one_is_given(catalog):
    catalog.put(row(6, b"n"), catalog.take_content())
    first = catalog.content_of(6)
    catalog.put(row(6, b"m"))
    assert catalog.content_of(6) == first > 0
    catalog.put(row(6, b"m"), catalog.take_content())
    assert catalog.content_of(6) != first
    assert catalog.content_of(1 << 64) == 0


def test_removing_a_directory_removes_all_below(catalog):
    assert catalog.remove(2) == 3
    assert [entry.id for entry in catalog.entries()] == [1, 5]


@pytest.mark.slow
def test_large_directory_is_removed_in_parts(path):
    with opened(path) as catalog:
        catalog.put(ROOT)
        catalog.put(directory(2, b"a"))
        for number in range(2500):
            catalog.put(row(3 + number, b"%d" % number, 2))
        assert catalog.remove(2) == 2501
        assert catalog.counter("entries") == 1


def test_ids_taken_are_new_whatever_is_put_meanwhile(catalog):
    first = catalog.take_id()
    catalog.put(row(20, b"far"))
    second = catalog.take_id()
    catalog.set_next_id(30)
    third = catalog.take_id()
    assert (first, second, third) == (6, 21, 30)


@pytest.mark.parametrize(
    "bad",
    [
        row(6, b".."),
        row(6, b"a/b"),
        row(0, b"n"),
        row(6, b"n", kind=9),
        directory(1, b"named"),
        row(6, b"n", mode=1 << 15),
    ],
    ids=str,
)
def test_fetched_rows_are_checked(path, bad):
    with opened(path) as catalog:
        catalog.load([ROOT], [])
        with pytest.raises(RemoteProtocolError):
            catalog.load([bad], [])


def test_fetched_rows_come_in_any_order(path):
    rows = [row(4, b"f", 3), directory(3, b"b", 2), directory(2, b"a"), ROOT]
    digests = set()
    for order in (rows, rows[::-1]):
        with opened(path + b"%d" % order[0].id) as catalog:
            catalog.load(order, [Principal(0, 0, b"root")])
            digests.add(catalog.logical_digest())
            assert catalog.path_names(4) == [b"a", b"b", b"f"]
    assert len(digests) == 1


def test_circle_in_a_fetched_catalog_does_not_hang(path, monkeypatch):
    monkeypatch.setattr("ssfs.store.catalog.rows.MAX_DEPTH", 100)
    with opened(path) as catalog:
        catalog.load([ROOT, directory(2, b"a", 3), directory(3, b"b", 2)], [])
        with pytest.raises(CorruptStore):
            catalog.path_names(2)


def test_full_disk_is_no_damage():
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert isinstance(write_error(full, b"c"), StoreFull)
    assert isinstance(write_error(sqlite3.OperationalError("disk I/O error"), b"c"), CorruptStore)


def test_full_disk_during_writing_is_said_so(catalog):
    (pages,) = catalog._database.execute("PRAGMA page_count").fetchone()
    catalog._database.execute(f"PRAGMA max_page_count = {pages}")
    many = [row(6 + number, b"%d" % number, target=b"t" * 100) for number in range(3000)]
    with pytest.raises(StoreFull):
        put_all(catalog, *many)
    catalog.close()
