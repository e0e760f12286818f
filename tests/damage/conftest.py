"""A store with a history, made once, and a copy of it for each test to damage."""

import sys

import pytest

from tests.damage.damages import History, damaged, verify


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> History:
    made = History.make(tmp_path_factory.mktemp("damage"))
    assert damaged(verify(made.backup.path)) == {}
    return made


@pytest.fixture
def history(_made, tmp_path) -> History:
    """Three versions of a small source, whole."""
    return _made.copy(tmp_path)


@pytest.fixture
def far_off(tmp_path, monkeypatch):
    """Makes the location of a store on another machine: its `ssh` runs the command here.

    Named roles bind the client, a stranger, to them, as a forced command in authorized_keys does.
    """
    script = tmp_path / "ssh"
    script.write_text(
        "#!/bin/sh\nfor command; do :; done\n"
        f'ssfs() {{ exec {sys.executable} -m ssfs "$@" $FORCED; }}\neval "$command"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("SSFS_SSH", str(script))

    def location(store, *roles, points=()):
        forced = [f"--role {','.join(roles)}", "--client stranger"] if roles else []
        forced += [f"--point {point}" for point in points]
        monkeypatch.setenv("FORCED", " ".join(forced))
        return f"ssh://nas2{store}"

    return location
