"""Names and bindings: who answers to a date, and when that may change."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.model.version import RootMetadata, VersionId
from ssfs.mount.names import Binding, NameTable, ShownVersion, wanted_names
from tests.mount.stores import DAY

ROOT = RootMetadata(0o755, 0, 0, "root", "root", 0, 0)
IDLE_S = 60.0


def version(sequence: int, name: str) -> ShownVersion:
    return ShownVersion(VersionId(sequence, DAY), name, b"/store/%d" % sequence, ROOT)


MORNING = version(1, "2024-05-01_080000")
NOON = version(2, "2024-05-01_120000")
EVENING = version(3, "2024-05-01_200000")
TOMORROW = version(4, "2024-05-02_080000")


class Names:
    """A name table with what surrounds it."""

    def __init__(self) -> None:
        self.table = NameTable(itertools.count(1), IDLE_S)
        self.now_s = 0.0
        self.held: set[int] = set()
        self.made: list[Binding] = []

    def update(self, *versions: ShownVersion) -> dict[str, int]:
        """The listing: name to sequence number."""
        self.made += self.table.update(
            versions, self.now_s, lambda shown: shown.id.sequence in self.held
        )
        return {name: binding.version.id.sequence for name, binding in self.table.listing}

    def use(self, name: str) -> Binding:
        binding = self.table.resolve(name)
        assert binding is not None
        binding.last_request_s = self.now_s
        return binding

    def leads_to(self, name: str) -> int | None:
        binding = self.table.resolve(name)
        return binding.version.id.sequence if binding else None


@pytest.fixture
def names() -> Names:
    return Names()


def test_newest_of_a_day_has_the_bare_date(names):
    listing = names.update(MORNING, NOON, TOMORROW)
    assert listing == {"2024-05-01_080000": 1, "2024-05-01": 2, "2024-05-02": 4}
    assert names.table.latest == "2024-05-02"


def test_every_version_answers_to_its_timed_name_too(names):
    names.update(MORNING, NOON)
    assert names.leads_to("2024-05-01_120000") == 2
    assert names.leads_to("2024-05-01_080000") == 1
    assert names.leads_to("2024-05-03") is None


def test_nothing_to_show_means_no_latest(names):
    assert names.update() == {}
    assert names.table.latest is None


def test_unused_date_moves_at_once_as_a_new_binding(names):
    names.update(MORNING)
    before = names.table.resolve("2024-05-01")
    assert names.update(MORNING, NOON) == {"2024-05-01_080000": 1, "2024-05-01": 2}
    after = names.table.resolve("2024-05-01")
    assert before
    assert after
    assert before.number != after.number
    assert before.version.id.sequence == 1, "an old binding keeps its version for ever"


def test_date_in_use_stays_and_the_newer_version_shows_its_timed_name(names):
    names.update(MORNING)
    names.use("2024-05-01")
    names.now_s = IDLE_S - 0.1
    listing = names.update(MORNING, NOON)
    assert listing == {"2024-05-01": 1, "2024-05-01_120000": 2}
    assert names.table.latest == "2024-05-01_120000"


def test_date_moves_when_its_holder_was_idle_long_enough(names):
    names.update(MORNING)
    names.use("2024-05-01")
    versions = (MORNING, NOON)
    names.update(*versions)
    names.now_s = IDLE_S
    assert names.update(*versions) == {"2024-05-01_080000": 1, "2024-05-01": 2}


def test_each_request_prolongs_the_use(names):
    names.update(MORNING)
    for _ in range(5):
        names.use("2024-05-01")
        names.now_s += IDLE_S - 1
        assert names.update(MORNING, NOON)["2024-05-01"] == 1


def test_open_handle_keeps_a_name_for_ever(names):
    names.update(MORNING)
    binding = names.use("2024-05-01")
    binding.handles += 1
    names.now_s = 100 * IDLE_S
    assert names.update(MORNING, NOON)["2024-05-01"] == 1
    binding.handles -= 1
    assert names.update(MORNING, NOON)["2024-05-01"] == 2


def test_use_under_the_timed_name_does_not_keep_the_date(names):
    names.update(MORNING)
    names.use("2024-05-01_080000")
    assert names.update(MORNING, NOON)["2024-05-01"] == 2


def test_date_skips_versions_that_came_while_it_was_in_use(names):
    names.update(MORNING)
    names.use("2024-05-01")
    names.update(MORNING, NOON)
    assert names.update(MORNING, NOON, EVENING) == {
        "2024-05-01": 1,
        "2024-05-01_120000": 2,
        "2024-05-01_200000": 3,
    }
    names.now_s = IDLE_S
    assert names.update(MORNING, NOON, EVENING)["2024-05-01"] == 3


def test_expired_version_is_gone_at_once_when_nobody_holds_it(names):
    names.update(MORNING, TOMORROW)
    names.use("2024-05-01")
    assert names.update(TOMORROW) == {"2024-05-02": 4}
    assert names.leads_to("2024-05-01") is None
    assert names.leads_to("2024-05-01_080000") is None


def test_expired_version_in_use_resolves_but_is_not_listed(names):
    names.update(MORNING, TOMORROW)
    names.use("2024-05-01")
    names.held = {1}
    assert names.update(TOMORROW) == {"2024-05-02": 4}
    assert names.leads_to("2024-05-01") == 1
    names.now_s = IDLE_S
    names.update(TOMORROW)
    assert names.leads_to("2024-05-01") is None


def test_date_of_an_expired_version_in_use_is_not_given_to_the_next(names):
    names.update(MORNING)
    names.use("2024-05-01")
    names.held = {1}
    assert names.update(NOON) == {"2024-05-01_120000": 2}
    assert names.leads_to("2024-05-01") == 1
    names.held = set()
    assert names.update(NOON) == {"2024-05-01": 2}


def test_equal_timed_names_are_told_apart(names):
    twin = version(7, MORNING.name)
    listing = names.update(MORNING, twin, TOMORROW)
    assert sorted(listing.values()) == [1, 4, 7]
    assert names.leads_to("2024-05-01_080000") == 1
    assert names.leads_to("2024-05-01_080000.7") == 7


def test_repeated_hour_in_autumn_sorts_by_sequence_not_by_name():
    summer, winter = version(1, "2024-10-27_023000"), version(2, "2024-10-27_021500")
    assert wanted_names([summer, winter])["2024-10-27"] is winter


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sync", "expire", "use", "hold", "release"]),
            st.integers(0, 5),
            st.sampled_from([0.0, 1.0, 30.0, 61.0]),
        ),
        max_size=40,
    )
)
def test_name_in_use_is_never_rebound(steps):
    """Whatever happens: names that were used within the minute lead where they led."""
    names = Names()
    versions: list[ShownVersion] = []
    used: dict[str, tuple[int, float]] = {}
    for count, (step, index, wait_s) in enumerate(steps, 1):
        names.now_s += wait_s
        names.update(*versions)
        chosen = list(names.table.listing)[index : index + 1]
        if step == "sync":
            day = 1 + count % 2
            versions.append(version(count, f"2024-05-0{day}_{count:06d}"))
        elif step == "expire" and versions:
            # Whoever used it lately holds it, as the mount's own lock does.
            gone = versions.pop(index % len(versions))
            names.held.add(gone.id.sequence)
        elif step == "use" and chosen:
            names.use(chosen[0].name)
            used[chosen[0].name] = (chosen[0].binding.version.id.sequence, names.now_s)
        listing = names.update(*versions)
        assert sorted(listing.values()) == [shown.id.sequence for shown in versions]
        for name, (sequence, at_s) in used.items():
            if names.now_s - at_s < IDLE_S:
                assert names.leads_to(name) == sequence
        numbers = [binding.number for binding in names.made]
        assert len(set(numbers)) == len(numbers)
