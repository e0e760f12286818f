"""What holds for every test: a clean log, a cache directory of its own, honest skips.

- A record of level WARNING or above in a logger of ssfs fails the test, unless the test asks for
  the fixture `expected_warnings`, the list of those records, and looks at it.
- `SSFS_CACHE_DIR` and `SSFS_CONFIG_DIR` point into the test's own temporary files, for processes that
  it starts too.
- Files with long tests come first.
- `needs_fuse` and `needs_root` skip where they must, but fail in CI (`CI=true`): a machine that
  cannot run these tests must not look as if they had passed.
- hypothesis has no deadline (disks are slow at times) and in CI tries the same examples each time.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite("tests.fakes")

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if IN_CI else "default")


def _fuse_obstacle() -> str | None:
    """Why a test cannot mount, or None if it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def _root_obstacle() -> str | None:
    """Why a test cannot act as root, or None if it can."""
    return None if os.geteuid() == 0 else "not run as root"


_LONGEST = ("system", "crash", "stateful", "mount", "damage", "engine", "cli")
"""Directories whose tests take long: those begin first, and short ones fill what is left in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put them in that order; where the files go to several processes, each takes the next one."""
    here = Path(__file__).parent
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(here).parts[0], len(ranks)))


_OBSTACLES = {"needs_fuse": _fuse_obstacle, "needs_root": _root_obstacle}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run; in CI, fail it."""
    for marker, find_obstacle in _OBSTACLES.items():
        if item.get_closest_marker(marker) is None:
            continue
        obstacle = find_obstacle()
        if obstacle is None:
            continue
        if IN_CI:
            pytest.fail(f"{marker}: {obstacle} (in CI this test may not be skipped)", pytrace=False)
        pytest.skip(f"{marker}: {obstacle}")


class _RecordKeeper(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _kept_warnings(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """Fail a test that logged a warning it did not expect."""
    keeper = _RecordKeeper(logging.WARNING)
    logger = logging.getLogger("ssfs")
    logger.addHandler(keeper)
    yield keeper.records
    logger.removeHandler(keeper)
    if keeper.records and "expected_warnings" not in request.fixturenames:
        told = "\n".join(f"  {r.levelname} {r.name}: {r.getMessage()}" for r in keeper.records)
        pytest.fail(
            f"Unexpected log records (use the fixture expected_warnings if they are right):\n{told}",
            pytrace=False,
        )


@pytest.fixture
def expected_warnings(_kept_warnings: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """The records of level WARNING and above that ssfs logged so far; the test must check them."""
    return _kept_warnings


@pytest.fixture(scope="session", autouse=True)
def _session_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures that outlive a test away from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSFS_CACHE_DIR", str(tmp_path_factory.mktemp("session-cache")))
        yield


@pytest.fixture(autouse=True)
def cache_dir(
    _session_cache_dir: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The client's cache directory of this test alone, empty at first."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSFS_CACHE_DIR", str(directory))
    # Not made: most tests enrol with nobody, and none may see this machine's own enrolments.
    monkeypatch.setenv("SSFS_CONFIG_DIR", str(directory.with_name(directory.name + "-config")))
    return directory
