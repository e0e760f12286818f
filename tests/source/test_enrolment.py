"""What a client keeps of its servers: private, whole, found again."""

import contextlib
import datetime
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.errors import ConfigError
from ssfs.pki.address import Address
from ssfs.source.enrolment import (
    Credentials,
    Enrolment,
    _path_of,
    config_root,
    find_enrolment,
    list_enrolments,
    replace_certificate,
    save_enrolment,
)
from tests.fakes.clock import START
from tests.fakes.stopping import stopped_at

SERVER = Address("nas1.example.org", 7433)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSFS_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


def credentials(name: str) -> Credentials:
    return Credentials(*(f"{part} of {name}\n".encode() for part in ("key", "certificate", "ca")))


def save(name: str = "box", address: Address = SERVER) -> Enrolment:
    return save_enrolment(address, name, ("main", "photos"), credentials(name), START)


def contents(enrolment: Enrolment) -> Credentials:
    paths = (enrolment.key, enrolment.certificate, enrolment.authority)
    return Credentials(*(Path(os.fsdecode(path)).read_bytes() for path in paths))


def test_enrolment_is_found_as_it_was_saved():
    saved = save()
    found = find_enrolment("nas1.example.org", 7433)
    assert found == saved
    assert found.address == SERVER
    assert (found.client, found.points, found.enrolled) == ("box", ("main", "photos"), START)
    assert contents(found) == credentials("box")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_everything_is_for_the_owner_alone(config: Path, umask: int):
    before = os.umask(umask)
    try:
        replace_certificate(save(), b"renewed")
    finally:
        os.umask(before)
    found = [config, *config.rglob("*")]
    assert len(found) == 1 + 3 + 4
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ("nas1", "NAS1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:1"),
        ("fe80::1%eth0", "FE80::1%eth0"),
        ("a" * 255, "A" * 255),
    ],
)
def test_any_spelling_of_an_address_leads_to_its_enrolment(host: str, same: str):
    save(address=Address(host, 1))
    assert find_enrolment(same, 1).address == Address(host, 1)


def test_servers_do_not_get_into_each_others_way():
    servers = [
        *(Address("nas1", 1), Address("nas1", 2), Address("nas1_1", 1), Address("nas", 11)),
        *(Address("2001:db8::1", 1), Address("2001-db8--1", 1), Address("fe80::1%a", 1)),
        *(Address("fe80::1%b", 1), Address("a" * 254, 1), Address("a" * 255, 1)),
    ]
    for number, server in enumerate(servers):
        save(f"box{number}", server)
    for number, server in enumerate(servers):
        assert find_enrolment(*server).client == f"box{number}"
    assert list_enrolments() == sorted(servers)


@given(st.text(min_size=1), st.integers())
def test_no_host_leads_out_of_the_directory(host: str, port: int):
    path = _path_of(Address(host, port))
    directory, name = os.path.split(path)
    assert directory == os.path.join(config_root(), b"servers")
    assert name not in (b".", b"..")
    assert b"/" not in name
    assert b"\0" not in name
    assert len(name) <= 200


def test_not_enrolled_says_what_to_do_and_where_one_is(config: Path):
    with pytest.raises(ConfigError, match=r"Not enrolled with nas2:7433.*ssfs enroll") as caught:
        find_enrolment("nas2", 7433)
    assert "enrolled here" not in caught.value.remedy
    assert not config.exists()
    save()
    save(address=Address("::1", 99))
    with pytest.raises(ConfigError) as caught:
        find_enrolment("nas2", 7433)
    assert "enrolled here: [::1]:99, nas1.example.org:7433" in caught.value.remedy
    assert caught.value.path == os.fsencode(config)


def test_host_that_is_none():
    with pytest.raises(ConfigError):
        find_enrolment("../etc", 7433)


def test_enrolling_again_replaces_and_leaves_nothing_of_before(config: Path):
    old = save("old")
    new = save("new")
    assert find_enrolment(*SERVER) == new
    assert contents(new) == credentials("new")
    assert not os.path.exists(old.credentials)
    assert sum(path.name == "key.pem" for path in config.rglob("*")) == 1


def test_renewed_certificate_takes_the_place_of_the_old_one():
    save()
    found = find_enrolment(*SERVER)
    replace_certificate(found, b"renewed")
    assert find_enrolment(*SERVER) == found
    assert contents(found) == Credentials(b"key of box\n", b"renewed", b"ca of box\n")


def test_certificate_for_a_key_that_was_replaced_is_dropped(config: Path):
    old = save("old")
    new = save("new")
    replace_certificate(old, b"renewed")
    assert contents(new) == credentials("new")
    assert find_enrolment(*SERVER) == new


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_key_that_others_can_read_is_refused(mode: int):
    enrolment = save()
    os.chmod(enrolment.key, mode)
    with pytest.raises(ConfigError, match=r"chmod 600 /.*/key\.pem"):
        find_enrolment(*SERVER)
    os.chmod(enrolment.key, 0o400)
    assert find_enrolment(*SERVER) == enrolment


@pytest.mark.parametrize("part", ["key", "certificate", "authority"])
def test_missing_part_is_said(part: str):
    enrolment = save()
    os.unlink(getattr(enrolment, part))
    with pytest.raises(ConfigError, match=r"missing.*ssfs enroll"):
        find_enrolment(*SERVER)
    save()
    assert find_enrolment(*SERVER)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff", b"format = 1\n", b"format = 'x'"])
def test_damaged_record_is_said_and_in_nobodys_way(content: bytes):
    enrolment = save()
    other = save(address=Address("other", 1))
    path = Path(os.fsdecode(enrolment.credentials)).parent / "server.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"server\.toml.*ssfs enroll"):
        find_enrolment(*SERVER)
    assert list_enrolments() == [Address("other", 1)]
    assert find_enrolment("other", 1) == other
    save()
    assert find_enrolment(*SERVER)


def test_record_of_a_newer_ssfs_is_left_alone():
    enrolment = save()
    path = Path(os.fsdecode(enrolment.credentials)).parent / "server.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2\nnovelty = 7"))
    with pytest.raises(ConfigError, match="newer ssfs"):
        find_enrolment(*SERVER)


def test_directory_that_cannot_be_used(config: Path):
    config.write_text("a file")
    for use in (save, lambda: find_enrolment(*SERVER), list_enrolments):
        with pytest.raises(
            ConfigError, match=r"cannot be used \((file exists|not a directory)\).*SSFS_CONFIG_DIR"
        ):
            use()


def test_copy_of_the_directory_works_elsewhere(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save()
    subprocess.run(["cp", "-rpL", config, tmp_path / "copy"], check=True)
    monkeypatch.setenv("SSFS_CONFIG_DIR", str(tmp_path / "copy"))
    found = find_enrolment(*SERVER)
    assert contents(found) == credentials("box")
    assert found.key.startswith(os.fsencode(tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize("has_old", [False, True])
def test_enrolment_stopped_anywhere_leaves_the_old_one_or_the_new_one(
    config: Path, monkeypatch: pytest.MonkeyPatch, has_old: bool
):
    number, stopped = 0, True
    while stopped:
        number += 1
        monkeypatch.setenv("SSFS_CONFIG_DIR", str(config / str(number)))
        if has_old:
            save("old")
        with stopped_at(number):
            try:
                save("new")
                stopped = False
            except ConfigError:
                pass
        try:
            found = find_enrolment(*SERVER)
        except ConfigError:
            assert not has_old
            assert list_enrolments() == []
        else:
            assert contents(found) == credentials(found.client)
        save("again")
        assert contents(find_enrolment(*SERVER)) == credentials("again")
        assert sum(path.name == "key.pem" for path in (config / str(number)).rglob("*")) == 1
    assert number > 15


def test_renewal_stopped_anywhere_leaves_the_old_or_the_new_certificate():
    enrolment = save()
    for number in range(1, 6):
        with stopped_at(number):
            with contextlib.suppress(ConfigError):
                replace_certificate(enrolment, b"renewed")
        certificate = contents(find_enrolment(*SERVER)).certificate
        assert certificate in (b"certificate of box\n", b"renewed")
    assert certificate == b"renewed"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch):
    assert config_root() == os.environb[b"SSFS_CONFIG_DIR"]
    monkeypatch.setenv("SSFS_CONFIG_DIR", "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert config_root() == b"/etc/ssfs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_root() == b"/home/ann/.config/ssfs"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert config_root() == b"/elsewhere/ssfs"


def test_key_does_not_show():
    assert "key of box" not in repr(credentials("box"))


@pytest.mark.slow
def test_local_syncs_need_no_cryptography_for_it():
    script = "import sys, ssfs.source.enrolment; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_times_are_read_back_in_utc():
    save()
    assert find_enrolment(*SERVER).enrolled.tzinfo is not None
    assert find_enrolment(*SERVER).enrolled == datetime.datetime(2024, 5, 1, 2, tzinfo=datetime.UTC)
