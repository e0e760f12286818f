"""The store's small text files: TOML, replaced durably, versioned (FORMAT.md, "Text files")."""

import contextlib
import datetime
import errno
import os
from collections.abc import Iterator
from typing import TypeVar

import blake3
import msgspec
import tomli_w

from ssfs.errors import CorruptStore, StoreError
from ssfs.fsio.disk import read_file, replace_file

FORMAT = 1
_SEAL = b'checksum = "'

_DAMAGE = {errno.EIO, errno.EISDIR, errno.ELOOP, errno.EUCLEAN, errno.EBADMSG}
"""What reading says when it is the file that is damaged, and not we who may not read it."""

T = TypeVar("T", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    """What every text file has, whatever else a newer format may hold."""

    format: int


def read_text_file(name: bytes, kind: type[T], *, directory: bytes, dir_fd: int | None = None) -> T:
    """Read and validate `name` of a directory; where it begins with a checksum, that too.

    Raises:
        FileNotFoundError: It is not there.
        CorruptStore: It is not what FORMAT.md says.
        StoreError: A newer ssfs made it.
    """
    path = os.path.join(directory, name)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY) if dir_fd is None else dir_fd
    try:
        with damage_of_disk(path):
            content = read_file(name, dir_fd=fd)
    finally:
        if dir_fd is None:
            os.close(fd)
    return parse_text(content, kind, path)


@contextlib.contextmanager
def damage_of_disk(path: bytes) -> Iterator[None]:
    """Raise CorruptStore for a file that the disk does not give back, or that is no file any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        reason = (error.strerror or "unknown error").lower()
        raise CorruptStore(f"Cannot be read: {reason}", path=path) from error


def parse_text(content: bytes, kind: type[T], path: bytes) -> T:
    """Parse the content of a text file; raises as `read_text_file`."""
    if content.startswith(_SEAL):
        content = unseal(content, path)
    try:
        if msgspec.toml.decode(content, type=_Versioned).format > FORMAT:
            raise StoreError(
                "Made by a newer ssfs", path=path, remedy="update ssfs; nothing was changed"
            )
        return msgspec.toml.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise CorruptStore(f"Damaged or not ours ({error})", path=path) from error


def fault_of_text(name: bytes, kind: type[T], *, directory: bytes) -> str:
    """What is wrong with a text file: "" if a reader finds it as it was written.

    More is asked than of a reader: a word that is none of ours may be one of ours with a flipped bit.
    """
    path = os.path.join(directory, name)
    try:
        read_text_file(name, kind, directory=directory)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            content = os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
        words = set(msgspec.toml.decode(content, type=dict[str, object]))
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    except StoreError as error:
        return error.problem[:1].lower() + error.problem[1:]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"damaged ({error})"
    unknown = sorted(words - {"checksum", *(field.name for field in msgspec.structs.fields(kind))})
    return f"holds {unknown[0]!r}, which means nothing" if unknown else ""


def write_text_file(
    name: bytes, value: msgspec.Struct, *, dir_fd: int, is_sealed: bool = False
) -> None:
    """Replace `name` by the value, durably; sealed is what nobody edits by hand."""
    content = encode_text(value)
    replace_file(name, seal(content) if is_sealed else content, dir_fd=dir_fd)


def encode_text(value: msgspec.Struct) -> bytes:
    """The value as TOML."""
    # tomli_w wants plain values; datetimes are TOML's own.
    plain = msgspec.to_builtins(value, builtin_types=(datetime.datetime,))
    return tomli_w.dumps(plain).encode()


def seal(content: bytes) -> bytes:
    """Put the checksum line before the content."""
    return b'checksum = "%s"\n' % blake3.blake3(content).hexdigest().encode() + content


def unseal(content: bytes, path: bytes) -> bytes:
    """The content after the checksum line.

    Raises:
        CorruptStore: The checksum does not match.
    """
    _, _, rest = content.partition(b"\n")
    if seal(rest) != content:
        raise CorruptStore("Checksum does not match", path=path)
    return rest
