"""A server's error arrives at the client as the same error."""

import pytest

from ssfs import errors
from ssfs.engine.refusal import raise_refused, to_refusal
from ssfs.protocol.codec import encode
from ssfs.protocol.messages import Refusal, Refused

KINDS = {
    errors.ConfigError: Refusal.BAD_REQUEST,
    errors.StoreLocked: Refusal.TASK_BUSY,
    errors.StoreError: Refusal.STORE,
    errors.StoreFull: Refusal.STORE_FULL,
    errors.CorruptStore: Refusal.CORRUPT,
    errors.TrustError: Refusal.NOT_TRUSTED,
    errors.PeerBusy: Refusal.NO_SLOT,
    errors.ConnectionLost: Refusal.GOING_DOWN,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_comes_over_with_all_it_says(kind: type[errors.SsfsError]):
    error = kind("It is so", path=b"/srv/caf\xe9", remedy="do that")
    message = to_refusal(error)
    assert message.code is KINDS[kind]
    with pytest.raises(kind) as caught:
        raise_refused(message)
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)


def test_every_code_but_that_of_our_own_bug_has_its_error():
    assert set(Refusal) - set(KINDS.values()) == {Refusal.CATALOG_DIFFERS}
    with pytest.raises(errors.InternalError):
        raise_refused(Refused(Refusal.CATALOG_DIFFERS, "They differ", b"", ""))


def test_other_errors_are_the_requests_fault():
    message = to_refusal(errors.RemoteProtocolError("It makes no sense", remedy="update"))
    assert message == Refused(Refusal.BAD_REQUEST, "It makes no sense (update)", b"", "")


def test_whatever_an_error_quotes_fits_into_a_message():
    error = errors.ConfigError("No version 'x\udce9' " + "9" * 10**6, remedy="\udcff" * 10**6)
    message = to_refusal(error)
    assert len(encode(message)[0]) < 100_000
    assert message.problem.startswith("No version 'x\\udce9' 999")
    assert message.problem.endswith("9...")
