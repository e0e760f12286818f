r"""Paths and times as text, the same in answers, JSON and tables.

A byte of a path that is not UTF-8 is written `\xHH`, and a backslash `\\`: every path has one spelling, and
every spelling leads back to one path.
"""

import datetime

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def path_text(path: bytes) -> str:
    """A path as text, whatever its bytes."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


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
