"""Who this process is on the network: its certificate and key, and whom it believes."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from boards.credentials import pem
from boards.credentials.facts import Purpose, purposes
from profiles.errors import InputError

AUTHORITY = "authority.pem"


@dataclass(frozen=True, slots=True)
class Identity:
    """A folder with authority.pem, certificate.pem and key.pem, and what they hold, as PEM."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the three files and make sure that they belong together and are valid today.

        Raises InputError that names the file which is missing, broken, of another key or
        authority, expired or not yet valid.
        """
        paths = [folder / name for name in (AUTHORITY, pem.CERTIFICATE, pem.KEY)]
        authority_pem, certificate_pem, key_pem = map(pem.content, paths)
        authority = pem.certificate(authority_pem, paths[0])
        certificate = pem.certificate(certificate_pem, paths[1])
        pem.require_pair(certificate, pem.key(key_pem, paths[2]), folder)
        pem.require_issued(certificate, authority, paths[1])
        pem.require_now(authority, paths[0])
        pem.require_now(certificate, paths[1])
        return cls(authority_pem, certificate_pem, key_pem, folder)

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS settings of a board: 1.3, and only a host of this authority may call.

        Raises InputError where the certificate is not good for a board.
        """
        self.require("board")
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        # A connection that is resumed would not look at certificates again.
        context.num_tickets = 0
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS settings of a host: 1.3, and only a board of this authority may answer.

        Wrap a socket with `server_hostname` set to the BOARD'S NAME, whatever its address.  Raises
        InputError where the certificate is not good for a host.
        """
        self.require("host")
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def require(self, purpose: Purpose) -> None:
        """Make sure that the certificate is good for `purpose`; raises InputError."""
        where = self.folder / pem.CERTIFICATE
        found = purposes(pem.certificate(self.certificate, where))
        if purpose not in found:
            raise InputError(
                f"is not the certificate of a {purpose}",
                where=str(where),
                found=" and ".join(found),
                fix="name the folder of the host" if purpose == "host" else "name a board's folder",
            )

    def _context(self, end: int) -> ssl.SSLContext:
        """Return what both ends share."""
        context = ssl.SSLContext(end)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cadata=self.authority.decode())
            # The library takes a certificate of one's own from files alone.
            context.load_cert_chain(self.folder / pem.CERTIFICATE, self.folder / pem.KEY)
        except OSError as error:
            raise InputError(
                f"no longer holds usable keys: {error.strerror or error}", where=str(self.folder)
            ) from None
        return context
