r"""How a path is written as text: every path has one spelling, and every spelling leads back to one path."""

import re

_SPELLED = re.compile(rb"\\\\|\\x([0-9a-f]{2})")


def path_text(path: bytes) -> str:
    r"""A path as text, whatever its bytes: `\xHH` for what is not UTF-8, and `\\` for a backslash."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_bytes(text: str) -> bytes:
    """The path that a text spells."""

    def byte(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else b"\\"

    return _SPELLED.sub(byte, text.encode())
