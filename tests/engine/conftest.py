"""Shared by the tests of restores."""

from collections.abc import Callable

import pytest

from ssfs.engine.restore.restorer import RestoreResult
from tests.fakes.restores import restore_here, restore_remotely

Restore = Callable[..., RestoreResult]


@pytest.fixture(params=[restore_here, restore_remotely], ids=["here", "remotely"])
def restore(request: pytest.FixtureRequest) -> Restore:
    """Restores from a store of this machine, and the same through a server."""
    return request.param
