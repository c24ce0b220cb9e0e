"""Certificates and private keys as PEM files: read, with one clear error for what is wrong."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from profiles.errors import InputError

CERTIFICATE, KEY = "certificate.pem", "key.pem"

NEW_KEYS = "move its folder away and run `nonn-plan keys init` again"


def content(path: Path) -> bytes:
    """Return what `path` holds; raises InputError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            "no such file", where=str(path), fix="`nonn-plan keys init` makes folders of keys"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            fix="the user that runs this must be able to read it",
        ) from None


def certificate(pem: bytes, where: Path) -> x509.Certificate:
    """Return the first certificate of `pem`, which came from `where`; raises InputError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InputError("holds no certificate in PEM form", where=str(where)) from None


def key(pem: bytes, where: Path) -> PrivateKeyTypes:
    """Return the private key of `pem`, which came from `where`; raises InputError."""
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError(
            "the key is encrypted, and nobody is there to type its password", where=str(where)
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("holds no private key in PEM form", where=str(where)) from None


def require_pair(one: x509.Certificate, private: PrivateKeyTypes, folder: Path) -> None:
    """Make sure that `private` is the key of the certificate; raises InputError."""
    known, own = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (one.public_key(), private.public_key())
    )
    if known != own:
        raise InputError(
            f"is not the key of the {CERTIFICATE} beside it",
            where=str(folder / KEY),
            fix="copy the whole folder again",
        )


def require_issued(one: x509.Certificate, authority: x509.Certificate, where: Path) -> None:
    """Make sure that `authority` signed the certificate; raises InputError."""
    try:
        one.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise InputError(
            "was not signed by the authority beside it",
            where=str(where),
            fix=f"copy the whole folder again, or {NEW_KEYS}",
        ) from None


def require_now(one: x509.Certificate, where: Path) -> None:
    """Make sure that the certificate is valid now, by this machine's clock; raises InputError."""
    now = datetime.now(UTC)
    if now < one.not_valid_before_utc:
        raise InputError(
            f"is valid only from {_day(one.not_valid_before_utc)} on; this machine's clock says "
            f"{_day(now)}",
            where=str(where),
            fix="set the clock: a board without a battery starts with an old date until it "
            "reaches a time server",
        )
    if now > one.not_valid_after_utc:
        raise InputError(
            f"was valid until {_day(one.not_valid_after_utc)}; this machine's clock says "
            f"{_day(now)}",
            where=str(where),
            fix=f"if the clock is right, {NEW_KEYS}",
        )


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
