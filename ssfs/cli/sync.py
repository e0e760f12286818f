"""`ssfs sync`: make one version of a directory."""

import functools
import os
import shlex

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.hooks import commands_around
from ssfs.cli.location import LocalPlace, Place, is_inside, parse_location, point_of, spell
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
)
from ssfs.cli.output import (
    ProblemLine,
    bytes_text,
    complain,
    complain_of,
    counted,
    emit,
    emit_json,
    problem_lines,
    seconds_text,
)
from ssfs.cli.progress import open_progress
from ssfs.cli.remote import client_name_at, open_channel
from ssfs.cli.transfer import compress_option, limit_option, link_options
from ssfs.clock import SystemClock
from ssfs.engine.moves import Source
from ssfs.engine.sender import SyncRequest, SyncResult
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.version import Shrink
from ssfs.monitor import Monitor
from ssfs.net.options import LinkOptions
from ssfs.retention.shrink import lost_text
from ssfs.source.exclude import ExcludeOptions, Excluder, read_pattern_file
from ssfs.source.identity import client_name, default_task, source_identity
from ssfs.store.store import Store, check_name

_RETRIES = 5


class SyncReport(msgspec.Struct, frozen=True):
    """The JSON form of a sync. `version` and `mount_name` are null after a dry run."""

    version: str | None
    mount_name: str | None
    entries: int
    bytes: int
    new: int
    changed: int
    moved: int
    metadata_only: int
    removed: int
    linked: int
    bytes_read: int
    bytes_sent: int
    bytes_received: int
    new_bytes: int
    sockets: int
    seconds: float
    problems: list[ProblemLine]
    expired: list[str]
    expiry_held: str | None
    shrunk: Shrink | None
    notes: list[str]
    post_command_failed: bool


@click.command(
    epilog=examples(
        "ssfs sync /home /srv/store",
        "ssfs sync /srv/docs /srv/store::main/docs --exclude '*.tmp' --exclude /cache/",
    )
)
@click.argument("source", type=PATH)
@location_argument
@click.option(
    "--exclude",
    "excludes",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what matches, as in a .gitignore file in SOURCE. Of several patterns that "
    "match, the last one decides; `!PATTERN` takes in again.",
)
@click.option(
    "--exclude-from",
    "exclude_files",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Read such patterns from a file, one a line. They come before those of --exclude.",
)
@click.option("--one-file-system", is_flag=True, help="Stay on the file system of SOURCE.")
@click.option(
    "--exclude-caches",
    is_flag=True,
    help="Of directories marked as caches by a CACHEDIR.TAG, keep only the mark.",
)
@click.option(
    "--source-id",
    metavar="NAME",
    help="Call the source so, instead of by its path: for a path that changes (a snapshot's).",
)
@click.option(
    "--ignore-inode",
    is_flag=True,
    help="SOURCE gives its files new inode numbers at each mount (FUSE, some NFS): size, mtime and "
    "ctime alone say what is unchanged; what moved is found by its content, and hard links are "
    "files of their own.",
)
@click.option(
    "--allow-shrink",
    is_flag=True,
    help="It is meant that more than half of the files are gone: the version is not flagged.",
)
@click.option(
    "--pre-command",
    metavar="COMMAND",
    help="Run this first, through the shell: it may make SOURCE, as a snapshot.",
)
@click.option(
    "--post-command",
    metavar="COMMAND",
    help="Run this at the end, whatever happened: it may remove the snapshot.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option(
    "--no-wait",
    is_flag=True,
    help="Leave (exit code 5) when all slots of the sync point are taken.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 1000),
    default=_RETRIES,
    metavar="N",
    help=f"Try so many times more when the connection is lost. Default: {_RETRIES}.",
)
@compress_option
@limit_option
@json_option
@quiet_option
@verbose_option
def sync(
    *,
    source: bytes,
    location: bytes,
    excludes: tuple[str, ...],
    exclude_files: tuple[bytes, ...],
    one_file_system: bool,
    exclude_caches: bool,
    source_id: str | None,
    ignore_inode: bool,
    allow_shrink: bool,
    pre_command: str | None,
    post_command: str | None,
    dry_run: bool,
    no_wait: bool,
    retries: int,
    compress: str | None,
    limit: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Back up the directory SOURCE into LOCATION: make one new version.

    It is complete, and all that did not change shares its space with the version before.

    LOCATION is /path/store[::POINT[/TASK]] on this machine, ssfs://HOST[:PORT]/POINT[/TASK] on a
    server where this machine has enrolled, or ssh://[USER@]HOST/path/store[::POINT[/TASK]]. A sync
    point and a task that do not exist are made; the task is named after this machine and the path of
    SOURCE unless you name it. What the policy of the sync point lets go is deleted afterwards.

    A connection that breaks is made again, and the run goes on where it was, inside large files too;
    so does the next run after one that was broken off for good.

    With --json: one object with the keys version, mount_name, entries, bytes, new, changed, moved,
    metadata_only, removed, linked, bytes_read, bytes_sent, bytes_received, new_bytes, sockets, seconds,
    problems (list of {path, problem}), expired (version ids), expiry_held (null or the reason), shrunk
    (null, or {before, after}: numbers of files), notes (what is odd about SOURCE, a list of lines),
    post_command_failed.

    A source that has lost more than half of its files (and had at least ten), or all of them, makes a
    version that is flagged, and nothing expires by itself until the files are back or you say that it
    is meant: by --allow-shrink, or by `ssfs expire`.

    Both commands run through the shell, in a dry run too, and their output goes to standard error.
    They find SSFS_SOURCE and SSFS_LOCATION in their environment, the post-command also SSFS_STATUS (the exit
    code so far) and SSFS_VERSION (empty if there is none). The post-command runs after a failed or
    interrupted run too. With a source under a path that changes, use --source-id.

    Exit codes: 0 done; 3 done, but some files could not be read (listed), or most are gone, or the
    post-command failed; 2 wrong options, or the
    task backs up another source; 4 the server is another one, or does not let this machine; 5 the
    server cannot be reached, or all slots are taken; 6 no store, full, or another sync of the task is
    running; 7 SOURCE is missing, or the pre-command failed; 130 interrupted (what has arrived is kept for the next run).
    """
    if source_id == "":
        # In a script most likely a variable that is not set: another identity would be another history.
        raise ConfigError("--source-id names nothing", remedy="give it a name, or leave it out")
    place = parse_location(location)
    link = link_options(compress, limit)
    patterns = [line for path in exclude_files for line in read_pattern_file(path)]
    options = ExcludeOptions((*patterns, *excludes), one_file_system, exclude_caches)
    Excluder(options)  # a pattern that makes no sense is found before anything starts
    with commands_around(pre_command, post_command, source, location) as outcome:
        Source(source).close()  # and so is a missing source, if nothing makes it
        client = client_name() if isinstance(place, LocalPlace) else client_name_at(place)
        request = SyncRequest(
            source=source,
            point=point_of(place),
            task=check_name(place.task or default_task(client, source, source_id), "task"),
            client=client,
            source_identity=source_identity(source, source_id),
            exclude=options,
            skip=_store_directory(place, source),
            dry_run=dry_run,
            waits=not no_wait,
            allow_shrink=allow_shrink,
            ignore_inode=ignore_inode,
        )
        with open_progress(SystemClock(), quiet=quiet or as_json, verbose=verbose) as monitor:
            result = _make_version(place, link, request, retries, monitor)
        outcome.version = result.version
        outcome.code = _code_of(result)
    if as_json:
        emit_json(_report(result, post_failed=outcome.post_failed))
    elif not quiet:
        _summarise(result, request, place)
    if not as_json:
        complain_of(result.problems, listed=verbose)
    for note in result.notes:
        complain(note)
    if result.shrunk is not None:
        flagged = f"version {result.version} is" if result.version else "its version would be"
        complain(
            f"The source has {lost_text(result.shrunk)} that it had: {flagged} flagged, and nothing "
            "expires by itself (if it is meant: --allow-shrink)"
        )
    return ExitCode.PROBLEMS if outcome.post_failed else outcome.code


def _make_version(
    place: Place, link: LinkOptions, request: SyncRequest, retries: int, monitor: Monitor
) -> SyncResult:
    """The sync itself, wherever the store is."""
    clock = SystemClock()
    try:
        if isinstance(place, LocalPlace):
            # Loads the server's half, which a sync over a network does not wait for.
            from ssfs.engine.local import sync_local  # noqa: PLC0415

            return sync_local(Store.open(place.store), request, monitor, clock)
        from ssfs.engine.remote import sync_remote  # noqa: PLC0415

        opener = functools.partial(open_channel, place, link)
        return sync_remote(opener, request, monitor, clock, retries)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            "Interrupted: what has arrived is kept, the next sync goes on from there"
        ) from interrupt


def _code_of(result: SyncResult) -> ExitCode:
    return ExitCode.PROBLEMS if result.problems or result.shrunk else ExitCode.DONE


def _store_directory(place: Place, source: bytes) -> frozenset[tuple[int, int]]:
    """The store as a directory that a walk must not enter: it may lie inside the source."""
    if not isinstance(place, LocalPlace):
        return frozenset()
    # One clear line about what is no store comes before anything about its directory.
    store = Store.open(place.store)
    with store_errors(store.path):
        status = os.stat(store.path)
    if is_inside(source, store.path):
        raise ConfigError("The source lies inside the store", path=source)
    return frozenset({(status.st_dev, status.st_ino)})


def _report(result: SyncResult, *, post_failed: bool) -> SyncReport:
    counts = msgspec.structs.asdict(result.counts)
    del counts["problems"]
    return SyncReport(
        version=result.version or None,
        mount_name=result.mount_name or None,
        seconds=round(result.seconds, 3),
        problems=problem_lines(result.problems),
        expired=result.expired,
        expiry_held=result.expiry_held or None,
        shrunk=result.shrunk,
        notes=list(result.notes),
        post_command_failed=post_failed,
        **counts,
    )


def _summarise(result: SyncResult, request: SyncRequest, place: Place) -> None:
    """The run in a few lines for people, the last one saying where to find it."""
    counts = result.counts
    size = f"{counted(counts.entries, 'entry')}, {bytes_text(counts.bytes)}"
    emit(
        f"Dry run, nothing was written: the version would hold {size}"
        if request.dry_run
        else f"Version {result.version}: {size}"
    )
    emit(
        f"  {counts.new:,} new, {counts.changed:,} changed, {counts.moved:,} moved, "
        f"{counts.metadata_only:,} with new metadata only, {counts.removed:,} removed, "
        f"{counts.linked:,} linked to content already there"
    )
    if counts.sockets:
        emit(f"  {counted(counts.sockets, 'socket')} left out")
    if request.dry_run:
        return
    emit(
        f"  {bytes_text(counts.bytes_read)} read, {bytes_text(counts.bytes_sent)} sent, "
        f"{bytes_text(counts.new_bytes)} newly stored, in {seconds_text(result.seconds)}"
    )
    if result.expired:
        emit(f"  Expired {counted(len(result.expired), 'version')}: {', '.join(result.expired)}")
    if result.expiry_held:
        emit(f"  {result.expiry_held}")
    spelled = shlex.quote(spell(place, request.point, request.task))
    if isinstance(place, LocalPlace):
        emit(f"Find it as {result.mount_name} in: ssfs mount {spelled} MOUNTPOINT")
    else:
        emit(f"Get it back with: ssfs restore {spelled} {result.mount_name} --to DIRECTORY")
