"""Two ends that talk past each other at random: every byte may be late, in pieces, or wrong.

Hypothesis speaks for both ends, each by its own view of the session, while bytes are under way in both directions. Where the table of
states lets both speak, their words must commute: whatever the order in which they arrive, both ends
come to the same state and hear exactly what was said.
"""

import collections
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ssfs.errors import LocalProtocolError, RemoteProtocolError
from ssfs.protocol.codec import TYPE_NUMBERS
from ssfs.protocol.connection import Connection
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, Message
from ssfs.protocol.states import TRANSITIONS, Role, State, next_state
from tests.fakes.peers import SAMPLES, kept
from tests.fakes.scripts import HEADER

KINDS = sorted(SAMPLES, key=lambda kind: TYPE_NUMBERS[kind])


class Ends(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        # What each end has said and the other has not heard: messages, and their bytes.
        self.unheard: dict[Role, collections.deque[Message]] = {
            r: collections.deque() for r in Role
        }
        self.under_way = {role: bytearray() for role in Role}
        self.broken: set[Role] = set()

    # -- what may be said ------------------------------------------------------------------------

    def after_all(self, role: Role, saying: type | None = None) -> State | None:
        """The state in which an end will be when it has heard what is under way, having said that first."""
        state: State | None = self.ends[role].state
        if saying is not None:
            state = next_state(state, role, saying)
        for message in self.unheard[role.peer]:
            state = state and next_state(state, role.peer, type(message))
        return state

    def may_say(self, role: Role, kind: type) -> bool:
        """Whether both ends will agree, in whatever order they hear it."""
        if self.broken or next_state(self.ends[role].state, role, kind) is None:
            return False
        here = self.after_all(role, kind)
        there = self.after_all(role.peer)
        there = there and next_state(there, role, kind)
        return here is not None and here is there

    @rule(role=st.sampled_from(Role), choice=st.randoms(use_true_random=False))
    def say_what_is_allowed(self, role, choice):
        kinds = [kind for kind in KINDS if self.may_say(role, kind)]
        if kinds:
            message = SAMPLES[choice.choice(kinds)]
            self.under_way[role] += b"".join(self.ends[role].send(message))
            self.unheard[role].append(kept(message))

    @rule(role=st.sampled_from(Role), kind=st.sampled_from(KINDS))
    def what_is_forbidden_cannot_be_said(self, role, kind):
        end = self.ends[role]
        before = end.state
        if next_state(before, role, kind) is None:
            with pytest.raises(LocalProtocolError):
                end.send(SAMPLES[kind])
            assert end.state is before

    # -- what is heard ---------------------------------------------------------------------------

    @rule(
        role=st.sampled_from(Role),
        sizes=st.lists(st.one_of(st.just(1), st.integers(1, 2000)), max_size=12),
    )
    def hear_some(self, role, sizes):
        """Pieces of any size arrive."""
        for size in sizes:
            self.hear(role, size)

    @rule(role=st.sampled_from(Role))
    def hear_all(self, role):
        self.hear(role, len(self.under_way[role.peer]))

    def hear(self, role: Role, size: int) -> None:
        if role in self.broken:
            return
        coming = self.under_way[role.peer]
        piece = bytes(coming[:size])
        del coming[:size]
        for message in self.ends[role].receive(memoryview(piece)):
            assert kept(message) == self.unheard[role.peer].popleft()

    # -- damage ----------------------------------------------------------------------------------

    @precondition(lambda self: not self.broken)
    @rule(role=st.sampled_from(Role), number=st.integers(0, 255), content=st.binary(max_size=40))
    def hear_a_stray_frame(self, role, number, content):
        """Any frame, behind what is under way: a clean error, or an allowed message by chance."""
        self.hear(role, len(self.under_way[role.peer]))
        self.hear_nonsense(role, HEADER.pack(len(content), number) + content)

    @precondition(lambda self: not self.broken)
    @rule(role=st.sampled_from(Role), seed=st.integers(0, 1 << 32))
    def hear_damaged_bytes(self, role, seed):
        """What is under way arrives with a few bytes wrong, in pieces."""
        rng = random.Random(seed)
        coming = bytearray(self.under_way[role.peer])
        if coming:
            for _ in range(rng.randrange(1, 4)):
                coming[rng.randrange(len(coming))] = rng.randrange(256)
            self.hear_nonsense(role, bytes(coming), rng)

    @precondition(lambda self: not self.broken)
    @rule(role=st.sampled_from(Role), length=st.integers(MAX_PAYLOAD_BYTES + 1, (1 << 32) - 1))
    def hear_a_frame_too_long(self, role, length):
        self.hear(role, len(self.under_way[role.peer]))
        self.broken |= {*Role}
        header = HEADER.pack(length, 13)
        assert not list(self.ends[role].receive(memoryview(header[:-1])))
        with pytest.raises(RemoteProtocolError, match="announced a frame"):
            list(self.ends[role].receive(memoryview(header[-1:])))

    def hear_nonsense(self, role: Role, nonsense: bytes, rng: random.Random | None = None) -> None:
        self.broken |= {*Role}
        end = self.ends[role]
        step = rng.choice((1, 7, 5000)) if rng else len(nonsense)
        try:
            for at in range(0, len(nonsense), step):
                for message in end.receive(memoryview(nonsense[at : at + step])):
                    assert type(message) in SAMPLES
        except RemoteProtocolError:
            return
        # Not more is ever held than a frame may be long.
        assert len(end._unread) <= HEADER.size + MAX_PAYLOAD_BYTES

    @invariant()
    def who_has_heard_all_agrees(self):
        if not self.broken and not any(self.under_way.values()):
            assert self.ends[Role.CLIENT].state is self.ends[Role.SERVER].state
            assert not any(self.unheard.values())


Ends.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestTwoEnds = Ends.TestCase


def test_only_the_named_answers_and_requests_may_cross():
    """A state in which both ends may speak is one where a race is harmless, or a refusal ends it."""
    crossing = {
        state
        for state, rules in TRANSITIONS.items()
        if {speaker for kind, (speaker, _) in rules.items() if kind.__name__ != "Refused"}
        == {*Role}
    }
    assert crossing == {
        *(State.TRANSFER, State.IN_FILE, State.RESTORING, State.RESTORING_FILE, State.BROWSING),
    }
