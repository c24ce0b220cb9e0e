"""Names of boards, in fleets and in certificates.

A worker reads this, and little else of this room.
"""

import re

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A board's name: what a certificate can hold.  File systems and DNS may take `A` for `a`."""
DNS_LABELS = "1 to 63 of a to z, 0 to 9 and -, with no - at either end"
NO_BOARDS = ("authority", "host")
"""Names of other keys, and of the host in tables."""
