"""Framing, order and damage: two real connections, and bytes from nobody."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.errors import LocalProtocolError, RemoteProtocolError
from ssfs.protocol.codec import BULK_TYPES, TYPE_NUMBERS
from ssfs.protocol.connection import Connection
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, CatalogRows, Change, FileDelta, FileRaw, Hello
from ssfs.protocol.states import TRANSITIONS, Role, State
from tests.fakes.peers import (
    CHANGES,
    SAMPLES,
    PeerPair,
    byte_wise,
    conversations,
    kept,
    random_split,
    receive_all,
    way_to,
)

WAYS = list(conversations())
WAY_TO = {state: way_to(state) for state in State}
FORBIDDEN = [
    (state, speaker, kind)
    for state in State
    for speaker in Role
    for kind in SAMPLES
    if TRANSITIONS[state].get(kind, (None, None))[0] is not speaker
]


def end_in(state: State, role: Role) -> Connection:
    """An end of a session that has come to this state."""
    pair = PeerPair()
    for speaker, message in WAY_TO[state]:
        pair.say(speaker, message)
    return pair.ends[role]


def frames(*messages: object) -> bytes:
    """The bytes of messages, whatever the state."""
    sent = b""
    for message in messages:
        rules = ((s, r) for s, r in TRANSITIONS.items() if type(message) in r)
        state, found = next(rules)
        sent += b"".join(end_in(state, found[type(message)][0]).send(message))
    return sent


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{len(way)}-{type(way[-1][1]).__name__}")
def test_each_transition_passes_between_two_ends(way):
    pair = PeerPair()
    for speaker, message in way:
        pair.say(speaker, message)


def test_conversations_cover_the_table_and_all_messages():
    assert len(WAYS) == sum(map(len, TRANSITIONS.values()))
    assert {type(way[-1][1]) for way in WAYS} == set(TYPE_NUMBERS) == set(SAMPLES)


@pytest.mark.parametrize("role", Role)
def test_what_the_table_forbids_is_refused_by_both_ends(role):
    for state, speaker, kind in FORBIDDEN:
        if speaker is not role:
            continue
        ours = end_in(state, speaker)
        with pytest.raises(LocalProtocolError):
            ours.send(SAMPLES[kind])
        assert ours.state is state
        theirs = end_in(state, speaker.peer)
        with pytest.raises(RemoteProtocolError):
            receive_all(theirs, [FRAME_OF[kind]])
        assert theirs.state is state


FRAME_OF = {kind: frames(message) for kind, message in SAMPLES.items()}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{len(way)}-{type(way[-1][1]).__name__}")
def test_bytes_may_arrive_one_by_one(way):
    pair = PeerPair(byte_wise)
    for speaker, message in way:
        pair.say(speaker, message)


def stream_of(messages: list[object]) -> bytes:
    """A client's bytes from the state IN_FILE on, going back to it after each file's end."""
    return b"".join(FRAME_OF[type(message)] for message in messages)


@given(st.integers(), st.lists(st.sampled_from([FileRaw, FileDelta]), max_size=20))
def test_any_split_of_the_stream_gives_the_same_messages(seed, kinds):
    rng = random.Random(seed)
    sent = stream_of([SAMPLES[kind] for kind in kinds])
    server = end_in(State.IN_FILE, Role.SERVER)
    heard = receive_all(server, random_split(rng)(sent))
    assert heard == [kept(SAMPLES[kind]) for kind in kinds]


@given(st.integers(), st.lists(st.binary(max_size=300), max_size=8))
def test_any_split_gives_the_same_bulk_content(seed, contents):
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    sent = b"".join(b"".join(client.send(FileRaw(content))) for content in contents)
    assert receive_all(server, random_split(random.Random(seed))(sent)) == [
        FileRaw(content) for content in contents
    ]


def test_a_stream_cut_at_any_byte_gives_only_the_messages_before():
    messages = [SAMPLES[FileRaw], SAMPLES[FileDelta], SAMPLES[FileRaw]]
    sent = stream_of(messages)
    ends = [len(stream_of(messages[:count])) for count in range(len(messages) + 1)]
    for cut in range(len(sent) + 1):
        heard = receive_all(end_in(State.IN_FILE, Role.SERVER), [sent[:cut]])
        complete = sum(end <= cut for end in ends) - 1
        assert heard == [kept(message) for message in messages[:complete]]


def test_each_message_cut_short_inside_its_frame_is_refused_or_shorter():
    for kind, (header, payload) in {k: (f[:5], f[5:]) for k, f in FRAME_OF.items()}.items():
        speaker, state = next(
            (rules[kind][0], state) for state, rules in TRANSITIONS.items() if kind in rules
        )
        for cut in range(len(payload)):
            frame = struct.pack("<I", cut) + header[4:] + payload[:cut]
            server = end_in(state, speaker.peer)
            try:
                (message,) = receive_all(server, [frame])
            except RemoteProtocolError:
                continue
            # Only bulk content has no length of its own.
            assert isinstance(message, tuple(BULK_TYPES.values()))
            assert bytes(SAMPLES[kind].content).startswith(message.content)


@pytest.mark.slow
def test_mutated_conversations_end_in_messages_or_a_protocol_error():
    rng = random.Random(5)
    recordings = []
    for way in WAYS:
        pair = PeerPair()
        said = [(speaker, pair.say(speaker, message)) for speaker, message in way]
        recordings += [(way[:-1], said[-1])]
    outcomes = {"messages": 0, "refused": 0}
    for _ in range(2000):
        before, (speaker, sent) = rng.choice(recordings)
        hearer = PeerPair()
        for who, message in before:
            hearer.say(who, message)
        try:
            receive_all(hearer.ends[speaker.peer], random_split(rng)(mutated(sent, rng)))
            outcomes["messages"] += 1
        except RemoteProtocolError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def mutated(sent: bytes, rng: random.Random) -> bytes:
    changed = bytearray(sent)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(5 if rng.random() < 0.2 else len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 if len(changed) > 6:
                del changed[rng.randrange(5, len(changed))]
            case _:
                changed.insert(rng.randrange(5, len(changed) + 1), rng.randrange(256))
    if rng.random() < 0.7:
        changed[:4] = struct.pack("<I", len(changed) - 5)
    return bytes(changed)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x92\x01\xa2\xff\xfe",
        b"\x92\x01",
        b"\x93\x01\xa10\x00",
        b"\x92\xa11\xa10",
        b"\x92\x01\xdb\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x92\x01\xa10\x00",
        b"",
    ],
    ids=["no UTF-8", "short", "long", "type", "size", "deep", "trailing", "empty"],
)
def test_malformed_payload_is_the_peers_fault(payload):
    frame = struct.pack("<IB", len(payload), 1) + payload
    with pytest.raises(RemoteProtocolError, match="Hello"):
        receive_all(Connection(Role.SERVER), [frame])


def test_deep_nesting_is_the_peers_fault():
    payload = b"\x92\xc4\x00\x81\xa3foo" + b"\x91" * 100_000
    frame = struct.pack("<IB", len(payload), 19) + payload
    with pytest.raises(RemoteProtocolError):
        receive_all(end_in(State.TRANSFER, Role.SERVER), [frame])


@pytest.mark.parametrize("number", [0, 99, 255])
def test_unknown_frame_type_is_refused(number):
    with pytest.raises(RemoteProtocolError, match=f"unknown type {number}"):
        receive_all(Connection(Role.SERVER), [struct.pack("<IB", 0, number)])


@pytest.mark.parametrize("split", [1, 4, 5])
def test_too_long_frame_is_refused_by_its_header_alone(split):
    header = struct.pack("<IB", MAX_PAYLOAD_BYTES + 1, 13)
    pieces = [header[:split], header[split:]]
    with pytest.raises(RemoteProtocolError, match=str(MAX_PAYLOAD_BYTES + 1)):
        receive_all(end_in(State.IN_FILE, Role.SERVER), pieces)


def test_longest_frame_passes_and_a_longer_one_is_not_sent():
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    longest = bytes(MAX_PAYLOAD_BYTES)
    assert receive_all(server, [b"".join(client.send(FileRaw(longest)))]) == [FileRaw(longest)]
    with pytest.raises(LocalProtocolError):
        client.send(FileRaw(longest + b"x"))
    with pytest.raises(LocalProtocolError):
        client.send(FileDelta(True, longest))
    assert client.state is State.IN_FILE
    with pytest.raises(LocalProtocolError):
        end_in(State.FETCHING, Role.SERVER).send(CatalogRows(longest))


def test_bulk_content_is_sent_and_received_without_a_copy():
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    content = memoryview(bytearray(b"0123456789"))
    header, sent = client.send(FileRaw(content))
    assert sent is content
    received = bytearray(header + sent)
    (message,) = server.receive(memoryview(received))
    received[5:15] = b"abcdefghij"
    assert bytes(message.content) == b"abcdefghij"


def test_views_are_good_until_the_next_call_even_of_a_cut_frame():
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    sent = b"".join(b"".join(client.send(FileRaw(b"%d" % n * 50))) for n in range(4))
    assert list(server.receive(memoryview(sent[:30]))) == []
    # Cut, whole, whole and cut again in one call: earlier views must stay while later ones come.
    messages = list(server.receive(memoryview(sent[30:-20])))
    assert [bytes(m.content) for m in messages] == [b"0" * 50, b"1" * 50, b"2" * 50]
    (last,) = server.receive(memoryview(sent[-20:]))
    assert bytes(last.content) == b"3" * 50


@given(st.integers(), st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 60))
def test_frames_filled_where_they_stay_give_the_same_content(seed, contents, least_bytes):
    rng = random.Random(seed)
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    sent = b"".join(b"".join(client.send(FileRaw(content))) for content in contents)
    heard = []
    while sent:
        room = server.room(least_bytes) if rng.random() < 0.7 else None
        if room is None:
            count = min(rng.randrange(120), len(sent))
            heard += [kept(message) for message in server.receive(memoryview(sent[:count]))]
        else:
            count = min(rng.randrange(len(room) + 1), len(sent))
            room[:count] = sent[:count]
            heard += list(server.filled(count))
        sent = sent[count:]
    # Not kept: what came into a room stays.
    assert [bytes(message.content) for message in heard] == contents


def test_no_room_is_made_for_a_little():
    client, server = (end_in(State.IN_FILE, role) for role in (Role.CLIENT, Role.SERVER))
    sent = b"".join(client.send(FileRaw(bytes(1000))))
    assert server.room(1) is None
    assert list(server.receive(memoryview(sent[:4]))) == []
    assert server.room(1) is None
    assert list(server.receive(memoryview(sent[4:10]))) == []
    assert server.room(996) is None
    assert len(server.room(995)) == 995


def test_empty_reads_change_nothing():
    server = Connection(Role.SERVER)
    sent = b"".join(Connection(Role.CLIENT).send(SAMPLES[Hello]))
    assert receive_all(server, [b"", sent[:2], b"", sent[2:7], b"", sent[7:]]) == [SAMPLES[Hello]]


def test_all_kinds_of_change_keep_their_values():
    assert len({type(change) for change in CHANGES}) == len(Change.__args__)
