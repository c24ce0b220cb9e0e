"""A certificate authority of one's own: it signs the certificate of the host and of each board.

X.509 v3, EC keys on P-256.  Each certificate is good for one end: a host's only calls, a board's
only answers, so that a board whose key was stolen cannot command the others.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from boards.credentials import pem
from boards.credentials.facts import USAGES, purposes
from boards.credentials.holder import HOST, Holder, as_ip
from profiles.errors import InputError

BACKDATED = timedelta(days=1)
"""How long ago certificates begin: clocks of boards are late, or in another time zone."""
AUTHORITY_LIFE = timedelta(days=3653)
LEAF_LIFE = timedelta(days=731)
"""Ten years and two: no certificate is ever revoked, so those that travel expire sooner."""

_TITLE = "nonn-plan authority"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
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
            _begun(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
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
        where = folder / pem.CERTIFICATE
        certificate = pem.certificate(pem.content(where), where)
        key = pem.key(pem.content(folder / pem.KEY), folder / pem.KEY)
        pem.require_pair(certificate, key, folder)
        is_ours = purposes(certificate) == ("authority",)
        if not is_ours or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputError("is no authority that `nonn-plan keys init` made", where=str(where))
        pem.require_now(certificate, where)
        return cls(certificate, key)

    @property
    def pair(self) -> KeyPair:
        """Its own certificate and key."""
        return _pair(self.certificate, self.key)

    def issue(self, holder: Holder, now: datetime) -> KeyPair:
        """Make a key for `holder` and a certificate, which never outlives the authority's."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + LEAF_LIFE, self.certificate.not_valid_after_utc)
        usage = USAGES["host" if holder.name == HOST else "board"]
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        built = (
            _begun(self.certificate.subject, _name(holder.name), key.public_key(), now, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(_subjects(holder)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )
        return _pair(built.sign(self.key, SHA256()), key)


def _begun(
    issuer: x509.Name,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    """Begin a certificate with what all of them have."""
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


def _subjects(holder: Holder) -> list[x509.GeneralName]:
    """Return the holder's name and addresses, each once."""
    addresses = [(each, as_ip(each)) for each in holder.addresses if each != holder.name]
    return [
        x509.DNSName(holder.name),
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


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
