"""`ssfs init`."""

import os
import tomllib
from pathlib import Path

import pytest

from ssfs.cli.init import machine_time_zone
from tests.cli.support import run, ssfs


def settings(store: Path) -> dict:
    return tomllib.loads((store / "store.toml").read_text())


def test_defaults_are_ten_seven_five_and_one(tmp_path: Path):
    store = tmp_path / "store"
    text = ssfs("init", store)
    assert settings(store)["policy"] == {"days": 10, "weeks": 7, "months": 5, "keep_last": 1}
    assert f"ssfs sync DIRECTORY {store}" in text


def test_options_set_policy_and_time_zone(tmp_path: Path):
    store = tmp_path / "store"
    text = ssfs(
        *("init", store, "--days", "0", "--weeks", "1", "--months", "2", "--keep-last", "3"),
        *("--timezone", "Europe/Berlin", "-v"),
    )
    made = settings(store)
    assert made["policy"] == {"days": 0, "weeks": 1, "months": 2, "keep_last": 3}
    assert made["timezone"] == "Europe/Berlin"
    assert made["id"] in text


def test_quiet_says_nothing(tmp_path: Path):
    assert ssfs("init", "-q", tmp_path / "store") == ""


def test_empty_directory_is_taken(tmp_path: Path):
    store = tmp_path / "store"
    (store / "lost+found").mkdir(parents=True)
    ssfs("init", store)


def test_time_zone_of_the_environment(tmp_path: Path):
    run("init", tmp_path / "a", env={"TZ": "Asia/Tokyo"}, expect=0)
    assert settings(tmp_path / "a")["timezone"] == "Asia/Tokyo"
    run("init", tmp_path / "b", env={"TZ": ":Asia/Kolkata"}, expect=0)
    assert settings(tmp_path / "b")["timezone"] == "Asia/Kolkata"


def test_time_zone_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TZ", raising=False)
    link, text = tmp_path / "localtime", tmp_path / "timezone"
    monkeypatch.setattr("ssfs.cli.init._LOCALTIME", str(link))
    monkeypatch.setattr("ssfs.cli.init._TIMEZONE_FILE", str(text))
    assert machine_time_zone() == "UTC"
    text.write_text("Europe/Paris\n")
    assert machine_time_zone() == "Europe/Paris"
    link.symlink_to("/usr/share/zoneinfo/posix/America/New_York")
    assert machine_time_zone() == "America/New_York"
    monkeypatch.setenv("TZ", "nonsense")
    assert machine_time_zone() == "America/New_York"


def test_unusable_directories_are_refused(tmp_path: Path, store: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "Already a store" in run("init", store, expect=2).error
    assert "not empty" in run("init", tmp_path / "full", expect=2).error
    assert "Not a directory" in run("init", tmp_path / "file", expect=2).error
    assert "Not a directory" in run("init", tmp_path / "dangling", expect=2).error
    assert "does not exist" in run("init", tmp_path / "a" / "b", expect=2).error
    assert "without a sync point" in run("init", f"{tmp_path}/s::main", expect=2).error
    assert os.listdir(tmp_path / "full") == ["file"]


def test_unknown_time_zone_is_refused_and_nothing_made(tmp_path: Path):
    for zone in ("Mars/Olympus", "", "../etc/passwd", "/etc/passwd"):
        assert run("init", tmp_path / "s", f"--timezone={zone}", expect=2).error
    assert not (tmp_path / "s").exists()
