"""Windows' "Previous Versions": a real smbd with the lines that `ssfs samba-config` prints, asked by smbclient."""

import datetime
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.store.store import Store
from tests.cli.support import run, ssfs
from tests.mount.mounts import may_pass, mounted
from tests.mount.smbd import Samba, smbd
from tests.mount.stores import DAY, NEXT_DAY, add_version, make_store

pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.needs_root,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("smbd") and shutil.which("smbclient")) and not os.environ.get("CI"),
        reason="smbd or smbclient is missing",
    ),
]

FIRST, SECOND, THIRD = (
    "@GMT-2024.05.01-12.00.00",
    "@GMT-2024.05.01-12.00.01",
    "@GMT-2024.05.02-12.00.00",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A shared directory as it is after its three versions."""
    path = tmp_path_factory.mktemp("samba") / "home"
    may_pass(*list(path.parents)[:4])
    (path / "ann" / "deep").mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def store(source) -> Path:
    store = make_store(source.parent / "store")
    task = store.create_point("main").claim_task("nas1-home", "nas1", str(source), SystemClock())
    (source / "ann" / "gone").write_text("deleted since")
    (source / "ann" / "secret").write_text("for root alone")
    (source / "ann" / "secret").chmod(0o600)
    for state, time in (("one", DAY), ("two", DAY), ("three", NEXT_DAY)):
        (source / "report").write_text(f"{state}\n")
        (source / "ann" / "deep" / "note").write_text(f"note {state}\n")
        add_version(task, source, time)
    (source / "ann" / "gone").unlink()
    (source / "report").write_text("now\n")
    return source.parent / "store"


@pytest.fixture(scope="module")
def samba(source, store) -> Iterator[Samba]:
    """The shares `home`, all of the source, and `deep`, a directory in it."""
    mountpoint = source.parent / "mnt"
    with mounted(Store.open(os.fsencode(store)), mountpoint, "allow_other,samba"):
        shares = [
            ssfs("samba-config", store, "home"),
            ssfs("samba-config", "-q", store, "deep", "--path", source / "ann" / "deep"),
        ]
        assert f"shadow:snapdir = {mountpoint}/main/nas1-home/.samba" in shares[0]
        with smbd(source.parent / "smbd", shares) as running:
            yield running


def test_previous_versions_of_a_file_are_listed_and_fetched(samba, tmp_path):
    out = tmp_path / "out"
    assert samba.fetch("home", "report", out) == b"now\n"
    assert samba.previous_versions("home", "report") == [THIRD, SECOND, FIRST]
    for name, content in ((FIRST, b"one\n"), (SECOND, b"two\n"), (THIRD, b"three\n")):
        assert samba.fetch("home", rf"{name}\report", out) == content


def test_nested_files_and_deleted_ones_come_back(samba, tmp_path):
    out = tmp_path / "out"
    assert samba.previous_versions("home", r"ann\deep\note") == [THIRD, SECOND, FIRST]
    assert samba.fetch("home", rf"{FIRST}\ann\deep\note", out) == b"note one\n"
    assert samba.fetch("home", rf"ann\deep\{SECOND}\note", out) == b"note two\n"
    assert "NT_STATUS_NO_SUCH_FILE" in samba.run("home", r"ls ann\gone", check=False)
    assert "gone" in samba.run("home", rf"ls {THIRD}\ann\*")
    assert samba.fetch("home", rf"{THIRD}\ann\gone", out) == b"deleted since"


def test_share_of_a_directory_in_the_source_shows_its_versions(samba, tmp_path):
    assert samba.previous_versions("deep", "note") == [THIRD, SECOND, FIRST]
    assert samba.fetch("deep", rf"{FIRST}\note", tmp_path / "out") == b"note one\n"


def test_what_a_user_may_not_read_stays_closed_in_versions(samba, tmp_path):
    for path in (r"ann\secret", rf"{FIRST}\ann\secret"):
        said = samba.run("home", f'get "{path}" "{tmp_path / "out"}"', check=False)
        assert "NT_STATUS_ACCESS_DENIED" in said


def test_versions_cannot_be_changed(samba, source, tmp_path):
    (tmp_path / "new").write_text("new")
    for command in (
        rf'put "{tmp_path / "new"}" {FIRST}\new',
        rf"mkdir {FIRST}\new",
        rf"del {FIRST}\report",
    ):
        assert "NT_STATUS_" in samba.run("home", command, check=False)
    assert samba.fetch("home", rf"{FIRST}\report", tmp_path / "out") == b"one\n"


def test_inode_numbers_are_no_live_files_and_no_other_versions(samba, source):
    # Why shadow:fixinodes is not needed: Samba tells open files apart by device and inode.
    view = source.parent / "mnt" / "main" / "nas1-home" / ".samba"
    seen = [os.stat(view / name / "report") for name in (FIRST, SECOND, THIRD)]
    seen.append(os.stat(source / "report"))
    assert len({(status.st_dev, status.st_ino) for status in seen}) == 4


def test_view_is_there_only_when_asked_for(source, store):
    task = Store.open(os.fsencode(store)).point("main").task("nas1-home")
    plain, asked = source.parent / "plain", source.parent / "asked"
    with mounted(task, plain), mounted(task, asked, "samba"):
        assert not (plain / ".samba").exists()
        assert sorted(os.listdir(asked)) == sorted(os.listdir(plain))
        assert sorted(os.listdir(asked / ".samba")) == [FIRST, SECOND, THIRD]
        assert os.path.samefile(asked / ".samba" / FIRST / "..", asked / ".samba")


def test_names_are_utc_whatever_the_zone(tmp_path):
    # The hour that comes twice in autumn: both local times are 02:30:00.
    store = make_store(tmp_path / "store")
    task = store.create_point("main").claim_task("t", "c", "/t", SystemClock())
    (tmp_path / "source").mkdir()
    time = datetime.datetime(2024, 10, 27, 0, 30, tzinfo=datetime.UTC)
    for hours in (0, 1):
        add_version(task, tmp_path / "source", time + datetime.timedelta(hours=hours))
    settings = tmp_path / "store" / "store.toml"
    settings.write_text(settings.read_text().replace('"UTC"', '"Europe/Berlin"'))
    task = Store.open(os.fsencode(tmp_path / "store")).point("main").task("t")
    with mounted(task, tmp_path / "mnt", "samba"):
        assert sorted(os.listdir(tmp_path / "mnt" / ".samba")) == [
            "@GMT-2024.10.27-00.30.00",
            "@GMT-2024.10.27-01.30.00",
        ]


def test_refusals_are_one_line(source, store):
    for arguments, words in (
        ((store, "a/b"), "cannot name a share"),
        ((store, "global"), "cannot name a share"),
        ((f"{store}::main/none", "home"), "There is no task 'none'"),
        ((store, "home", "--path", "/elsewhere"), "not inside"),
        ((store, "home", "--path", f"{source}/100%"), "smb.conf cannot name"),
    ):
        assert words in run("samba-config", *arguments, expect=2).error
