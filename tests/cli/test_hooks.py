"""`ssfs sync --pre-command --post-command`: snapshots are made, backed up and removed."""

import fcntl
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import COMMAND, environment, run, ssfs, ssfs_json
from tests.mount.mounts import wait_until

PRINT = 'echo "$SSFS_SOURCE|$SSFS_LOCATION|$SSFS_STATUS|$SSFS_VERSION" >>'


def versions(store: Path) -> list:
    if not (store / "points" / "main").exists():
        return []
    return ssfs_json("versions", store)


def test_both_commands_run_around_the_sync_and_know_about_it(
    source: Path, store: Path, tmp_path: Path
):
    log = tmp_path / "log"
    (source / "during").write_text("made before the pre-command\n")
    pre = f'{PRINT} {log}; rm "$SSFS_SOURCE/during"; echo said by pre; echo "$0" >&2'
    outcome = run(
        *("sync", "--json", source.name, store, "--pre-command", pre),
        *("--post-command", f"{PRINT} {log}; echo said by post"),
        expect=0,
        cwd=source.parent,
    )
    result = json.loads(outcome.out)  # standard output is the sync's own
    assert outcome.err.split() == ["said", "by", "pre", "/bin/sh", "said", "by", "post"]
    assert log.read_text().splitlines() == [
        f"{source}|{store}||",
        f"{source}|{store}|0|{result['version']}",
    ]
    assert result["entries"] == 6


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_source_may_be_made_by_the_pre_command(source: Path, store: Path, tmp_path: Path, options):
    snapshot = tmp_path / "snapshot"
    result = ssfs_json(
        *("sync", snapshot, store, "--source-id", "docs", *options),
        *("--pre-command", f'cp -a {source} "$SSFS_SOURCE"'),
        *("--post-command", 'rm -r "$SSFS_SOURCE"'),
    )
    assert result["new"] == 6
    assert not snapshot.exists()


def test_failing_pre_command_ends_the_run_and_the_post_command_cleans_up(
    source: Path, store: Path, tmp_path: Path
):
    log = tmp_path / "log"
    outcome = run(
        *("sync", source, store, "--pre-command", "exit 9", "--post-command", f"{PRINT} {log}"),
        expect=7,
    )
    assert outcome.error == (
        "ssfs: The pre-command failed (exit status 9), no version was made: 'exit 9'"
    )
    assert log.read_text() == f"{source}|{store}|7|\n"
    assert versions(store) == []


def test_pre_command_that_makes_no_source(store: Path, tmp_path: Path):
    outcome = run("sync", tmp_path / "none", store, "--pre-command", "true", expect=7)
    assert "The source cannot be read" in outcome.error


def test_failing_post_command_is_exit_3_and_the_version_stays(source: Path, store: Path):
    outcome = run("sync", "-q", source, store, "--post-command", "exit 4", expect=3)
    assert outcome.error == "ssfs: The post-command failed (exit status 4): 'exit 4'"
    assert len(versions(store)) == 1
    outcome = run("sync", "--json", source, store, "--post-command", "exit 4", expect=3)
    assert json.loads(outcome.out)["post_command_failed"] is True
    outcome = run("sync", "--json", source, store, "--post-command", "exit 0")
    assert json.loads(outcome.out)["post_command_failed"] is False
    outcome = run("sync", "-q", source, store, "--post-command", "kill -9 $$", expect=3)
    assert "(ended by signal 9)" in outcome.error


def test_post_command_hears_of_problems_and_failures(source: Path, store: Path, tmp_path: Path):
    log = tmp_path / "log"
    for path in source.rglob("*"):
        if path.is_file() or path.is_symlink():
            path.unlink()
    ssfs("sync", "-q", source, store)
    (source / "file").write_text("file")
    ssfs("sync", "-q", source, store)
    (source / "file").unlink()
    run("sync", "-q", source, store, "--post-command", f"{PRINT} {log}", expect=3)
    run("sync", source, tmp_path, "--post-command", f"{PRINT} {log}; exit 1", expect=6)
    told = [line.split("|")[2:] for line in log.read_text().splitlines()]
    assert told == [["3", versions(store)[-1]["version"]], ["6", ""]]


@pytest.mark.parametrize("when", ["before", "during"])
def test_post_command_runs_after_an_interrupt(source: Path, store: Path, tmp_path: Path, when: str):
    started, log = tmp_path / "started", tmp_path / "log"
    pre = f"touch {started}; sleep 1000" if when == "before" else "true"
    ssfs("point", "-q", store, "--max-concurrent", "1")
    slots = store / "points" / "main" / "slots"
    slots.mkdir(exist_ok=True)
    post = f"{PRINT} {log}; sleep 0.1; echo end >>{log}"
    with (
        open(slots / "slot-0", "a") as slot,
        subprocess.Popen(
            [*COMMAND, "sync", source, store, "--pre-command", pre, "--post-command", post],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        # With the only slot taken, a run that has begun waits in the queue.
        fcntl.flock(slot, fcntl.LOCK_EX)
        queue = slots / "queue"
        wait_until(lambda: started.exists() or (queue.exists() and any(queue.iterdir())))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "nterrupted" in err
    assert log.read_text() == f"{source}|{store}|130|\nend\n"


def test_snapshot_under_a_changing_path_keeps_its_history(
    source: Path, store: Path, tmp_path: Path
):
    results = []
    for night in ("monday", "tuesday"):
        snapshot = tmp_path / f"snapshot-{night}"
        results.append(
            ssfs_json(
                *("sync", snapshot, store, "--source-id", "docs"),
                *("--pre-command", f'mv {source} "$SSFS_SOURCE"'),
                *("--post-command", f'mv "$SSFS_SOURCE" {source}'),
            )
        )
    first, second = results
    assert first["new"] == 6
    assert (second["new"], second["changed"], second["moved"], second["removed"]) == (0, 0, 0, 0)
    assert second["new_bytes"] == 0
    assert versions(store)[-1]["version"].startswith("000002-")  # of one day the newest stays
