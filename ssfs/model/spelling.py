r"""How a path is written as text: every path has one spelling, and every spelling leads back to one path."""


def path_text(path: bytes) -> str:
    r"""A path as text, whatever its bytes: `\xHH` for what is not UTF-8, and `\\` for a backslash."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
