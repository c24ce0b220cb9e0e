"""What a certificate says: its name, what it is good for, its addresses, until when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Purpose = Literal["authority", "host", "board"]
"""An authority signs certificates, a host calls boards, a board answers."""

USAGES = {"host": ExtendedKeyUsageOID.CLIENT_AUTH, "board": ExtendedKeyUsageOID.SERVER_AUTH}

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What people want to know of a certificate; `fingerprint` is SHA-256, in hexadecimal."""

    name: str
    purposes: tuple[Purpose, ...]
    addresses: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime
    fingerprint: str


def facts(certificate: x509.Certificate) -> CertificateFacts:
    """Return what `certificate` says."""
    name = _common_name(certificate)
    return CertificateFacts(
        name=name,
        purposes=purposes(certificate),
        addresses=tuple(each for each in _subjects(certificate) if each != name),
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )


def purposes(certificate: x509.Certificate) -> tuple[Purpose, ...]:
    """Return what the certificate is good for; one that does not say is good for both ends."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return ("authority",)
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    ends: tuple[Purpose, ...] = ("host", "board")
    return tuple(end for end in ends if usage is None or USAGES[end] in usage)


def _common_name(certificate: x509.Certificate) -> str:
    return "".join(
        str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    )


def _subjects(certificate: x509.Certificate) -> Iterable[str]:
    """Return the names and addresses that the certificate vouches for."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return () if names is None else (str(each.value) for each in names)


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
