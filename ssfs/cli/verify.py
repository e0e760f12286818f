"""`ssfs verify`: read what lies in a store and hold it against its digests."""

import contextlib
import re

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import LocalPlace, Place, local_place, parse_location, point_of
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
)
from ssfs.cli.output import bytes_text, complain, counted, emit, emit_json, seconds_text
from ssfs.cli.progress import open_progress
from ssfs.cli.remote import open_channel
from ssfs.cli.session import open_session
from ssfs.clock import Clock, SystemClock
from ssfs.engine.seeking import ChannelSource
from ssfs.engine.verify import Verification, VerifyOptions, heal_from, versions_of
from ssfs.engine.verify_remote import run_request
from ssfs.errors import ConfigError, PeerError, StoreError, TrustError
from ssfs.fsio.disk import raise_descriptor_limit
from ssfs.fsio.priority import lower_priority
from ssfs.monitor import Monitor
from ssfs.protocol.verification import Damaged, VerifyReport, VerifyVersions
from ssfs.store.healing import Gather
from ssfs.store.store import Store
from ssfs.store.version import Version

_MAX_LISTED = 20
_MAX_NAMED_VERSIONS = 3
_HEAL_THERE = "verify without --from, or log in there and run it with the path of the store"
_SAMPLE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
_AGE = re.compile(r"(\d{1,6})([hdw])")
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


@click.command(
    epilog=examples(
        "ssfs verify /srv/store",
        "ssfs verify /srv/store --sample 10% --older-than 30d",
        "ssfs verify /srv/store::main/nas1-home latest --from /mnt/second/store",
        "ssfs verify /srv/store --from ssfs://nas3/main",
        "ssfs verify ssfs://nas2/main",
    )
)
@location_argument
@click.argument("version", nargs=-1)
@click.option(
    "--sample",
    metavar="PERCENT",
    help="Read a part of the files, at random: 10%. All unless given.",
)
@click.option(
    "--older-than",
    metavar="AGE",
    help="Leave out files that were verified within AGE: 12h, 30d, 8w.",
)
@click.option(
    "--from",
    "source",
    type=PATH,
    metavar="LOCATION",
    help="Heal what is damaged in a store of this machine from another one, here or on a server, "
    "that has the same content.",
)
@json_option
@quiet_option
@verbose_option
def verify(
    *,
    location: bytes,
    version: tuple[str, ...],
    sample: str | None,
    older_than: str | None,
    source: bytes | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Read a whole store, a sync point or a task, or each VERSION of a task, and say what is damaged.

    Every file is read and compared with its digest, once, however many versions share it; catalogs and trees are
    compared both ways. It runs at low priority, while backups go on. Broken off, it goes on
    where it was when it is run again within a week.

    What is damaged is written down: `ssfs versions` shows it, mounts and restores refuse it, and the
    next sync of a client that still has the content heals it in all versions.

    A store of another machine is read there, not here; over ssfs:// that takes the role admin. For --from any
    role will do that may read there; nothing is taken that does not have its digest.

    With --json: one object with the keys versions, files, bytes, seconds, resumed, recorded, damaged (list
    of {task, path, problem, versions (ids), healed (in how many of them)}).

    Exit codes: 0 nothing is damaged (any more); 2 no such task or VERSION, or --from is asked of another machine; 4 the server does
    not let you; 5 it cannot be reached; 6 something is damaged (listed), or there is no store, or it cannot be read.
    """
    clock = SystemClock()
    place = parse_location(location)
    second = None if source is None else parse_location(source)
    is_one = bool(version or place.task)
    request = VerifyVersions(
        point_of(place) if is_one else place.point or "",
        place.task or "",
        version,
        _parse_sample(sample),
        _parse_age(older_than),
    )
    failure = ""
    with open_progress(clock, quiet=quiet or as_json, verbose=verbose) as monitor:
        if isinstance(place, LocalPlace):
            report, failure = _verify_here(place, request, second, monitor, clock)
        else:
            if second is not None:
                local_place(place, _HEAL_THERE)
            with open_session(place) as session:
                report = session.ask(request, monitor)
    if as_json:
        emit_json(report)
    else:
        if not quiet:
            _show(report)
        complain_of_damage(report.damaged, listed_all=verbose)
    if failure and report.left:
        complain(f"Not all could be healed from there: {failure}")
    return ExitCode.STORE if report.left else ExitCode.DONE


def _verify_here(
    place: LocalPlace,
    request: VerifyVersions,
    second: Place | None,
    monitor: Monitor,
    clock: Clock,
) -> tuple[VerifyReport, str]:
    """Verify a store of this machine, and heal it; what came of it, and what kept the other store from healing."""
    store = Store.open(place.store)
    failure = ""
    with contextlib.ExitStack() as stack:
        # The way there first: once we are the store's owner we may not be let through.
        source = None if second is None else _source(stack, second, monitor)
        records = _owns(store)
        lower_priority()
        raise_descriptor_limit()
        options = VerifyOptions(request.sample, request.older_than_s)
        run = Verification(store, options, monitor, clock, records=records)
        tasks = run_request(run, store, request, (place.point,) if place.point else None)
        if source is not None and run.report.damaged:
            if not records:
                store.become_owner()
            monitor.phase("healing")
            try:
                heal_from(run.report, tasks, source)
            except (PeerError, TrustError, ConfigError) as error:
                failure = str(error)
        # What was found is not lost with a connection.
        with contextlib.suppress(PeerError):
            stack.close()
    return run.report, failure


def _source(stack: contextlib.ExitStack, place: Place, monitor: Monitor) -> list[Version] | Gather:
    """Where content may still be: versions of this machine, or a server that is asked for it."""
    if isinstance(place, LocalPlace):
        return versions_of(Store.open(place.store), place.point, place.task)
    channel = stack.enter_context(open_channel(place))
    return ChannelSource(channel, place.point or "", place.task or "", monitor).gather


def _owns(store: Store) -> bool:
    """Whether damage can be written down by this process, which then belongs to the store's owner."""
    try:
        store.become_owner()
    except StoreError as error:
        complain(f"{error.problem}: what is found is not written down")
        return False
    return True


def _parse_sample(text: str | None) -> float:
    if text is None:
        return 1.0
    match = _SAMPLE.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise ConfigError(f"{text!r} is no part of the files", remedy="write --sample 10%")
    return float(match[1]) / 100


def _parse_age(text: str | None) -> int | None:
    if text is None:
        return None
    match = _AGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no age", remedy="write --older-than 30d, 12h or 8w")
    return int(match[1]) * _SECONDS[match[2]]


def _show(report: VerifyReport) -> None:
    emit(
        f"Verified {counted(report.versions, 'version')}: read {counted(report.files, 'file')}, "
        f"{bytes_text(report.bytes)}, in {seconds_text(report.seconds)}"
    )
    if report.resumed:
        emit("  what a run that had broken off has read was not read again")
    healed = sum(item.healed > 0 for item in report.damaged)
    if healed:
        emit(f"  healed {counted(healed, 'damaged path')}")
    emit("Something is damaged:" if report.left else "Nothing is damaged")


def complain_of_damage(damaged: list[Damaged], *, listed_all: bool) -> None:
    """Name what is damaged, or was, on stderr."""
    shown = damaged if listed_all else damaged[:_MAX_LISTED]
    for item in shown:
        complain(damage_text(item))
    if len(damaged) > len(shown):
        complain(f"... and {counted(len(damaged) - len(shown), 'more')} (-v or --json lists all)")


def damage_text(item: Damaged) -> str:
    """Something damaged in one line."""
    text = f"{item.path}: {item.problem}"
    if item.task:
        text = f"{item.task}: {text}"
    if item.versions:
        many = len(item.versions) > _MAX_NAMED_VERSIONS
        named = f"{item.versions[-1]} to {item.versions[0]}" if many else ", ".join(item.versions)
        text += f" (in {counted(len(item.versions), 'version')}: {named})"
    if item.healed:
        is_all = item.healed >= max(len(item.versions), 1)
        text += ", healed" if is_all else f", healed in {item.healed}"
    return text
