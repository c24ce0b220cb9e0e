"""Certificates that were taken back: host and boards with the list trust them no more."""

import shutil

import pytest
from cryptography.x509 import load_pem_x509_certificate
from made_bundle import make_bundle

from boards.host.connection import BoardTask, ConnectionLostError
from boards.host.grpc_connection import GrpcChannel, connect
from boards.protocol.address import Address, BoardAddress
from boards.protocol.open_inference import message_class
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject
from boards.tls.identity import Identity
from boards.tls.renewal import renew_keys
from boards.tls.revocation import revoke_keys
from boards.worker.model_runtime import load_models
from boards.worker.server import Worker, WorkerSettings
from nonn_common.errors import InputError

PROTOCOLS = ("fastest", "standard")
BOARDS = [board_subject("pi"), board_subject("odroid")]


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", BOARDS)
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("revoked")
    manifest = make_bundle(folder / "bundle", image=(1, 8, 8))
    return manifest.models[0], load_models(folder / "bundle", ["student-0"])


@pytest.fixture
def serving(bundle):
    """Start a worker with the keys of a board, as they are now."""
    running = []

    def start(folder):
        worker = Worker(bundle[1], WorkerSettings(Address("127.0.0.1", 0), Identity.read(folder)))
        worker.start()
        running.append(worker)
        return worker

    yield start
    for worker in running:
        worker.drain()


def called(bundle, worker, name, host, protocol):
    """Connect as the host, and ask by calls whether the student is ready."""
    board = BoardAddress(name=name, address=str(worker.address), protocol=protocol)
    connection = connect(BoardTask(board, (bundle[0],)), host)
    connection.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_board_that_was_taken_back_is_named_and_others_go_on(bundle, keys, serving, protocol):
    pi, odroid = serving(keys / "pi"), serving(keys / "odroid")
    called(bundle, pi, "pi", Identity.read(keys / "host"), protocol)
    assert revoke_keys(keys, ["pi"]) == ("pi",)
    host = Identity.read(keys / "host")
    with pytest.raises(ConnectionLostError, match="certificate was taken back"):
        called(bundle, pi, "pi", host, protocol)
    called(bundle, odroid, "odroid", host, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_host_that_was_taken_back_is_refused_and_a_new_one_is_not(
    bundle, keys, serving, protocol, tmp_path
):
    stolen = Identity.read(shutil.copytree(keys / "host", tmp_path / "stolen"))
    revoke_keys(keys, ["host"])
    pi = serving(keys / "pi")
    with pytest.raises(ConnectionLostError):
        called(bundle, pi, "pi", stolen, protocol)
    channel = GrpcChannel(pi.address, "pi", stolen)
    with pytest.raises(ConnectionLostError, match=r"PERMISSION_DENIED.*taken back"):
        channel.call("ServerMetadata", message_class("ServerMetadataRequest")(), 10)
    channel.close()
    shutil.rmtree(keys / "host")
    assert make_keys(keys, BOARDS) == ("host",)
    assert Identity.read(keys / "host").revoked == Identity.read(keys / "pi").revoked
    called(bundle, pi, "pi", Identity.read(keys / "host"), protocol)


def test_certificates_from_before_a_renewal_are_taken_back_as_well(keys):
    def serial():
        content = (keys / "pi" / "certificate.pem").read_bytes()
        return load_pem_x509_certificate(content).serial_number

    serials = {serial()}
    for _ in range(3):
        renew_keys(keys, ["pi"])
        serials.add(serial())
    assert revoke_keys(keys, ["pi", "pi"]) == ("pi",)
    assert Identity.read(keys / "odroid").revoked == serials and len(serials) == 4
    assert revoke_keys(keys, ["pi"]) == ()
    assert revoke_keys(keys, ["odroid"]) == ("odroid",)
    assert serials < Identity.read(keys / "host").revoked


def test_a_list_of_others_is_refused(keys, tmp_path):
    make_keys(tmp_path / "other", BOARDS)
    revoke_keys(tmp_path / "other", ["pi"])
    shutil.copy(tmp_path / "other" / "host" / "revoked.pem", keys / "host" / "revoked.pem")
    with pytest.raises(InputError, match=r"revoked\.pem: was not signed by the authority"):
        Identity.read(keys / "host")
    (keys / "host" / "revoked.pem").write_text("\n")
    assert Identity.read(keys / "host").revoked is None
    (keys / "host" / "revoked.pem").write_text("nothing")
    with pytest.raises(InputError, match=r"revoked\.pem: holds no list of revoked"):
        Identity.read(keys / "host")


def test_who_cannot_be_taken_back_is_said_and_nobody_is(keys):
    for name, told in (("nobody", r"found 'nobody'.*host, odroid, pi"), ("authority", "keys init")):
        with pytest.raises(InputError, match=told):
            revoke_keys(keys, ["pi", name])
    assert not list(keys.rglob("revoked.pem"))
