"""What a desk does with codes: the wrong ones wait, the right ones do not."""

import concurrent.futures
import datetime
import threading

import pytest

from ssfs.engine.enrolment import EnrolmentDesk
from ssfs.errors import TrustError
from ssfs.pki.certificate import make_key, make_request, to_der
from ssfs.protocol.enrolling import Enroll, Renew
from tests.fakes.clock import FrozenClock
from tests.store.registries import DAY, HOUR, NOW, enrol, invite, make_registry


class Desk:
    """A desk whose waits are written down."""

    def __init__(self, tmp_path) -> None:
        self.clock = FrozenClock()
        self.waits: list[float] = []
        self.registry = make_registry(tmp_path / "store")
        self.desk = EnrolmentDesk(self.registry, self.clock, self.waits.append)

    def guess(self, times: int = 1) -> list[float]:
        """Wrong codes; how long each was held back."""
        self.waits.clear()
        for _ in range(times):
            with pytest.raises(TrustError, match="wrong, used or expired"):
                self.desk.enrol(Enroll(b"no secret", make_request(make_key())))
        return list(self.waits)


@pytest.fixture
def desk(tmp_path) -> Desk:
    invite(make_registry(tmp_path / "other"))
    desk = Desk(tmp_path)
    invite(desk.registry, "somebody")
    return desk


def test_wrong_codes_are_answered_late_and_later(desk):
    assert desk.guess(7) == [0.5, 1, 2, 4, 8, 8, 8]


def test_a_right_code_is_answered_at_once_whoever_guessed_before(desk):
    desk.guess(9)
    desk.waits.clear()
    secret = invite(desk.registry, "nas1", points=("main", "photos"))
    enrolled = desk.desk.enrol(Enroll(secret, make_request(make_key())))
    assert (enrolled.client, list(enrolled.points)) == ("nas1", ["main", "photos"])
    assert desk.waits == []


def test_a_used_and_an_expired_code_are_wrong_ones(desk):
    used, late = invite(desk.registry, "nas1"), invite(desk.registry, "nas2")
    desk.desk.enrol(Enroll(used, make_request(make_key())))
    desk.clock.advance(2 * DAY)
    for secret in (used, late):
        with pytest.raises(TrustError, match="wrong, used or expired"):
            desk.desk.enrol(Enroll(secret, make_request(make_key())))
    assert desk.waits == [0.5, 1]


def test_old_mistakes_are_forgiven_and_recent_ones_are_not(desk):
    desk.guess(4)
    desk.clock.advance(datetime.timedelta(seconds=599))
    assert desk.guess() == [8]
    desk.clock.advance(datetime.timedelta(seconds=601))
    assert desk.guess() == [0.5]


def test_a_clock_set_back_makes_nothing_faster(desk):
    desk.guess(4)
    desk.clock.set(NOW - 30 * DAY)
    assert desk.guess() == [8]


def test_a_signing_request_that_is_none_uses_no_code_up(desk):
    secret = invite(desk.registry, "nas1")
    with pytest.raises(TrustError):
        desk.desk.enrol(Enroll(secret, b"no request"))
    assert desk.desk.enrol(Enroll(secret, make_request(make_key()))).client == "nas1"


def test_one_code_is_good_once_however_many_use_it_at_a_time(desk):
    secret = invite(desk.registry, "nas1")
    meet = threading.Barrier(8)

    def use(_: int) -> str:
        request = make_request(make_key())
        meet.wait(60)
        try:
            return desk.desk.enrol(Enroll(secret, request)).client
        except TrustError:
            return "refused"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(use, range(8))) == ["nas1", *["refused"] * 7]
    assert sorted(desk.waits) == [0.5, 1, 2, 4, 8, 8, 8]


def test_renewal_gives_a_certificate_to_the_same_client_and_leaves_the_old_one(desk):
    machine = enrol(desk.registry, "nas1")
    peer = desk.registry.identify(machine.der, NOW)
    desk.clock.advance(70 * DAY)
    renewed = desk.desk.renew(peer, machine.der, Renew(make_request(machine.key)))
    assert renewed.client == "nas1"
    later = desk.clock.now()
    assert desk.registry.identify(to_der(renewed.certificate), later + 60 * DAY) == peer
    assert desk.registry.identify(machine.der, later) == peer
    with pytest.raises(TrustError, match="expired on"):
        desk.registry.identify(machine.der, later + 60 * DAY)


def test_no_certificate_that_counts_no_more_is_renewed(desk):
    machine = enrol(desk.registry, "nas1")
    peer = desk.registry.identify(machine.der, NOW)
    desk.registry.revoke("nas1", NOW + HOUR)
    with pytest.raises(TrustError, match="revoked"):
        desk.desk.renew(peer, machine.der, Renew(make_request(machine.key)))
