"""Whose source is it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.source import identity
from ssfs.source.identity import client_name, default_task, source_identity
from ssfs.store.store import check_name


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setattr(identity.socket, "gethostname", lambda: "nas1.example.org")


@pytest.mark.parametrize(
    ("path", "source_id", "task"),
    [
        (b"/", None, "nas1"),
        (b"/srv/docs", None, "nas1-srv-docs"),
        (b"/srv/docs/", None, "nas1-srv-docs"),
        (b"/srv/../srv/docs", None, "nas1-srv-docs"),
        (b"/srv/caf\xe9 x", None, "nas1-srv-caf__x"),
        (b"/snapshots/7", "documents", "nas1-documents"),
    ],
)
def test_task_is_named_for_the_client_and_the_path(path, source_id, task):
    assert default_task("nas1", path, source_id) == task


@given(st.binary(max_size=300).filter(lambda path: b"\0" not in path))
def test_default_task_is_always_a_name(path):
    name = default_task("nas1", b"/" + path, None)
    assert check_name(name, "task") == name


def test_client_without_a_name_has_one(monkeypatch):
    monkeypatch.setattr(identity.socket, "gethostname", lambda: "")
    assert client_name() == "localhost"


def test_identity_is_the_real_path_or_the_given_name(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    assert source_identity(bytes(tmp_path / "link"), None) == str(tmp_path.resolve() / "real")
    assert source_identity(b"/anything", "docs") == "docs"


@pytest.mark.parametrize(("path", "source_id"), [(b"/caf\xe9", None), (b"/x", "caf\udce9")])
def test_identity_can_always_be_written_as_utf_8(path, source_id):
    text = source_identity(path, source_id)
    assert text.encode().endswith(rb"caf\xe9")
    other = source_identity(b"/caf\xe8", source_id and "caf\udce8")
    assert other != text
