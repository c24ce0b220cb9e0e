"""Identity of a process: its keys' folder, and the TLS settings that these keys make."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from boards.tls.credential import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    NEW_KEYS,
    RENEWAL,
    REVOKED_FILE,
    Purpose,
    alternative_names,
    common_name,
    fault_of_validity,
    parse_certificate,
    parse_key,
    purposes,
    read_content,
    read_revoked,
    require_issued,
    require_key_pair,
    require_valid_now,
    sending_board,
)
from nonn_common.errors import InputError

EXPIRING = timedelta(days=30)
"""Time before the end of a certificate from which on its user is warned."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A folder with authority.pem, certificate.pem and key.pem, and their PEM content."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    folder: Path
    revoked: frozenset[int] | None = None
    """Serial numbers of certificates that are not to be trusted; None without a list of them."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files and check that they match and are valid today.

        Raises InputError that names the file which is missing, broken, of another key or
        authority, expired or not yet valid, or a key that every user may read or change.
        """
        paths = [folder / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)]
        _require_private(paths[2])
        authority_pem, certificate_pem, key_pem = map(read_content, paths)
        authority = parse_certificate(authority_pem, paths[0])
        certificate = parse_certificate(certificate_pem, paths[1])
        require_key_pair(certificate, parse_key(key_pem, paths[2]), folder)
        require_issued(certificate, authority, paths[1])
        require_valid_now(authority, paths[0])
        require_valid_now(certificate, paths[1])
        revoked = read_revoked(folder / REVOKED_FILE, authority)
        return cls(authority_pem, certificate_pem, key_pem, folder, revoked)

    def server_context(self) -> ssl.SSLContext:
        """TLS settings of a board: 1.3, and only this authority's host may call.

        Raises InputError where the certificate is not good for a board.
        """
        self.require("board")
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        # A connection that is resumed would not look at certificates again.
        context.num_tickets = 0
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS settings of a host: 1.3, and only this authority's boards may answer.

        Wrap a socket with `server_hostname` set to the BOARD'S NAME, whatever its address.  Raises
        InputError where the certificate is not good for a host.
        """
        self.require("host")
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def sender_context(self) -> ssl.SSLContext:
        """TLS settings of a board that hands maps on, as those of a host.

        Raises InputError where the certificate lets it call nobody.
        """
        where = self.folder / CERTIFICATE_FILE
        if not sending_board(parse_certificate(self.certificate, where)):
            raise InputError(
                "this board's certificate does not let it send maps of G0 to other boards",
                where=str(where),
                fix=f"make its keys with `nonn-plan keys init --plan`: {NEW_KEYS}",
            )
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def fault_of_board(self, shown: x509.Certificate, board: str) -> str:
        """Reason why `shown` is not the certificate of `board`; nothing where it is."""
        where = self.folder / AUTHORITY_FILE
        try:
            shown.verify_directly_issued_by(parse_certificate(self.authority, where))
        except (ValueError, TypeError, InvalidSignature):
            return (
                f"the board's certificate is of another authority than {where}; host and boards "
                "need folders of one `nonn-plan keys init`: `nonn-plan keys show` tells which are"
            )
        if fault := fault_of_validity(shown):
            return f"the board's certificate {'; '.join(fault)}"
        if self.has_revoked(shown):
            return "the board's certificate was taken back with `nonn-plan keys revoke`"
        names, found = tuple(alternative_names(shown)), purposes(shown)
        if board not in names or "board" not in found:
            return (
                f"this is the certificate of {' and '.join(found)} {common_name(shown)}: two "
                "addresses of boards.yaml are swapped, or the board has keys of another"
            )
        return ""

    def has_revoked(self, shown: x509.Certificate) -> bool:
        """Whether a certificate of this authority was taken back."""
        return shown.serial_number in (self.revoked or ())

    def fault_of_time(self) -> str:
        """Reason why the own certificate is not valid now; nothing where it is."""
        where = self.folder / CERTIFICATE_FILE
        fault = fault_of_validity(parse_certificate(self.certificate, where))
        return f"{where} {'; '.join(fault)}" if fault else ""

    def expiry_warnings(self) -> tuple[str, ...]:
        """Sentences on certificates here that end within 30 days."""
        now, found = datetime.now(UTC), []
        contents = {AUTHORITY_FILE: self.authority, CERTIFICATE_FILE: self.certificate}
        for name, content in contents.items():
            where = self.folder / name
            end = parse_certificate(content, where).not_valid_after_utc
            if end - now < EXPIRING:
                fix = RENEWAL if name == CERTIFICATE_FILE else f"make all keys anew: {NEW_KEYS}"
                left = f"{(end - now).days} days more"
                found.append(f"{where} is valid until {end:%Y-%m-%d}, {left}; {fix}")
        return tuple(found)

    def require(self, purpose: Purpose) -> None:
        """Make sure that the certificate is good for `purpose`; raises InputError."""
        where = self.folder / CERTIFICATE_FILE
        certificate = parse_certificate(self.certificate, where)
        found = ("board",) if sending_board(certificate) else purposes(certificate)
        if purpose not in found:
            raise InputError(
                f"is not the certificate of a {purpose}",
                where=str(where),
                found=" and ".join(found),
                fix="name the folder of the host" if purpose == "host" else "name a board's folder",
            )

    def _context(self, end: int) -> ssl.SSLContext:
        """TLS settings that both ends share."""
        context = ssl.SSLContext(end)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cadata=self.authority.decode())
            if self.revoked is not None:
                context.load_verify_locations(self.folder / REVOKED_FILE)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            # The library takes a certificate of one's own from files alone.
            context.load_cert_chain(self.folder / CERTIFICATE_FILE, self.folder / KEY_FILE)
        except OSError as error:
            raise InputError(
                f"no longer holds usable keys: {error.strerror or error}", where=str(self.folder)
            ) from None
        return context


def _require_private(key: Path) -> None:
    """Refuse a key that every user may read or change; raises InputError."""
    if key.is_file() and (mode := key.stat().st_mode & 0o777) & 0o007:
        raise InputError(
            "every user of this machine may read or change this key",
            where=str(key),
            found=f"mode {mode:04o}",
            allowed="0600, or 0640 for a group",
            fix=f"chmod 600 {key}; if others have read it, make new keys",
        )
