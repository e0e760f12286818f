"""Enrolment codes survive their journey, or are told to be broken."""

import hashlib
import ipaddress
import shlex
import string
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.errors import ConfigError
from ssfs.pki.address import check_address
from ssfs.pki.code import EnrolmentCode, make_secret, parse_code, secret_hash

_LABEL = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=20)
_HOSTS = st.one_of(
    st.lists(_LABEL, min_size=1, max_size=5).map(".".join),
    st.ip_addresses(v=4).map(str),
    # In our own normal form: Pythons differ in how they spell some.
    st.ip_addresses(v=6).map(lambda address: check_address(str(address), "1").host),
    st.builds(lambda zone: f"fe80::1%{zone}", _LABEL.filter(lambda text: len(text) <= 15)),
)
CODES = st.builds(
    EnrolmentCode,
    _HOSTS,
    st.integers(1, 65535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=20, max_size=20),
)
CODE = EnrolmentCode("nas1.example.org", 7433, bytes(range(32)), bytes(range(100, 120)))


@pytest.mark.slow
@given(CODES)
def test_code_comes_back_as_it_was(code: EnrolmentCode):
    assert parse_code(code.spell()) == code


@pytest.mark.slow
@given(CODES)
def test_code_needs_no_quotes(code: EnrolmentCode):
    line = code.spell()
    assert set(line) <= set(string.ascii_letters + string.digits + "/.:%_-")
    assert shlex.split(line) == [line]


def test_real_shell_passes_it_on_unchanged():
    line = EnrolmentCode("fe80::1%eth0", 7433, bytes(32), bytes(20)).spell()
    for shell in ("sh", "bash"):
        done = subprocess.run(
            [shell, "-c", f"printf %s {line}"], capture_output=True, check=True, text=True
        )
        assert done.stdout == line


def test_spelling_stays_what_it_is():
    # Codes of one release are read by the next.
    assert CODE.spell() == (
        "ssfs1/nas1.example.org/7433/"
        "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypwizlgm5ugs2tlnrww433qofzhg5dvoz37xlyde4"
    )


@pytest.mark.slow
@given(CODES, st.data())
def test_white_space_and_capitals_do_not_matter(code: EnrolmentCode, data: st.DataObject):
    line = code.spell()
    at = data.draw(st.integers(0, len(line)))
    space = data.draw(st.sampled_from([" ", "\n", "\r\n  ", "\t"]))
    assert parse_code(f" {line[:at]}{space}{line[at:]}\n") == code
    head, _, tail = line.rpartition("/")
    assert parse_code(f"{head}/{tail.upper()}") == code


def test_line_in_capitals_is_the_same_code():
    assert parse_code(CODE.spell().upper()) == CODE


@pytest.mark.slow
@given(CODES, st.data())
def test_cut_code_is_told_as_such(code: EnrolmentCode, data: st.DataObject):
    line = code.spell()
    at = data.draw(st.integers(len("ssfs1/"), len(line) - 1))
    with pytest.raises(ConfigError, match="incomplete or mistyped"):
        parse_code(line[:at])


@pytest.mark.slow
@given(CODES, st.data())
def test_mistyped_code_is_told_as_such(code: EnrolmentCode, data: st.DataObject):
    line = code.spell()
    at = data.draw(st.integers(len("ssfs1/"), len(line) - 1))
    typed = data.draw(st.sampled_from(string.ascii_lowercase + string.digits + "/.:%_- "))
    wrong = line[:at] + typed + line[at + 1 :]
    if wrong == line or wrong.lower() == line.lower():
        return
    with pytest.raises(ConfigError, match="incomplete or mistyped"):
        parse_code(wrong)


@pytest.mark.slow
def test_every_single_slip_of_one_code_is_found():
    line = CODE.spell()
    begin = len("ssfs1/")
    for at in range(begin, len(line)):
        for typed in string.ascii_lowercase + string.digits:
            if typed != line[at]:
                with pytest.raises(ConfigError, match="incomplete or mistyped"):
                    parse_code(line[:at] + typed + line[at + 1 :])
    for at in range(begin, len(line) - 1):
        swapped = line[:at] + line[at + 1] + line[at] + line[at + 2 :]
        if swapped != line:
            with pytest.raises(ConfigError, match="incomplete or mistyped"):
                parse_code(swapped)


@pytest.mark.parametrize(
    "text", ["", "hello", "ssfs", "ssfs1", "ssfs://nas1/main", "x" + CODE.spell(), "ſsfs1/a/1/a"]
)
def test_what_is_no_code_says_what_to_do(text: str):
    with pytest.raises(ConfigError, match=r"not an enrolment code.*ssfs invite"):
        parse_code(text)


def test_code_of_a_newer_ssfs():
    with pytest.raises(ConfigError, match="newer ssfs"):
        parse_code(CODE.spell().replace("ssfs1", "ssfs2"))


@given(st.text(max_size=120))
def test_any_text_is_a_code_or_a_config_error(text: str):
    for line in (text, f"ssfs1/{text}", f"ssfs1/nas1/7433/{text}"):
        with pytest.raises(ConfigError):
            parse_code(line)


def test_code_of_no_host_cannot_be_spelled():
    for host in ("a b", "a/b", "$HOME", ""):
        with pytest.raises(ConfigError):
            EnrolmentCode(host, 7433, bytes(32), bytes(20)).spell()


def test_ipv6_address_in_any_spelling():
    code = EnrolmentCode("2001:DB8:0:0::1", 7433, bytes(32), bytes(20))
    assert parse_code(code.spell()).host == str(ipaddress.ip_address("2001:db8::1"))


def test_secret_shows_neither_in_a_code_nor_in_errors():
    code = EnrolmentCode("nas1", 7433, bytes(32), b"secret" + bytes(14))
    assert "secret" not in repr(code)
    assert "secret" not in f"{code}"
    line = code.spell()
    with pytest.raises(ConfigError) as caught:
        parse_code(line[:-1])
    assert line[-40:-20] not in str(caught.value)


def test_secrets_are_random_and_kept_as_a_hash_of_their_own_kind():
    assert len({make_secret() for _ in range(100)}) == 100
    assert len(make_secret()) == 20
    kept = hashlib.sha256(b"ssfs enrolment secret\0" + bytes(20)).hexdigest()
    assert secret_hash(bytes(20)) == kept
