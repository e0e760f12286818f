"""A store with a history, made once, and a copy of it for each test to damage."""

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
