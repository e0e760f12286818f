"""Sizes in bytes, as people write and read them: `500G`, `1.5 TB`."""

import re

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGTPE]?)(I?)B?")
_PREFIXES = "KMGTPE"
_LARGEST_BYTES = 1 << 62


def bytes_text(size_bytes: float) -> str:
    """A size in its largest fitting unit of a thousand."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in _UNITS:
        size_bytes /= 1000
        if size_bytes < 999.95 or unit == _UNITS[-1]:
            break
    return f"{size_bytes:.1f} {unit}"


def parse_size(text: str) -> int:
    """The bytes in `1000000`, `500G`, `1.5T` (powers of 1000) or `500Gi` (of 1024).

    Raises:
        ValueError: It is no such size, not even one byte, or more than any disk holds.
    """
    match = _SIZE.fullmatch(text.upper()) if text.isascii() else None
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is no size")
    power = _PREFIXES.index(match[2]) + 1 if match[2] else 0
    size_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if not 0 < size_bytes < _LARGEST_BYTES:
        raise ValueError(f"{text!r} is out of range")
    return size_bytes
