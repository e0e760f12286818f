"""The `-o` options of a mount."""

import math

import msgspec

from ssfs.errors import ConfigError

IDLE_S = 60.0

# What the mount is anyway: naming it is no mistake.
_GIVEN = frozenset({"ro", "nosuid", "nodev", "default_permissions"})
_KERNEL = frozenset({"exec", "noexec", "noatime", "sync", "async", "dirsync"})
_OPPOSITE = {"exec": "noexec", "noexec": "exec", "sync": "async", "async": "sync"}
_REFUSED = frozenset({"rw", "suid", "dev"})


class MountOptions(msgspec.Struct, frozen=True):
    """How to mount.

    Attributes:
        allow_other: Let other users in; the kernel checks permissions (default_permissions).
        numeric_ids: Show owners by the source's numbers, not by their names.
        idle_s: For how long after its last request a name or an expired version is in use.
        kernel: Options passed on to the kernel.
        damaged_ok: Let what is known to be damaged be read as it is.
    """

    allow_other: bool = False
    numeric_ids: bool = False
    idle_s: float = IDLE_S
    kernel: tuple[str, ...] = ()
    damaged_ok: bool = False


def parse_options(text: str) -> MountOptions:
    """Options from their comma-separated form.

    `allow_other`, `numeric_ids`, `damaged_ok`, `idle=SECONDS` (60: how long after its last use a name stays with its
    version, and an expired version stays readable), and those for the kernel: `noexec`, `noatime` and such.

    Raises:
        ConfigError: One of them is unknown or makes no sense here; the error names it.
    """
    names = [name for name in text.split(",") if name]
    idle_s = IDLE_S
    kernel: list[str] = []
    for name in names:
        if name.startswith("idle="):
            idle_s = _parse_seconds(name)
        elif name in _KERNEL:
            # The last one counts: libfuse gets them as a set, in no order.
            kernel = [other for other in kernel if other not in (name, _OPPOSITE.get(name))]
            kernel.append(name)
        elif name in _REFUSED:
            raise ConfigError(
                f"Mount option {name!r} is not possible: versions are mounted ro,nosuid,nodev"
            )
        elif name not in _GIVEN | {"allow_other", "numeric_ids", "damaged_ok"}:
            raise ConfigError(
                f"Unknown mount option {name!r}",
                remedy="known: allow_other, numeric_ids, damaged_ok, idle=SECONDS, "
                + ", ".join(sorted(_KERNEL)),
            )
    return MountOptions(
        "allow_other" in names,
        "numeric_ids" in names,
        idle_s,
        tuple(kernel),
        "damaged_ok" in names,
    )


def _parse_seconds(option: str) -> float:
    try:
        seconds = float(option.partition("=")[2])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"Mount option {option!r} needs a number of seconds")
    return seconds
