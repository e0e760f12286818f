"""A catalog against plain dictionaries: the same changes, the same rows, digest and counters."""

import os
import shutil
import sqlite3
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ssfs.model.entry import Entry, Kind, Principal
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.schema import PARKED
from ssfs.store.catalog.writer import CatalogWriter
from tests.store.catalog.rows import ROOT, directory, row

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff", b"long" * 60])
SIZES = st.sampled_from([0, 1, 4096, 1 << 40])
KINDS = st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO])
COLUMNS = ", ".join(Entry._fields)


class CatalogMachine(RuleBasedStateMachine):
    """Two writers get every change; a dictionary says what must come out."""

    def __init__(self):
        super().__init__()
        self.directory = os.fsencode(tempfile.mkdtemp())
        self.paths = [os.path.join(self.directory, name) for name in (b"client", b"server")]
        self.rows: dict[int, Entry] = {}
        self.names: dict[tuple[int, int], bytes] = {}
        self.next_id = 2
        self.fresh = {1}  # directories made by a writer that is still open
        self.committed = ({}, {}, 2)
        self.writers = [self._open(path) for path in self.paths]

    def _open(self, path):
        return CatalogWriter.open_writer(path, durable=False)

    @initialize()
    def make_root(self):
        self._put(ROOT)

    # -- the model -------------------------------------------------------------------------------

    def _put(self, entry: Entry):
        occupant = next(
            (r for r in self.rows.values() if (r.parent, r.name) == (entry.parent, entry.name)),
            None,
        )
        old = self.rows.get(entry.id)
        parked = occupant if occupant is not None and occupant.id != entry.id else None
        if parked is not None:
            self.rows[parked.id] = parked._replace(parent=PARKED, name=b"%d" % parked.id)
        self.rows[entry.id] = entry
        self.next_id = max(self.next_id, entry.id + 1)
        for writer in self.writers:
            assert writer.put(entry) == (old, parked)

    def _below(self, entry_id: int) -> set[int]:
        found = {entry_id}
        for candidate in self.rows.values():
            above = candidate
            while above is not None and above.id not in found:
                above = self.rows.get(above.parent)
            if above is not None:
                found.add(candidate.id)
        return found

    def _pick(self, number: int, kinds=None, *, root: bool = False) -> Entry | None:
        fitting = [
            entry
            for _, entry in sorted(self.rows.items())
            if (root or entry.id != 1) and (kinds is None or entry.kind in kinds)
        ]
        return fitting[number % len(fitting)] if fitting else None

    def _directory(self, number: int) -> Entry:
        found = self._pick(number, (Kind.DIRECTORY,), root=True)
        assert found is not None
        return found

    # -- changes ---------------------------------------------------------------------------------

    @rule(parent=st.integers(0), name=NAMES, kind=KINDS, size=SIZES, skip=st.integers(0, 3))
    def make(self, parent, name, kind, size, skip):
        where = self._directory(parent).id
        entry_id = self.next_id + skip
        if where in self.fresh and self._at(where, name):
            return  # a client meets a name once: refused, but only at the next look at the file
        if kind == Kind.DIRECTORY:
            self.fresh.add(entry_id)
            self._put(directory(entry_id, name, where))
        elif kind == Kind.FILE:
            self._put(row(entry_id, name, where, size=size))
        else:
            target = b"to" if kind == Kind.SYMLINK else b""
            entry = row(entry_id, name, where, kind=int(kind), digest=b"", target=target)
            self._put(entry)

    def _at(self, parent: int, name: bytes) -> bool:
        return any((r.parent, r.name) == (parent, name) for r in self.rows.values())

    @rule(number=st.integers(0), size=SIZES, mtime=st.integers(-(1 << 62), 1 << 62))
    def change(self, number, size, mtime):
        entry = self._pick(number, root=True)
        if entry is not None and entry.parent != PARKED:
            fields = {"size": size} if entry.kind == Kind.FILE else {}
            self._put(entry._replace(mtime_s=mtime, **fields))

    @rule(number=st.integers(0), parent=st.integers(0), name=NAMES)
    def move(self, number, parent, name):
        entry, where = self._pick(number), self._directory(parent)
        if entry is not None and where.id not in self._below(entry.id):
            self._put(entry._replace(parent=where.id, name=name))

    @rule(first=st.integers(0), second=st.integers(0))
    def swap(self, first, second):
        one, other = self._pick(first), self._pick(second)
        if one is None or other is None or PARKED in (one.parent, other.parent):
            return
        if one.parent in self._below(other.id) or other.parent in self._below(one.id):
            return
        self._put(one._replace(parent=other.parent, name=other.name))
        if one.id != other.id:
            self._put(other._replace(parent=one.parent, name=one.name))

    @rule(number=st.integers(0))
    def remove(self, number):
        entry = self._pick(number)
        if entry is None:
            return
        gone = self._below(entry.id)
        for entry_id in gone:
            del self.rows[entry_id]
        for writer in self.writers:
            assert writer.remove(entry.id) == len(gone)

    @rule(
        kind=st.sampled_from([0, 1]),
        number=st.integers(-1, 2),
        name=st.sampled_from([b"", b"x", b"y"]),
    )
    def call(self, kind, number, name):
        if name:
            self.names[kind, number] = name
        else:
            self.names.pop((kind, number), None)
        for writer in self.writers:
            writer.name(Principal(kind, number, name))

    # -- transactions ----------------------------------------------------------------------------

    @rule()
    def checkpoint(self):
        for writer in self.writers:
            writer.checkpoint()
        self.committed = (dict(self.rows), dict(self.names), self.next_id)

    @rule()
    def reopen(self):
        self.checkpoint()
        self.writers[0].close()
        self.writers[0] = self._open(self.paths[0])

    @precondition(lambda self: self.committed[0])
    @rule()
    def roll_back(self):
        for number, writer in enumerate(self.writers):
            writer.close()
            self.writers[number] = self._open(self.paths[number])
        rows, names, self.next_id = self.committed
        self.rows, self.names = dict(rows), dict(names)

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def rows_are_those_of_the_model(self):
        expected = [entry for _, entry in sorted(self.rows.items())]
        for writer in self.writers:
            assert list(writer.entries()) == expected
            assert {(p.kind, p.number): p.name for p in writer.principals()} == self.names

    @invariant()
    def digest_is_that_of_the_rows_and_equal(self):
        total = rows_digest([tuple(entry) for entry in self.rows.values()])
        total += rows_digest([(*key, name) for key, name in self.names.items()])
        assert [w.logical_digest() for w in self.writers] == [digest_bytes(total)] * 2

    @invariant()
    def counters_count(self):
        kinds = [entry.kind for entry in self.rows.values()]
        expected = {
            "entries": len(kinds),
            "files": kinds.count(Kind.FILE),
            "directories": kinds.count(Kind.DIRECTORY),
            "symlinks": kinds.count(Kind.SYMLINK),
            "bytes": sum(entry.size for entry in self.rows.values()),
        }
        for writer in self.writers:
            assert {key: writer.counter(key) for key in expected} == expected
            if self.rows:
                assert writer.counter("next_id") == self.next_id
                parked = any(entry.parent == PARKED for entry in self.rows.values())
                assert writer.has_parked() == parked

    def teardown(self):
        for writer in self.writers:
            writer.checkpoint()
            writer.close()
        with sqlite3.connect(os.fsdecode(self.paths[1])) as database:
            rows = database.execute(f"SELECT {COLUMNS} FROM entry").fetchall()
            assert sorted(rows) == sorted(map(tuple, self.rows.values()))
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            meta = dict(database.execute("SELECT key, value FROM meta"))
        database.close()
        assert meta["logical_digest"] == self.writers[1].logical_digest()
        shutil.rmtree(self.directory)


TestCatalogMachine = pytest.mark.slow(CatalogMachine.TestCase)
TestCatalogMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
