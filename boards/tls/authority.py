"""The certificate authority of a fleet, and the keyring folder of all its keys.

X.509 v3, EC keys on P-256.  Each certificate is good for one end: a host's only calls, a board's
only answers, so that a board whose key was stolen cannot command the others.  A board that hands
maps of G0 on is good for both; boards take maps from it, and nothing else.

::

    KEYS/authority/  certificate.pem, key.pem                 stays where it is
    KEYS/host/       authority.pem, certificate.pem, key.pem  for `host`, `validate` and the like
    KEYS/<board>/    authority.pem, certificate.pem, key.pem  goes to that board

A folder is made under a temporary name and then renamed: what has its name is whole.  Nothing that
exists is replaced.
"""

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from boards.tls import credential
from boards.tls.credential import (
    AUTHORITY_FILE,
    AUTHORITY_NAME,
    HOST_NAME,
    HOST_SUBJECT,
    USAGES,
    CertificateInfo,
    Subject,
    as_ip,
    certificate_info,
    purposes,
    require_distinct,
)
from boards.tls.identity import Identity
from nonn_common.errors import InputError, NonnError

BACKDATED = timedelta(days=1)
"""How long ago certificates begin: clocks of boards are late, or in another time zone."""
AUTHORITY_LIFE = timedelta(days=3653)
LEAF_LIFE = timedelta(days=731)
"""Ten years and two: those that travel expire sooner."""

_TITLE = "nonn-plan authority"

_UNFINISHED = ".new-"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The authority's own certificate and private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, now: datetime) -> Self:
        """Make a new authority, which vouches for itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(_TITLE)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        built = (
            _certificate_builder(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
                critical=False,
            )
        )
        return cls(built.sign(key, SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the authority in `folder`.

        Raises InputError where it is missing, broken, expired, or no authority of ours.
        """
        where = folder / credential.CERTIFICATE_FILE
        certificate = credential.parse_certificate(credential.read_content(where), where)
        key = credential.parse_key(
            credential.read_content(folder / credential.KEY_FILE), folder / credential.KEY_FILE
        )
        credential.require_key_pair(certificate, key, folder)
        is_ours = purposes(certificate) == ("authority",)
        if not is_ours or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError("is no authority that `nonn-plan keys init` made", where=str(where))
        credential.require_valid_now(certificate, where)
        return cls(certificate, key)

    @property
    def pair(self) -> KeyPair:
        """Its own certificate and key."""
        return _encoded(self.certificate, self.key)

    def issue(self, subject: Subject, now: datetime) -> KeyPair:
        """Make a key and a certificate for `subject`, which never outlives the authority's."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + LEAF_LIFE, self.certificate.not_valid_after_utc)
        usages = [USAGES["host" if subject.name == HOST_NAME else "board"]]
        usages += [USAGES["host"]] if subject.sends else []
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        built = (
            _certificate_builder(
                self.certificate.subject, _name(subject.name), key.public_key(), now, until
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(_alternative_names(subject)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )
        return _encoded(built.sign(self.key, SHA256()), key)


def _certificate_builder(
    issuer: x509.Name,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    """Begin a certificate with the fields that all of them have."""
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_names(subject: Subject) -> list[x509.GeneralName]:
    """Return the subject's name and addresses, each once."""
    addresses = [(each, as_ip(each)) for each in subject.addresses if each != subject.name]
    return [
        x509.DNSName(subject.name),
        *(
            x509.DNSName(text) if address is None else x509.IPAddress(address)
            for text, address in dict.fromkeys(addresses)
        ),
    ]


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _encoded(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def make_keys(keys: Path, boards: Sequence[Subject]) -> tuple[str, ...]:
    """Make the folders that are missing: the authority's, the host's, each board's.

    Returns the names of the folders that were made.  A run that was killed is finished by the next.
    Raises InputError, before anything is made, where a board is named twice or a folder that exists
    is not what was asked for; NonnError where the system refuses.
    """
    repeated = [name for name, count in Counter(each.name for each in boards).items() if count > 1]
    if repeated:
        raise InputError("a board is named twice", found=", ".join(repeated))
    try:
        with _locked(keys):
            return _make_missing(keys, (HOST_SUBJECT, *boards))
    except (FileExistsError, NotADirectoryError):
        raise InputError("a file is where a folder of keys should be", where=str(keys)) from None
    except OSError as error:
        raise NonnError(
            f"{keys}: keys cannot be made here: {error.strerror or error}; what is whole stays; "
            "make room or choose another place, and run the command again"
        ) from error


def list_keys(keys: Path) -> tuple[CertificateInfo, ...]:
    """Information on the certificates of a keyring: authority, host, boards.

    Raises InputError where there are none, or where one cannot be read.
    """
    folders = _folders(keys)
    if not folders:
        raise InputError(
            "holds no keys", where=str(keys), fix=f"make them: nonn-plan keys init {keys}"
        )
    return tuple(_read_info(keys / name) for name in folders)


def _make_missing(keys: Path, subjects: Sequence[Subject]) -> tuple[str, ...]:
    missing = [each for each in subjects if not _exists(keys / each.name)]
    for subject in subjects:
        if subject not in missing:
            _require_matching(keys, subject)
    addresses = {name: _read_info(keys / name).addresses for name in _folders(keys)}
    require_distinct({**addresses, **{each.name: each.addresses for each in missing}})
    authority, made = _read_or_make_authority(keys)
    others = {AUTHORITY_FILE: authority.pair.certificate}
    if (revoked := keys / AUTHORITY_NAME / credential.REVOKED_FILE).exists():
        others[credential.REVOKED_FILE] = credential.read_content(revoked)
    for subject in missing:
        _write_folder(keys / subject.name, authority.issue(subject, datetime.now(UTC)), others)
    return (*made, *(each.name for each in missing))


def _read_or_make_authority(keys: Path) -> tuple[CertificateAuthority, tuple[str, ...]]:
    """Return the authority of `keys`, and its name if it had to be made."""
    folder = keys / AUTHORITY_NAME
    if _exists(folder):
        return CertificateAuthority.read(folder), ()
    if _folders(keys):
        raise InputError(
            "the authority that signed the certificates beside it is not here",
            where=str(folder),
            fix="put it back, or make all keys in another folder",
        )
    authority = CertificateAuthority.make(datetime.now(UTC))
    _write_folder(folder, authority.pair, {})
    return authority, (AUTHORITY_NAME,)


def _require_matching(keys: Path, subject: Subject) -> None:
    """Make sure that an existing folder is the subject's; raises InputError."""
    folder = keys / subject.name
    where = str(folder / credential.CERTIFICATE_FILE)
    identity = Identity.read(folder)
    certificate = credential.parse_certificate(identity.certificate, Path(where))
    known = keys / AUTHORITY_NAME / credential.CERTIFICATE_FILE
    if _exists(known):
        credential.require_issued(
            certificate,
            credential.parse_certificate(credential.read_content(known), known),
            Path(where),
        )
    found = certificate_info(certificate)
    if subject.sends and not credential.sending_board(certificate):
        raise InputError(
            "is there and cannot send maps of G0 to other boards; it is not replaced",
            where=where,
            fix=credential.NEW_KEYS,
        )
    if found.name != subject.name:
        raise InputError("is the certificate of another", where=where, found=found.name)
    if not set(subject.addresses) <= set(found.addresses):
        raise InputError(
            "is there and has other addresses; it is not replaced",
            where=where,
            found=", ".join(found.addresses) or "no address",
            allowed=", ".join(subject.addresses),
            fix=f"leave the addresses out, or {credential.NEW_KEYS}",
        )


def _folders(keys: Path) -> tuple[str, ...]:
    """Return the names of the folders of keys: the authority, the host, then the boards."""
    names = {path.parent.name for path in keys.glob(f"*/{credential.CERTIFICATE_FILE}")}
    found = {name for name in names if not name.startswith(_UNFINISHED)}
    return tuple(sorted(found, key=lambda name: (name != AUTHORITY_NAME, name != HOST_NAME, name)))


def _read_info(folder: Path) -> CertificateInfo:
    path = folder / credential.CERTIFICATE_FILE
    return certificate_info(credential.parse_certificate(credential.read_content(path), path))


def _exists(path: Path) -> bool:
    """Whether anything has this name, be it a link that leads nowhere."""
    return path.exists() or path.is_symlink()


@contextmanager
def _locked(keys: Path) -> Iterator[None]:
    """Keep other processes from making keys here; remove what one that was killed left."""
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(keys, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, keys)
        for unfinished in keys.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(unfinished)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, keys: Path) -> None:
    """Hold `keys` until its descriptor is closed, which the end of a process does, too."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NonnError(f"{keys}: keys are being made here already; wait for that") from None


def _write_folder(folder: Path, pair: KeyPair, others: Mapping[str, bytes]) -> None:
    """Write a folder of keys whole, durably, or not at all."""
    contents = {
        **others,
        credential.CERTIFICATE_FILE: pair.certificate,
        credential.KEY_FILE: pair.key,
    }
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        new.mkdir(mode=0o700)
        for name, content in contents.items():
            _write_file(new / name, content, 0o600 if name == credential.KEY_FILE else 0o644)
        _sync(new)
        new.rename(folder)
    _sync(folder.parent)


def _write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a new file whose mode is never wider, not even while empty."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
