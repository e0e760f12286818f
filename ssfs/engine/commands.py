"""Commands on a store: one code path for a store of this machine and for one behind a server.

`answer` does what a request asks, for whoever asks; a command line calls it directly on a local store. Between
two machines `ask` and `serve_ask` carry request and answer over a `Channel` that has been greeted. `answer` runs in
worker threads of a server beside others: it prints nothing, and changes nothing of the process (but for
whoever has the store's files: that process becomes the store's owner before it changes anything).
"""

from typing import TypeVar, assert_never

from ssfs.clock import Clock
from ssfs.engine.administration import delete_versions, expire_versions, set_pin, set_point
from ssfs.engine.listing import list_points, list_versions
from ssfs.engine.questions.answer import answer_question
from ssfs.engine.refusal import hearing_refusals, raise_refused, to_refusal
from ssfs.engine.verify_remote import ProgressHeard, ProgressSender, verify_for
from ssfs.errors import ConnectionLost, RemoteProtocolError, SsfsError
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import Peer
from ssfs.monitor import Monitor, NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.asking import Request
from ssfs.protocol.messages import AnswerEnd, AnswerPart, Ask, Progress, Refused
from ssfs.protocol.questions import CompareVersions, FindPaths, ShowHistory, ShowUsage
from ssfs.protocol.requests import (
    MAX_ANSWER_BYTES,
    Answer,
    AnyRequest,
    DeleteVersions,
    ExpireVersions,
    ListPoints,
    ListVersions,
    SetPin,
    SetPoint,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    split_answer,
)
from ssfs.protocol.verification import VerifyVersions
from ssfs.store.store import Store

A = TypeVar("A")


_NOBODY_WATCHES = NullMonitor()


def answer(
    store: Store,
    peer: Peer,
    request: AnyRequest,
    clock: Clock,
    monitor: Monitor = _NOBODY_WATCHES,
) -> Answer:
    """Do what is asked.

    Args:
        store: The store that is meant.
        peer: Who asks; `ssfs.model.peer.LOCAL` is whoever has the store's files.
        request: What.
        clock: Tells the dates by which versions expire.
        monitor: Hears of progress, where there is any.

    Raises:
        TrustError: The peer may not.
        ConfigError: There is no such sync point, task or version, or it may not go.
        StoreError: The store cannot be read or written.
    """
    with store_errors(store.path):
        match request:
            case ListPoints():
                return list_points(store, peer)
            case ListVersions():
                return list_versions(store, peer, request, clock)
            case SetPoint():
                return set_point(store, peer, request, clock)
            case ExpireVersions():
                return expire_versions(store, peer, request, clock)
            case DeleteVersions():
                return delete_versions(store, peer, request)
            case SetPin():
                return set_pin(store, peer, request, clock)
            case FindPaths() | ShowHistory() | CompareVersions() | ShowUsage():
                return answer_question(store, peer, request)
            case VerifyVersions():
                return verify_for(store, peer, request, monitor, clock)
            case _:
                assert_never(request)


def ask(channel: Channel, request: Request[A], monitor: Monitor = _NOBODY_WATCHES) -> A:
    """The server's answer; the channel is ready for the next question then.

    `monitor` hears of progress, where there is any.

    Raises:
        SsfsError: What the server raised.
        ConnectionLost: It went away.
        RemoteProtocolError: It broke the rules.
    """
    message = Ask(encode_request(request))
    with hearing_refusals(channel):
        channel.send(message)
    content = bytearray()
    progress = ProgressHeard(monitor)
    while True:
        match channel.receive():
            case Progress() as told:
                progress.hear(told)
            case AnswerPart(piece) | AnswerEnd(piece) as said:
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise RemoteProtocolError("The server sent an answer without an end")
                if isinstance(said, AnswerEnd):
                    return decode_answer(request, bytes(content))
            case Refused() as refused:
                raise_refused(refused)
            case other:
                raise RemoteProtocolError(f"The server sent {type(other).__name__} for an answer")


def serve_ask(
    channel: Channel, store: Store, peer: Peer, message: Ask, clock: Clock
) -> SsfsError | None:
    """Answer a client, or refuse it, which ends the session.

    Returns:
        Why it was refused; None if it was answered.

    Raises:
        ConnectionLost: The client went away.
        InternalError: Our own bug.
    """
    try:
        request = decode_request(message.request)
        monitor = ProgressSender(channel, clock)
        content = encode_answer(answer(store, peer, request, clock, monitor))
    except ConnectionLost:
        raise
    except SsfsError as error:
        channel.send(to_refusal(error))
        return error
    for piece in split_answer(content):
        channel.send(piece)
    return None
