"""Thousands of spoilt sessions said to a real server end: each ends cleanly, and leaves no trace but in the task's staging.

A failure names its session: `play(scenario, chunk, number)` is the same each time.
"""

import collections
import contextlib
import os
import random
import re
from collections.abc import Iterator

import pytest

from ssfs.engine.session import serve_session
from ssfs.errors import RemoteProtocolError
from ssfs.protocol.connection import Connection
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, Refusal, Refused
from ssfs.protocol.states import Role, State
from ssfs.store.store import Store
from tests.fakes.arenas import CLOCK, Arena, memory_directory
from tests.fakes.scenarios import Scenarios
from tests.fakes.scripts import HEADER, ScriptedChannel, crumbs, pieces, spoil
from tests.fakes.trees import verify_version
from tests.fakes.watching import watched

pytestmark = pytest.mark.slow

CHUNKS = 14
SESSIONS = 500
SHARES = {
    "first": 3,
    "whole": 1,
    "second": 8,
    "resumed": 7,
    "dry run": 1,
    "restore": 3,
    "restore parts": 3,
    "commands": 2,
    "browse": 3,
    "order 0": 1,
    "order 1": 1,
    "order 2": 1,
    "order 3": 1,
    "administration": 2,
    "authority": 1,
    "enrol": 2,
    "renew": 2,
}
OUTCOME = re.compile(
    "cut off|refused|version |left|compared|answered|restored|authority shown|enrolled|"
    "certificate renewed|browsed"
)
BLAMED_ON_CLIENT = {Refusal.BAD_REQUEST, Refusal.NOT_TRUSTED, Refusal.CATALOG_DIFFERS}
TASK = "store/points/main/tasks/"


@pytest.fixture(scope="module")
def scenarios() -> Iterator[Scenarios]:
    with memory_directory() as directory:
        yield Scenarios(directory)


@pytest.fixture(scope="module")
def arenas(scenarios) -> Iterator[dict[str, Arena]]:
    with memory_directory() as directory:
        yield {
            name: Arena(scenario.template, directory / name)
            for name, scenario in scenarios.all.items()
        }


def serve(scenario, arena, script) -> tuple[str, list[object]]:
    """Have a session; how it ended, and the last word of the server."""
    store = arena.live / "store"
    visitor = scenario.visitor(store)
    with watched():
        channel = ScriptedChannel(Role.SERVER, script)
        with channel:
            opened = Store.open(os.fsencode(store))
            outcome = serve_session(channel, opened, visitor, CLOCK, lambda _: None)
    assert OUTCOME.match(outcome), outcome
    return outcome, last_word(bytes(channel.heard))


def last_word(heard: bytes) -> Refused | None:
    """A refusal, if what the server said ends with one; all of it is whole frames."""
    last = b""
    while heard:
        end = HEADER.size + HEADER.unpack_from(heard)[0]
        assert end <= HEADER.size + MAX_PAYLOAD_BYTES
        last, heard = heard[:end], heard[end:]
    if not last or last[4] != 4:
        return None
    client = Connection(Role.CLIENT)
    client.state = State.OPENING
    (refused,) = client.receive(memoryview(last))
    return refused


def check_refusal(outcome: str, refused: Refused | None) -> None:
    """A refusal says what the client did wrong, not what is wrong with the store."""
    if refused is None or refused.code in BLAMED_ON_CLIENT:
        return
    assert refused.code is Refusal.CORRUPT, outcome
    assert "The received version is not complete" in outcome


def allowed_changes(scenario, outcome: str) -> str:
    """A pattern for what a session of this kind may have changed, new tasks aside."""
    mine = TASK + "mine/"
    allowed = ["store/points/main/slots(/.*)?", f"{mine}(staging|trash)(/.*)?"]
    # Versions are entered in the roll some time after their commit.
    allowed.append(f"{mine}(lock|versions.toml)")
    if outcome.startswith("version "):
        allowed.append(f"{mine}versions/{outcome.split()[1]}(/.*)?")
    if scenario.name == "administration":
        allowed.append("store/points/main/(point.toml|tasks/(mine|other)/.*)")
    if scenario.name in ("enrol", "renew"):
        allowed.append("store/pki/(changed|(clients|invitations)/.*)")
    return "|".join(allowed)


def check_changes(scenario, arena: Arena, outcome: str) -> None:
    """Nothing has changed that may not, and what has is undone."""
    changes = arena.changes()
    if not changes:
        return
    allowed = re.compile(allowed_changes(scenario, outcome))
    wrong = []
    for path in changes:
        task = path.removeprefix(TASK).partition("/")[0] if path.startswith(TASK) else ""
        is_new_task = bool(task) and arena.is_new(TASK + task)
        if is_new_task:
            assert 'owner = "client"' in (arena.live / TASK / task / "task.toml").read_text()
        elif not allowed.fullmatch(path):
            wrong.append(path)
    assert not wrong, (outcome, wrong)
    if outcome.startswith("version "):
        for version in arena.live.glob(f"{TASK}*/versions/{outcome.split()[1]}"):
            verify_version(version)
    arena.put_right(changes)


def play(scenarios: Scenarios, arenas: dict[str, Arena], chunk: int, number: int) -> str:
    """Spoil a session and have it; how it ended."""
    rng = random.Random(f"{chunk} {number}")
    (name,) = rng.choices(list(SHARES), SHARES.values())
    scenario = scenarios.all[name]
    others = [other.sent for other in scenarios.all.values()]
    frames = spoil(rng, scenario.sent, others)
    script = crumbs(rng, frames) if rng.random() < 0.1 else pieces(frames)
    outcome, refused = serve(scenario, arenas[name], script)
    check_refusal(outcome, refused)
    check_changes(scenario, arenas[name], outcome)
    return outcome


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("is_byte_wise", [False, True])
def test_an_unspoilt_session_ends_as_it_did(scenarios, arenas, name, is_byte_wise):
    scenario = scenarios.all[name]
    script = crumbs(random.Random(1), scenario.sent) if is_byte_wise else pieces(scenario.sent)
    outcome, _ = serve(scenario, arenas[name], script)
    is_refused = name in ("order 0", "order 1", "order 3", "administration")
    assert outcome.startswith("refused") is is_refused, outcome
    assert not outcome.startswith("cut off")
    check_changes(scenario, arenas[name], outcome)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_spoilt_session_ends_cleanly_and_touches_nothing_else(scenarios, arenas, chunk):
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(SESSIONS):
        try:
            outcome = play(scenarios, arenas, chunk, number)
        except BaseException as error:
            error.add_note(f"session {number} of chunk {chunk}")
            raise
        outcomes[outcome.split()[0]] += 1
    assert outcomes["refused"] > SESSIONS / 3, outcomes
    assert outcomes["cut"] > SESSIONS / 20, outcomes


def test_a_stream_of_nonsense_is_refused():
    for seed in range(300):
        server = Connection(Role.SERVER)
        with contextlib.suppress(RemoteProtocolError):
            list(server.receive(memoryview(random.Random(seed).randbytes(2000))))
        assert server.state in (State.START, State.GREETED)
