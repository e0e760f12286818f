"""`ssfs restore`: copy a version, or parts of it, out."""

import os
import shlex
from typing import NamedTuple

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import (
    LocalPlace,
    Place,
    SshPlace,
    TlsPlace,
    is_inside,
    local_place,
    open_task,
    parse_location,
    point_of,
)
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
    version_argument,
)
from ssfs.cli.output import (
    ProblemLine,
    bytes_text,
    complain_of,
    counted,
    emit,
    emit_json,
    path_text,
    problem_lines,
    seconds_text,
)
from ssfs.cli.progress import open_progress
from ssfs.cli.remote import open_channel
from ssfs.cli.transfer import compress_option, limit_option, link_options
from ssfs.clock import Clock, SystemClock
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.local import restore_version
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.engine.selection import choose_version, mount_name_of
from ssfs.errors import ConfigError
from ssfs.monitor import Monitor
from ssfs.net.options import LinkOptions
from ssfs.protocol.messages import Fetch


class RestoreReport(msgspec.Struct, frozen=True):
    """The JSON form of a restore."""

    version: str
    mount_name: str | None
    to: str
    entries: int
    bytes: int
    seconds: float
    owners_not_set: int
    xattrs_not_set: int
    problems: list[ProblemLine]


@click.command(
    epilog=examples(
        "ssfs restore /srv/store::main/nas1-home 2024-05-01 alice/notes.txt --to /tmp",
        "ssfs restore /srv/store::main/nas1-home latest --to /home.restored",
    )
)
@location_argument
@version_argument
@click.argument("paths", nargs=-1, type=PATH, metavar="[PATH]...")
@click.option("--to", "target", required=True, type=PATH, metavar="DIR", help="Where to. Required.")
@click.option(
    "--damaged-ok", is_flag=True, help="Restore damaged files as they are, and list them."
)
@compress_option
@limit_option
@json_option
@quiet_option
@verbose_option
def restore(
    *,
    location: bytes,
    version: str,
    paths: tuple[bytes, ...],
    target: bytes,
    damaged_ok: bool,
    compress: str | None,
    limit: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Copy VERSION, or each PATH of it, into the directory DIR, with modes, times and owners.

    As with `cp -a PATH... DIR`, each PATH (a file or directory, below the root of the version)
    appears in DIR under its last name. Without a PATH the whole content of the version appears in
    DIR itself. DIR is made if its parent exists. Files and symlinks that are in DIR already are
    replaced, directories are merged: what else is in them stays. Nothing is written through a
    symlink in DIR, and no directory is replaced by a file, nor the other way round.

    Every file is compared with its digest on the way; a damaged one is a problem, and not left
    there, but with --damaged-ok (on the store's own machine). Run as root, owners are set, by their names where this machine knows them; otherwise
    the files are yours.

    With --json: one object with the keys version, mount_name, to, entries, bytes, seconds,
    owners_not_set, xattrs_not_set, problems (list of {path, problem}).

    Exit codes: 0 done; 3 done, but for some files (listed); 2 VERSION or PATH is unknown (nothing
    was written), or DIR cannot be used; 6 the store cannot be read, or DIR is full.
    """
    clock = SystemClock()
    link = link_options(compress, limit)
    wanted = _Wanted(parse_location(location), version, paths, target, damaged_ok)
    with open_progress(clock, quiet=quiet or as_json, verbose=verbose) as monitor:
        if isinstance(wanted.place, LocalPlace):
            done = _restore_here(wanted, monitor, clock)
        else:
            done = _restore_from(wanted.place, wanted, link, monitor, clock)
    result = done.result
    if as_json:
        emit_json(
            RestoreReport(
                version=done.version,
                mount_name=done.mount_name,
                to=path_text(os.path.abspath(target)),
                entries=result.entries,
                bytes=result.size_bytes,
                seconds=round(result.seconds, 3),
                owners_not_set=result.owners_not_set,
                xattrs_not_set=result.xattrs_not_set,
                problems=problem_lines(result.problems),
            )
        )
        return ExitCode.PROBLEMS if result.problems else ExitCode.DONE
    if not quiet:
        emit(
            f"Restored {counted(result.entries, 'entry')}, {bytes_text(result.size_bytes)}, "
            f"of {done.mount_name or done.version} in {seconds_text(result.seconds)}"
        )
        if result.owners_not_set:
            emit(f"  {counted(result.owners_not_set, 'owner')} could not be set: only root may")
        if result.xattrs_not_set:
            emit(
                f"  {counted(result.xattrs_not_set, 'extended attribute')} could not be set: only "
                "root may, or the file system there has none"
            )
        emit(f"Find it in {shlex.quote(os.fsdecode(target))}")
    complain_of(result.problems, listed=verbose)
    return ExitCode.PROBLEMS if result.problems else ExitCode.DONE


class _Wanted(NamedTuple):
    """What is to be restored where to; the location's task and the version as they were given."""

    place: Place
    version: str
    paths: tuple[bytes, ...]
    target: bytes
    damaged_ok: bool = False


class _Restored(NamedTuple):
    """A version's id, the name a mount lists it under, and what became of its restore."""

    version: str
    mount_name: str | None
    result: RestoreResult


def _restore_here(wanted: _Wanted, monitor: Monitor, clock: Clock) -> _Restored:
    """Restore from a store of this machine."""
    task = open_task(wanted.place)
    chosen = choose_version(task, wanted.version)
    mount_name = mount_name_of(task, chosen)
    if is_inside(wanted.target, task.point.store.path):
        raise ConfigError("The target lies inside the store", path=wanted.target)
    result = restore_version(
        chosen, wanted.paths, wanted.target, monitor, clock, damaged_ok=wanted.damaged_ok
    )
    return _Restored(str(chosen.id), mount_name, result)


def _restore_from(
    place: TlsPlace | SshPlace,
    wanted: _Wanted,
    link: LinkOptions,
    monitor: Monitor,
    clock: Clock,
) -> _Restored:
    """Restore from a store of another machine."""
    if wanted.damaged_ok:
        local_place(place, "leave out --damaged-ok, or restore on that machine")
    request = Fetch(point_of(place), place.task or "", wanted.version, list(wanted.paths))
    with open_channel(place, link) as channel:
        fetched, result = fetch_version(channel, request, wanted.target, monitor, clock)
    return _Restored(fetched.version, fetched.mount_name or None, result)
