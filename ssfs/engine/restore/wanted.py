"""What a restore is asked for: paths of a version, and the rows that those paths amount to."""

import os
from collections.abc import Iterable, Iterator

from ssfs.errors import ConfigError, CorruptStore
from ssfs.model.entry import Entry, Kind
from ssfs.store.catalog.reader import CatalogReader


def find_wanted(catalog: CatalogReader, paths: Iterable[bytes]) -> dict[bytes, Entry]:
    """The entries at some paths, by path; nothing if the whole version is wanted.

    Raises:
        ConfigError: A path is not in the version.
    """
    found: dict[bytes, Entry] = {}
    is_whole = False
    for given in paths:
        path = b"/".join(name for name in given.split(b"/") if name not in (b"", b"."))
        entry = catalog.resolve(path)
        if entry is None:
            raise ConfigError(
                "Not in the version", path=given, remedy="paths are those below its root"
            )
        is_whole = is_whole or not path
        found[path] = entry
    return {} if is_whole else found


def check_last_names(wanted: Iterable[bytes]) -> None:
    """Refuse paths (`find_wanted`) that would appear in one directory under the same name.

    Raises:
        ConfigError: Two have the same.
    """
    names: dict[bytes, bytes] = {}
    for path in wanted:
        name = path.rpartition(b"/")[2]
        if names.setdefault(name, path) != path:
            raise ConfigError(
                f"Another PATH has the same name, {os.fsdecode(name)!r}",
                path=path,
                remedy="restore them into different directories",
            )


def wanted_rows(catalog: CatalogReader, wanted: dict[bytes, Entry]) -> Iterator[Entry]:
    """The rows of what `find_wanted` found, each once, and of the directories above.

    Depth first: the directory of a row is the last one before it, or one above that.

    Raises:
        CorruptStore: The catalog cannot be read, or has no root.
    """
    root = catalog.root()
    if root is None:
        raise CorruptStore("The catalog is empty", path=catalog.path)
    if not wanted:
        yield from _subtree(catalog, root)
        return
    yield root
    above = [root]
    last: list[bytes] | None = None
    for names in sorted(path.split(b"/") for path in wanted):
        if last is not None and names[: len(last)] == last:
            continue  # it came with a directory that is wanted as a whole
        last = names
        common = 1
        while common < min(len(above), len(names)) and above[common].name == names[common - 1]:
            common += 1
        del above[common:]
        for name in names[common - 1 : -1]:
            above.append(_child(catalog, above[-1], name))
            yield above[-1]
        yield from _subtree(catalog, _child(catalog, above[-1], names[-1]))


def _child(catalog: CatalogReader, parent: Entry, name: bytes) -> Entry:
    entry = catalog.child(parent.id, name)
    if entry is None:
        raise CorruptStore(f"Catalog has lost an entry of {parent.id}", path=catalog.path)
    return entry


def _subtree(catalog: CatalogReader, top: Entry) -> Iterator[Entry]:
    yield top
    if top.kind != Kind.DIRECTORY:
        return
    stack = [catalog.children(top.id)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        yield entry
        if entry.kind == Kind.DIRECTORY:
            stack.append(catalog.children(entry.id))
