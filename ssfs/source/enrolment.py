"""What a client keeps of the servers it has enrolled with.

    CONFIG/servers/HOST_PORT/
      server.toml                  address, the name we have there, which credentials count
      ID/                          the credentials: key.pem, certificate.pem, ca.pem

`server.toml` is written last and replaced at once, so that an enrolment which broke off leaves the one before it whole,
or none. Credentials that it does not name are remains, which the next enrolment removes. The private key is 0600 from its
first byte, in directories that are 0700; one that others could have read is refused.

Nothing here looks into keys and certificates (a sync to a local store needs no cryptography): who saves them has checked
them with `ssfs.pki.certificate.check_issued` and `ssfs.pki.certificate.pin_authority`.
"""

import contextlib
import datetime
import hashlib
import os
import secrets
import shlex
import stat
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import tomli_w
from typing_extensions import override

from ssfs.errors import ConfigError
from ssfs.fsio.disk import (
    fsync,
    make_directory,
    open_directory,
    read_file,
    replace_file,
)
from ssfs.fsio.lock import DirectoryLock
from ssfs.fsio.removal import remove_tree
from ssfs.pki.address import Address, check_address, parse_address

FORMAT = 1

_SERVERS = b"servers"
_RECORD = b"server.toml"
_KEY, _CERTIFICATE, _AUTHORITY = b"key.pem", b"certificate.pem", b"ca.pem"
_MAX_NAME = 200
_ENROL = "get a code with `ssfs invite` on the server, then run `ssfs enroll` here"


class Credentials(msgspec.Struct, frozen=True):
    """What a client proves itself with, and knows the server by; all PEM.

    Attributes:
        key: Its private key.
        certificate: Its certificate.
        authority: The certificate of the server's authority, and nothing besides.
    """

    key: bytes
    certificate: bytes
    authority: bytes

    @override
    def __repr__(self) -> str:
        return "Credentials(...)"


class Enrolment(NamedTuple):
    """An enrolment with one server, as it is on disk.

    Attributes:
        address: Where the server is.
        client: The name we have there.
        points: The sync points we may use; `*` is all. What counts is what the server knows.
        enrolled: When, by our clock.
        credentials: Directory of the files below.
    """

    address: Address
    client: str
    points: tuple[str, ...]
    enrolled: datetime.datetime
    credentials: bytes

    @property
    def key(self) -> bytes:
        """Path of our private key (PEM)."""
        return os.path.join(self.credentials, _KEY)

    @property
    def certificate(self) -> bytes:
        """Path of our certificate (PEM)."""
        return os.path.join(self.credentials, _CERTIFICATE)

    @property
    def authority(self) -> bytes:
        """Path of the certificate (PEM) that the server is known by."""
        return os.path.join(self.credentials, _AUTHORITY)


class _Record(msgspec.Struct, frozen=True):
    """The content of server.toml."""

    format: int
    address: str
    client: str
    points: tuple[str, ...]
    enrolled: datetime.datetime
    credentials: str


class _Versioned(msgspec.Struct):
    """What every server.toml has, whatever else a newer format may hold."""

    format: int


def config_root() -> bytes:
    """`$SSFS_CONFIG_DIR`, else /etc/ssfs for root, else under `$XDG_CONFIG_HOME`."""
    if chosen := os.environb.get(b"SSFS_CONFIG_DIR"):
        return chosen
    if os.geteuid() == 0:
        return b"/etc/ssfs"
    home = os.environb.get(b"XDG_CONFIG_HOME") or os.path.expanduser(b"~/.config")
    return os.path.join(home, b"ssfs")


def save_enrolment(
    address: Address,
    client: str,
    points: tuple[str, ...],
    credentials: Credentials,
    now: datetime.datetime,
) -> Enrolment:
    """Keep an enrolment, durably; one before it with the same address is replaced at once or stays.

    Args:
        address: Where the server is.
        client: The name it gave us.
        points: The sync points we may use.
        credentials: Checked already.
        now: Our time.

    Raises:
        ConfigError: The configuration directory cannot be used.
    """
    address = check_address(address.host, str(address.port))
    path = _path_of(address)
    name = secrets.token_hex(8)
    record = _Record(
        FORMAT, address.spell(), client, tuple(points), now.replace(microsecond=0), name
    )
    with _config_errors(), contextlib.ExitStack() as stack:
        fd = _make_path(path, stack)
        stack.enter_context(DirectoryLock(path)).exclusive()
        beside = stack.enter_context(_closing(make_directory(name.encode(), dir_fd=fd)))
        replace_file(_KEY, credentials.key, dir_fd=beside)
        replace_file(_CERTIFICATE, credentials.certificate, dir_fd=beside)
        replace_file(_AUTHORITY, credentials.authority, dir_fd=beside)
        fsync(fd)
        plain = msgspec.to_builtins(record, builtin_types=(datetime.datetime,))
        replace_file(_RECORD, tomli_w.dumps(plain).encode(), dir_fd=fd)
        for other in set(os.listdir(fd)) - {name, os.fsdecode(_RECORD)}:
            remove_tree(os.fsencode(other), dir_fd=fd)
    return _enrolment(path, record)


def find_enrolment(host: str, port: int) -> Enrolment:
    """The enrolment with a server.

    Args:
        host: Its name or IP address, without brackets.
        port: Its TCP port.

    Raises:
        ConfigError: There is none, it is damaged, or others can read its private key.
    """
    address = check_address(host, str(port))
    path = _path_of(address)
    with _config_errors():
        record = _read_record(path)
        if record is None:
            raise _not_enrolled(address)
        enrolment = _enrolment(path, record)
        try:
            mode = os.stat(enrolment.key).st_mode
            is_whole = os.path.isfile(enrolment.certificate) and os.path.isfile(enrolment.authority)
        except FileNotFoundError:
            mode, is_whole = 0, False
    if not is_whole:
        raise ConfigError(
            f"Parts of the enrolment with {address.spell()} are missing", path=path, remedy=_ENROL
        )
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            "Others than you can read the private key",
            path=enrolment.key,
            remedy=f"chmod 600 {shlex.quote(os.fsdecode(enrolment.key))}; if somebody may have "
            "copied it, enrol again",
        )
    return enrolment


def replace_certificate(enrolment: Enrolment, certificate: bytes) -> None:
    """Keep a renewed certificate (PEM) for the same key, durably.

    Nothing happens if this machine has enrolled again meanwhile: it then has a newer key.

    Raises:
        ConfigError: The configuration directory cannot be used.
    """
    path = os.path.dirname(enrolment.credentials)
    with _config_errors(), contextlib.ExitStack() as stack:
        stack.enter_context(DirectoryLock(path)).exclusive()
        record = _read_record(path)
        if record is None or _enrolment(path, record).credentials != enrolment.credentials:
            return
        fd = stack.enter_context(_closing(open_directory(enrolment.credentials)))
        replace_file(_CERTIFICATE, certificate, dir_fd=fd)


def list_enrolments() -> list[Address]:
    """The servers this machine is enrolled with, sorted; damaged records are left out."""
    servers = os.path.join(config_root(), _SERVERS)
    found = []
    with _config_errors():
        for name in _list(servers):
            with contextlib.suppress(ConfigError, NotADirectoryError):
                record = _read_record(os.path.join(servers, name))
                if record is not None:
                    found.append(parse_address(record.address))
    return sorted(found)


def _not_enrolled(address: Address) -> ConfigError:
    others = ", ".join(other.spell() for other in list_enrolments())
    return ConfigError(
        f"Not enrolled with {address.spell()}",
        path=config_root(),
        remedy=_ENROL + (f"; enrolled here: {others}" if others else ""),
    )


def _path_of(address: Address) -> bytes:
    """The directory of a server; its name holds no character that could lead elsewhere."""
    name = f"{urllib.parse.quote(address.host, safe='')}_{address.port}"
    if len(name) > _MAX_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()
    return os.path.join(config_root(), _SERVERS, name.encode())


def _make_path(path: bytes, stack: contextlib.ExitStack) -> int:
    """A descriptor of a server's directory, made durably if it is not there."""
    root = config_root()
    os.makedirs(root, mode=0o700, exist_ok=True)
    fd = stack.enter_context(_closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
    for name in (_SERVERS, os.path.basename(path)):
        below = stack.enter_context(_closing(make_directory(name, dir_fd=fd)))
        fsync(fd)
        fd = below
    return fd


def _read_record(path: bytes) -> _Record | None:
    """A server's record; None if there is none."""
    try:
        with _closing(open_directory(path)) as fd:
            content = read_file(_RECORD, dir_fd=fd)
    except FileNotFoundError:
        return None
    place = os.path.join(path, _RECORD)
    try:
        if msgspec.toml.decode(content, type=_Versioned).format > FORMAT:
            raise ConfigError("Made by a newer ssfs", path=place, remedy="update ssfs")
        record = msgspec.toml.decode(content, type=_Record)
        parse_address(record.address)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"Damaged or not ours ({error})", path=place, remedy=_ENROL) from error
    return record


def _enrolment(path: bytes, record: _Record) -> Enrolment:
    return Enrolment(
        parse_address(record.address),
        record.client,
        record.points,
        record.enrolled,
        os.path.join(path, os.fsencode(record.credentials)),
    )


def _list(directory: bytes) -> list[bytes]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _config_errors() -> Iterator[None]:
    """Translate what the operating system says about the configuration directory."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The configuration directory cannot be used ({(error.strerror or '').lower()})",
            path=config_root(),
            remedy="set SSFS_CONFIG_DIR to a directory of yours, or run as the user who enrolled",
        ) from error
