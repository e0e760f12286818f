"""Rows for catalogs, with little to write."""

from ssfs.model.entry import ROOT_ID, Entry, Kind

ROOT = Entry(ROOT_ID, 0, b"", int(Kind.DIRECTORY), 0o755, *(0,) * 5, b"", b"", *(0,) * 5)


def row(entry_id: int, name: bytes, parent: int = ROOT_ID, **fields: object) -> Entry:
    """A file's row."""
    file = ROOT._replace(id=entry_id, parent=parent, name=name, kind=int(Kind.FILE), mode=0o644)
    return file._replace(**{"digest": bytes(32), **fields})


def directory(entry_id: int, name: bytes, parent: int = ROOT_ID, **fields: object) -> Entry:
    """A directory's row."""
    return ROOT._replace(id=entry_id, parent=parent, name=name, **fields)
