"""Where a server is: HOST:PORT, as people write it.

An address says nothing about who the server is (its certificate does), so it may change at any time.
"""

import ipaddress
import re
from typing import NamedTuple

from ssfs.errors import ConfigError

DEFAULT_PORT = 7433

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_.])?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_PORT = re.compile(r"[0-9]{1,5}")


class Address(NamedTuple):
    """A host and a TCP port, in their one normal form.

    Attributes:
        host: Lower-case ASCII name, or an IP address without brackets.
        port: 1 to 65535.
    """

    host: str
    port: int

    def spell(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """The address that HOST, HOST:PORT, [IPV6] or [IPV6]:PORT spells.

    Raises:
        ConfigError: It spells none.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        has_port = rest.startswith(":")
        if not bracket or ":" not in host or (rest and not has_port):
            raise _not_an_address(text)
        return check_address(host, rest[1:] if has_port else str(default_port))
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ConfigError(
            f"{text!r} is no address of a server",
            remedy="write an IPv6 address as [2001:db8::1]:7433",
        )
    return check_address(host, port if colon else str(default_port))


def check_address(host: str, port: str) -> Address:
    """The address of a host (an IPv6 address without brackets) and a port, in normal form.

    Raises:
        ConfigError: There can be no such host or port.
    """
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ConfigError(f"{port!r} is no port", remedy="use a number from 1 to 65535")
    return Address(_normal_host(host), int(port))


def _normal_host(host: str) -> str:
    address, _, zone = host.partition("%")
    if ":" in address:
        try:
            # The zone is a name of a network interface: its case matters.
            normal = str(ipaddress.IPv6Address(address))
        except ValueError:
            raise _not_an_address(host) from None
        if "%" not in host:
            return normal
        if _ZONE.fullmatch(zone):
            return f"{normal}%{zone}"
    elif _HOST.fullmatch(host) and ".." not in host:
        return host.lower()
    raise _not_an_address(host)


def _not_an_address(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is no address of a server",
        remedy="write HOST or HOST:PORT, such as nas1.example.org:7433",
    )
