"""The `-o` options of a mount."""

import math
import os

import msgspec

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError
from ssfs.mount.owner_map import find_owner, read_owner_map

IDLE_S = 60.0
TIMEOUT_S = 30.0

# What the mount is anyway: naming it is no mistake.
_GIVEN = frozenset({"ro", "nosuid", "nodev", "default_permissions"})
_SWITCHES = frozenset(
    {"allow_other", "numeric_ids", "damaged_ok", "samba", "plain", "show_history"}
)
_VALUED = frozenset({"owner", "map", "idle", "timeout"})
_KERNEL = frozenset({"exec", "noexec", "noatime", "sync", "async", "dirsync"})
_OPPOSITE = {"exec": "noexec", "noexec": "exec", "sync": "async", "async": "sync"}
_REFUSED = frozenset({"rw", "suid", "dev"})


class MountOptions(msgspec.Struct, frozen=True):
    """How to mount.

    Attributes:
        allow_other: Let other users in; the kernel checks permissions (default_permissions).
        owners: Whose things are on this machine, where their names do not decide.
        idle_s: For how long after its last request a name or an expired version is in use.
        kernel: Options passed on to the kernel.
        damaged_ok: Let what is known to be damaged be read as it is.
        history: Have a `.history` in each task.
        show_history: List it, too.
        sole_owner: Number of the user and of the group that have everything; None: each has what is theirs.
        samba: Show what Samba needs for Windows' "Previous Versions" (`ssfs.mount.samba`).
        timeout_s: For how long to wait for a server that says nothing.
    """

    allow_other: bool = False
    owners: OwnerMap = OwnerMap()
    idle_s: float = IDLE_S
    kernel: tuple[str, ...] = ()
    damaged_ok: bool = False
    sole_owner: tuple[int, int] | None = None
    samba: bool = False
    history: bool = True
    show_history: bool = False
    timeout_s: float = TIMEOUT_S


def parse_options(text: str) -> MountOptions:
    """Options from their comma-separated form.

    `allow_other`, `numeric_ids`, `owner=USER` and `map=FILE` (`ssfs.mount.owner_map`), `damaged_ok`, `samba`, `plain` (no
    `.history`) or `show_history` (list it), `idle=SECONDS` (60: how long after its last use a name stays with its
    version, and an expired version stays readable), `timeout=SECONDS` (30: how long a server may say nothing before
    whoever waits for it gets an error), and
    those for the kernel: `noexec`, `noatime` and such. Of an option given twice the last one counts.

    Permissions are always checked by the kernel: no option takes that away.

    Raises:
        ConfigError: One of them is unknown or makes no sense here, or the map cannot be read; the error names it.
    """
    switches: set[str] = set()
    values: dict[str, str] = {}
    kernel: list[str] = []
    for name in (name for name in text.split(",") if name):
        key, equals, value = name.partition("=")
        if equals and key in _VALUED:
            values[key] = value
        elif name in _KERNEL:
            # The last one counts: libfuse gets them as a set, in no order.
            kernel = [other for other in kernel if other not in (name, _OPPOSITE.get(name))]
            kernel.append(name)
        elif name in _SWITCHES:
            switches.add(name)
        elif name not in _GIVEN:
            raise _unfit(name)
    _check_conflicts(switches, values)
    chosen = read_owner_map(os.fsencode(values["map"])) if "map" in values else OwnerMap()
    return MountOptions(
        "allow_other" in switches,
        OwnerMap("numeric_ids" in switches, chosen.users, chosen.groups),
        _parse_seconds("idle", values["idle"]) if "idle" in values else IDLE_S,
        tuple(kernel),
        "damaged_ok" in switches,
        find_owner(values["owner"]) if "owner" in values else None,
        "samba" in switches,
        "plain" not in switches,
        "show_history" in switches,
        _parse_seconds("timeout", values["timeout"]) if "timeout" in values else TIMEOUT_S,
    )


def _check_conflicts(switches: set[str], values: dict[str, str]) -> None:
    if "owner" in values and ("map" in values or "numeric_ids" in switches):
        other = "map" if "map" in values else "numeric_ids"
        raise ConfigError(
            f"Mount options 'owner' and {other!r} exclude each other",
            remedy="with 'owner' everything is that user's",
        )
    if {"plain", "show_history"} <= switches:
        raise ConfigError(
            "Mount options 'plain' and 'show_history' exclude each other",
            remedy="with 'plain' there is no .history",
        )


def is_known(option: str) -> bool:
    """Whether `parse_options` knows of an option, if only to refuse it."""
    key, equals, _ = option.partition("=")
    return (key in _VALUED) if equals else option in _GIVEN | _SWITCHES | _KERNEL | _REFUSED


def _unfit(name: str) -> ConfigError:
    if name in _REFUSED:
        return ConfigError(
            f"Mount option {name!r} is not possible: versions are mounted ro,nosuid,nodev"
        )
    return ConfigError(
        f"Unknown mount option {name!r}",
        remedy="known: allow_other, numeric_ids, owner=USER, map=FILE, damaged_ok, samba, plain, "
        "show_history, idle=SECONDS, timeout=SECONDS, " + ", ".join(sorted(_KERNEL)),
    )


def _parse_seconds(option: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"Mount option '{option}={text}' needs a number of seconds")
    return seconds
