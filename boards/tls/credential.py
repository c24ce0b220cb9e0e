"""Credentials: subjects, certificates, private keys.

The host asks for a board by the board's NAME, so no certificate may carry the name of another
board.  Names are single DNS labels in lower case, because DNS and some file systems take `A` for
`a`; host names with a dot in them can therefore never be taken for a board.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nonn_common.errors import InputError
from profiles.board_name import DNS_LABEL, DNS_LABELS, NO_BOARDS

AUTHORITY_NAME, HOST_NAME = NO_BOARDS

_LARGEST_HOST_NAME = 253

USAGES = {"host": ExtendedKeyUsageOID.CLIENT_AUTH, "board": ExtendedKeyUsageOID.SERVER_AUTH}
CERTIFICATE_FILE, KEY_FILE = "certificate.pem", "key.pem"
NEW_KEYS = "move its folder away and run `nonn-plan keys init` again"
RENEWAL = "run `nonn-plan keys renew` where its authority is, and copy the new certificate.pem"
AUTHORITY_FILE, REVOKED_FILE = "authority.pem", "revoked.pem"


@dataclass(frozen=True, slots=True)
class Subject:
    """Subject of a certificate; `addresses` are IP addresses and host names.

    A board that `sends` may hand maps of G0 on.
    """

    name: str
    addresses: tuple[str, ...] = ()
    sends: bool = False


HOST_SUBJECT = Subject(HOST_NAME)


def board_subject(name: str, addresses: Iterable[str] = (), where: str | None = None) -> Subject:
    """Return the board called `name`; raises InputError for what no certificate can hold."""
    if not DNS_LABEL.fullmatch(name):
        raise InputError(
            "not a name that a board's certificate can hold",
            where=where,
            found=name,
            allowed=DNS_LABELS,
        )
    if name in NO_BOARDS:
        raise InputError("no board may have this name", where=where, found=name)
    return Subject(name, tuple(_normalised_address(each, where) for each in addresses))


def parse_board_subject(text: str, where: str = "--board") -> Subject:
    """Read `NAME` or `NAME=ADDRESS[,ADDRESS]...`; raises InputError."""
    name, equals, addresses = text.partition("=")
    return board_subject(name.strip(), addresses.split(",") if equals else (), where)


def as_ip(address: str) -> IPv4Address | IPv6Address | None:
    """Return an address as an IP address; None for a host name."""
    try:
        return ip_address(address)
    except ValueError:
        return None


def require_distinct(addresses_of: Mapping[str, Iterable[str]]) -> None:
    """Refuse a board whose address is another board's name; raises InputError.

    `addresses_of` has those of each board.  The certificate would pass for the other board's.
    """
    pairs = ((name, address) for name, each in addresses_of.items() for address in each)
    for name, address in pairs:
        if address in addresses_of and address != name:
            raise InputError(
                f"the address of board {name} is the name of another board",
                found=address,
                fix="use its IP address, or a host name with a dot in it",
            )


def _normalised_address(text: str, where: str | None) -> str:
    """Return an address as certificates write it; raises InputError."""
    typed = text.strip().lower()
    found = as_ip(typed)
    if found is not None and "%" in typed:
        raise InputError(
            "a zone is this machine's own name of an interface; certificates hold none",
            where=where,
            found=text,
            allowed=f"{typed.partition('%')[0]}, without a zone, as without a port",
        )
    if found is not None:
        return str(found)
    labels = typed.removesuffix(".").split(".")
    # A last label of digits is an IP address that somebody mistyped.
    if (
        len(typed) > _LARGEST_HOST_NAME
        or labels[-1].isdigit()
        or not all(map(DNS_LABEL.fullmatch, labels))
    ):
        raise InputError(
            "not an address that a certificate can hold",
            where=where,
            found=text,
            allowed="an IP address or a host name, without a port",
        )
    return ".".join(labels)


Purpose = Literal["authority", "host", "board"]
"""An authority signs certificates, a host calls boards, a board answers."""


_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """Information on a certificate; `fingerprint` is SHA-256, in hexadecimal."""

    name: str
    purposes: tuple[Purpose, ...]
    addresses: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime
    fingerprint: str


def certificate_info(certificate: x509.Certificate) -> CertificateInfo:
    """Information on a certificate."""
    name = common_name(certificate)
    return CertificateInfo(
        name=name,
        purposes=purposes(certificate),
        addresses=tuple(each for each in alternative_names(certificate) if each != name),
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )


def purposes(certificate: x509.Certificate) -> tuple[Purpose, ...]:
    """Purposes of a certificate; both ends where it names none."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return ("authority",)
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    ends: tuple[Purpose, ...] = ("host", "board")
    return tuple(end for end in ends if usage is None or USAGES[end] in usage)


def sending_board(certificate: x509.Certificate) -> str:
    """Name of a calling board, whose certificate names both ends; nothing for a host."""
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    both = usage is not None and all(each in usage for each in USAGES.values())
    return common_name(certificate) if both else ""


def common_name(certificate: x509.Certificate) -> str:
    """Common name of a certificate's subject."""
    return "".join(
        str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    )


def alternative_names(certificate: x509.Certificate) -> Iterable[str]:
    """Return the names and addresses that the certificate vouches for."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return () if names is None else (str(each.value) for each in names)


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def read_content(path: Path) -> bytes:
    """Read a file; raises InputError."""
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


def parse_certificate(pem: bytes, where: Path) -> x509.Certificate:
    """Return the first certificate of `pem`, which came from `where`; raises InputError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InputError("holds no certificate in PEM form", where=str(where)) from None


def parse_key(pem: bytes, where: Path) -> PrivateKeyTypes:
    """Return the private key of `pem`, which came from `where`; raises InputError."""
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError(
            "the key is encrypted, and nobody is there to type its password", where=str(where)
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("holds no private key in PEM form", where=str(where)) from None


def require_key_pair(one: x509.Certificate, private: PrivateKeyTypes, folder: Path) -> None:
    """Make sure that `private` is the key of the certificate; raises InputError."""
    known, own = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (one.public_key(), private.public_key())
    )
    if known != own:
        raise InputError(
            f"is not the key of the {CERTIFICATE_FILE} beside it",
            where=str(folder / KEY_FILE),
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


def read_revoked(path: Path, authority: x509.Certificate) -> frozenset[int] | None:
    """Serial numbers of an authority's list of revoked certificates; None where there is none.

    An empty file is none.  Raises InputError for one that is no list, or another authority's.
    """
    content = read_content(path) if path.exists() else b""
    if not content.strip():
        return None
    try:
        found = x509.load_pem_x509_crl(content)
    except ValueError:
        raise InputError("holds no list of revoked certificates", where=str(path)) from None
    key = authority.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not found.is_signature_valid(key):
        raise InputError(
            "was not signed by the authority beside it",
            where=str(path),
            fix="copy the file again that `nonn-plan keys revoke` wrote",
        )
    return frozenset(one.serial_number for one in found)


class NotYetValidError(InputError):
    """A certificate that begins later than this machine's clock says it is."""


def require_valid_now(one: x509.Certificate, where: Path) -> None:
    """Make sure that the certificate is valid now, by this machine's clock.

    Raises InputError, and NotYetValidError where that may change by itself.
    """
    if fault := fault_of_validity(one):
        what, fix = fault
        early = datetime.now(UTC) < one.not_valid_before_utc
        raise (NotYetValidError if early else InputError)(what, where=str(where), fix=fix)


def fault_of_validity(one: x509.Certificate) -> tuple[str, str] | None:
    """Fault in the time of a certificate, and its fix; None where it is valid."""
    now = datetime.now(UTC)
    clock = f"this machine's clock says {_day(now)}"
    if now < one.not_valid_before_utc:
        return (
            f"is valid only from {_day(one.not_valid_before_utc)} on; {clock}",
            "set the clock: a board without a battery starts with an old date until it reaches a "
            "time server",
        )
    if now > one.not_valid_after_utc:
        return (
            f"was valid until {_day(one.not_valid_after_utc)}; {clock}",
            f"if the clock is right, {NEW_KEYS if one.issuer == one.subject else RENEWAL}",
        )
    return None


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
