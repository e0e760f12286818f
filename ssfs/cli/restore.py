"""`ssfs restore`: copy a version, or parts of it, out."""

import contextlib
import os
import shlex
from typing import NamedTuple

import click
import msgspec

from ssfs.cli.actions import ActionList
from ssfs.cli.asking import agrees
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.in_place import find_source_here, find_source_there
from ssfs.cli.location import (
    LocalPlace,
    Place,
    SshPlace,
    TlsPlace,
    is_inside,
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
    yes_option,
)
from ssfs.cli.output import (
    ProblemLine,
    bytes_text,
    complain_of,
    counted,
    emit,
    emit_object_with_list,
    path_text,
    problem_lines,
    safe_text,
    seconds_text,
)
from ssfs.cli.ownership import (
    map_group_option,
    map_user_option,
    numeric_ids_option,
    parse_owner_map,
)
from ssfs.cli.patterns import PatternCommand, check_patterns, exclude_option, include_option
from ssfs.cli.progress import open_progress
from ssfs.cli.remote import open_channel
from ssfs.cli.transfer import compress_option, limit_option, link_options
from ssfs.clock import Clock, SystemClock
from ssfs.engine.cache import cache_root
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.local import restore_version
from ssfs.engine.restore.options import Overwrite, RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.engine.selection import choose_version, mount_name_of
from ssfs.errors import ConfigError
from ssfs.monitor import Monitor
from ssfs.net.options import LinkOptions
from ssfs.protocol.restoring import Fetch


class RestoreReport(msgspec.Struct, frozen=True):
    """The JSON form of a restore, but for the list of actions."""

    version: str
    mount_name: str | None
    to: str
    dry_run: bool
    entries: int
    bytes: int
    created: int
    replaced: int
    metadata_only: int
    unchanged: int
    kept: int
    deleted: int
    seconds: float
    owners_not_set: int
    xattrs_not_set: int
    problems: list[ProblemLine]


@click.command(
    cls=PatternCommand,
    epilog=examples(
        "ssfs restore /srv/store::main/nas1-home 2024-05-01 alice/notes.txt --to /tmp",
        "ssfs restore /srv/store::main/nas1-home latest --to /home.restored",
        "ssfs restore ssfs://nas2/main/nas1-home latest alice --in-place --dry-run",
        "ssfs restore /srv/store latest --to /mnt/new --exclude '*.iso' --map-user alice:1005",
    ),
)
@location_argument
@version_argument
@click.argument("paths", nargs=-1, type=PATH, metavar="[PATH]...")
@click.option("--to", "to", type=PATH, metavar="DIR", help="Where to. This or --in-place.")
@click.option("--in-place", is_flag=True, help="To where it was backed up from.")
@click.option(
    "--overwrite",
    type=click.Choice([str(choice) for choice in Overwrite]),
    default=str(Overwrite.IF_CHANGED),
    help="What becomes of files that are there: never touched, replaced if the version's was "
    "modified later, if it differs, or always. Default: if-changed.",
)
@click.option(
    "--quick-check",
    is_flag=True,
    help="Believe files of the recorded size and time without reading them.",
)
@click.option(
    "--delete",
    "deletes",
    is_flag=True,
    help="Remove from the restored directories what the version does not have.",
)
@click.option("--dry-run", is_flag=True, help="List what would be done; change nothing.")
@exclude_option
@include_option
@numeric_ids_option
@map_user_option
@map_group_option
@click.option(
    "--damaged-ok", is_flag=True, help="Restore damaged files as they are, and list them."
)
@yes_option
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
    to: bytes | None,
    in_place: bool,
    overwrite: str,
    quick_check: bool,
    deletes: bool,
    dry_run: bool,
    patterns: tuple[str, ...],
    numeric_ids: bool,
    users: tuple[str, ...],
    groups: tuple[str, ...],
    damaged_ok: bool,
    yes: bool,
    compress: str | None,
    limit: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Copy VERSION, or each PATH of it, with modes, times and owners.

    With --to, as with `cp -a PATH... DIR`, each PATH (a file or directory, below the root of the
    version) appears in DIR under its last name. Without a PATH the whole content of the version
    appears in DIR itself. DIR is made if its parent exists. With --in-place everything goes back
    to its own path in the directory that was backed up, on the machine that was.

    What is right already is left alone: every file of the right size is read and compared, so
    that one that went bad is found although its time says nothing. With --quick-check (as rsync
    does it) a file of the recorded size and modification time is not read: what a disk or a
    program changed without moving the time stays wrong. Others are replaced,
    directories are merged. Nothing is written through a symlink, and no directory
    is replaced by a file, nor the other way round, but with --delete. A restore that was broken
    off is just run again.

    --delete does not go into other mounted file systems, and leaves alone sockets and what
    --exclude names. What the backup itself left out (its --exclude) the version does not have:
    name it here too. On a terminal it asks first.

    Every file is compared with its digest on the way; a damaged one is a problem, and not left
    there, but with --damaged-ok, which restores what there is of it and lists it. Run as root,
    owners are set, by their names where this machine knows them; otherwise the files are yours.

    With --json: one object with the keys version, mount_name, to, dry_run, entries, bytes,
    created, replaced, metadata_only, unchanged, kept, deleted, seconds, owners_not_set,
    xattrs_not_set, problems (list of {path, problem}), actions (with --dry-run a list of {action,
    path}, where action is create, replace, metadata or delete; else null).

    Exit codes: 0 done; 3 done, but for some files (listed; a full or read-only DIR too); 2
    VERSION or PATH is unknown (nothing was written), DIR cannot be used, or --in-place has no
    place; 6 the store cannot be read; 130 you said no.
    """
    if (to is None) != in_place:
        raise click.UsageError("Say where to restore to: either --to DIR or --in-place.")
    if quick_check and Overwrite(overwrite) is Overwrite.ALWAYS:
        raise click.UsageError("--quick-check leaves files alone, --overwrite always does not.")
    clock = SystemClock()
    link = link_options(compress, limit)
    with contextlib.closing(ActionList()) as listed:
        options = RestoreOptions(
            overwrite=Overwrite(overwrite),
            quick_check=quick_check,
            deletes=deletes,
            dry_run=dry_run,
            in_place=in_place,
            exclude=check_patterns(patterns),
            owners=parse_owner_map(numeric=numeric_ids, users=users, groups=groups),
            damaged_ok=damaged_ok,
            cache=cache_root(),
            on_action=listed.add if dry_run and (as_json or not quiet) else None,
        )
        wanted = _Wanted(parse_location(location), version, paths, to, options, yes)
        with open_progress(clock, quiet=quiet or as_json, verbose=verbose) as monitor:
            if isinstance(wanted.place, LocalPlace):
                done = _restore_here(wanted, monitor, clock)
            else:
                done = _restore_from(wanted.place, wanted, link, monitor, clock)
        if done is None:
            return ExitCode.INTERRUPTED
        if as_json:
            report = _report(done, dry_run=dry_run)
            emit_object_with_list(report, "actions", listed.encoded() if dry_run else None)
        elif not quiet:
            for line in listed.lines():
                emit(f"{line.action:<8}  {safe_text(line.path) or '.'}")
            _summarise(done, dry_run=dry_run)
    if not as_json:
        complain_of(done.result.problems, listed=verbose)
    return ExitCode.PROBLEMS if done.result.problems else ExitCode.DONE


class _Wanted(NamedTuple):
    """What is to be restored where to; the location's task and the version as they were given.

    `target` is None for the task's own source.
    """

    place: Place
    version: str
    paths: tuple[bytes, ...]
    target: bytes | None
    options: RestoreOptions
    yes: bool

    def is_agreed(self, target: bytes) -> bool:
        """Whether what the version does not have may be deleted, if it is to be."""
        if not self.options.deletes or self.options.dry_run:
            return True
        shown = safe_text(path_text(os.path.abspath(target)))
        what = f"Delete what the version does not have, in {shown}?"
        return agrees(what, yes=self.yes)


class _Restored(NamedTuple):
    """A version's id, the name a mount lists it under, and what became of its restore where."""

    version: str
    mount_name: str | None
    target: bytes
    result: RestoreResult


def _restore_here(wanted: _Wanted, monitor: Monitor, clock: Clock) -> _Restored | None:
    """Restore from a store of this machine; None if the user said no."""
    task = open_task(wanted.place)
    chosen = choose_version(task, wanted.version)
    mount_name = mount_name_of(task, chosen)
    store = task.point.store.path
    target = wanted.target if wanted.target is not None else find_source_here(task)
    if is_inside(target, store):
        raise ConfigError("The target lies inside the store", path=target)
    if not wanted.is_agreed(target):
        return None
    options = msgspec.structs.replace(wanted.options, spared=(store,))
    result = restore_version(chosen, wanted.paths, target, monitor, clock, options)
    return _Restored(str(chosen.id), mount_name, target, result)


def _restore_from(
    place: TlsPlace | SshPlace,
    wanted: _Wanted,
    link: LinkOptions,
    monitor: Monitor,
    clock: Clock,
) -> _Restored | None:
    """Restore from a store of another machine; None if the user said no."""
    task, target, options = place.task or "", wanted.target, wanted.options
    with open_channel(place, link) as channel:
        if target is None:
            source = find_source_there(channel, place, asks=not options.dry_run, yes=wanted.yes)
            if source is None:
                return None
            task, target = source
        if not wanted.is_agreed(target):
            return None
        paths = list(wanted.paths)
        request = Fetch(point_of(place), task, wanted.version, paths, options.damaged_ok)
        fetched, result = fetch_version(channel, request, target, monitor, clock, options)
    return _Restored(fetched.version, fetched.mount_name or None, target, result)


def _report(done: _Restored, *, dry_run: bool) -> RestoreReport:
    result = done.result
    return RestoreReport(
        version=done.version,
        mount_name=done.mount_name,
        to=path_text(os.path.abspath(done.target)),
        dry_run=dry_run,
        entries=result.entries,
        bytes=result.size_bytes,
        created=result.created,
        replaced=result.replaced,
        metadata_only=result.metadata_only,
        unchanged=result.unchanged,
        kept=result.kept,
        deleted=result.deleted,
        seconds=round(result.seconds, 3),
        owners_not_set=result.owners_not_set,
        xattrs_not_set=result.xattrs_not_set,
        problems=problem_lines(result.problems),
    )


def _summarise(done: _Restored, *, dry_run: bool) -> None:
    result = done.result
    name = done.mount_name or done.version
    counts = {
        "created": result.created,
        "replaced": result.replaced,
        "metadata only": result.metadata_only,
        "unchanged": result.unchanged,
        "kept": result.kept,
        "deleted": result.deleted,
    }
    details = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    if dry_run:
        emit(f"Dry run, nothing was changed. Of {name} would be: {details or 'nothing'}")
        return
    emit(
        f"Restored {counted(result.entries, 'entry')}, {bytes_text(result.size_bytes)}, "
        f"of {name} in {seconds_text(result.seconds)}"
    )
    emit(f"  {details}")
    if result.owners_not_set:
        emit(f"  {counted(result.owners_not_set, 'owner')} could not be set: only root may")
    if result.xattrs_not_set:
        emit(
            f"  {counted(result.xattrs_not_set, 'extended attribute')} could not be set: only "
            "root may, or the file system there has none"
        )
    emit(f"Find it in {shlex.quote(os.fsdecode(done.target))}")
