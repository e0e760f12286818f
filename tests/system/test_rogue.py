"""Rogue clients against a real server: refused with a logged reason, nothing outside their task's staging touched, nobody harmed."""

import contextlib
import os
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import blake3
import pytest
import zstandard
from cryptography import x509

from ssfs.model.entry import Entry, Kind, Principal
from ssfs.model.version import Counts
from ssfs.net.blocks import Kind as BlockKind
from ssfs.net.blocks import Preamble, encode_preamble
from ssfs.net.dial import TlsTarget
from ssfs.protocol.enrolling import Enroll, Renew
from ssfs.protocol.messages import (
    Ask,
    CatalogEnd,
    Changes,
    Committed,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Finish,
    Hello,
    Keep,
    Link,
    Make,
    Name,
    Need,
    NoSignature,
    Open,
    Refused,
    Remove,
    Store,
    WantSignature,
)
from ssfs.protocol.requests import (
    DeleteVersions,
    ExpireVersions,
    ListVersions,
    SetPin,
    SetPoint,
    encode_request,
)
from ssfs.protocol.restoring import BasisPart, Fetch, WantContents
from tests.fakes.arenas import changed_paths, image_of, memory_directory
from tests.fakes.certificates import Authority
from tests.fakes.trees import build_tree, compare_with_version, verify_version
from tests.system.rogues import (
    HEADER,
    Rogue,
    connected,
    frame,
    half_open,
    raw_tls,
    read_all,
    tls_target,
)
from tests.system.servers import Machine, ServedStore, run_ssfs, served

pytestmark = pytest.mark.slow

TASKS = "store/points/main/tasks/"
LARGE = 140_000


class Place(NamedTuple):
    """A server with an honest client, a rogue one, and one whose access was revoked."""

    directory: Path
    server: ServedStore
    honest: Machine
    rogue: TlsTarget
    revoked: TlsTarget
    source: Path
    version: str

    @property
    def site(self) -> Path:
        return self.directory / "site"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with memory_directory() as directory:
        yield from make_place(directory)


def make_place(directory: Path) -> Iterator[Place]:
    site = directory / "site"
    (site / "canary").mkdir(parents=True)
    (site / "canary" / "file").write_bytes(b"a canary")
    source = build_tree(directory / "source", 3, large_bytes=1 << 19)
    rogues_source = directory / "rogues-source"
    rogues_source.mkdir()
    (rogues_source / "large").write_bytes(os.urandom(LARGE))
    (rogues_source / "file").write_bytes(b"content")
    with served(site / "store", "--keep-last", "99") as server:
        honest = Machine(directory / "honest", "honest").enrol(server)
        version = honest.sync(source, server.url("main/docs"))["version"]
        rogue = Machine(directory / "rogue", "rogue").enrol(server)
        rogue.sync(rogues_source, server.url("main/own"), "--source-id", "/source")
        gone = Machine(directory / "gone", "gone").enrol(server)
        run_ssfs("revoke", server.path, "gone")
        yield Place(
            *(directory, server, honest, tls_target(rogue, server), tls_target(gone, server)),
            *(source, version),
        )


# -- what rogues do --------------------------------------------------------------------------------

CASES: dict[str, tuple[Callable[[Place], None], str]] = {}


def case(reason: str, **parameters):
    """What a rogue does, and a pattern of the log line that says why it was refused."""

    def register(act):
        name = act.__name__ + "".join(f" {value!r}" for value in parameters.values())
        CASES[name] = (lambda place: act(place, **parameters), reason)
        return act

    return register


def row(entry_id: int, name: bytes, kind: Kind = Kind.FILE, content: bytes = b"", **other) -> Entry:
    """A row as a client may send it."""
    is_file = kind is Kind.FILE
    entry = Entry(
        *(entry_id, 1, name, int(kind), 0o644, 0, 0, 0, 0),
        *(len(content), blake3.blake3(content).digest() if is_file else b"", b""),
        *(0, 1000 + entry_id, 0, 0, 0),
    )
    return entry._replace(**other)


@contextlib.contextmanager
def backing_up(place: Place) -> Iterator[tuple[Rogue, int]]:
    """A rogue in the middle of a backup into its own task; and the next id."""
    with connected(place.rogue) as rogue:
        opened = rogue.open("own", source=own_source(place))
        assert opened is not None
        yield rogue, opened.next_id


def own_source(place: Place) -> str:
    text = (place.site / TASKS / "own" / "task.toml").read_text()
    return re.search('source = "(.*)"', text)[1]


def expect_refused(rogue: Rogue) -> None:
    word = rogue.last_word()
    assert isinstance(word, Refused), word


def refused_after(place: Place, *messages) -> None:
    """Say this in a backup of one's own; it is refused."""
    with backing_up(place) as (rogue, _):
        rogue.say(*messages)
        expect_refused(rogue)


# who it is


def forged(place: Place, name: str) -> TlsTarget:
    directory = place.directory / "forged"
    directory.mkdir(exist_ok=True)
    key, certificate = Authority(directory, name).client("honest")
    return TlsTarget("127.0.0.1", place.server.port, place.rogue.ca_path, key, certificate)


@case("refused, The client's certificate is not of this store", like_ours=False)
@case("refused, The client's certificate is not of this store", like_ours=True)
def own_authority(place, like_ours):
    ca = x509.load_pem_x509_certificate(Path(place.rogue.ca_path).read_bytes())
    name = ca.subject.rfc4514_string().removeprefix("CN=") if like_ours else "mine"
    with connected(forged(place, name)) as rogue:
        rogue.say(Hello(1, "x"))
        assert rogue.hear() is None


@case("The access of client 'gone' was revoked")
def revoked_certificate(place):
    with connected(place.revoked) as rogue:
        assert rogue.open("docs") is None


@case("a stranger ended: .*refused .The server does not know you")
def no_certificate(place):
    with connected(TlsTarget("127.0.0.1", place.server.port, place.rogue.ca_path)) as rogue:
        assert rogue.open("docs") is None


@case("refused .The enrolment code is wrong")
def wrong_code(place):
    with connected(TlsTarget("127.0.0.1", place.server.port, place.rogue.ca_path)) as rogue:
        rogue.greet()
        rogue.say(Enroll(b"x" * 20, b"request"))
        expect_refused(rogue)


@case("rogue ended: .*refused .*request")
def renewal_without_a_request(place):
    with connected(place.rogue) as rogue:
        rogue.greet()
        rogue.say(Renew(b"no request"))
        expect_refused(rogue)


# what is not its own


@case("Task 'docs' backs up .* of 'honest', not ", source="x")
@case("Task 'docs' backs up .* of 'honest', not ", source="theirs")
def foreign_task(place, source):
    if source == "theirs":
        text = (place.site / TASKS / "docs" / "task.toml").read_text()
        source = re.search('source = "(.*)"', text)[1]
    with connected(place.rogue) as rogue:
        assert rogue.open("docs", source=source) is None


@case("Client 'rogue' may not back up into sync point 'elsewhere'", point="elsewhere")
@case("Client 'rogue' may not back up into sync point '../main'", point="../main")
@case("Client 'rogue' may not back up into sync point", point="*")
def foreign_point(place, point):
    with connected(place.rogue) as rogue:
        assert rogue.open("own", point=point) is None


@case("cannot name a task", task="..")
@case("cannot name a task", task=".")
@case("cannot name a task", task="")
@case("cannot name a task", task="../docs")
@case("cannot name a task", task="a/b")
@case("cannot name a task", task="own\0")
@case("cannot name a task", task="own\n2026 forged line")
@case("cannot name a task", task="x" * 300)
def bad_task_name(place, task):
    with connected(place.rogue) as rogue:
        assert rogue.open(task) is None


@case("Client 'rogue' may not read task 'main/docs'")
def foreign_restore(place):
    with connected(place.rogue) as rogue:
        rogue.greet()
        rogue.say(Fetch("main", "docs", "latest", []))
        expect_refused(rogue)


ORDERS = {
    "versions": lambda version: ListVersions("main", "docs"),
    "delete": lambda version: DeleteVersions("main", "docs", (version,), (version,), apply=True),
    "expire": lambda version: ExpireVersions("main", "docs", dry_run=False, apply=True),
    "pin": lambda version: SetPin("main", "docs", version, is_pinned=True),
    "own pin": lambda version: SetPin("main", "own", "latest", is_pinned=True),
    "policy": lambda version: SetPoint("main", keep_last=1, apply=True),
    "other point": lambda version: SetPoint("new", keep_last=1, apply=True),
    "climb": lambda version: ListVersions("main", "../docs"),
}


@case("refused .Client 'rogue' may not", order="versions")
@case("refused .Client 'rogue' may not", order="delete")
@case("refused .Client 'rogue' may not", order="expire")
@case("refused .Client 'rogue' may not", order="pin")
@case("refused .Client 'rogue' may not", order="own pin")
@case("refused .Client 'rogue' may not", order="policy")
@case("refused .Client 'rogue' may not", order="other point")
@case("rogue ended: .*refused", order="climb")
def command_on_others(place, order):
    with connected(place.rogue) as rogue:
        rogue.greet()
        rogue.say(Ask(encode_request(ORDERS[order](place.version))))
        expect_refused(rogue)


# names and places


@case(r"Entry name b'\.\.' is not allowed", name=b"..")
@case(r"Entry name b'\.' is not allowed", name=b".")
@case("Entry name b'' is not allowed", name=b"")
@case("Entry name b'a/b' is not allowed", name=b"a/b")
@case("Entry name b'/etc/passwd' is not allowed", name=b"/etc/passwd")
@case("Entry name b'../../../../canary/file' is not", name=b"../../../../canary/file")
@case(r"Entry name b'a\\x00b' is not allowed", name=b"a\0b")
@case("Entry name b'xxx.*' is not allowed", name=b"x" * 256)
def bad_name(place, name):
    with backing_up(place) as (rogue, new):
        rogue.say(Changes([Store(row(new, name, content=b"evil"), b"evil")]))
        expect_refused(rogue)
    with backing_up(place) as (rogue, new):
        rogue.say(Changes([Make(row(new, name, Kind.DIRECTORY))]))
        expect_refused(rogue)
    with backing_up(place) as (rogue, new):
        rogue.say(Changes([Make(row(new, name, Kind.SYMLINK, target=b"x"))]))
        expect_refused(rogue)


def outside(place: Place) -> bytes:
    """Where a symlink of a rogue would lead."""
    return os.fsencode(place.site / "canary")


@case("Entry .* has no parent directory")
def symlink_then_descend(place):
    with backing_up(place) as (rogue, new):
        link = row(new, b"way-out", Kind.SYMLINK, target=outside(place))
        below = row(new + 1, b"file", content=b"evil", parent=new)
        rogue.say(Changes([Make(link), Store(below, b"evil")]))
        expect_refused(rogue)


@case("Entry .* has no parent directory")
def directory_that_became_a_symlink(place):
    with backing_up(place) as (rogue, new):
        directory = row(new, b"way-out", Kind.DIRECTORY)
        inside = row(new + 1, b"inside", content=b"good", parent=new)
        link = row(new + 2, b"way-out", Kind.SYMLINK, target=outside(place))
        below = row(new + 3, b"file", content=b"evil", parent=new)
        rogue.say(Changes([Make(directory), Store(inside, b"good"), Remove(new)]))
        rogue.say(Changes([Make(link), Store(below, b"evil")]))
        expect_refused(rogue)


@case("Entry .* changed its kind")
def directory_that_changes_its_kind(place):
    with backing_up(place) as (rogue, new):
        rogue.say(Changes([Make(row(new, b"way-out", Kind.DIRECTORY))]))
        rogue.say(Changes([Make(row(new, b"way-out", Kind.SYMLINK, target=outside(place)))]))
        expect_refused(rogue)


@case("The received version is not complete|Client and server disagree|catalog is another one")
def symlink_over_a_directory(place):
    """It is put where a directory is, which has to go away; a file of that one stays where it is."""
    with backing_up(place) as (rogue, new):
        inside = row(new + 1, b"file", content=b"good", parent=new)
        rogue.say(Changes([Make(row(new, b"way-out", Kind.DIRECTORY)), Store(inside, b"good")]))
        link = row(new + 2, b"way-out", Kind.SYMLINK, target=outside(place))
        below = row(new + 3, b"more", content=b"evil", parent=new)
        rogue.say(Changes([Make(link), Store(below, b"evil")]))
        rogue.say(Finish(bytes(32), Counts()))
        expect_refused(rogue)


@case("was put below itself")
def directory_below_itself(place):
    with backing_up(place) as (rogue, new):
        first, second = (
            row(new, b"a", Kind.DIRECTORY),
            row(new + 1, b"b", Kind.DIRECTORY, parent=new),
        )
        rogue.say(Changes([Make(first), Make(second), Keep(first._replace(parent=new + 1))]))
        expect_refused(rogue)


# ids


@case("Entry .* cannot be kept", which="keep")
@case("Entry id .* is out of range", which="huge")
@case("Entry id .* is out of range", which="negative")
@case("Entry 1 cannot be removed", which="root")
@case("cannot be removed", which="unknown")
@case("was used before", which="used")
@case("must be the root directory", which="other root")
@case("There is no basis", which="basis")
@case("ends the file of", which="file")
@case("no principal of kind", which="name")
def bad_id(place, which):
    with backing_up(place) as (rogue, new):
        good = row(new, b"good", content=b"good")
        says = {
            "keep": [Changes([Keep(row(new + 77, b"x"))])],
            "huge": [Changes([Store(good._replace(id=1 << 40), b"good")])],
            "negative": [Changes([Store(good._replace(id=-5), b"good")])],
            "root": [Changes([Remove(1)])],
            "unknown": [Changes([Remove(new + 77)])],
            "used": [Changes([Store(good, b"good"), Remove(new), Store(good, b"good")])],
            "other root": [Changes([Make(row(1, b"x", Kind.DIRECTORY))])],
            "basis": [FileBegin(new, new + 5, 0, 0)],
            "file": [FileBegin(new, 0, 0, 0), FileRaw(b"good"), FileEnd(good._replace(id=new + 1))],
            "name": [Changes([Name(Principal(7, 0, b"x"))])],
        }
        rogue.say(*says[which])
        expect_refused(rogue)


@case("The client's catalog is another one")
def link_to_an_id_that_is_not_there(place):
    with backing_up(place) as (rogue, new):
        entry = row(new, b"linked", content=b"x" * 5000)
        rogue.say(Changes([Link(entry, new + 50)]), Finish(bytes(32), Counts()))
        assert rogue.hear() == Need([new])
        rogue.say(WantSignature(new + 99), Changes([Store(entry, b"x" * 5000)]))
        assert isinstance(rogue.hear(), NoSignature)
        rogue.say(Finish(bytes(32), Counts()))
        expect_refused(rogue)


@case("The client asked for .*, no file of its own")
def restore_of_an_id_that_was_not_named(place):
    with connected(place.rogue) as rogue:
        rogue.greet()
        rogue.say(Fetch("main", "own", "latest", [b"file"]))
        rogue.hear_until(CatalogEnd)
        rogue.say(WantContents([*range(2, 4)]))
        expect_refused(rogue)


# content


@case("[Dd]elta", delta=b"nonsense")
@case("[Dd]elta", delta=bytes.fromhex("72730236") + struct.pack(">BBI", 0x47, 0, LARGE) * 200)
@case("[Dd]elta", delta=bytes.fromhex("72730236") + struct.pack(">BBI", 0x47, 0, LARGE + 1) + b"\0")
@case("[Dd]elta", delta=bytes.fromhex("72730236") + b"\x44" + b"\xff" * 8)
def bad_delta(place, delta):
    with backing_up(place) as (rogue, new):
        large = next(number for number in range(2, new) if is_large(rogue, number))
        rogue.say(FileBegin(new, large, 0, 0), FileDelta(last=True, content=delta))
        rogue.say(FileEnd(row(new, b"bomb")))
        expect_refused(rogue)


def is_large(rogue: Rogue, entry_id: int) -> bool:
    """Whether an entry has a signature of more than a few blocks."""
    rogue.say(WantSignature(entry_id))
    answer = rogue.hear()
    return not isinstance(answer, NoSignature) and len(answer.content) > 500


@case("signature", is_huge=False)
@case("signature", is_huge=True)
def bad_signature(place, is_huge):
    with connected(place.rogue) as rogue:
        rogue.greet()
        rogue.say(Fetch("main", "own", "latest", []))
        rogue.hear_until(CatalogEnd)
        piece = b"\x72\x73\x01\x47" + b"\0" * (1 << 20 if is_huge else 8)
        piece = piece[: 1 << 20]
        for _ in range(20 if is_huge else 1):
            rogue.say(BasisPart(2, last=not is_huge, content=piece))
        expect_refused(rogue)


# frames and order


@case("The peer announced a frame of 4294967295 bytes", content=b"\xff" * 5)
@case("The peer announced a frame of 1114113 bytes", content=HEADER.pack(1_114_113, 13))
@case("a frame of unknown type 200", content=frame(200, b"x"))
@case("malformed frame .Changes", content=frame(8, b"\xc1"))
@case("malformed frame .Changes", content=frame(8, b"\x91" * 100_000))
@case("malformed frame .Changes", content=frame(8, [[[7, 1, 2, 3]]]))
@case("malformed frame .FileBegin", content=frame(12, [1 << 63, -(1 << 63), 0, 1, 2, 3]))
@case("malformed frame .type 14", content=frame(12, [2, 0, 0, 0]) + frame(14, b""))
def bad_frame(place, content):
    refused_after(place, content)


@case("FileRaw in state 'transfer'", which="content of no file")
@case("Open in state 'opened'", which="second open")
@case("Ask in state 'opened'", which="command in a backup")
@case("Committed in state 'opened'", which="server's word")
@case("Changes in state 'in file'", which="changes in a file")
def out_of_order(place, which):
    says = {
        "content of no file": [Changes([]), FileRaw(b"x")],
        "second open": [Open("main", "docs", "x", "x", dry_run=False)],
        "command in a backup": [Ask(b"x")],
        "server's word": [Committed("x", "x", 1, 1, 1)],
        "changes in a file": [FileBegin(99, 0, 0, 0), Changes([])],
    }
    refused_after(place, *says[which])


@case("in state 'start'")
def no_greeting(place):
    with connected(place.rogue) as rogue:
        rogue.say(Open("main", "own", "x", "x", dry_run=False))
        assert rogue.last_word() is None


# below the session


PREAMBLE = encode_preamble(Preamble())


def bomb(window_log: int) -> bytes:
    """A block that expands to 64 MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = frame.compress(bytes(64 << 20)) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return PREAMBLE + HEADER.pack(len(content), BlockKind.COMPRESSED) + content


@case("does not speak ssfs", content=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
@case("speaks link version 9", content=encode_preamble(Preamble(version=9)))
@case("block of kind 1 with 1048577 bytes", content=PREAMBLE + HEADER.pack(1048577, 1))
@case("block of kind 9", content=PREAMBLE + HEADER.pack(5, 9) + b"hello")
@case("damaged content", content=PREAMBLE + HEADER.pack(50, 2) + b"\xaa" * 50)
@case("asks for compression", content=PREAMBLE[:15] + b"\x09\x09" + PREAMBLE[17:])
def bad_link(place, content):
    with raw_tls(place.rogue) as stream:
        stream.sendall(content)
        read_all(stream)


@case("expands too far", window_log=18)
@case("requires too much memory", window_log=27)
def compression_bomb(place, window_log):
    with raw_tls(place.rogue) as stream:
        with contextlib.suppress(OSError):
            stream.sendall(bomb(window_log))
        read_all(stream)


@case("refused, The TLS handshake failed")
def old_tls(place):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", place.server.port), timeout=60) as tcp:
        with pytest.raises(OSError):  # noqa: PT011
            context.wrap_socket(tcp)


@case("refused, The TLS handshake failed")
def no_tls(place):
    with socket.create_connection(("127.0.0.1", place.server.port), timeout=60) as tcp:
        tcp.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        read_all(tcp)


# -- tests -----------------------------------------------------------------------------------------

ALLOWED = re.compile(
    f"(?s)store/points/main/slots(/.*)?|{TASKS}own/(staging|trash|lock)(/.*)?|"
    # When a client was last seen.
    "store/pki/(lock|clients/[^/]*)"
)


def check_untouched(before, place: Place, also: str = "$^") -> None:
    """Nothing has changed but what a rogue may change."""
    changes = changed_paths(before, image_of(place.site))
    wrong = [p for p in changes if not ALLOWED.fullmatch(p) and not re.fullmatch(also, p)]
    assert not wrong, wrong


@pytest.mark.parametrize("name", CASES)
def test_a_rogue_is_refused_with_a_reason_and_touches_nothing(place, name):
    act, reason = CASES[name]
    before = image_of(place.site)
    after = len(place.server.log)
    act(place)
    place.server.wait_for_log(reason, after=after)
    check_untouched(before, place)
    assert place.server.process.poll() is None
    assert not [line for line in place.server.log if "bug" in line or "Traceback" in line]
    # What a rogue says may look like no line of the log.
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in place.server.log)
    assert not [line for line in place.server.log if line.startswith("2026 forged")]


def test_an_honest_client_is_not_disturbed_by_rogues(place):
    (place.source / "more").write_bytes(os.urandom(4 << 20))
    before = image_of(place.site)
    after = len(place.server.log)
    location = place.server.url("main/docs")
    running = place.honest.start("sync", place.source, location, "--json", "--limit", "1M")
    place.server.wait_for_log("honest: backup main/docs", after=after)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(half_open(place.server.port))
        for act, _ in CASES.values():
            act(place)
        _, stderr = running.communicate(timeout=300)
    assert running.returncode == 0, stderr
    ended = place.server.wait_for_log("honest ended: backup main/docs, version", after=after)
    version = re.search(r"version (\S+),", ended)[1]
    path = place.site / TASKS / "docs" / "versions" / version
    verify_version(path)
    compare_with_version(place.source, path)
    docs = f"{TASKS}docs/"
    check_untouched(
        before, place, f"(?s){docs}(versions/{version}(/.*)?|versions.toml|lock|staging|trash)"
    )
