"""The progress interface: the library reports here and never prints.

A monitor is called often (every entry of a walk, by the batch), so its methods must be cheap and
must not raise. `ssfs.cli.progress` draws what it hears; `NullMonitor` is for whoever does not care.
"""

from typing import Protocol

from ssfs.model.problem import EntryProblem


class Monitor(Protocol):
    """What a run tells about itself."""

    def expect(self, entries: int, size_bytes: int) -> None:
        """About how much there is to go through, from the version before; 0, 0 when unknown."""
        ...

    def advance(self, entries: int, size_bytes: int, path: bytes) -> None:
        """So many more entries were gone through, so many bytes of content read; now at `path`."""
        ...

    def phase(self, text: str) -> None:
        """A new stage of the run, in a word or two ("committing")."""
        ...

    def problem(self, problem: EntryProblem) -> None:
        """An entry could not be handled as it is; the run goes on."""
        ...

    def note(self, text: str) -> None:
        """Something worth one line to a person who watches, no problem."""
        ...


class NullMonitor:
    """Hears everything and says nothing."""

    def expect(self, entries: int, size_bytes: int) -> None:
        """Ignore it."""

    def advance(self, entries: int, size_bytes: int, path: bytes) -> None:
        """Ignore it."""

    def phase(self, text: str) -> None:
        """Ignore it."""

    def problem(self, problem: EntryProblem) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
