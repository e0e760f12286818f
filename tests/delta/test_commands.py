"""The walk over a delta's commands: what is proven before librsync runs them."""

import pytest

from ssfs.delta.commands import MAGIC, Extent, measure
from ssfs.delta.errors import DeltaError
from ssfs.delta.segment import delta
from tests.delta.support import load, noise

BASIS = 100_000


def test_measured_length_is_that_of_the_new_content():
    basis = noise(BASIS)
    new = basis[:50_000] + noise(700, seed=2) + basis[50_000:] + b"end"
    with load(basis) as loaded:
        extent = measure(delta(loaded, new), basis_bytes=BASIS, limit=len(new))
    block = 1152
    assert extent.length == len(new)
    assert BASIS - 2 * block <= extent.copied < BASIS
    assert extent.tail == 3 + BASIS % block or extent.tail == 3


def test_every_width_of_literal_and_copy_is_understood():
    parts = [MAGIC, b"\x03abc"]
    parts += [bytes([0x41 + i]) + (2).to_bytes(1 << i, "big") + b"xy" for i in range(4)]
    for i in range(4):
        for j in range(4):
            numbers = (9).to_bytes(1 << i, "big") + (7).to_bytes(1 << j, "big")
            parts.append(bytes([0x45 + 4 * i + j]) + numbers)
    parts += [b"\x01z", b"\x00"]
    whole = b"".join(parts)
    assert measure(whole, basis_bytes=16, limit=1000) == Extent(3 + 8 + 16 * 7 + 1, 16 * 7, 1)
    with pytest.raises(DeltaError, match="beyond the end"):
        measure(whole, basis_bytes=15, limit=1000)
    with pytest.raises(DeltaError, match="expands"):
        measure(whole, basis_bytes=16, limit=123)


@pytest.mark.parametrize(
    "commands",
    [
        b"",  # no end
        b"\x03ab",  # literal cut off
        b"\x03abc",  # no end
        b"\x41\x00\x00",  # literal of nothing
        b"\x43\x80\x00\x00\x00\x00",  # negative in an int
        b"\x44\xff\xff\xff\xff\xff\xff\xff\xffabc\x00",  # negative in a long
        b"\x44\x00\x00",  # number cut off
        b"\x45\x00\x00\x00",  # copy of nothing
        b"\x45\x00",  # copy cut off
        b"\x54" + b"\xff" * 16 + b"\x00",  # everywhere negative
        b"\x51" + b"\x7f" + b"\xff" * 7 + b"\x01\x00",  # far beyond the end
        b"\x48\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00",  # 4 GiB: 0 in an int
        b"\x55\x00",  # not assigned
        b"\xff\x00",
        b"\x00\x00",  # goes on after its end
    ],
)
def test_malformed_commands_are_refused(commands):
    with pytest.raises(DeltaError):
        measure(MAGIC + commands, basis_bytes=BASIS, limit=1 << 62)


@pytest.mark.parametrize("start", [b"", b"rs", b"rs\x01\x47", b"\x00" * 20])
def test_what_is_no_delta_is_refused(start):
    with pytest.raises(DeltaError, match="magic"):
        measure(start, basis_bytes=BASIS, limit=BASIS)
