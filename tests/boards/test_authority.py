"""Keys on disk: what certificates say, who may read keys, and that nothing is ever replaced."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from boards.tls.authority import (
    AUTHORITY_LIFE,
    BACKDATED,
    LEAF_LIFE,
    CertificateAuthority,
    list_keys,
    make_keys,
)
from boards.tls.credential import HOST_SUBJECT, Subject, board_subject, parse_board_subject
from boards.tls.identity import Identity
from nonn_common.errors import InputError, NonnError

NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)
OPENSSL = shutil.which("openssl")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A keyring, to be read only."""
    keys = tmp_path_factory.mktemp("made") / "keys"
    make_keys(
        keys,
        [
            board_subject("rpi-3b-1", ["192.168.1.11", "pi1.home.lan"]),
            board_subject("odroid", ["::1"]),
        ],
    )
    return keys


@pytest.fixture
def keys(made, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(made, tmp_path / "keys")


def test_each_folder_holds_what_its_owner_needs_and_no_more(made):
    found = {path.name: {file.name for file in path.iterdir()} for path in made.iterdir()}
    leaf = {"authority.pem", "certificate.pem", "key.pem"}
    assert found == {
        "authority": {"certificate.pem", "key.pem"},
        "host": leaf,
        "rpi-3b-1": leaf,
        "odroid": leaf,
    }
    for name in ("host", "rpi-3b-1", "odroid"):
        assert Identity.read(made / name).folder == made / name


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_keys(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_keys(tmp_path / "keys", [board_subject("a")])
    finally:
        os.umask(before)
    for folder in (tmp_path / "keys", *(tmp_path / "keys").iterdir()):
        assert mode(folder) == 0o700
    assert {mode(path) for path in tmp_path.rglob("key.pem")} == {0o600}
    assert {mode(path) for path in tmp_path.rglob("certificate.pem")} == {0o644 & ~umask}


def test_a_board_s_certificate_is_good_for_its_name_and_addresses():
    authority = CertificateAuthority.make(NOW)
    holder = board_subject("rpi", ["192.168.1.11", "FE80::1", "pi.local", "rpi", "pi.local"])
    certificate = x509.load_pem_x509_certificate(authority.issue(holder, NOW).certificate)
    extension = certificate.extensions.get_extension_for_class
    names = extension(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["rpi", "pi.local"]
    found = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert found == ["192.168.1.11", "fe80::1"]
    assert [each.dotted_string for each in extension(x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.1"
    ]
    assert extension(x509.BasicConstraints).critical
    assert not extension(x509.BasicConstraints).value.ca
    assert extension(x509.KeyUsage).critical
    assert not extension(x509.KeyUsage).value.key_cert_sign
    assert certificate.version is x509.Version.v3
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)


def test_host_and_authority_are_good_for_their_ends_alone(made):
    host, authority = (
        x509.load_pem_x509_certificate((made / name / "certificate.pem").read_bytes()).extensions
        for name in ("host", "authority")
    )
    usage = host.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in usage] == ["1.3.6.1.5.5.7.3.2"]
    constraints = authority.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True, True, 0,
    )  # fmt: skip
    assert authority.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_identifiers_name_the_signing_key(made):
    authority, leaf = (
        x509.load_pem_x509_certificate((made / name / "certificate.pem").read_bytes()).extensions
        for name in ("authority", "odroid")
    )
    own = authority.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for certificate in (authority, leaf):
        named = certificate.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert named.key_identifier == own
    assert leaf.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != own


def test_certificates_begin_a_day_ago_and_end_with_the_authority_at_the_latest():
    authority = CertificateAuthority.make(NOW)
    assert authority.certificate.not_valid_before_utc == NOW - BACKDATED
    assert authority.certificate.not_valid_after_utc == NOW + AUTHORITY_LIFE
    for asked, until in (
        (NOW, NOW + LEAF_LIFE),
        (NOW + AUTHORITY_LIFE - timedelta(days=3), NOW + AUTHORITY_LIFE),
    ):
        leaf = x509.load_pem_x509_certificate(authority.issue(HOST_SUBJECT, asked).certificate)
        assert leaf.not_valid_before_utc == asked - BACKDATED
        assert leaf.not_valid_after_utc == until


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command here")
@pytest.mark.parametrize(
    ("name", "purpose", "extra", "good"),
    [
        ("rpi-3b-1", "sslserver", [], True),
        ("rpi-3b-1", "sslclient", [], False),
        ("host", "sslclient", [], True),
        ("host", "sslserver", [], False),
        ("rpi-3b-1", "sslserver", ["-verify_hostname", "rpi-3b-1"], True),
        ("rpi-3b-1", "sslserver", ["-verify_hostname", "pi1.home.lan"], True),
        ("rpi-3b-1", "sslserver", ["-verify_hostname", "odroid"], False),
        ("rpi-3b-1", "sslserver", ["-verify_ip", "192.168.1.11"], True),
        ("rpi-3b-1", "sslserver", ["-verify_ip", "192.168.1.12"], False),
        ("odroid", "sslserver", ["-verify_ip", "::1"], True),
    ],
)
def test_openssl_agrees(made, name, purpose, extra, good):
    done = subprocess.run(
        [OPENSSL, "verify", "-x509_strict", "-purpose", purpose, *extra,
         "-CAfile", made / "authority" / "certificate.pem", made / name / "certificate.pem"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is good, done.stderr


def test_further_boards_get_the_same_authority_and_nothing_is_replaced(keys):
    before = contents(keys)
    assert make_keys(
        keys, [board_subject("odroid"), board_subject("late"), board_subject("later")]
    ) == ("late", "later")
    after = contents(keys)
    assert {path: after[path] for path in before} == before
    assert Identity.read(keys / "late").authority == Identity.read(keys / "host").authority
    assert make_keys(keys, [board_subject("late")]) == ()
    assert contents(keys) == after


def test_an_existing_board_is_taken_with_the_addresses_it_has_only(keys):
    assert make_keys(keys, [board_subject("rpi-3b-1", ["192.168.1.11"])]) == ()
    before = contents(keys)
    with pytest.raises(InputError, match=r"not replaced.*192\.168\.1\.11.*192\.168\.1\.99"):
        make_keys(keys, [board_subject("late"), board_subject("rpi-3b-1", ["192.168.1.99"])])
    assert contents(keys) == before


@pytest.mark.parametrize("removed", ["certificate.pem", "key.pem", "authority.pem"])
def test_a_folder_that_is_not_whole_is_neither_used_nor_replaced(keys, removed):
    (keys / "odroid" / removed).unlink()
    before = contents(keys)
    with pytest.raises(InputError, match=f"odroid/{removed}"):
        make_keys(keys, [board_subject("odroid"), board_subject("late")])
    assert contents(keys) == before


def test_an_empty_folder_or_a_dangling_link_is_not_replaced(tmp_path):
    for number, place in enumerate(("made", "linked")):
        keys = tmp_path / place
        keys.mkdir()
        if number:
            (keys / "a").symlink_to("nowhere")
        else:
            (keys / "a").mkdir()
        with pytest.raises(InputError, match=r"a/authority\.pem"):
            make_keys(keys, [board_subject("a")])
        assert [path.name for path in keys.iterdir()] == ["a"]


def test_keys_of_another_board_or_authority_are_not_taken(keys, tmp_path):
    shutil.copytree(keys / "odroid", keys / "copied")
    with pytest.raises(InputError, match=r"certificate of another; found 'odroid'"):
        make_keys(keys, [board_subject("copied")])
    make_keys(tmp_path / "other", [board_subject("late")])
    shutil.move(tmp_path / "other" / "late", keys / "late")
    with pytest.raises(InputError, match="not signed by the authority"):
        make_keys(keys, [board_subject("late")])


def test_without_its_authority_no_second_one_is_made(keys):
    shutil.rmtree(keys / "authority")
    before = contents(keys)
    with pytest.raises(InputError, match="authority that signed"):
        make_keys(keys, [board_subject("late")])
    assert contents(keys) == before


def test_an_authority_without_its_key_makes_nothing(keys):
    (keys / "authority" / "key.pem").unlink()
    with pytest.raises(InputError, match=r"authority/key\.pem"):
        make_keys(keys, [board_subject("late")])
    assert not (keys / "late").exists()


def test_a_board_s_keys_are_no_authority(keys):
    shutil.rmtree(keys / "authority")
    shutil.copytree(keys / "odroid", keys / "authority")
    for name in ("host", "rpi-3b-1", "odroid"):
        shutil.rmtree(keys / name)
    with pytest.raises(InputError, match="is no authority"):
        make_keys(keys, [board_subject("late")])
    assert not (keys / "host").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "keys"):
        with pytest.raises(InputError, match="a file is where"):
            make_keys(place, [])
    assert (tmp_path / "file").read_text() == "x"


def test_a_full_disk_leaves_what_is_whole_and_no_rest(tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 6:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NonnError, match="No space left"):
        make_keys(tmp_path, [board_subject("a")])
    assert [path.name for path in tmp_path.iterdir()] == ["authority"]


# Each child dies at a later fsync than the last; the first that lives ends it.
KILLED = """
import os, signal, sys
from pathlib import Path
from boards.tls.credential import board_subject
from boards.tls.authority import make_keys

sync = os.fsync
for last in range(100):
    keys = Path(sys.argv[1]) / str(last)
    child = os.fork()
    if child == 0:
        calls = []
        def dying(descriptor):
            calls.append(descriptor)
            if len(calls) > last:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)
        os.fsync = dying
        make_keys(keys, [board_subject("a"), board_subject("b")])
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_killed_at_any_moment_the_next_run_finishes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    # Authority: 2 files and 2 folders; host and two boards: 3 files and 2 folders each.
    assert len(runs) == 4 + 3 * 5 + 1
    rests = 0
    for keys in runs:
        names = {path.name for path in keys.iterdir() if not path.name.startswith(".")}
        rests += len(list(keys.iterdir())) - len(names)
        for name in names - {"authority"}:
            Identity.read(keys / name)
        before = {
            path: content for path, content in contents(keys).items() if ".new" not in str(path)
        }
        make_keys(keys, [board_subject("a"), board_subject("b")])
        after = contents(keys)
        assert {path.name for path in keys.iterdir()} == {"authority", "host", "a", "b"}
        assert {path: after[path] for path in before} == before
        for name in ("host", "a", "b"):
            Identity.read(keys / name)
    assert rests > 0


def test_two_runs_at_once_do_not_mix(keys):
    descriptor = os.open(keys, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(NonnError, match="being made here already"):
            make_keys(keys, [board_subject("late")])
    finally:
        os.close(descriptor)
    assert make_keys(keys, [board_subject("late")]) == ("late",)


@pytest.mark.parametrize("text", ["rpi-3b-1", "a", "0", "a" * 63, "xn--pi"])
def test_names_that_certificates_hold(text):
    assert parse_board_subject(text) == Subject(text)


@pytest.mark.parametrize(
    "text",
    ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a" * 64, "*", "../a", "a\nb", "host",
     "authority", ".new-x"],
)  # fmt: skip
def test_names_that_certificates_do_not_hold(text):
    with pytest.raises(InputError, match="--board"):
        parse_board_subject(text)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a=192.168.1.11", ("192.168.1.11",)),
        ("a= ::1 , Pi.Local ", ("::1", "pi.local")),
        ("a=0:0:0:0:0:0:0:1", ("::1",)),
        ("a=pi.local.", ("pi.local",)),
        ("a=3com", ("3com",)),
    ],
)
def test_addresses(typed, read):
    assert parse_board_subject(typed).addresses == read


@pytest.mark.parametrize(
    "address",
    ["", "192.168.1.11:8001", "[::1]", "fe80::1%eth0", "192.168.1.256", "192.168.1", "pi_1.local",
     "*.local", "a..b", ".", ".".join(["a" * 60] * 5), "pi.1"],
)  # fmt: skip
def test_what_is_no_address(address):
    with pytest.raises(InputError, match="without a port"):
        parse_board_subject(f"a={address}")


def test_no_board_can_pass_for_another(keys):
    for asked in (
        [board_subject("a", ["b"]), board_subject("b")],
        [board_subject("late", ["odroid"])],
        [board_subject("late", ["host"])],
    ):
        with pytest.raises(InputError, match="is the name of another"):
            make_keys(keys, asked)
    make_keys(keys, [board_subject("late", ["attic", "192.168.1.11"])])
    with pytest.raises(InputError, match="address of board late"):
        make_keys(keys, [board_subject("attic")])
    assert not (keys / "attic").exists()


def test_a_board_named_twice(tmp_path):
    with pytest.raises(InputError, match="named twice"):
        make_keys(tmp_path / "keys", [board_subject("a"), board_subject("a", ["10.0.0.1"])])
    assert not (tmp_path / "keys").exists()


def test_what_is_listed_is_what_certificates_say(made):
    found = list_keys(made)
    assert [each.name for each in found] == ["nonn-plan authority", "host", "odroid", "rpi-3b-1"]
    assert [each.purposes for each in found] == [("authority",), ("host",), ("board",), ("board",)]
    assert found[3].addresses == ("192.168.1.11", "pi1.home.lan")
    certificate = x509.load_pem_x509_certificate((made / "host/certificate.pem").read_bytes())
    assert found[1].valid_until == certificate.not_valid_after_utc


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command here")
def test_the_fingerprint_is_openssl_s(made):
    done = subprocess.run(
        [OPENSSL, "x509", "-noout", "-fingerprint", "-sha256",
         "-in", made / "host" / "certificate.pem"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = done.stdout.partition("=")[2].strip().replace(":", "").lower()
    assert list_keys(made)[1].fingerprint == shown


def test_no_keys_to_list(tmp_path):
    with pytest.raises(InputError, match="holds no keys"):
        list_keys(tmp_path)


def test_an_rsa_authority_is_not_ours(keys):
    """Its own certificate may be fine; ours sign with P-256."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    shutil.rmtree(keys)
    (keys / "authority").mkdir(parents=True)
    (keys / "authority/certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (keys / "authority/key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(InputError, match="is no authority"):
        make_keys(keys, [])
