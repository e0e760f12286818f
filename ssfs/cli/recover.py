"""`ssfs recover`: put right what can be of a damaged store."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import local_place, parse_store_location
from ssfs.cli.options import (
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
)
from ssfs.cli.output import complain, counted, emit, emit_json
from ssfs.cli.progress import open_progress
from ssfs.clock import SystemClock
from ssfs.engine.recover import Recovery
from ssfs.fsio.disk import raise_descriptor_limit


@click.command(
    epilog=examples(
        "ssfs recover /srv/store --dry-run",
    )
)
@location_argument
@click.option("--dry-run", is_flag=True, help="Change nothing: say what would become of it.")
@click.option(
    "--yes", is_flag=True, help="Delete names in a version's tree that are not the version's."
)
@json_option
@quiet_option
@verbose_option
def recover(
    *, location: bytes, dry_run: bool, yes: bool, as_json: bool, quiet: bool, verbose: bool
) -> ExitCode:
    """Put right what can be of a store with lost or damaged files, and say what is lost.

    Nothing is guessed: what comes back is proven by checksums. Settings that are lost are made anew so
    that everything is kept. Files are healed from other versions and tasks of the store; it does not read them
    all: run `ssfs verify` first, and again afterwards.

    With --json: one object with the keys dry_run, recovered, lost (both lists of {path, outcome}).

    Exit codes: 0 all is right; 3 something is lost (listed); 2 the store is on another machine; 6 no store there, or
    not yours.
    """
    clock = SystemClock()
    place = local_place(
        parse_store_location(location), "`ssfs recover` runs on the store's own machine"
    )
    raise_descriptor_limit()
    with open_progress(clock, quiet=quiet or as_json, verbose=verbose) as monitor:
        run = Recovery(place.store, monitor, clock, dry_run=dry_run, drops_strays=yes)
        run.run()
    report = run.report
    if as_json:
        emit_json(report)
    else:
        if not quiet:
            for item in report.recovered:
                emit(f"{item.path}: {item.outcome}")
            total = f"{len(report.recovered):,} recovered, {len(report.lost):,} lost"
            emit(f"Dry run, nothing was changed: {total}" if dry_run else total)
        for item in report.lost:
            complain(f"lost: {item.path}: {item.outcome}")
        if len(report.lost) > 1:
            complain(f"{counted(len(report.lost), 'thing')} lost in all")
    return ExitCode.PROBLEMS if report.lost else ExitCode.DONE
