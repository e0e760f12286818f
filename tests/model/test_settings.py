"""Limits and reserves: optional in the text files, and never nonsense."""

import pytest

from ssfs.errors import CorruptStore
from ssfs.model.policy import Policy
from ssfs.model.settings import PointLimits, Reserve, ServerSettings
from ssfs.model.version import PointSettings, StoreSettings
from ssfs.store.textfile import encode_text, parse_text

POINT = """\
format = 1

[policy]
days = 10
weeks = 7
months = 5
keep_last = 1
"""
STORE = """\
format = 1
id = "00"
created = 2024-05-01T02:00:00Z
timezone = "UTC"

[policy]
days = 1
"""


def test_files_from_before_have_the_defaults_and_are_written_as_they_were():
    point = parse_text(POINT.encode(), PointSettings, b"point.toml")
    assert point == PointSettings(1, Policy(), PointLimits(max_concurrent=8, quota_bytes=0))
    assert encode_text(point).decode() == POINT
    store = parse_text(STORE.encode(), StoreSettings, b"store.toml")
    assert store.server == ServerSettings(256, 64, 10, 60)
    assert store.reserve == Reserve(2, 5 << 30, 2)
    assert "server" not in encode_text(store).decode()


def test_what_is_set_is_kept():
    text = f"{STORE}[server]\nidle_s = 30\n[reserve]\nspace_percent = 0\n"
    store = parse_text(text.encode(), StoreSettings, b"store.toml")
    assert (store.server.idle_s, store.server.max_sessions) == (30, 256)
    assert (store.reserve.space_percent, store.reserve.inodes_percent) == (0, 2)
    assert parse_text(encode_text(store), StoreSettings, b"store.toml") == store
    limits = f"{POINT}\n[limits]\nmax_concurrent = 2\nquota_bytes = 500000000000\n"
    point = parse_text(limits.encode(), PointSettings, b"point.toml")
    assert point.limits == PointLimits(2, 500 * 10**9)
    assert encode_text(point).decode() == limits


@pytest.mark.parametrize(
    "lines",
    [
        "[limits]\nmax_concurrent = 0",
        "[limits]\nmax_concurrent = 1001",
        "[limits]\nquota_bytes = -1",
        "[limits]\nquota_bytes = '500G'",
        "[[limits]]",
    ],
)
def test_nonsense_in_a_sync_points_limits_is_said(lines: str):
    with pytest.raises(CorruptStore, match=r"limits.*point\.toml"):
        parse_text(f"{POINT}{lines}\n".encode(), PointSettings, b"point.toml")


@pytest.mark.parametrize(
    "lines",
    [
        "[server]\nmax_sessions = 0",
        "[server]\nmax_half_open = -1",
        "[server]\nhandshake_s = 0.5",
        "[server]\nidle_s = 29",
        "[reserve]\nspace_percent = 51",
        "[reserve]\nspace_most_bytes = -1",
        "[reserve]\ninodes_percent = true",
    ],
)
def test_nonsense_in_a_stores_settings_is_said(lines: str):
    with pytest.raises(CorruptStore, match=r"store\.toml"):
        parse_text(f"{STORE}{lines}\n".encode(), StoreSettings, b"store.toml")
