"""Sentences on a board that the host does not trust: its certificate, the fault, the remedy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from made_bundle import make_bundle

from boards.host.connection import BoardTask, ConnectionLostError
from boards.host.grpc_connection import connect
from boards.protocol.address import Address, BoardAddress
from boards.tls.authority import BACKDATED, LEAF_LIFE, CertificateAuthority, make_keys
from boards.tls.credential import HOST_SUBJECT, board_subject
from boards.tls.identity import Identity
from boards.worker.model_runtime import load_models
from boards.worker.server import Worker, WorkerSettings

NOW = datetime.now(UTC)
LATE, EARLY = NOW - timedelta(days=800), NOW + timedelta(days=800)


def identity(folder):
    """The keys in a folder, whatever their time: as a worker has them that started in time."""
    names = ("authority.pem", "certificate.pem", "key.pem")
    return Identity(*((folder / name).read_bytes() for name in names), folder)


def minted(folder, authority, holder, now):
    pair = authority.issue(holder, now)
    folder.mkdir(parents=True)
    (folder / "authority.pem").write_bytes(authority.pair.certificate)
    (folder / "certificate.pem").write_bytes(pair.certificate)
    (folder / "key.pem").write_bytes(pair.key)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    manifest = make_bundle(folder / "bundle", image=(1, 8, 8))
    make_keys(folder / "keys", [board_subject("pi"), board_subject("odroid")])
    make_keys(folder / "other", [board_subject("pi")])
    authority = CertificateAuthority.read(folder / "keys" / "authority")
    for name, holder, now in (
        ("late", board_subject("pi"), LATE),
        ("early", board_subject("pi"), EARLY),
        ("late-host", HOST_SUBJECT, LATE),
    ):
        minted(folder / name, authority, holder, now)
    return folder, manifest.models[0], load_models(folder / "bundle", ["student-0"])


def day(time):
    return f"{time:%Y-%m-%d %H:%M} UTC"


@pytest.mark.parametrize(
    ("board", "host", "parts"),
    [
        ("late", "keys/host", [
            f"the board's certificate was valid until {day(LATE + LEAF_LIFE)}; this machine",
            "run `nonn-plan keys renew` where its authority is, and copy the new certificate.pem",
        ]),
        ("early", "keys/host", [
            f"the board's certificate is valid only from {day(EARLY - BACKDATED)} on; this machine",
            "set the clock",
        ]),
        ("other/pi", "keys/host", [
            "the board's certificate is of another authority than ", "keys/host/authority.pem",
            "host and boards need folders of one `nonn-plan keys init`",
        ]),
        ("keys/odroid", "keys/host", [
            "this is the certificate of board odroid: two addresses of boards.yaml are swapped",
        ]),
        ("keys/pi", "late-host", [
            f"late-host/certificate.pem was valid until {day(LATE + LEAF_LIFE)}", "keys renew",
        ]),
    ],
    ids=["expired", "early", "authority", "swapped", "own-expired"],
)  # fmt: skip
def test_the_host_says_which_certificate_it_is_and_what_to_do(made, board, host, parts):
    folder, model, models = made
    running = Worker(models, WorkerSettings(Address("127.0.0.1", 0), identity(folder / board)))
    running.start()
    task = BoardTask(BoardAddress(name="pi", address=str(running.address)), (model,))
    try:
        with pytest.raises(ConnectionLostError) as caught:
            connect(task, identity(folder / host))
    finally:
        running.drain()
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "CERTIFICATE_VERIFY_FAILED" not in str(caught.value)


def test_a_board_that_is_not_there_has_no_fault_of_certificates(made):
    folder, model, _ = made
    task = BoardTask(BoardAddress(name="pi", address="127.0.0.1:1"), (model,))
    with pytest.raises(ConnectionLostError, match="Connection refused"):
        connect(task, identity(folder / "keys" / "host"))


def test_with_good_keys_the_board_answers(made):
    folder, model, models = made
    running = Worker(models, WorkerSettings(Address("127.0.0.1", 0), identity(folder / "keys/pi")))
    running.start()
    task = BoardTask(BoardAddress(name="pi", address=str(running.address)), (model,))
    connection = connect(task, identity(folder / "keys" / "host"))
    assert connection.protocol == "frames"
    connection.close()
    running.drain()


def test_a_port_of_frames_that_cannot_be_reached_is_said(made):
    """As behind a forward of the standard port alone: calls answer, but slower."""
    folder, model, models = made
    running = Worker(models, WorkerSettings(Address("127.0.0.1", 0), identity(folder / "keys/pi")))
    running.start()
    running._frames.stop()
    task = BoardTask(BoardAddress(name="pi", address=str(running.address)), (model,))
    connection = connect(task, identity(folder / "keys" / "host"))
    assert connection.protocol == "standard"
    assert f"127.0.0.1:{running.address.port + 1}" in connection.fallback
    assert "refused" in connection.fallback
    connection.close()
    asked = connect(
        replace(task, board=task.board.model_copy(update={"protocol": "standard"})),
        identity(folder / "keys" / "host"),
    )
    assert (asked.protocol, asked.fallback) == ("standard", "")
    asked.close()
    running.drain()
