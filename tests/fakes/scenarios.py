"""Recorded sessions of every kind, each with the store it starts from.

A template is a directory with `store`, which has the task `main/other` of somebody else and most often one of
ours, `main/mine`; and with `canary`, which nobody has any business in.
"""

import contextlib
import datetime
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import blake3

from ssfs.engine.browse.link import ask_once, enter
from ssfs.engine.browse.partial import PartialCatalog
from ssfs.engine.browse.requests import BytesQuestion, ListingQuestion, RowsQuestion, VersionRef
from ssfs.engine.commands import ask
from ssfs.engine.enrolment import EnrolmentDesk
from ssfs.engine.greeting import ask_to_enrol, ask_to_renew, fetch_authority, greet_server
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.sender import SyncRequest, send_version
from ssfs.engine.session import Visitor, serve_session
from ssfs.errors import SsfsError
from ssfs.model.entry import ROOT_ID, Kind
from ssfs.model.peer import NOBODY, Peer, Role
from ssfs.model.policy import Policy
from ssfs.monitor import NullMonitor
from ssfs.net.channel import Channel
from ssfs.pki.certificate import make_key, make_request, to_der
from ssfs.protocol.browsing import LetGo, LinkedNames
from ssfs.protocol.codec import CONTROL_TYPES, FILE_RAW, TYPE_NUMBERS
from ssfs.protocol.messages import CatalogBatch, Checkpoint, Leave
from ssfs.protocol.requests import (
    DeleteVersions,
    ExpireVersions,
    ListPoints,
    ListVersions,
    SetPin,
    SetPoint,
)
from ssfs.protocol.restoring import Fetch
from ssfs.protocol.states import Role as End
from ssfs.source.exclude import ExcludeOptions
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.fakes.arenas import CLOCK, copy_tree, record_session
from tests.fakes.scripts import Frame, ScriptedChannel, frame, pieces

CLIENT = Peer("client", frozenset({Role.BACKUP}), frozenset({"main"}))
ADMIN = Peer("admin", frozenset({Role.ADMIN}), frozenset({"main"}))
OTHER = Peer("other", frozenset({Role.BACKUP}), frozenset({"main"}))
LARGE_BYTES = 140_000

Act = Callable[[Channel], object]


class Scenario(NamedTuple):
    """One recorded session.

    Attributes:
        name: Of what kind it is.
        template: What there was before.
        visitor: Who it was, as a server of the store in that directory sees it.
        sent: The client's frames.
        heard: The server's.
        act: What the client did; takes the channel.
    """

    name: str
    template: Path
    visitor: Callable[[Path], Visitor]
    sent: list[Frame]
    heard: list[Frame]
    act: Act


class Scenarios:
    """All scenarios; made in a directory.

    Attributes:
        all: By name.
        directory: Everything is in it, "client/canary" too.
        source: The tree that was backed up last, as it is for every client's session.
        cache: The client's cache; to be emptied before a session.
        target: Where restores go; to be made anew before a session by `prepare_target`.
    """

    def __init__(self, directory: Path) -> None:
        self.all: dict[str, Scenario] = {}
        self.directory = directory
        self.source = directory / "client" / "source"
        self.cache = directory / "client" / "cache"
        self.target = directory / "client" / "target"
        self.cache.mkdir(parents=True)
        _build(self.source)
        (directory / "client" / "canary").write_bytes(b"a canary")
        self._record_backups()
        self._record_readers()
        self._record_enrolments()

    def prepare_client(self) -> None:
        """An empty cache, and an old state of things at the target of a restore."""
        for directory in (self.cache, self.target):
            shutil.rmtree(directory, ignore_errors=True)
        self.cache.mkdir()
        (self.target / "one").mkdir(parents=True)
        large = bytearray((self.source / "large").read_bytes())
        large[5000:5200] = b"\0" * 200
        (self.target / "large").write_bytes(large)
        (self.target / "one" / "extra").write_bytes(b"stays")

    def sync(self, channel: Channel, *, task: str = "mine", dry_run: bool = False) -> object:
        greet_server(channel)
        request = SyncRequest(
            os.fsencode(self.source),
            "main",
            task,
            "client",
            "/source",
            ExcludeOptions(),
            dry_run=dry_run,
        )
        return send_version(channel, request, os.fsencode(self.cache), NullMonitor(), CLOCK)

    def restore(self, channel: Channel, *paths: bytes) -> object:
        greet_server(channel)
        request = Fetch("main", "mine", "latest", list(paths))
        return fetch_version(channel, request, os.fsencode(self.target), NullMonitor(), CLOCK)

    def browse(self, channel: Channel) -> object:
        """Look into a task's newest version, and read all files of it."""
        greet_server(channel)
        enter(channel)
        listing = ListingQuestion("", "", b"")
        for where in (("", ""), ("main", ""), ("main", "mine")):
            listing = ListingQuestion(*where, b"")
            ask_once(channel, listing)
        ref = VersionRef("main", "mine", listing.versions[-1].version if listing.versions else "")
        catalog = PartialCatalog.open_partial(os.fsencode(self.cache / "partial.db"))
        with contextlib.closing(catalog):

            def take(rows: CatalogBatch | list[LinkedNames]) -> None:
                if isinstance(rows, CatalogBatch):
                    catalog.store(rows, ROOT_ID)
                else:
                    catalog.store_links(rows)

            for ahead in (-1, 2000):
                question = RowsQuestion(ref, ROOT_ID, ahead, take)
                ask_once(channel, question)
                catalog.mark_complete(question.end.directories)
            for entry in catalog.entries():
                if entry.kind == Kind.FILE and entry.size < 1 << 20:
                    ask_once(channel, BytesQuestion(ref, entry.id, 0, entry.size))
        channel.send(LetGo(*ref))
        channel.send(Leave())
        return None

    # -- recording -------------------------------------------------------------------------------

    def _template(self, name: str, like: str = "") -> Path:
        path = self.directory / "templates" / name
        if like:
            copy_tree(self.directory / "templates" / like, path)
        return path

    def _record(self, name: str, template: Path, visitor: Peer | Callable, act: Act) -> Path:
        """Record a session; where that was: the state after it."""
        after = self.directory / "after" / name
        copy_tree(template, after)
        find = visitor if callable(visitor) else lambda _: Visitor(visitor)
        self.prepare_client()
        frames = record_session(after / "store", find(after / "store"), act)
        self.all[name] = Scenario(name, template, find, frames["sent"], frames["heard"], act)
        return after

    def _record_backups(self) -> None:
        empty = self._template("empty")
        empty.mkdir(parents=True)
        (empty / "canary").mkdir()
        (empty / "canary" / "file").write_bytes(b"a canary")
        Store.create(os.fsencode(empty / "store"), Policy(keep_last=10_000), "UTC", CLOCK)
        record_session(
            empty / "store", Visitor(OTHER), lambda channel: self.sync(channel, task="other")
        )
        after = self._record("first", empty, CLIENT, self.sync)
        based = self.directory / "templates" / "based"
        copy_tree(after, based)
        _edit(self.source)
        self._record("second", based, CLIENT, self.sync)
        self._record("whole", empty, CLIENT, self.sync)
        self._record("dry run", based, CLIENT, lambda channel: self.sync(channel, dry_run=True))
        staged = self._template("staged", "based")
        with ScriptedChannel(End.SERVER, pieces(_cut(self.all["second"].sent))) as channel:
            store = Store.open(os.fsencode(staged / "store"))
            outcome = serve_session(channel, store, Visitor(CLIENT), CLOCK, lambda _: None)
        assert outcome.startswith("cut off"), outcome
        self._record("resumed", staged, CLIENT, self.sync)

    def _record_readers(self) -> None:
        based = self.directory / "templates" / "based"
        self._record("restore", based, CLIENT, self.restore)
        parts = (b"one/two", b"large")
        self._record("restore parts", based, CLIENT, lambda channel: self.restore(channel, *parts))
        self._record("browse", based, CLIENT, self.browse)
        reads = [ListPoints(), ListVersions("main", "mine"), ListVersions("main", "")]
        self._record("commands", based, CLIENT, _asking(reads))
        orders = [
            SetPoint("main", days=5),
            SetPin("main", "mine", "latest", is_pinned=True),
            ExpireVersions("main", "mine", dry_run=True),
            DeleteVersions("main", "mine", ("latest",)),
        ]
        for number, order in enumerate(orders):
            self._record(f"order {number}", based, CLIENT, _asking([order]))
        self._record("administration", based, ADMIN, _asking([*reads[:2], *orders]))

    def _record_enrolments(self) -> None:
        invited = self._template("invited", "based")
        registry = Registry(Store.open(os.fsencode(invited / "store")))
        now = CLOCK.now()
        tomorrow = now + datetime.timedelta(days=1)
        registry.ensure_server_certificate(now)
        known = registry.invite("client", [Role.BACKUP], ["main"], tomorrow, now)
        key = make_key()
        certificate = to_der(registry.redeem(known, make_request(key), now).certificate)
        secret = registry.invite("newcomer", [Role.BACKUP], ["main"], tomorrow, now)

        def desk(store: Path) -> EnrolmentDesk:
            opened = Store.open(os.fsencode(store))
            return EnrolmentDesk(Registry(opened), CLOCK, sleep=lambda _: None)

        def enrol(channel: Channel) -> object:
            greet_server(channel)
            return ask_to_enrol(channel, secret, make_request(key))

        def renew(channel: Channel) -> object:
            greet_server(channel)
            renewed = ask_to_renew(channel, make_request(key))
            channel.send(Leave())
            return renewed

        def look(channel: Channel) -> object:
            greet_server(channel)
            return fetch_authority(channel)

        def stranger(store: Path) -> Visitor:
            return Visitor(NOBODY, desk=desk(store))

        def client(store: Path) -> Visitor:
            return Visitor(CLIENT, certificate, desk=desk(store))

        self._record("authority", invited, stranger, look)
        self._record("enrol", invited, stranger, enrol)
        self._record("renew", invited, client, renew)


def _asking(requests: list) -> Act:
    def act(channel: Channel) -> object:
        greet_server(channel)
        try:
            for request in requests:
                ask(channel, request)
        except SsfsError as error:
            return error
        channel.send(Leave())
        return None

    return act


def _cut(frames: list[Frame]) -> list[Frame]:
    """A backup up to the middle of a large file, with a checkpoint before it."""
    types = [CONTROL_TYPES.get(one.content[4]) for one in frames]
    begin = [kind.__name__ if kind else "" for kind in types].index("FileBegin")
    checkpoint = frame(TYPE_NUMBERS[Checkpoint], b"\x91\x01")
    last = max(at for at, one in enumerate(frames) if one.content[4] == FILE_RAW)
    return [*frames[:begin], checkpoint, *frames[begin : last + 1]]


# -- the source -----------------------------------------------------------------------------------


def _build(root: Path) -> None:
    rng = random.Random(1)
    for place in ("one/two", "moves/deep", "goes"):
        (root / place).mkdir(parents=True)
    for number, name in enumerate(
        ("small", "one/a", "one/two/b", "one/two/c", "moves/deep/d", "goes/e", "swap-1", "swap-2")
    ):
        (root / name).write_bytes(rng.randbytes(50 + 700 * number))
    (root / "copied").write_bytes(blake3.blake3(b"copied").digest(4500))
    (root / "large").write_bytes(rng.randbytes(LARGE_BYTES))
    (root / "one" / "link").symlink_to("two/b")
    os.mkfifo(root / "one" / "fifo")


def _edit(root: Path) -> None:
    rng = random.Random(2)
    with open(root / "large", "r+b") as large:
        large.seek(70_000)
        large.write(rng.randbytes(900))
    (root / "new-large").write_bytes(rng.randbytes(LARGE_BYTES))
    (root / "moves").rename(root / "one" / "moved")
    (root / "copy").write_bytes((root / "copied").read_bytes())
    (root / "small").write_bytes(b"rewritten")
    (root / "new").write_bytes(b"new")
    (root / "swap-1").rename(root / "aside")
    (root / "swap-2").rename(root / "swap-1")
    (root / "aside").rename(root / "swap-2")
    (root / "one" / "two").chmod(0o700)
    (root / "goes" / "e").unlink()
    (root / "goes").rmdir()
    (root / "one" / "link").unlink()
    (root / "one" / "link").symlink_to("two/c")
