"""Lines of a fit: a measured row as a sum of figures times known factors.

The same model as `profiles.prediction`, read as an equation for the figures.
"""

from collections.abc import Iterator

from profiles.device import DeviceProfile, figure_of, slowdown
from profiles.fitting import Line
from profiles.link import wire_ms
from profiles.measurements import Measurement
from profiles.prediction import Links, communicating_ms, computing_ms, shares_ms, wired_bytes


def communication_line(row: Measurement, fc_ms: float, links: Links) -> Line:
    """Return the communication of a fan-out: one message_ms per device, called by its name."""
    terms = {row.device: float(row.boards), "join_fixed_ms": 1.0}
    known_ms = fc_ms
    if row.link is None:
        terms["ms_per_byte"] = float(wired_bytes(row))
    else:
        known_ms += wire_ms(links[row.link], wired_bytes(row))
    return Line(row.communication_ms or 0.0, terms, known_ms)


def time_lines(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[Line]:
    """Yield what a row says of computing and exchanging; nothing where models share a board."""
    if row.exchanges:
        yield from _split_lines(row, links)
    elif row.models_per_board == 1:
        for observed_ms, known_ms in _computing_ms(row, device, host, links):
            yield Line(observed_ms, _computing_terms(row.macs), known_ms)


def sharing_lines(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[Line]:
    """Yield what a row of several models at once says of their slowdown."""
    if row.models_per_board > 1 and not device.missing("compute_fixed_ms", "compute_ms_per_mmac"):
        alone = row.model_copy(update={"models_per_board": 1})
        summed_ms = row.models_per_board * computing_ms(alone, device)
        for observed_ms, known_ms in _computing_ms(row, device, host, links):
            yield Line(observed_ms, {"sharing_slowdown": summed_ms}, known_ms)


def energy_line(row: Measurement, device: DeviceProfile) -> Iterator[Line]:
    """Yield what a row says of power; nothing where the times are not told."""
    shares = row.models_per_board > 1
    if device.missing("compute_fixed_ms", "compute_ms_per_mmac") or (
        shares and device.missing("sharing_slowdown")
    ):
        return
    factor = row.models_per_board * slowdown(device, row.models_per_board)
    mmac = row.macs / 1e6 / (row.boards if row.exchanges else 1)
    yield Line(
        row.energy_per_node_mj or 0.0,
        {
            "power_fixed_w": factor * figure_of(device, "compute_fixed_ms"),
            "power_busy_w": factor * figure_of(device, "compute_ms_per_mmac") * mmac,
        },
    )


def _computing_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[tuple[float, float]]:
    """Yield a measured time that holds the computing, and what else is in it, in ms."""
    if compute_ms := row.fitted_to("compute_ms"):
        yield compute_ms, 0.0
    elif (total_ms := row.fitted_to("total_ms")) and not row.boards:
        yield total_ms, 0.0
    elif total_ms and not device.missing("message_ms") and host.hosting and row.link in links:
        yield total_ms, communicating_ms(row, device, host, links)


def _split_lines(row: Measurement, links: Links) -> Iterator[Line]:
    wires = shares_ms(row, links)
    peers = row.boards - 1
    computing = _computing_terms(row.macs / row.boards)
    exchanging = {
        "exchange_ms": float(row.exchanges),
        "peer_message_ms": float(row.exchanges * peers),
    }
    compute_ms, beyond_ms = row.fitted_to("compute_ms"), row.fitted_to("communication_ms")
    if compute_ms:
        yield Line(compute_ms, computing)
    if beyond_ms:
        yield Line(beyond_ms, exchanging, wires)
    total_ms = row.fitted_to("total_ms")
    if total_ms and not (compute_ms and beyond_ms):
        yield Line(total_ms, computing | exchanging, wires)


def _computing_terms(macs: float) -> dict[str, float]:
    return {"compute_fixed_ms": 1.0, "compute_ms_per_mmac": macs / 1e6}
