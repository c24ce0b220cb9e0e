"""Prediction of a measured row from profiles, and the same model as an equation.

The closed form of boards that are alike, as the simulator makes it::

    compute        slowdown * n * compute_ms(macs)             n models on each board
    communication  K * (message_ms + wire_ms(image)) + wire_ms(reply) + join_fixed_ms + fc_ms
    split          compute_ms of macs / K;
                   E * (exchange_ms + (K - 1) * peer_message_ms) + (K - 1) * wire_ms(share)

with K boards, E exchanges, and share = 4 bytes * (exchanged elements) / K: after each split layer
every board sends its share to each of the others.  Read for a fit, the same row is an observation:
a sum of unknown quantities times known factors.
"""

from collections.abc import Iterator, Mapping

from nonn_common.errors import ProfileError
from profiles.calibration_data import Measurement, Metric
from profiles.device import DeviceProfile, compute_mj, compute_ms, quantity_value, slowdown
from profiles.fitting import Observation
from profiles.link import BYTES_PER_FEATURE, LinkProfile, wire_ms

Links = Mapping[str | None, LinkProfile]
"""Links by name, and under None the one whose rate was fitted."""


def predict_metric(
    row: Measurement,
    metric: Metric,
    device: DeviceProfile,
    host: DeviceProfile,
    links: Links,
) -> float:
    """Prediction of `metric` of `row` by the profiles, in its unit.

    `links` holds the row's link.  Raises ProfileError where it does not, or where a profile lacks
    a quantity.
    """
    if metric == "compute_ms":
        return computing_ms(row, device)
    if metric == "communication_ms":
        return communicating_ms(row, device, host, links)
    if metric == "total_ms":
        beyond = communicating_ms(row, device, host, links) if row.boards else 0.0
        return computing_ms(row, device) + beyond
    return _energy_mj(row, device)


def computing_ms(row: Measurement, device: DeviceProfile) -> float:
    """Time that a board computes, in ms."""
    if row.exchanges:
        # A sum over layers, each of them exactly one K-th of its MACs.
        return compute_ms(device, 0) + (
            quantity_value(device, "compute_ms_per_mmac") * row.macs / row.boards / 1e6
        )
    models = row.models_per_board
    return slowdown(device, models) * models * compute_ms(device, row.macs)


def communicating_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> float:
    """The rest of the latency, in ms."""
    if row.exchanges:
        software = quantity_value(device, "exchange_ms") + (row.boards - 1) * quantity_value(
            device, "peer_message_ms"
        )
        return row.exchanges * software + shares_ms(row, links)
    sending = row.boards * quantity_value(device, "message_ms")
    return sending + wire_ms(_link(row, links), wired_bytes(row)) + _joining_ms(host)


def wired_bytes(row: Measurement) -> int:
    """Bytes that are on the wire one after another in a fan-out."""
    return row.boards * (row.image_bytes or 0) + (row.reply_bytes or 0)


def shares_ms(row: Measurement, links: Links) -> float:
    """Time on the wire of all exchanges of a split model, in ms."""
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
        share = quantity_value(device, "compute_ms_per_mmac") * row.macs / row.boards / 1e6
        return compute_mj(device, 0) + quantity_value(device, "power_busy_w") * share
    return slowdown(device, models) * models * compute_mj(device, row.macs)


def communication_observation(row: Measurement, fc_ms: float, links: Links) -> Observation:
    """Communication of a fan-out, with one message_ms per device, under its name."""
    terms = {row.device: float(row.boards), "join_fixed_ms": 1.0}
    known_ms = fc_ms
    if row.link is None:
        terms["ms_per_byte"] = float(wired_bytes(row))
    else:
        known_ms += wire_ms(links[row.link], wired_bytes(row))
    return Observation(row.communication_ms or 0.0, terms, known_ms)


def time_observations(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[Observation]:
    """Observations of computing and exchanging; none where models share a board."""
    if row.exchanges:
        yield from _split_observations(row, links)
    elif row.models_per_board == 1:
        for observed_ms, known_ms in _observed_computing_ms(row, device, host, links):
            yield Observation(observed_ms, _computing_terms(row.macs), known_ms, row.row)


def sharing_observations(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[Observation]:
    """Observations of the slowdown of several models at once."""
    if row.models_per_board > 1 and not device.missing("compute_fixed_ms", "compute_ms_per_mmac"):
        alone = row.model_copy(update={"models_per_board": 1})
        summed_ms = row.models_per_board * computing_ms(alone, device)
        for observed_ms, known_ms in _observed_computing_ms(row, device, host, links):
            yield Observation(observed_ms, {"sharing_slowdown": summed_ms}, known_ms)


def energy_observations(row: Measurement, device: DeviceProfile) -> Iterator[Observation]:
    """Observations of power; none where the times are unknown."""
    shares = row.models_per_board > 1
    if device.missing("compute_fixed_ms", "compute_ms_per_mmac") or (
        shares and device.missing("sharing_slowdown")
    ):
        return
    factor = row.models_per_board * slowdown(device, row.models_per_board)
    mmac = row.macs / 1e6 / (row.boards if row.exchanges else 1)
    yield Observation(
        row.energy_per_node_mj or 0.0,
        {
            "power_fixed_w": factor * quantity_value(device, "compute_fixed_ms"),
            "power_busy_w": factor * quantity_value(device, "compute_ms_per_mmac") * mmac,
        },
        row=row.row,
    )


def _observed_computing_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[tuple[float, float]]:
    """Measured times that hold the computing, each with its known rest, in ms."""
    if compute_ms := row.fitted_to("compute_ms"):
        yield compute_ms, 0.0
    elif (total_ms := row.fitted_to("total_ms")) and not row.boards:
        yield total_ms, 0.0
    elif total_ms and not device.missing("message_ms") and host.hosting and row.link in links:
        yield total_ms, communicating_ms(row, device, host, links)


def _split_observations(row: Measurement, links: Links) -> Iterator[Observation]:
    wires = shares_ms(row, links)
    peers = row.boards - 1
    computing = _computing_terms(row.macs / row.boards)
    exchanging = {
        "exchange_ms": float(row.exchanges),
        "peer_message_ms": float(row.exchanges * peers),
    }
    compute_ms, beyond_ms = row.fitted_to("compute_ms"), row.fitted_to("communication_ms")
    if compute_ms:
        yield Observation(compute_ms, computing, row=row.row)
    if beyond_ms:
        yield Observation(beyond_ms, exchanging, wires)
    total_ms = row.fitted_to("total_ms")
    if total_ms and not (compute_ms and beyond_ms):
        yield Observation(total_ms, computing | exchanging, wires, row.row)


def _computing_terms(macs: float) -> dict[str, float]:
    return {"compute_fixed_ms": 1.0, "compute_ms_per_mmac": macs / 1e6}
