"""A client that asks a server for what is not its, or for too much of it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ssfs.delta.signature import signature
from ssfs.engine.restore import requests
from ssfs.engine.restore.credit import CREDIT_FILES
from ssfs.errors import PeerError, RemoteProtocolError
from ssfs.protocol.messages import CatalogEnd, Leave
from ssfs.protocol.restoring import BasisPart, WantContents
from tests.fakes.restores import RestoreServer, request_of, store_of
from tests.fakes.syncs import Backup, row

LARGE = 200_000
CONTENT = os.urandom(LARGE)


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    source = tmp_path / "source"
    for directory in ("mine", "other"):
        (source / directory).mkdir(parents=True)
        (source / directory / "file").write_text(directory)
        (source / directory / "large").write_bytes(CONTENT)
    (source / "mine" / "link").symlink_to("/etc/passwd")
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


def ask(backup: Backup, *messages: object, paths: tuple[str, ...] = ("mine",)) -> RestoreServer:
    """A session in which a client asks for these, and leaves with the first answer."""
    server = RestoreServer(store_of(backup.newest()))
    with server.session() as channel:
        channel.send(request_of(backup.newest(), *paths))
        while not isinstance(channel.receive(), CatalogEnd):
            pass
        with contextlib.suppress(PeerError):
            for message in messages:
                channel.send(message)
            channel.receive()
    # Nobody holds the version any more.
    with backup.newest().share() as lock:
        assert lock.exclusive_nowait()
    return server


def ids(backup: Backup, *paths: str) -> list[int]:
    return [row(backup.newest(), path).id for path in paths]


@pytest.mark.parametrize("path", ["", "mine", "mine/link", "other", "other/file", "other/large"])
def test_ids_outside_of_what_was_fetched_are_refused(backup: Backup, path: str):
    server = ask(backup, WantContents(ids(backup, path)))
    assert [type(error) for error in server.errors] == [RemoteProtocolError]
    (entry_id,) = ids(backup, path)
    server = ask(backup, BasisPart(entry_id, last=True, content=small_signature()))
    assert [type(error) for error in server.errors] == [RemoteProtocolError]


@pytest.mark.parametrize("entry_id", [0, -1, 999, 1 << 39, 1 << 62, (1 << 64) - 1])
def test_ids_of_nothing_are_refused(backup: Backup, entry_id: int):
    server = ask(backup, WantContents([entry_id]))
    assert [type(error) for error in server.errors] == [RemoteProtocolError]


def test_one_file_that_was_fetched_gives_no_right_to_its_neighbours(backup: Backup):
    server = ask(backup, WantContents(ids(backup, "mine/large")), paths=("mine/file",))
    assert [type(error) for error in server.errors] == [RemoteProtocolError]


def small_signature() -> bytes:
    content = iter([CONTENT])
    return b"".join(signature(lambda _: next(content, b""), LARGE))


@pytest.mark.parametrize(
    "make",
    [
        lambda file, large: [WantContents([file] * (CREDIT_FILES + 1))],
        lambda file, large: [BasisPart(large, last=True, content=b"no signature")],
        lambda file, large: [BasisPart(large, last=True, content=b"")],
        lambda file, large: [BasisPart(large, last=True, content=b"ssfsxxh3" + bytes(100))],
        lambda file, large: [BasisPart(large, last=True, content=small_signature()[:-1])],
        lambda file, large: [BasisPart(large, last=False, content=bytes(12))],
        lambda file, large: [
            BasisPart(large, last=False, content=small_signature()[:100]),
            BasisPart(file, last=True, content=small_signature()[100:]),
        ],
    ],
)
def test_requests_that_no_client_makes_are_refused(backup: Backup, make: Callable):
    server = ask(backup, *make(*ids(backup, "mine/file", "mine/large")))
    assert len(server.errors) == 1
    assert isinstance(server.errors[0], RemoteProtocolError)


def test_descriptions_beyond_the_credit_are_refused(
    backup: Backup, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(requests, "CREDIT_BASIS_BYTES", 10_000)
    (large,) = ids(backup, "mine/large")
    part = BasisPart(large, last=False, content=small_signature() + bytes(9000))
    assert "described too much" in str(ask(backup, part).errors[0])


def test_files_with_signatures_count_as_files_too(backup: Backup):
    # As fast as this no client can ask for so many: the server answers meanwhile.
    asked = requests.Requests()
    asked.want([2] * CREDIT_FILES)
    with pytest.raises(RemoteProtocolError, match="too many files"):
        asked.hear_basis(BasisPart(3, last=True, content=small_signature()))
    asked.close()


@pytest.mark.parametrize("is_polite", [True, False])
def test_client_that_leaves_early_ends_its_session(backup: Backup, is_polite: bool):
    server = RestoreServer(store_of(backup.newest()))
    with server.session() as channel:
        channel.send(request_of(backup.newest()))
        while not isinstance(channel.receive(), CatalogEnd):
            pass
        channel.send(WantContents(ids(backup, "mine/file") * 5000))
        if is_polite:
            channel.send(Leave())
    assert server.errors == []
    assert (len(server.served), server.lost) in ([(1, 0), (0, 1)] if is_polite else [(0, 1)])


def test_client_that_goes_in_the_middle_of_a_signature_leaves_nothing_behind(backup: Backup):
    server = RestoreServer(store_of(backup.newest()))
    with server.session() as channel:
        channel.send(request_of(backup.newest()))
        while not isinstance(channel.receive(), CatalogEnd):
            pass
        (large,) = ids(backup, "mine/large")
        channel.send(BasisPart(large, last=False, content=small_signature()[:100]))
    assert (server.lost, server.errors) == (1, [])
