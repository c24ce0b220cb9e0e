"""Revocation of certificates: a list that the authority signs, beside the keys of each process.

The list is X.509's (RFC 5280, section 5).  It holds serial numbers of certificates that are not to
be trusted any more, and is valid as long as the authority: boards without a network keep the last.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from boards.tls.authority import BACKDATED, CertificateAuthority
from boards.tls.credential import (
    AUTHORITY_NAME,
    CERTIFICATE_FILE,
    REVOKED_FILE,
    parse_certificate,
    read_content,
    read_revoked,
    require_issued,
)
from boards.tls.renewal import RENEWED_FOLDER, issued_certificates
from nonn_common.document import write_atomic


def revoke_keys(keys: Path, names: Collection[str]) -> tuple[str, ...]:
    """Take back the certificates of these names, those from before a renewal among them.

    The list is written into each folder of the keyring, for the boards to be given.  Returns the
    names that were not in it yet.  Raises InputError, before anything is written, for an unknown
    name and for the authority; NonnError where the system refuses.
    """
    known = issued_certificates(keys, names, "no certificate that can be taken back")
    authority = CertificateAuthority.read(keys / AUTHORITY_NAME)
    where = keys / AUTHORITY_NAME / REVOKED_FILE
    before = read_revoked(where, authority.certificate) or frozenset()
    serials = {name: _serials(keys, name, authority.certificate) for name in dict.fromkeys(names)}
    content = _signed(authority, before.union(*serials.values()))
    for folder in (keys / AUTHORITY_NAME, *(keys / name for name in known)):
        write_atomic(folder / REVOKED_FILE, content)
    return tuple(name for name, found in serials.items() if not found <= before)


def _serials(keys: Path, name: str, authority: x509.Certificate) -> frozenset[int]:
    """Serial numbers of all certificates that a name has had in this keyring."""
    paths = [
        keys / name / CERTIFICATE_FILE,
        *(keys / AUTHORITY_NAME / RENEWED_FOLDER).glob(f"{name}-*.pem"),
    ]
    found = [parse_certificate(read_content(path), path) for path in paths]
    for one, path in zip(found, paths, strict=True):
        require_issued(one, authority, path)
    return frozenset(one.serial_number for one in found)


def _signed(authority: CertificateAuthority, serials: Iterable[int]) -> bytes:
    """List of serial numbers, as PEM."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        # As certificates do: clocks of boards are late, or in another time zone.
        .last_update(now - BACKDATED)
        .next_update(authority.certificate.not_valid_after_utc)
    )
    for serial in sorted(serials):
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        builder = builder.add_revoked_certificate(one.build())
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)
