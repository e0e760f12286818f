"""The store's text files: newer ones refused, damaged ones found out."""

import datetime

import pytest

from ssfs.errors import CorruptStore, StoreError
from ssfs.fsio.disk import open_directory
from ssfs.model.policy import Policy
from ssfs.model.version import PointSettings, TaskSettings, VersionRecord
from ssfs.store.textfile import (
    FORMAT,
    encode_text,
    parse_text,
    read_text_file,
    seal,
    unseal,
    write_text_file,
)
from tests.store.stagings import make_base, make_task

SETTINGS = TaskSettings(
    FORMAT, "id", "nas1", '/a "b" \n\\ é', datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC), 7
)


def test_values_come_back_as_they_were():
    assert parse_text(encode_text(SETTINGS), TaskSettings, b"task.toml") == SETTINGS
    point = PointSettings(FORMAT, Policy(1, 2, 3, 4))
    assert parse_text(encode_text(point), PointSettings, b"point.toml") == point


def test_newer_format_is_refused_whatever_else_it_holds(tmp_path):
    text = f'format = {FORMAT + 1}\nid = 7\nnovelty = "x"\n'
    (tmp_path / "task.toml").write_text(text)
    with pytest.raises(StoreError, match="newer") as caught:
        read_text_file(b"task.toml", TaskSettings, directory=bytes(tmp_path))
    assert not isinstance(caught.value, CorruptStore)
    assert (tmp_path / "task.toml").read_text() == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"format = 1",
        b'format = "1"',
        b"format = 1\nid = 5",
        b"[",
        b"id = 'x'",
        b"format = 1\n" + b"a = [" * 3000,
    ],
    ids=["empty", "binary", "short", "type", "field", "syntax", "no format", "deep"],
)
def test_damage_is_corruption(content):
    with pytest.raises(CorruptStore, match=r"task\.toml"):
        parse_text(content, TaskSettings, b"task.toml")


def test_file_is_replaced_beside_a_left_over_one(tmp_path):
    fd = open_directory(bytes(tmp_path))
    (tmp_path / ".task.toml.new").write_bytes(b"left over, and longer than anything" * 100)
    write_text_file(b"task.toml", SETTINGS, dir_fd=fd)
    assert read_text_file(b"task.toml", TaskSettings, directory=b"", dir_fd=fd) == SETTINGS


def test_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text_file(b"task.toml", TaskSettings, directory=bytes(tmp_path))


@pytest.mark.slow
def test_flip_of_any_bit_of_a_version_record_is_found(tmp_path):
    version = make_base(make_task(tmp_path / "store"))
    whole = version.path + b"/version.toml"
    with open(whole, "rb") as record:
        content = record.read()
    assert parse_text(unseal(content, whole), VersionRecord, whole) == version.record()
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(CorruptStore):
                unseal(bytes(flipped), whole)
    for cut in range(len(content)):
        with pytest.raises(CorruptStore):
            unseal(content[:cut], whole)
    with pytest.raises(CorruptStore):
        unseal(content + b"\n", whole)


def test_seal_is_the_first_line():
    assert seal(b"a = 1\n").partition(b"\n")[2] == b"a = 1\n"
    assert unseal(seal(b""), b"x") == b""
