"""How bytes travel to another machine, as it is written on the command line."""

import click

from ssfs.errors import ConfigError
from ssfs.model.size import parse_size
from ssfs.net.compression import AUTO, MAX_LEVEL, MIN_LEVEL, OFF, Compression, at_level
from ssfs.net.options import MIN_RATE_BYTES_S, LinkOptions

compress_option = click.option(
    "--compress",
    metavar="auto|off|LEVEL",
    help="Compress what travels to or from another machine: auto leaves alone what does not shrink "
    f"and what the link outruns; LEVEL is zstandard's, {MIN_LEVEL} to {MAX_LEVEL}. Default: auto.",
)
limit_option = click.option(
    "--limit",
    metavar="RATE",
    help="Send and receive no more than this many bytes a second over the network: 500k, 10M.",
)


def link_options(compress: str | None, limit: str | None) -> LinkOptions:
    """The settings that the two options spell.

    Raises:
        ConfigError: One spells none.
    """
    compression = None if compress is None else _parse_compression(compress)
    return LinkOptions(
        compression=compression, limit_bytes_s=0 if limit is None else _parse_rate(limit)
    )


def _parse_compression(text: str) -> Compression:
    if text in ("auto", "off"):
        return AUTO if text == "auto" else OFF
    if text.isascii() and text.isdigit() and MIN_LEVEL <= int(text) <= MAX_LEVEL:
        return at_level(int(text))
    raise ConfigError(
        f"--compress {text!r} is no way to compress",
        remedy=f"use auto, off or a level from {MIN_LEVEL} to {MAX_LEVEL}",
    )


def _parse_rate(text: str) -> int:
    try:
        rate = parse_size(text)
    except ValueError:
        rate = 0
    if rate < MIN_RATE_BYTES_S:
        raise ConfigError(
            f"--limit {text!r} is no rate",
            remedy=f"use bytes a second, at least {MIN_RATE_BYTES_S}: 500k, 10M",
        )
    return rate
