"""When too many files are gone."""

import pytest

from ssfs.model.version import Shrink
from ssfs.retention.shrink import ShrinkHold, judge_shrink, lost_text

CASES = {
    "nothing before": (0, 0, False),
    "first files": (0, 5, False),
    "all of one": (1, 0, True),
    "all of many": (1000, 0, True),
    "half of ten": (10, 5, False),
    "more than half of ten": (10, 4, True),
    "more than half of nine": (9, 1, False),
    "half of many": (1001, 501, False),
    "a bit more than half of many": (1001, 500, True),
    "growth": (10, 1000, False),
}


@pytest.mark.parametrize(("before", "after", "flagged"), CASES.values(), ids=CASES)
def test_what_is_flagged(before, after, flagged):
    assert judge_shrink(before, after) == (Shrink(before, after) if flagged else None)


def test_reason_says_how_many_and_what_to_do():
    text = str(ShrinkHold(7, Shrink(1000, 3)))
    assert "version 7 has 3 of 1,000 files" in text
    assert "--allow-shrink" in text
    assert "`ssfs expire`" in text
    assert lost_text(Shrink(12, 0)) == "0 of 12 files"
