"""`keys init`, `show`, `renew` and `revoke`; a worker whose clock is behind."""

import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from boards.tls.authority import BACKDATED, LEAF_LIFE, CertificateAuthority
from boards.tls.credential import HOST_SUBJECT, NotYetValidError, board_subject
from boards.tls.identity import Identity
from nonn_plan.cli.commands import worker


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys"


def test_init_makes_what_boards_and_host_need(nonn_plan, keys):
    said = nonn_plan(
        "keys", "init", keys, "--board", "pi=192.168.1.11,pi.local", "--board", "odroid"
    )
    assert said.code == 0, said.err
    assert "made: authority, host, pi, odroid" in said.out
    assert "192.168.1.11, pi.local" in said.out
    for name in ("host", "pi", "odroid"):
        Identity.read(keys / name)


def test_init_as_json_says_what_is_new(nonn_plan, keys):
    first = nonn_plan("keys", "init", keys, "--board", "pi", "--json").document
    assert first["made"] == ["authority", "host", "pi"]
    again = nonn_plan("keys", "init", keys, "--board", "pi", "--board", "odroid", "--json").document
    assert again["made"] == ["odroid"]
    old = {each["name"]: each for each in first["certificates"]}
    new = {each["name"]: each for each in again["certificates"]}
    assert {name: new[name] for name in old} == old
    assert "nothing, all of it was there" in nonn_plan("keys", "init", keys).out


def test_init_takes_the_boards_of_a_plan(nonn_plan, keys, plan_file):
    address = "rpi-3b-2=192.168.1.12"
    said = nonn_plan("keys", "init", keys, "--plan", plan_file, "--board", address, "--json")
    assert sorted(said.document["made"]) == ["authority", "host", "rpi-3b-1", "rpi-3b-2"]
    addresses = {each["name"]: each["addresses"] for each in said.document["certificates"]}
    assert addresses["rpi-3b-1"] == []
    assert addresses["rpi-3b-2"] == ["192.168.1.12"]


def test_a_plan_that_is_no_plan(nonn_plan, keys, tmp_path):
    said = nonn_plan("keys", "init", keys, "--plan", tmp_path / "none.json")
    assert said.code == 2
    assert not keys.exists()


@pytest.mark.parametrize("typed", ["Pi", "host", "pi=", "pi=192.168.1.11:8001"])
def test_a_wrong_board_is_bad_input_and_makes_nothing(nonn_plan, keys, typed):
    said = nonn_plan("keys", "init", keys, "--board", "good", "--board", typed)
    assert said.code == 2
    assert "--board" in said.err
    assert not keys.exists()


def test_show(nonn_plan, keys):
    made = nonn_plan("keys", "init", keys, "--board", "pi=::1", "--json").document
    said = nonn_plan("keys", "show", keys, "--json")
    assert said.document == made["certificates"]
    authority, host, pi = said.document
    assert (authority["purposes"], host["purposes"], pi["purposes"]) == (
        ["authority"], ["host"], ["board"],
    )  # fmt: skip
    assert pi["addresses"] == ["::1"]
    assert datetime.fromisoformat(pi["valid_from"]) < datetime.fromisoformat(pi["valid_until"])
    table = nonn_plan("keys", "show", keys).out
    assert pi["valid_until"][:10] in table
    assert pi["fingerprint"][:40] in table
    assert "expired" not in table


def test_show_on_a_board_which_has_its_own_folder_alone(nonn_plan, keys, tmp_path):
    nonn_plan("keys", "init", keys, "--board", "pi")
    shutil.copytree(keys / "pi", tmp_path / "board" / "pi")
    (row,) = nonn_plan("keys", "show", tmp_path / "board", "--json").document
    assert row["name"] == "pi"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_show_without_keys_is_bad_input(nonn_plan, keys, content):
    if content:
        (keys / "pi").mkdir(parents=True)
        (keys / "pi" / "certificate.pem").write_text(content)
    said = nonn_plan("keys", "show", keys)
    assert said.code == 2
    assert str(keys) in said.err


def test_keys_load_neither_torch_nor_a_solver(keys, plan_file):
    arguments = ["nonn-plan", "keys", "init", str(keys), "--plan", str(plan_file)]
    code = (
        f"import sys; sys.argv = {arguments!r}\nfrom nonn_plan.__main__ import run\n"
        "try: run()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'ortools', 'onnxruntime', 'scipy.optimize'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def reissued(keys, subject, now):
    """Write a certificate and key that the authority would have made at another time."""
    pair = CertificateAuthority.read(keys / "authority").issue(subject, now)
    (keys / subject.name / "certificate.pem").write_bytes(pair.certificate)
    (keys / subject.name / "key.pem").write_bytes(pair.key)


def test_what_ends_soon_is_renewed_with_its_names_and_key(nonn_plan, keys):
    nonn_plan("keys", "init", keys, "--board", "pi=10.0.0.7", "--board", "odroid")
    soon = datetime.now(UTC) - LEAF_LIFE + timedelta(days=20, hours=1)
    reissued(keys, board_subject("pi", ("10.0.0.7",)), soon)
    (warning,) = Identity.read(keys / "pi").expiry_warnings()
    assert "pi/certificate.pem is valid until" in warning and "20 days more" in warning
    assert "keys renew" in warning
    key, odroid = (keys / "pi" / "key.pem").read_bytes(), Identity.read(keys / "odroid")
    said = nonn_plan("keys", "renew", keys, "--json")
    assert said.code == 0, said.err
    assert said.document["renewed"] == ["pi"]
    (found,) = [one for one in said.document["certificates"] if one["name"] == "pi"]
    assert found["addresses"] == ["10.0.0.7"]
    left = datetime.fromisoformat(found["valid_until"]) - datetime.now(UTC)
    assert timedelta(days=730) < left <= LEAF_LIFE
    assert (keys / "pi" / "key.pem").read_bytes() == key
    renewed = Identity.read(keys / "pi")
    assert renewed.expiry_warnings() == ()
    renewed.require("board")
    assert Identity.read(keys / "odroid") == odroid
    assert "nothing, all of it is valid for longer" in nonn_plan("keys", "renew", keys).out
    assert nonn_plan("keys", "renew", keys, "host", "--json").document["renewed"] == ["host"]


def test_what_is_over_is_renewed_as_well(nonn_plan, keys):
    nonn_plan("keys", "init", keys)
    reissued(keys, HOST_SUBJECT, datetime.now(UTC) - LEAF_LIFE - timedelta(days=3))
    assert nonn_plan("keys", "renew", keys, "--json").document["renewed"] == ["host"]
    Identity.read(keys / "host").require("host")


@pytest.mark.parametrize("name, told", [("nobody", "allowed: host, pi"), ("authority", "init")])
def test_who_cannot_be_renewed_is_said_and_nobody_is(nonn_plan, keys, name, told):
    nonn_plan("keys", "init", keys, "--board", "pi")
    before = {path: path.read_bytes() for path in keys.rglob("*.pem")}
    said = nonn_plan("keys", "renew", keys, "pi", name)
    assert said.code == 2
    assert told in said.err
    assert {path: path.read_bytes() for path in keys.rglob("*.pem")} == before


def test_a_worker_waits_for_the_time_instead_of_ending(nonn_plan, keys, monkeypatch, caplog):
    nonn_plan("keys", "init", keys, "--board", "pi")
    early = datetime.now(UTC) + BACKDATED + timedelta(days=200)
    reissued(keys, board_subject("pi"), early)
    with pytest.raises(NotYetValidError):
        Identity.read(keys / "pi")
    pauses = []

    def sleep(pause_s):
        pauses.append(pause_s)
        if len(pauses) == 9:  # the time server has answered
            reissued(keys, board_subject("pi"), datetime.now(UTC))

    monkeypatch.setattr(worker.time, "sleep", sleep)
    with caplog.at_level(logging.WARNING):
        assert worker._identity_in_time(keys / "pi", insecure=False) == Identity.read(keys / "pi")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(caplog.messages) == 6
    assert "waiting for the right time" in caplog.text and "is valid only from" in caplog.text


def test_what_is_taken_back_is_listed_for_each_board(nonn_plan, keys):
    nonn_plan("keys", "init", keys, "--board", "pi", "--board", "odroid")
    said = nonn_plan("keys", "revoke", keys, "odroid", "--json")
    assert (said.code, said.document) == (0, {"revoked": ["odroid"]})
    (serial,) = Identity.read(keys / "pi").revoked
    assert {Identity.read(keys / name).revoked for name in ("host", "odroid")} == {
        frozenset({serial})
    }
    assert "taken back: nothing new" in nonn_plan("keys", "revoke", keys, "odroid").out
    assert nonn_plan("keys", "revoke", keys, "nobody").code == 2
