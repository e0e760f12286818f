"""Enrolment and renewal at the server: what a visitor without a certificate, or with an old one, may ask.

One desk serves all sessions of a server, from their threads. A wrong code is answered late, and later with each
further one, so that guessing is hopeless beyond what 160 random bits make it already.
"""

import threading
import time
from collections.abc import Callable

from ssfs.clock import Clock
from ssfs.errors import TrustError
from ssfs.model.peer import Peer
from ssfs.protocol.enrolling import Authority, Enroll, Enrolled, Renew
from ssfs.store.clients import Registry

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 8.0
_FORGIVEN_AFTER_S = 600.0


class EnrolmentDesk:
    """Gives out certificates for codes, and new ones for old ones."""

    def __init__(
        self, registry: Registry, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Use the registry of a store that this process owns.

        Args:
            registry: Whose clients.
            clock: The server's.
            sleep: Holds back the answer to a wrong code; its session's thread waits in it.
        """
        self._registry = registry
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._failures = 0
        self._last_failure_s = 0.0

    def authority(self) -> Authority:
        """The certificate that all others are checked against."""
        return Authority(self._registry.authority().pem)

    def enrol(self, request: Enroll) -> Enrolled:
        """Redeem a code.

        Raises:
            TrustError: It is wrong, used or expired, or the signing request cannot be used.
        """
        try:
            issued = self._registry.redeem(request.secret, request.request, self._clock.now())
        except TrustError:
            self._sleep(self._delay_s())
            raise
        return Enrolled(issued.certificate, issued.name, list(issued.points))

    def renew(self, peer: Peer, certificate: bytes, request: Renew) -> Enrolled:
        """A new certificate for the one (DER) that a client has shown.

        Raises:
            TrustError: It counts no more, or the signing request cannot be used.
        """
        renewed = self._registry.renew(certificate, request.request, self._clock.now())
        return Enrolled(renewed, peer.name, sorted(peer.points))

    def _delay_s(self) -> float:
        """How long a wrong code is to wait, which makes the next one wait longer."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._last_failure_s > _FORGIVEN_AFTER_S:
                self._failures = 0
            self._last_failure_s = now_s
            self._failures += 1
            return min(_FIRST_DELAY_S * 2.0 ** (self._failures - 1), _LONGEST_DELAY_S)
