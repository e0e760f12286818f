"""Content that comes over a channel: a window of files is asked for ahead, so that none costs a round trip.

Answers come strictly in the order asked, and nothing else may come: content of another file, more of it than its
row says, a delta of a file that has no basis all end the session. What is wrong with one file at the
other end is that file's problem. A delta that does not make the right file is no proof of damage: the
basis is the target's own file, which somebody may be writing to. So such a file is asked for
once more, whole, and only then judged.

What can pile up here is bounded by the window: 16 MiB of small files that were asked for, in frames of about 192
KiB as they are taken. Large files wait in the socket, unless a description is being sent meanwhile: then as much
of them is taken in as the server must get rid of to hear us.
"""

import collections
from typing import NamedTuple

from ssfs.delta.basis import Basis
from ssfs.delta.described import describe, description_size
from ssfs.engine.refusal import hear
from ssfs.engine.restore.contents import DAMAGED, Copy, Outcome, is_content_of
from ssfs.engine.restore.credit import CREDIT_BASIS_BYTES
from ssfs.engine.restore.stream import Stream, stray, too_much
from ssfs.errors import InternalError, RemoteProtocolError
from ssfs.model.entry import Entry
from ssfs.model.layout import data_bytes
from ssfs.net.channel import Channel
from ssfs.protocol.messages import INLINE_MAX_BYTES, FileAbort, FileBegin, FileEnd, Message
from ssfs.protocol.restoring import BasisPart, Contents, NoContent, WantContents

_MOST_FILES = 4096
_MOST_SMALL_BYTES = 16 << 20
_MOST_LARGE_FILES = 8
_LOW_PART = 0.75
_MOST_IDS_PER_FRAME = 256
_MOST_PROBLEM_LETTERS = 300


class _Asked(NamedTuple):
    """A file that was asked for, and what its delta would be against."""

    entry: Entry
    basis: Basis | None
    basis_bytes: int

    def close(self) -> None:
        """Close the basis."""
        if self.basis is not None:
            self.basis.close()


class ChannelContents:
    """The content of files at the other end of a channel."""

    wants_bases = True

    def __init__(self, channel: Channel, *, damaged_ok: bool = False) -> None:
        """Speak through a channel whose session is in the state `RESTORING`; what comes damaged is kept if `damaged_ok`."""
        self._channel = channel
        self._damaged_ok = damaged_ok
        self._asked: collections.deque[_Asked] = collections.deque()
        self._small_bytes = 0
        self._large_files = 0
        self._basis_bytes = 0
        self._unsent: list[int] = []
        self._arrived: collections.deque[tuple[int, bytes]] = collections.deque()
        self._begun: bytes | FileBegin | NoContent | None = None

    def close(self) -> None:
        """Close the files that deltas would have been against."""
        for asked in self._asked:
            asked.close()
        self._asked.clear()

    # -- asking ----------------------------------------------------------------------------------

    def has_credit(self, basis_bytes: int) -> bool:
        """Whether the server can be expected to hold one more description."""
        return self._basis_bytes + description_size(basis_bytes) <= CREDIT_BASIS_BYTES

    def is_full(self) -> bool:
        """Whether the window is."""
        return self._is_above(1.0)

    def is_low(self) -> bool:
        """Whether a quarter of the window is free: ids travel by the hundred, not one by one."""
        return not self._is_above(_LOW_PART)

    def _is_above(self, part: float) -> bool:
        return (
            len(self._asked) >= _MOST_FILES * part
            or self._small_bytes >= _MOST_SMALL_BYTES * part
            or self._large_files >= _MOST_LARGE_FILES * part
        )

    def ask(self, entry: Entry, basis: Basis | None) -> None:
        """Ask for a file, as a delta if there is a basis that can be read; takes over `basis`."""
        pieces = [] if basis is None else _description_of(basis, entry)
        if basis is None or not pieces:
            if basis is not None:
                basis.close()
            self._note(_Asked(entry, None, 0))
            self._unsent.append(entry.id)
            if len(self._unsent) >= _MOST_IDS_PER_FRAME:
                self.flush()
            return
        self._note(_Asked(entry, basis, sum(map(len, pieces))))
        self.flush()
        for number, piece in enumerate(pieces, 1):
            self._channel.send(BasisPart(entry.id, last=number == len(pieces), content=piece))

    def _note(self, asked: _Asked, by: int = 1) -> None:
        """Count a file in or out of the window."""
        if by > 0:
            self._asked.append(asked)
        size = data_bytes(asked.entry.size, asked.entry.holes)
        if size > INLINE_MAX_BYTES:
            self._large_files += by
        else:
            self._small_bytes += by * size
        self._basis_bytes += by * asked.basis_bytes

    def flush(self) -> None:
        """Say what is wanted."""
        if self._unsent:
            self._channel.send(WantContents(self._unsent))
            self._unsent = []

    # -- answers ---------------------------------------------------------------------------------

    def take_whole(self, entry: Entry) -> bytes | None:
        """As `ssfs.engine.restore.contents.Contents.take_whole`.

        Raises:
            PeerError: As `take`.
        """
        asked = self._asked[0]
        if asked.entry is not entry or entry.size > INLINE_MAX_BYTES or entry.holes:
            return None
        content = self._answer(asked)
        if isinstance(content, bytes) and is_content_of(entry, content):
            self._asked.popleft()
            self._note(asked, -1)
            return content
        self._begun = content
        return None

    def take(self, entry: Entry, copy: Copy) -> Outcome:
        """Write the content of the file that was asked for first.

        Raises:
            OSError: The copy cannot be written; the next file can be taken all the same.
            PeerError: The server broke the rules, refused or went away.
        """
        asked = self._first(entry)
        try:
            return self._receive(asked, copy)
        finally:
            asked.close()

    def drop(self, entry: Entry) -> None:
        """Let the content of the file that was asked for first pass by."""
        asked = self._first(entry)
        asked.close()
        if not isinstance(self._answer(asked), FileBegin):
            return
        while not isinstance(hear(self._channel), FileEnd | FileAbort):
            pass

    def finish(self) -> None:
        """All has been taken.

        Raises:
            RemoteProtocolError: More came than was asked for.
        """
        if self._arrived:
            raise stray(self._arrived[0][0])

    def _first(self, entry: Entry) -> _Asked:
        asked = self._asked.popleft()
        if asked.entry is not entry:
            raise InternalError(f"Entry {entry.id} taken out of turn")
        self._note(asked, -1)
        return asked

    def _receive(self, asked: _Asked, copy: Copy) -> Outcome:
        answer = self._answer(asked)
        if isinstance(answer, NoContent):
            return Outcome(shown(answer.problem))
        if isinstance(answer, bytes):
            copy.write(answer)
            return Outcome() if copy.is_of(asked.entry) else self._wrong()
        stream = Stream(asked.entry, copy, asked.basis if answer.basis else None)
        while not isinstance(message := hear(self._channel), FileEnd | FileAbort):
            stream.hear(message)
        if copy.failure is not None:
            raise copy.failure
        if isinstance(message, FileAbort):
            return Outcome(shown(message.problem) or DAMAGED)
        if stream.is_right():
            return Outcome()
        if not stream.had_deltas:
            return self._wrong()
        self.ask(asked.entry, None)
        return Outcome(comes_again=True)

    def _wrong(self) -> Outcome:
        """The outcome of a file that came whole and is not right."""
        return Outcome(DAMAGED, is_as_it_is=self._damaged_ok)

    def _answer(self, asked: _Asked) -> bytes | FileBegin | NoContent:
        """What the server says to one request: all of it, or how it begins.

        Raises:
            RemoteProtocolError: It says it about another file, or what cannot be.
        """
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return begun
        if not self._arrived:
            if len(self._unsent) > len(self._asked):
                self.flush()  # the file we wait for is among them
            message = hear(self._channel)
            if not isinstance(message, Contents):
                return _checked(message, asked)
            self._arrived.extend(message.files)
            if not self._arrived:
                raise RemoteProtocolError("The server sent the content of no file")
        entry_id, content = self._arrived.popleft()
        if entry_id != asked.entry.id:
            raise stray(entry_id)
        if len(content) > data_bytes(asked.entry.size, asked.entry.holes):
            raise too_much(entry_id)
        return content


def _description_of(basis: Basis, entry: Entry) -> list[bytes]:
    """What the target's own file is, in pieces; none if it cannot be read."""
    try:
        # All of it first: one that breaks off could not be taken back.
        return list(describe(basis, data_bytes(entry.size, entry.holes)))
    except OSError:
        return []


def _checked(message: Message, asked: _Asked) -> FileBegin | NoContent:
    """The beginning of an answer, if it is one to this request."""
    if isinstance(message, FileBegin | NoContent) and message.id == asked.entry.id:
        if isinstance(message, NoContent) or message.basis == 0:
            return message
        if message.basis == message.id and asked.basis is not None:
            return message
    raise stray(asked.entry.id)


def shown(problem: str) -> str:
    """What a server says is wrong, no longer than a line."""
    return problem[:_MOST_PROBLEM_LETTERS]
