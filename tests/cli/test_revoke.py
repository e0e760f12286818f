"""`ssfs revoke`."""

import datetime
import os
from pathlib import Path

import pytest

from ssfs.errors import TrustError
from ssfs.pki.certificate import make_key, make_request, to_der
from ssfs.pki.code import parse_code
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.cli.support import run, ssfs

NOW = datetime.datetime.now(datetime.UTC)


def test_revoked_client_has_no_access(store: Path):
    registry = Registry(Store.open(os.fsencode(store)))
    code = parse_code(ssfs("invite", "-q", store, "nas1"))
    der = to_der(registry.redeem(code.secret, make_request(make_key()), NOW).certificate)
    assert registry.identify(der, NOW)
    stamp = registry.change_stamp()
    assert ssfs("revoke", store, "nas1") == "Revoked nas1\n"
    assert registry.change_stamp() != stamp
    with pytest.raises(TrustError, match="revoked"):
        registry.identify(der, NOW)


def test_what_is_said(store: Path):
    for _ in range(2):
        ssfs("invite", "-q", store, "nas1")
    assert ssfs("revoke", "-v", store, "nas1") == "Revoked nas1\nWithdrew 2 invitations\n"
    ssfs("invite", "-q", store, "nas1")
    assert ssfs("revoke", "-q", store, "nas1") == ""


def test_client_that_is_none(store: Path, tmp_path: Path):
    for name in ("nas1", "../x", ""):
        assert run("revoke", store, name, expect=2).error
    assert not (store / "pki").exists()
    ssfs("invite", "-q", store, "nas2")
    assert "No client 'nas1'" in run("revoke", store, "nas1", expect=2).error
    assert "Not a store" in run("revoke", tmp_path, "nas1", expect=6).error
