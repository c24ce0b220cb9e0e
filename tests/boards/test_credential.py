"""Trust between hosts and boards: real TLS handshakes over loopback, good ones and forged ones."""

import shutil
import socket
import ssl
from concurrent import futures
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from boards.tls import credential
from boards.tls.authority import BACKDATED, LEAF_LIFE, CertificateAuthority, make_keys
from boards.tls.credential import HOST_SUBJECT, board_subject
from boards.tls.identity import Identity
from nonn_common.errors import InputError

NOW = datetime.now(UTC)
SECONDS = 20


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity") / "keys"
    make_keys(folder, [board_subject("pi", ["127.0.0.1"]), board_subject("odroid")])
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Keys of another authority, for the same names."""
    folder = tmp_path_factory.mktemp("strangers") / "keys"
    make_keys(folder, [board_subject("pi"), board_subject("odroid")])
    return folder


@pytest.fixture
def copied(keys, tmp_path):
    return shutil.copytree(keys, tmp_path / "keys")


def minted(folder, authority, holder, now, trusted=None):
    """Write keys that `authority` issued at `now`; `trusted` is the certificate beside them."""
    pair = authority.issue(holder, now)
    folder.mkdir(parents=True)
    (folder / "certificate.pem").write_bytes(pair.certificate)
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(pair.key)
    (folder / "authority.pem").write_bytes(trusted or authority.pair.certificate)
    return folder


def forged(end, folder, authority):
    """TLS settings without any of our own checks: what an attacker would use.

    It trusts `authority`, and shows the certificate in `folder`, if one is given.
    """
    context = ssl.SSLContext(end)
    context.load_verify_locations(cadata=authority.decode())
    if folder is not None:
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


def served(listening, context):
    """Take one connection and send its first byte back; return what happened."""
    connection, _ = listening.accept()
    connection.settimeout(SECONDS)
    try:
        with connection, context.wrap_socket(connection, server_side=True) as secure:
            byte = secure.recv(1)
            secure.sendall(byte)
            return byte
    except OSError as error:
        return error


def called(port, context, name):
    """Send a byte and read one; return what happened."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=name) as secure,
        ):
            secure.sendall(b"x")
            byte = secure.recv(1)
            # What could be resumed would outlive the certificates.
            assert secure.session is None or not secure.session.has_ticket
            return byte
    except OSError as error:
        return error


def handshake(server, client, name="pi"):
    """Return the byte, or the error, that the server met, and that the client met."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        listening.settimeout(SECONDS)
        serving = pool.submit(served, listening, server)
        client_met = called(listening.getsockname()[1], client, name)
        return serving.result(), client_met


def refused_by_server(met, reason):
    """The server refuses; the client, which may be done with its handshake, gets no answer."""
    server_met, client_met = met
    return isinstance(server_met, ssl.SSLError) and reason in str(server_met) and client_met != b"x"


def refused_by_client(met, reason):
    server_met, client_met = met
    return (
        isinstance(client_met, ssl.SSLCertVerificationError)
        and reason in str(client_met)
        and server_met != b"x"
    )


@pytest.fixture(scope="module")
def host(keys):
    return Identity.read(keys / "host")


@pytest.fixture(scope="module")
def pi(keys):
    return Identity.read(keys / "pi")


@pytest.mark.parametrize("name", ["pi", "127.0.0.1"])
def test_host_and_board_accept_each_other(pi, host, name):
    assert handshake(pi.server_context(), host.client_context(), name) == (b"x", b"x")


def test_tls_is_1_3(pi, host):
    old = host.client_context()
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    server_met, client_met = handshake(pi.server_context(), old)
    assert "UNSUPPORTED_PROTOCOL" in str(server_met)
    assert isinstance(client_met, ssl.SSLError)


def test_a_client_without_certificate(pi):
    client = forged(ssl.PROTOCOL_TLS_CLIENT, None, pi.authority)
    met = handshake(pi.server_context(), client)
    assert refused_by_server(met, "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_a_client_without_tls(pi):
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        serving = pool.submit(served, listening, pi.server_context())
        with socket.create_connection(listening.getsockname(), timeout=SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert isinstance(serving.result(), ssl.SSLError)


def test_a_client_of_another_authority(pi, strangers):
    client = forged(ssl.PROTOCOL_TLS_CLIENT, strangers / "host", pi.authority)
    met = handshake(pi.server_context(), client)
    assert refused_by_server(met, "CERTIFICATE_VERIFY_FAILED")


def test_a_server_of_another_authority(host, strangers):
    met = handshake(Identity.read(strangers / "pi").server_context(), host.client_context())
    assert refused_by_client(met, "certificate verify failed")


def test_a_board_with_another_board_s_name(keys, host):
    odroid = Identity.read(keys / "odroid").server_context()
    assert handshake(odroid, host.client_context(), "odroid") == (b"x", b"x")
    assert refused_by_client(handshake(odroid, host.client_context(), "pi"), "Hostname mismatch")


def test_a_board_is_no_host(keys, pi):
    client = forged(ssl.PROTOCOL_TLS_CLIENT, keys / "odroid", pi.authority)
    assert refused_by_server(handshake(pi.server_context(), client), "certificate purpose")


def test_a_host_is_no_board(keys, host):
    server = forged(ssl.PROTOCOL_TLS_SERVER, keys / "host", host.authority)
    assert refused_by_client(handshake(server, host.client_context(), "host"), "purpose")


def test_an_authority_is_neither(keys, pi, host):
    """Its certificate says what it is for: to sign."""
    server = forged(ssl.PROTOCOL_TLS_SERVER, keys / "authority", host.authority)
    _, client_met = handshake(server, host.client_context(), "nonn-plan authority")
    assert isinstance(client_met, ssl.SSLCertVerificationError)
    client = forged(ssl.PROTOCOL_TLS_CLIENT, keys / "authority", pi.authority)
    server_met, _ = handshake(pi.server_context(), client)
    assert isinstance(server_met, ssl.SSLError)


def test_a_certificate_that_a_board_signed(keys, pi, tmp_path):
    """The thief of a board's key makes a certificate of a host with it, and shows both."""
    certificate = credential.parse_certificate(pi.certificate, keys / "pi")
    key = load_pem_private_key(pi.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    folder = minted(tmp_path / "thief", CertificateAuthority(certificate, key), HOST_SUBJECT, NOW)
    with (folder / "certificate.pem").open("ab") as file:
        file.write(pi.certificate)
    client = forged(ssl.PROTOCOL_TLS_CLIENT, folder, pi.authority)
    assert refused_by_server(handshake(pi.server_context(), client), "CERTIFICATE_VERIFY_FAILED")


@pytest.mark.parametrize(
    ("made_at", "reason", "told", "fix"),
    [
        (NOW - LEAF_LIFE - timedelta(days=1), "expired", "was valid until", "keys renew"),
        (NOW + timedelta(days=30), "not yet valid", "is valid only from", "set the clock"),
    ],
)
def test_a_certificate_out_of_its_time(keys, pi, host, tmp_path, made_at, reason, told, fix):
    authority = CertificateAuthority.read(keys / "authority")
    bound = made_at + LEAF_LIFE if made_at < NOW else made_at - BACKDATED
    late_pi = minted(tmp_path / "pi", authority, board_subject("pi"), made_at)
    late_host = minted(tmp_path / "host", authority, HOST_SUBJECT, made_at)
    for folder in (late_pi, late_host):
        with pytest.raises(InputError, match=told) as raised:
            Identity.read(folder)
        days = [f"{day:%Y-%m-%d}" for day in (bound, datetime.now(UTC))]
        for part in (*days, fix, str(folder / "certificate.pem")):
            assert part in str(raised.value)
    server = forged(ssl.PROTOCOL_TLS_SERVER, late_pi, host.authority)
    assert refused_by_client(handshake(server, host.client_context()), reason)
    client = forged(ssl.PROTOCOL_TLS_CLIENT, late_host, pi.authority)
    assert refused_by_server(handshake(pi.server_context(), client), reason)


@pytest.mark.parametrize("name", ["authority.pem", "certificate.pem", "key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_that_is_missing_or_no_pem(copied, name, content):
    path = copied / "pi" / name
    path.unlink()
    if content is not None:
        path.touch(mode=0o600)
        path.write_bytes(content)
    told = "no such file" if content is None else "in PEM form"
    with pytest.raises(InputError, match=told) as raised:
        Identity.read(copied / "pi")
    assert str(path) in str(raised.value)


def test_a_file_that_cannot_be_read(copied):
    path = copied / "pi" / "key.pem"
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        Identity.read(copied / "pi")


@pytest.mark.parametrize("mode, taken", [(0o600, True), (0o640, True), (0o644, False)])
def test_a_key_that_every_user_may_read_is_refused(copied, mode, taken):
    path = copied / "pi" / "key.pem"
    path.chmod(mode)
    if taken:
        Identity.read(copied / "pi")
        return
    with pytest.raises(InputError, match=rf"key\.pem: every user.*found 'mode {mode:04o}'.*chmod"):
        Identity.read(copied / "pi")


def test_no_folder_at_all(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Identity.read(tmp_path / "nowhere")


def test_the_key_of_another_certificate(copied):
    shutil.copy(copied / "odroid" / "key.pem", copied / "pi" / "key.pem")
    with pytest.raises(InputError, match=r"pi/key\.pem: is not the key"):
        Identity.read(copied / "pi")


def test_a_certificate_of_another_authority(copied, strangers):
    shutil.copy(strangers / "pi" / "authority.pem", copied / "pi" / "authority.pem")
    with pytest.raises(InputError, match=r"pi/certificate\.pem: was not signed"):
        Identity.read(copied / "pi")


def test_an_encrypted_key_is_refused_and_nobody_is_asked(copied):
    path = copied / "pi" / "key.pem"
    key = load_pem_private_key(path.read_bytes(), password=None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(InputError, match="encrypted"):
        Identity.read(copied / "pi")


def test_the_wrong_folder_is_named_at_once(pi, host):
    with pytest.raises(InputError, match=r"not the certificate of a board; found 'host'"):
        host.server_context()
    with pytest.raises(InputError, match=r"not the certificate of a host; found 'board'"):
        pi.client_context()


def test_keys_that_vanish_after_they_were_read(copied):
    identity = Identity.read(copied / "pi")
    (copied / "pi" / "key.pem").unlink()
    with pytest.raises(InputError, match="no longer holds"):
        identity.server_context()


def test_the_key_is_never_shown(pi):
    assert b"PRIVATE KEY" in pi.key
    assert "PRIVATE KEY" not in repr(pi)


def echo_server(pool, identity):
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"Echo": handler}),))
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


@pytest.mark.parametrize(
    ("caller", "name", "accepted"),
    [
        ("host", "pi", True),
        ("host", "odroid", False),
        ("odroid", "pi", False),
        ("stranger", "pi", False),
        (None, "pi", False),
    ],
)
def test_grpc_believes_the_same(keys, strangers, pi, caller, name, accepted):
    """gRPC brings a TLS library of its own."""
    shown = {"host": keys / "host", "odroid": keys / "odroid", "stranger": strangers / "host"}
    own = Identity.read(shown[caller]) if caller else None
    credentials = grpc.ssl_channel_credentials(
        pi.authority, own.key if own else None, own.certificate if own else None
    )
    options = [("grpc.ssl_target_name_override", name)]
    with futures.ThreadPoolExecutor(1) as pool:
        server, port = echo_server(pool, pi)
        try:
            with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                call = channel.unary_unary("/t/Echo")
                if accepted:
                    assert call(b"x", timeout=SECONDS) == b"x"
                else:
                    with pytest.raises(grpc.RpcError) as raised:
                        call(b"x", timeout=SECONDS)
                    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            server.stop(None).wait()
