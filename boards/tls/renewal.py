"""Renewal of certificates: the same names and the same key for a new time.

A board goes on with its old certificate until it is over, so that boards are renewed one by one.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from boards.tls.authority import BACKDATED, LEAF_LIFE, CertificateAuthority, list_keys
from boards.tls.credential import (
    AUTHORITY_NAME,
    CERTIFICATE_FILE,
    KEY_FILE,
    NEW_KEYS,
    CertificateInfo,
    parse_certificate,
    parse_key,
    read_content,
    require_issued,
    require_key_pair,
)
from boards.tls.identity import EXPIRING
from nonn_common.document import write_atomic
from nonn_common.errors import InputError

RENEWED_FOLDER = "renewed"
"""Folder of the authority with certificates from before a renewal, which may be revoked as well."""


def renew_keys(keys: Path, names: Collection[str] = ()) -> tuple[str, ...]:
    """Renew the named certificates of a keyring, or those that end within 30 days.

    Returns the names of those that were renewed; keys stay as they are.  Raises InputError, before
    anything is written, for an unknown name, for the authority, and where that ends as soon;
    NonnError where the system refuses.
    """
    now = datetime.now(UTC)
    found = issued_certificates(keys, names, "no certificate that can be renewed")
    soon = [name for name, one in found.items() if one.valid_until - now < EXPIRING]
    chosen = names or soon
    if not chosen:
        return ()
    authority = CertificateAuthority.read(keys / AUTHORITY_NAME)
    if authority.certificate.not_valid_after_utc - now < EXPIRING:
        raise InputError(
            "the authority itself ends within 30 days, and vouches for nobody longer",
            where=str(keys / AUTHORITY_NAME / CERTIFICATE_FILE),
            fix=f"make all keys anew: {NEW_KEYS}",
        )
    renewed = {name: _renewed(authority, keys / name, now) for name in dict.fromkeys(chosen)}
    for name, content in renewed.items():
        path = keys / name / CERTIFICATE_FILE
        old = parse_certificate(read_content(path), path)
        kept = keys / AUTHORITY_NAME / RENEWED_FOLDER / f"{name}-{old.serial_number:x}.pem"
        write_atomic(kept, old.public_bytes(Encoding.PEM))
        write_atomic(path, content)
    return tuple(renewed)


def issued_certificates(
    keys: Path, names: Collection[str], fault: str
) -> dict[str, CertificateInfo]:
    """Certificates of host and boards in a keyring, by name.

    Raises InputError with this fault where one of `names` is not among them.
    """
    every = {each.name: each for each in list_keys(keys)}
    found = {name: one for name, one in every.items() if "authority" not in one.purposes}
    for name in names:
        if name not in found:
            raise InputError(
                fault,
                where=str(keys),
                found=name,
                allowed=", ".join(found),
                fix=f"the authority is made anew alone: {NEW_KEYS}"
                if name == AUTHORITY_NAME
                else None,
            )
    return found


def _renewed(authority: CertificateAuthority, folder: Path, now: datetime) -> bytes:
    """Certificate of a folder for a new time, as PEM, which never outlives the authority's."""
    where = folder / CERTIFICATE_FILE
    old = parse_certificate(read_content(where), where)
    require_issued(old, authority.certificate, where)
    require_key_pair(old, parse_key(read_content(folder / KEY_FILE), folder / KEY_FILE), folder)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(authority.certificate.subject)
        .subject_name(old.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc))
    )
    for each in old.extensions:
        builder = builder.add_extension(each.value, each.critical)
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)
