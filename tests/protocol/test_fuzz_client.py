"""Thousands of spoilt answers to real clients: each run ends with an error a person can read, and nothing else is touched.

The counterpart of `test_fuzz`. A failure names its session: `play(scenarios, chunk, number)` is the same each time.
"""

import collections
import random
from collections.abc import Iterator

import pytest

from ssfs.errors import InternalError, SsfsError
from ssfs.protocol.states import Role
from tests.fakes.arenas import changed_paths, image_of, memory_directory
from tests.fakes.scenarios import Scenarios
from tests.fakes.scripts import ScriptedChannel, crumbs, pieces, spoil
from tests.fakes.watching import watched

pytestmark = pytest.mark.slow

CHUNKS = 8
SESSIONS = 375
SHARES = {
    "whole": 3,
    "second": 7,
    "resumed": 7,
    "dry run": 4,
    "restore": 8,
    "restore parts": 7,
    "commands": 3,
    "browse": 5,
    "order 0": 1,
    "order 2": 1,
    "administration": 3,
    "authority": 1,
    "enrol": 2,
    "renew": 1,
}


@pytest.fixture(scope="module")
def scenarios() -> Iterator[Scenarios]:
    with memory_directory() as directory, pytest.MonkeyPatch.context() as patch:
        made = Scenarios(directory)
        temporary = directory / "temporary"
        temporary.mkdir()
        patch.setattr("tempfile.tempdir", str(temporary))
        before = image_of(directory)
        yield made
        for path in changed_paths(before, image_of(directory)):
            assert path.startswith(("client/cache", "client/target")), path


def have(scenarios: Scenarios, name: str, script) -> str:
    """Have a session; how it ended, "" for well."""
    scenarios.prepare_client()
    # The rest of the directory is looked at when all is over.
    places = [scenarios.source.parent, scenarios.directory / "temporary"]
    before = [image_of(place) for place in places]
    with watched(), ScriptedChannel(Role.CLIENT, script) as channel:
        try:
            result = scenarios.all[name].act(channel)
            ended = f"Answer {result}" if isinstance(result, SsfsError) else ""
        except SsfsError as error:
            ended = f"{type(error).__name__} {error}"
        except InternalError as error:
            ended = str(error)
            # What a server says whose catalog is another one: that would be a bug of ours.
            if not ended.endswith(": please report this"):
                raise
    wrong = [
        path
        for place, image in zip(places, before, strict=True)
        for path in changed_paths(image, image_of(place))
        if not path.startswith(("cache/", "target/"))
    ]
    assert not wrong, (ended, wrong)
    assert (scenarios.target / "one" / "extra").read_bytes() == b"stays"
    return ended


def play(scenarios: Scenarios, chunk: int, number: int) -> str:
    """Spoil a server's answers and hear them; how the client ended."""
    rng = random.Random(f"{chunk} {number}")
    (name,) = rng.choices(list(SHARES), SHARES.values())
    others = [other.heard for other in scenarios.all.values()]
    frames = spoil(rng, scenarios.all[name].heard, others)
    script = crumbs(rng, frames) if rng.random() < 0.1 else pieces(frames)
    return have(scenarios, name, script)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("is_byte_wise", [False, True])
def test_unspoilt_answers_are_understood(scenarios, name, is_byte_wise):
    heard = scenarios.all[name].heard
    script = crumbs(random.Random(1), heard) if is_byte_wise else pieces(heard)
    ended = have(scenarios, name, script)
    assert bool(ended) is (name in ("order 0", "administration")), ended


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_spoilt_answers_end_in_an_error_and_touch_nothing_else(scenarios, chunk):
    ends: collections.Counter[str] = collections.Counter()
    for number in range(SESSIONS):
        try:
            ended = play(scenarios, chunk, number)
        except BaseException as error:
            error.add_note(f"session {number} of chunk {chunk}")
            raise
        ends[ended.split()[0] if ended else ""] += 1
    assert ends["RemoteProtocolError"] > SESSIONS / 3, ends
    assert ends["ConnectionLost"] > SESSIONS / 20, ends
