"""Stores with a registry, and clients that enrol there."""

import datetime
import os
from pathlib import Path
from typing import NamedTuple

from ssfs.model.peer import Role
from ssfs.model.policy import Policy
from ssfs.pki.certificate import make_key, make_request, to_der
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.fakes.clock import START, FrozenClock

NOW = START
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


class Machine(NamedTuple):
    """A client as it is after enrolment."""

    key: bytes
    pem: bytes

    @property
    def der(self) -> bytes:
        return to_der(self.pem)


def make_registry(path: Path) -> Registry:
    return Registry(Store.create(os.fsencode(path), Policy(), "UTC", FrozenClock()))


def invite(
    registry: Registry,
    name: str = "nas1",
    roles: tuple[Role, ...] = (Role.BACKUP,),
    points: tuple[str, ...] = ("main",),
    now: datetime.datetime = NOW,
) -> bytes:
    return registry.invite(name, roles, points, now + DAY, now)


def enrol(registry: Registry, name: str = "nas1", now: datetime.datetime = NOW, **grant) -> Machine:
    secret = invite(registry, name, now=now, **grant)
    key = make_key()
    return Machine(key, registry.redeem(secret, make_request(key), now).certificate)


def pki(registry: Registry) -> Path:
    """The registry's directory."""
    return Path(os.fsdecode(registry.path))


def files_of(registry: Registry) -> dict[str, bytes]:
    """Its files, by their path in it."""
    top = pki(registry)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.*")}
