"""Progress on a terminal; a module of its own, because rich is slow to load and cron has no terminal."""

from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ssfs.cli.output import complain, safe_text

_FRAMES_PER_S = 4


class Shown(Protocol):
    """What is drawn."""

    def text(self) -> str:
        """The state of the run in one line."""
        ...


class LiveLine:
    """One line on a terminal that is drawn over and over, by a thread of its own."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def update(self, progress: Shown) -> None:
        """There is news; drawn a little later."""
        if self._live is None:
            self._live = Live(
                console=Console(stderr=True),
                get_renderable=lambda: Text(progress.text(), no_wrap=True, overflow="ellipsis"),
                refresh_per_second=_FRAMES_PER_S,
                transient=True,
                # Otherwise what is printed meanwhile would go to stderr even if meant for stdout.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._live is None:
            complain(text)
        else:
            self._live.console.print(Text(f"ssfs: {safe_text(text)}"), soft_wrap=True)

    def close(self) -> None:
        """Draw nothing any more."""
        if self._live is not None:
            self._live.stop()
            self._live = None
