"""Addresses: what people write, one normal form."""

import pytest

from ssfs.errors import ConfigError
from ssfs.pki.address import Address, check_address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "spelled"),
    [
        ("nas1", "nas1", 7433, "nas1:7433"),
        ("NAS1.Example.org:22", "nas1.example.org", 22, "nas1.example.org:22"),
        ("nas_1.local.:65535", "nas_1.local.", 65535, "nas_1.local.:65535"),
        ("192.0.2.7:1", "192.0.2.7", 1, "192.0.2.7:1"),
        ("[2001:DB8::0:1]", "2001:db8::1", 7433, "[2001:db8::1]:7433"),
        ("[::1]:99", "::1", 99, "[::1]:99"),
        ("[fe80::1%eth0]:7433", "fe80::1%eth0", 7433, "[fe80::1%eth0]:7433"),
    ],
)
def test_address_has_one_spelling(text: str, host: str, port: int, spelled: str):
    address = parse_address(text)
    assert address == Address(host, port)
    assert address.spell() == spelled
    assert parse_address(spelled) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":7433",
            "nas1:",
            "nas1:0",
            "nas1:65536",
            "nas1:-1",
            "nas1:x",
            "nas1:7433 ",
            "nas1:٣",
        ),
        *("a b", "a/b", "a..b", ".a", "-a", "a-", "nas\n", "näs", "a@b", "*", "a" * 256),
        *("::1", "2001:db8::1:7433", "[::1", "[::1]x", "[::1]7433", "[nas1]:1", "[::g]", "[]"),
        *("[fe80::1%]:1", "[fe80::1%a b]:1", "[fe80::1%a/b]:1", "[fe80::1%eth0%eth0]:1", "[::1]:"),
    ],
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.remedy


def test_bare_ipv6_address_is_told_to_use_brackets():
    with pytest.raises(ConfigError, match=r"\[2001:db8::1\]:7433"):
        parse_address("2001:db8::2")


def test_default_port_can_be_another():
    assert parse_address("nas1", 22).port == 22


def test_host_and_port_apart():
    assert check_address("::0001", "7433") == Address("::1", 7433)
    with pytest.raises(ConfigError):
        check_address("[::1]", "7433")
