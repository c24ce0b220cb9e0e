"""Prediction: what profiles say a measured row takes.

The closed form of boards that are alike, as the simulator makes it::

    compute        slowdown * n * compute_ms(macs)             n models on each board
    communication  K * (message_ms + wire_ms(image)) + wire_ms(reply) + join_fixed_ms + fc_ms
    split          compute_ms of macs / K;
                   E * (exchange_ms + (K - 1) * peer_message_ms) + (K - 1) * wire_ms(share)

with K boards, E exchanges, and share = 4 bytes * (exchanged elements) / K: after each split layer
every board sends its share to each of the others.
"""

from collections.abc import Mapping

from profiles.device import DeviceProfile, compute_mj, compute_ms, figure_of, slowdown
from profiles.errors import ProfileError
from profiles.link import BYTES_PER_FEATURE, LinkProfile, wire_ms
from profiles.measurements import Measurement, Quantity

Links = Mapping[str | None, LinkProfile]
"""Links by name, and under None the one whose rate was fitted."""


def predicted(
    row: Measurement,
    quantity: Quantity,
    device: DeviceProfile,
    host: DeviceProfile,
    links: Links,
) -> float:
    """Return `quantity` of `row` by the profiles, in its unit.

    `links` holds the row's link.  Raises ProfileError where it does not, or where a profile lacks
    a figure.
    """
    if quantity == "compute_ms":
        return computing_ms(row, device)
    if quantity == "communication_ms":
        return communicating_ms(row, device, host, links)
    if quantity == "total_ms":
        beyond = communicating_ms(row, device, host, links) if row.boards else 0.0
        return computing_ms(row, device) + beyond
    return _energy_mj(row, device)


def computing_ms(row: Measurement, device: DeviceProfile) -> float:
    """Return how long a board computes, in ms."""
    if row.exchanges:
        # A sum over layers, each of them exactly one K-th of its MACs.
        return compute_ms(device, 0) + (
            figure_of(device, "compute_ms_per_mmac") * row.macs / row.boards / 1e6
        )
    models = row.models_per_board
    return slowdown(device, models) * models * compute_ms(device, row.macs)


def communicating_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> float:
    """Return the rest of the latency, in ms."""
    if row.exchanges:
        software = figure_of(device, "exchange_ms") + (row.boards - 1) * figure_of(
            device, "peer_message_ms"
        )
        return row.exchanges * software + shares_ms(row, links)
    sending = row.boards * figure_of(device, "message_ms")
    return sending + wire_ms(_link(row, links), wired_bytes(row)) + _joining_ms(host)


def wired_bytes(row: Measurement) -> int:
    """Return the bytes that are on the wire one after another in a fan-out."""
    return row.boards * (row.image_bytes or 0) + (row.reply_bytes or 0)


def shares_ms(row: Measurement, links: Links) -> float:
    """Return the time on the wire of all exchanges of a split model, in ms."""
    share = BYTES_PER_FEATURE * row.exchanged_elements // row.boards
    return (row.boards - 1) * wire_ms(_link(row, links), share)


def _link(row: Measurement, links: Links) -> LinkProfile:
    if row.link not in links:
        raise ProfileError("the rate of its link is not told", where=f"row {row.row}")
    return links[row.link]


def _joining_ms(host: DeviceProfile) -> float:
    if host.hosting is None:
        raise ProfileError("this device has no hosting figures", where=f"device {host.name}")
    return host.hosting.join_fixed_ms.value + host.hosting.fc_ms.value


def _energy_mj(row: Measurement, device: DeviceProfile) -> float:
    models = row.models_per_board
    if row.exchanges:
        share = figure_of(device, "compute_ms_per_mmac") * row.macs / row.boards / 1e6
        return compute_mj(device, 0) + figure_of(device, "power_busy_w") * share
    return slowdown(device, models) * models * compute_mj(device, row.macs)
