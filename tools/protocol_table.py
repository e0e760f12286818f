"""Write the table of states into PROTOCOL.md from the code (`--check`: only say whether it differs)."""

import pathlib
import sys

from ssfs.protocol.states import TRANSITIONS

PAGE = pathlib.Path(__file__).parent.parent / "ssfs" / "protocol" / "PROTOCOL.md"
BEGIN, END = "<!-- table:begin -->\n", "<!-- table:end -->"


def table() -> str:
    """The table as Markdown, one row per state, speaker and state after."""
    lines = ["| state | who | message | state after |", "| --- | --- | --- | --- |"]
    for state, rules in TRANSITIONS.items():
        grouped: dict[tuple[str, str], list[str]] = {}
        for message, (role, after) in rules.items():
            grouped.setdefault((role.value, after.value), []).append(f"`{message.__name__}`")
        lines += [
            f"| {state.value} | {role} | {', '.join(names)} | {after} |"
            for (role, after), names in grouped.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page; 1 if `--check` finds it out of date."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    wanted = before + BEGIN + table() + END + after
    if "--check" in sys.argv:
        return int(page != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
