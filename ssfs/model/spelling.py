r"""How paths and times are written as text, the same in answers, JSON and tables.

Every path has one spelling, and every spelling leads back to one path.
"""

import datetime
import re

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_SPELLED = re.compile(rb"\\\\|\\x([0-9a-f]{2})")


def path_text(path: bytes) -> str:
    r"""A path as text, whatever its bytes: `\xHH` for what is not UTF-8, and `\\` for a backslash."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_bytes(text: str) -> bytes:
    """The path that a text spells."""

    def byte(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else b"\\"

    return _SPELLED.sub(byte, text.encode())


def time_text(seconds: int, nanoseconds: int) -> str:
    """A file's time in ISO 8601, UTC, `2024-05-01T02:00:00.000000000Z`.

    Outside the years 1 to 9999, which ISO 8601 has no common spelling for, `@SECONDS.NANOSECONDS`
    since 1970, as `date -d` and `touch -d` take it for times after 1970.
    """
    try:
        whole = _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"@{seconds}.{nanoseconds:09d}"
    return f"{whole.isoformat()[:19]}.{nanoseconds:09d}Z"
