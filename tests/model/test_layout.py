"""Where a sparse file has data, and the digest of its content."""

import blake3
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.model.layout import (
    MAX_EXTENTS,
    ContentHasher,
    Layout,
    content_digest,
    data_bytes,
)


@st.composite
def layouts(draw) -> Layout:
    gaps = draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=6))
    end, extents = draw(st.integers(-1, 20)), []
    for gap, length in gaps:
        start = end + gap
        extents.append((start, length))
        end = start + length
    end = max(end, 0)
    return Layout(end + draw(st.integers(0, 40)), extents)


@given(layouts())
def test_a_row_keeps_a_layout_as_it_is(layout):
    again = Layout.of(layout.size, layout.holes)
    assert (again.extents(), again.data_bytes) == (layout.extents(), layout.data_bytes)
    assert data_bytes(layout.size, layout.holes) == layout.data_bytes


@given(layouts(), st.integers(0, 200), st.integers(0, 200))
def test_pieces_of_the_stream_are_where_its_bytes_are(layout, position, count):
    places = [offset + i for offset, length in layout.extents() for i in range(length)]
    wanted = places[position : position + count]
    count = min(count, max(layout.data_bytes - position, 0))
    pieces = list(layout.pieces(position, count)) if count else []
    assert [offset + i for offset, length in pieces for i in range(length)] == wanted


@given(layouts(), st.data())
def test_the_digest_does_not_depend_on_the_pieces(layout, data):
    content = data.draw(st.binary(min_size=layout.data_bytes, max_size=layout.data_bytes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    hasher = ContentHasher(layout)
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        hasher.update(content[start:end])
    assert hasher.digest() == content_digest(layout, content)


def test_equal_bytes_in_other_places_are_another_content():
    digests = {
        content_digest(Layout(100, extents), b"0123456789")
        for extents in ([(0, 10)], [(90, 10)], [(0, 5), (50, 5)], [(0, 4), (50, 6)])
    }
    assert len(digests) == 4
    assert content_digest(Layout(10), b"0123456789") == blake3.blake3(b"0123456789").digest()


def test_no_plain_file_has_the_digest_of_a_sparse_one():
    sparse = Layout(42, [(0, 10)])
    spelled = (0).to_bytes(8, "little") + (10).to_bytes(8, "little") + b"0123456789"
    assert content_digest(sparse, b"0123456789") != content_digest(Layout(26), spelled)


@pytest.mark.parametrize(
    ("size", "numbers"),
    [
        (10, [0, 10]),
        (10, [5, 6]),
        (10, [0, 3, 0, 3]),
        (10, [0, 0]),
        (10, [-1, 5]),
        (10, [1]),
        (10, [1, 2, 3]),
        (1 << 64, [1, 1 << 63]),
        (1 << 20, [1, 1] * (MAX_EXTENTS + 1)),
        (10, ["x", 1]),
    ],
)
def test_what_is_no_layout_is_refused(size, numbers):
    with pytest.raises(ValueError, match=r"."):
        Layout.of(size, msgspec.msgpack.encode(numbers))


def test_a_file_that_is_one_hole_has_a_layout():
    layout = Layout(1 << 43, [])
    assert layout.is_sparse
    assert (layout.data_bytes, layout.extents()) == (0, [])
    assert Layout.of(1 << 43, layout.holes).is_sparse
    assert not Layout(0).is_sparse
