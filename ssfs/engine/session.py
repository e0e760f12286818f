"""The server's side of any session: greet, hear what is wanted, do it, say what went wrong.

One call of `serve_session` is one session from its first byte to its last, in one thread. Who the peer is has been found out
before (`ssfs.daemon`, or the account that ssh let in); what it may do is checked where each thing is done.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ssfs.clock import Clock
from ssfs.engine.browse.server import serve_browsing
from ssfs.engine.commands import serve_ask
from ssfs.engine.greeting import greet_client
from ssfs.engine.receiver import receive_version
from ssfs.engine.refusal import to_refusal
from ssfs.engine.restore.server import serve_restore
from ssfs.engine.seeking import serve_seek
from ssfs.errors import ConnectionLost, InternalError, SsfsError, TrustError
from ssfs.fsio.disk import store_error
from ssfs.model.peer import Peer
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import Browse
from ssfs.protocol.enrolling import AskAuthority, Enroll, Renew
from ssfs.protocol.messages import Ask, Leave, Open
from ssfs.protocol.restoring import Fetch
from ssfs.protocol.seeking import Seek
from ssfs.protocol.states import State
from ssfs.store.store import Store

if TYPE_CHECKING:
    # Loads cryptography, which a session on this machine has no use for.
    from ssfs.engine.enrolment import EnrolmentDesk

_log = logging.getLogger(__name__)


class Visitor(NamedTuple):
    """Who is at the other end of a session.

    Attributes:
        peer: Who it is; `NOBODY` for one without a certificate, who may only enrol.
        certificate: What it has shown (DER); b"" for nothing.
        refusal: Why it is refused whatever it asks; None if it is not.
        renew: Whether its certificate should be renewed.
        desk: Where it can enrol and renew; None where there are no certificates.
    """

    peer: Peer
    certificate: bytes = b""
    refusal: SsfsError | None = None
    renew: bool = False
    desk: "EnrolmentDesk | None" = None


def serve_session(
    channel: Channel, store: Store, visitor: Visitor, clock: Clock, note: Callable[[str], None]
) -> str:
    """Serve one session to its end; how it ended, in a few words for the log.

    Args:
        channel: To a client that has said nothing yet; stays the caller's.
        store: What is served; this process already is its owner, or the peer is this process.
        visitor: Who it is.
        clock: The server's.
        note: Hears what the client wants, as soon as that is known.
    """
    try:
        try:
            return _serve(channel, store, visitor, clock, note)
        except OSError as error:
            raise store_error(error, store.path) from error
    except ConnectionLost as error:
        return f"cut off ({error.problem})"
    except SsfsError as error:
        with contextlib.suppress(ConnectionLost, InternalError):
            channel.send(to_refusal(error))
        return f"refused ({error})"


def _serve(
    channel: Channel, store: Store, visitor: Visitor, clock: Clock, note: Callable[[str], None]
) -> str:
    greet_client(channel, renew=visitor.renew)
    if visitor.refusal is not None:
        raise visitor.refusal
    outcome = "left"
    while channel.state is State.READY:
        match channel.receive():
            case Open() as request:
                note(f"{'dry run' if request.dry_run else 'backup'} {request.point}/{request.task}")
                version = receive_version(channel, request, store, _known(visitor), clock)
                return f"version {version}" if version else "compared"
            case Fetch() | Browse() as request:
                return _serve_reader(channel, store, _known(visitor), request, note)
            case Seek() as request:
                note(f"seeking content in {request.point or 'all sync points'}")
                found = serve_seek(channel, store, _known(visitor), request)
                outcome = f"sent {found} of {len(request.contents)} contents sought"
            case Ask() as request:
                note("command")
                refusal = serve_ask(channel, store, _known(visitor), request, clock)
                if refusal is not None:
                    return f"refused ({refusal})"
                outcome = "answered"
            case AskAuthority() | Enroll() | Renew() as request:
                outcome = _enrol(channel, visitor, request, note)
            case Leave():
                return outcome
            case message:
                raise InternalError(f"{type(message).__name__} let through by the table of states")
    return outcome


def _serve_reader(
    channel: Channel, store: Store, peer: Peer, request: Fetch | Browse, note: Callable[[str], None]
) -> str:
    if isinstance(request, Browse):
        note("browse")
        return f"browsed, {serve_browsing(channel, store, peer)} answers"
    note(f"restore {request.point}/{request.task} {request.version}")
    served = serve_restore(channel, store, peer, request)
    return f"restored {served.files} files of {served.task} {served.version}"


def _known(visitor: Visitor) -> Peer:
    if not visitor.peer.is_known:
        raise TrustError(
            "The server does not know you", remedy="enrol first: `ssfs enroll` with a code"
        )
    return visitor.peer


def _enrol(
    channel: Channel,
    visitor: Visitor,
    request: AskAuthority | Enroll | Renew,
    note: Callable[[str], None],
) -> str:
    if visitor.desk is None:
        raise TrustError("There is nothing to enrol for over this connection")
    match request:
        case AskAuthority():
            note("enrolment begins")
            channel.send(visitor.desk.authority())
            return "authority shown"
        case Enroll():
            enrolled = visitor.desk.enrol(request)
            channel.send(enrolled)
            return f"enrolled {enrolled.client}"
        case Renew():
            channel.send(visitor.desk.renew(_known(visitor), visitor.certificate, request))
            return "certificate renewed"
