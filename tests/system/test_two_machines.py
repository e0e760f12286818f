"""Two machines with a cable between them, set up as README.md says; what goes over the cable can be read by nobody."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.comparing import assert_same_tree
from tests.fakes.trees import edit_tree
from tests.system.namespaces import Capture, Host, streams, two_hosts
from tests.system.programs import TIMEOUT_S, run
from tests.system.servers import Machine, served

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

_README = Path(__file__).resolve().parent.parent.parent / "README.md"
_COMMAND = re.compile(r"    (nas\d)# (.+?)(?:   .*)?")
_DOCUMENTS = Path("/usr/share/doc")
_COPIED_FILES = 800
_LARGEST_COPIED_BYTES = 100_000
_SECRET = b"nobody may read this over the cable, it stands in the middle of a file\n"
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as other, open(sys.argv[3], "rb") as file:
    other.sendfile(file)
"""
_HEAR = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    other, _ = server.accept()
    while other.recv(1 << 20):
        pass
"""


def commands_in_readme() -> list[tuple[str, list[str]]]:
    """The machine and the words of each command of the section "Two NAS boxes"."""
    section = _README.read_text().partition("## Two NAS boxes\n")[2].partition("\n## ")[0]
    found = [_COMMAND.fullmatch(line) for line in section.splitlines()]
    return [(match[1], shlex.split(match[2])) for match in found if match]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some hundred real files, none of them large, and one whose content is known."""
    home = tmp_path / "home"
    left = _COPIED_FILES
    for directory in sorted(_DOCUMENTS.iterdir()):
        if directory.is_dir() and not directory.is_symlink() and left > 0:
            shutil.copytree(directory, home / directory.name, symlinks=True, ignore=_large)
            left -= sum(len(files) for _, _, files in os.walk(home / directory.name))
    (home / "secret letter.txt").write_bytes(_SECRET * 40)
    return home


def _large(directory: str, names: list[str]) -> list[str]:
    paths = [os.path.join(directory, name) for name in names]
    return [
        name
        for name, path in zip(names, paths, strict=True)
        if os.path.isfile(path) and os.stat(path).st_size > _LARGEST_COPIED_BYTES
    ]


def test_five_commands_set_two_machines_up_and_the_cable_tells_nothing(tmp_path, source):
    commands = commands_in_readme()
    assert [command[:2] for _, command in commands] == [
        ["ssfs", "init"],
        ["ssfs", "invite"],
        ["ssfs", "serve"],
        ["ssfs", "enroll"],
        ["ssfs", "sync"],
    ]
    with contextlib.ExitStack() as stack:
        nas1, nas2 = stack.enter_context(two_hosts(tmp_path, "nas1", "nas2"))
        capture = stack.enter_context(Capture(nas1, tmp_path / "packets"))
        init, invite, serve, enroll, sync = _with_paths(commands, tmp_path)
        nas2.run(*init)
        code = nas2.run(*invite)
        stack.enter_context(_serving(nas2, *serve))
        nas1.run(*enroll, stdin=code)
        nas1.run(*sync)
        # Compressed, content would be hard to find even if it were not encrypted.
        edit_tree(source, 3, large_bytes=1 << 16)
        (source / "secret letter.txt").write_bytes(b"More. " + _SECRET * 50)
        nas1.run(*sync, "--compress", "off")
        location = sync[-1]
        nas1.run(*_restore(location, tmp_path / "back"))
        assert_same_tree(source, tmp_path / "back")
    sent = streams(capture.packets())
    assert sum(map(len, sent.values())) > _tree_bytes(source)
    assert _found(sent, _tells(source)) == []


def test_the_search_finds_what_travels_in_plain_text(tmp_path, source):
    archive = tmp_path / "archive"
    run("tar", "-C", source, "-cf", archive, ".")
    with two_hosts(tmp_path, "nas1", "nas2") as (nas1, nas2):
        hearing = nas2.start(sys.executable, "-c", _HEAR, stdout=subprocess.PIPE)
        try:
            assert hearing.stdout.readline() == "ready\n"
            with Capture(nas1, tmp_path / "packets") as capture:
                nas1.run(sys.executable, "-c", _SEND, "nas2", "7000", archive)
                hearing.communicate(timeout=TIMEOUT_S)
        finally:
            hearing.kill()
            hearing.communicate()
    tells = _tells(source)
    assert len(tells) > _COPIED_FILES
    assert _found(streams(capture.packets()), tells) == tells


def test_a_new_machine_in_the_place_of_a_lost_one_restores_and_the_old_one_is_out(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    with served(tmp_path / "store") as server:
        old = Machine(tmp_path / "old", "nas1").enrol(server)
        old.sync(source, server.url())
        new = Machine(tmp_path / "new", "nas1").enrol(server)
        new.ssfs("restore", server.url(), "latest", "--to", tmp_path / "back")
        assert_same_tree(source, tmp_path / "back")
        old.ssfs("versions", server.url(), expect=4)
        assert new.sync(source, server.url())["version"][:6] == "000002"
        listed = json.loads(new.ssfs("points", server.url("").rstrip("/"), "--json").stdout)
    assert [task["owner"] for point in listed for task in point["tasks"]] == ["nas1"]


def test_a_machine_leaves_nothing_behind(tmp_path):
    before = _seen_from_outside()
    pids: list[int] = []
    with pytest.raises(ZeroDivisionError):
        _fail_with_machines(tmp_path, pids)
    assert len(pids) == 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert _seen_from_outside() == before


def _fail_with_machines(directory: Path, pids: list[int]) -> None:
    with two_hosts(directory, "nas1", "nas2") as (nas1, nas2):
        pids += [nas1.pid, nas2.pid]
        assert nas1.run("hostname") == "nas1\n"
        found = "import socket; print(socket.gethostbyname('nas2'))"
        assert nas1.run(sys.executable, "-c", found) == f"{nas2.address}\n"
        raise ZeroDivisionError


def _seen_from_outside() -> tuple[object, ...]:
    return socket.if_nameindex(), socket.gethostname(), Path("/etc/hosts").read_text()


def _with_paths(commands: list[tuple[str, list[str]]], directory: Path) -> list[list[str]]:
    """The commands as they are, with directories of the test in the place of those on the page."""
    where = {"/home": str(directory / "home"), "/srv/backup": str(directory / "backup")}
    return [[where.get(word, word) for word in command] for _, command in commands]


def _restore(location: str, target: Path) -> list[str]:
    # Compressed, content would be hard to find even if it were not encrypted.
    return ["ssfs", "restore", location, "latest", "--to", str(target), "--compress", "off"]


@contextlib.contextmanager
def _serving(host: Host, *command: str) -> Iterator[None]:
    """Run the server there as long as the block lasts."""
    server = host.start(*command, stderr=subprocess.PIPE)
    log = [server.stderr.readline()]
    try:
        assert "listening on" in log[0]
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=TIMEOUT_S)
    assert server.returncode == 0
    assert "Traceback" not in rest


def _tree_bytes(tree: Path) -> int:
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def _tells(tree: Path) -> list[bytes]:
    """What would give the tree away: its long names, and a piece of each file's content."""
    tells = {name for name in map(os.fsencode, _names(tree)) if len(name) >= 8}
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size >= 64:
            content = path.read_bytes()
            piece = content[len(content) // 2 :][:24]
            if len(set(piece)) > 8:
                tells.add(piece)
    return sorted(tells)


def _names(tree: Path) -> Iterator[str]:
    for _, directories, files in os.walk(tree):
        yield from directories
        yield from files


def _found(sent: dict[tuple[bytes, int, bytes, int], bytes], tells: list[bytes]) -> list[bytes]:
    everything = b"".join(sent.values())
    return [tell for tell in tells if tell in everything]
