"""A link as lines for `tc`: its rate by tbf, its latency and loss by netem.

A link's rate is what a message sees, so tbf's is higher by what frames add to their content.  A
frame is at most 1500 bytes, and less on slow links, so that it takes about a millisecond; tbf lets
one through at once.
"""

from profiles.link import LinkProfile

LARGEST_PACKET, SMALLEST_PACKET = 1500, 296
_ETHERNET_BYTES = 14
_HEADER_BYTES = 52
"""IPv4, TCP, and its time stamps."""
_FRAME_MS = 1.0
_BEHIND_MS = 0.1
"""How late the kernel may be without a loss of rate."""
_QUEUE_BYTES = 4_000_000
_QUEUE_PACKETS = 100_000


def packet_bytes(bits_per_s: float) -> int:
    """Return the largest packet, in bytes, of a link with this rate."""
    return max(SMALLEST_PACKET, min(LARGEST_PACKET, int(bits_per_s * _FRAME_MS / 8000)))


def rate_line(device: str, bits_per_s: float, parent: str = "root") -> str:
    """Return the line that gives `device` a link's rate, in bit/s of content."""
    packet = packet_bytes(bits_per_s)
    frame = packet + _ETHERNET_BYTES
    raw = bits_per_s * frame / (packet - _HEADER_BYTES)
    burst = max(frame + 64, int(raw / 8000 * _BEHIND_MS))
    return (
        f"qdisc add dev {device} {parent} tbf rate {raw:.0f}bit burst {burst} limit {_QUEUE_BYTES}"
    )


def link_lines(device: str, link: LinkProfile, *, rate: bool, delays: bool) -> tuple[str, ...]:
    """Return the lines that make what `device` sends behave as on `link`: its rate, its delays."""
    bits_per_s = link.bits_per_s.value
    latency_ms, loss_pct = link.latency_ms.value, link.loss_pct.value
    if not delays or not (latency_ms or loss_pct):
        return (rate_line(device, bits_per_s),) if rate else ()
    netem = (
        f"qdisc add dev {device} root handle 1: netem limit {_QUEUE_PACKETS} "
        f"delay {latency_ms}ms loss {loss_pct}%"
    )
    return (netem, rate_line(device, bits_per_s, "parent 1:1")) if rate else (netem,)
