"""Our certificates in real TLS 1.3 handshakes, in memory."""

import datetime
import ssl
from pathlib import Path

import pytest

from ssfs.pki.authority import SERVER_NAME, Authority
from tests.pki.certificates import NOW, Holder, make_authority, make_client, make_server

NO_TIME_CHECK = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: both ends leave expiry to the server's registry."""

FUTURE = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)


class Ends:
    """The two ends of a handshake, made from PEM."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = 0

    def context(
        self, purpose: ssl.Purpose, authority: Authority, own: Holder | None, flags: int
    ) -> ssl.SSLContext:
        is_server = purpose is ssl.Purpose.CLIENT_AUTH
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT | flags
        context.load_verify_locations(cadata=authority.pem.decode())
        if own is not None:
            self._files += 1
            key, certificate = (self._directory / f"{self._files}.{end}" for end in ("key", "pem"))
            key.write_bytes(own.key)
            certificate.write_bytes(own.certificate)
            context.load_cert_chain(certificate, key)
        return context

    def shake(
        self,
        server: tuple[Authority, Holder],
        client: tuple[Authority, Holder | None],
        flags: int = NO_TIME_CHECK,
    ) -> tuple[ssl.SSLObject, ssl.SSLObject]:
        """Shake hands and exchange a byte each way; raises what the refusing end raises."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_end = self.context(ssl.Purpose.CLIENT_AUTH, *server, flags).wrap_bio(
            to_server, to_client, server_side=True
        )
        client_end = self.context(ssl.Purpose.SERVER_AUTH, *client, flags).wrap_bio(
            to_client, to_server, server_hostname=SERVER_NAME
        )
        pending = [client_end, server_end]
        for _ in range(10):
            pending = [end for end in pending if not _is_done(end)]
        assert not pending
        client_end.write(b"x")
        assert server_end.read(1) == b"x"
        return server_end, client_end


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


def test_server_and_client_accept_each_other(ends: Ends):
    authority = make_authority()
    server, client = make_server(authority), make_client(authority, "nas1")
    server_end, client_end = ends.shake((authority, server), (authority, client))
    assert server_end.version() == "TLSv1.3"
    assert client_end.version() == "TLSv1.3"
    peer = server_end.getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("commonName", "nas1"),),)


def test_client_certificate_is_none_of_a_server(ends: Ends):
    authority = make_authority()
    client = make_client(authority, SERVER_NAME)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        ends.shake((authority, client), (authority, client))


def test_server_certificate_is_none_of_a_client(ends: Ends):
    authority = make_authority()
    server = make_server(authority)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        ends.shake((authority, server), (authority, server))


def test_client_of_another_authority_is_refused(ends: Ends):
    authority, rogue = make_authority(), make_authority()
    with pytest.raises(ssl.SSLCertVerificationError):
        ends.shake((authority, make_server(authority)), (authority, make_client(rogue)))


def test_server_of_another_authority_is_refused(ends: Ends):
    authority, rogue = make_authority(), make_authority()
    with pytest.raises(ssl.SSLCertVerificationError):
        ends.shake((rogue, make_server(rogue)), (authority, make_client(authority)))


def test_client_certificate_issues_no_others(ends: Ends):
    authority = make_authority()
    broken_into = make_client(authority, "nas1")
    sub_authority = Authority.load(broken_into.key, broken_into.certificate)
    grandchild = make_client(sub_authority, "nas2")
    chained = Holder(grandchild.key, grandchild.certificate + broken_into.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        ends.shake((authority, make_server(authority)), (authority, chained))


def test_client_without_a_certificate_is_refused(ends: Ends):
    authority = make_authority()
    with pytest.raises(ssl.SSLError):
        ends.shake((authority, make_server(authority)), (authority, None))


@pytest.mark.parametrize("made", [NOW - datetime.timedelta(days=9000), FUTURE])
def test_wrong_clock_matters_only_where_time_is_checked(ends: Ends, made: datetime.datetime):
    authority = make_authority(made)
    server, client = make_server(authority, made), make_client(authority, "nas1", made)
    ends.shake((authority, server), (authority, client))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"expired|not yet valid"):
        ends.shake((authority, server), (authority, client), flags=0)
