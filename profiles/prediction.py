"""Prediction of a measured row from profiles, and the same model as an equation.

The closed form of boards that are alike, as the simulator makes it::

    compute        slowest * slowdown * n * compute_ms(macs)   n models on each board
    communication  K * (message_ms + wire_ms(image)) + wire_ms(reply) + join_fixed_ms + fc_ms
                   - hidden
    split          compute_ms of macs / K;
                   E * (exchange_ms + (K - 1) * peer_message_ms) + (K - 1) * wire_ms(share)

with K boards, E exchanges, slowest the expected maximum of K computing times over their mean
(`profiles.time_spread`), hidden the part of the sends that goes on while a slow board still
computes, energy as compute, and share = 4 bytes * (exchanged elements) / K: after each split layer
every board sends its share to each of the others.  Read for a fit, the same row is an observation:
a sum of unknown quantities times known factors.
"""

from collections.abc import Iterator, Mapping, Sequence

from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.calibration_data import Measurement, Metric, sources
from profiles.device import (
    DeviceProfile,
    compute_mj,
    compute_ms,
    quantity_value,
    slowdown,
    spread_cv,
)
from profiles.fitting import Observation, fit_observations
from profiles.link import BYTES_PER_FEATURE, LinkProfile, wire_ms
from profiles.time_spread import MOST_CV, SpreadTime, expected_maximum_ms, slowest_factor

MOST_ROUNDS = 50
"""Rounds of a fit whose terms depend on what it finds; a few suffice."""

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
    """Time that the slowest board is expected to compute, in ms."""
    if row.exchanges:
        # A sum over layers, each of them exactly one K-th of its MACs.
        return compute_ms(device, 0) + (
            quantity_value(device, "compute_ms_per_mmac") * row.macs / row.boards / 1e6
        )
    return _slowest(row, device) * _mean_computing_ms(row, device)


def _slowest(row: Measurement, device: DeviceProfile) -> float:
    """Expected time of the slowest board of a row over the mean one."""
    return 1.0 if row.exchanges else slowest_factor(spread_cv(device), row.boards)


def _mean_computing_ms(row: Measurement, device: DeviceProfile) -> float:
    models = row.models_per_board
    return slowdown(device, models) * models * compute_ms(device, row.macs)


def hidden_ms(boards: int, cv: float, mean_ms: float, sending_ms: float) -> float:
    """Part of the sends to `boards` that goes on while slower boards compute, in ms.

    Each computes `mean_ms` in the mean, after its own send of `sending_ms`.  The slowest of all
    adds less to the latency if it was sent to early.
    """
    staggered = (SpreadTime.of(mean_ms, cv, sending_ms * b) for b in range(boards))
    later_ms = sending_ms * (boards - 1) + mean_ms * slowest_factor(cv, boards)
    return later_ms - expected_maximum_ms(staggered)


def communicating_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> float:
    """The rest of the latency, in ms."""
    if row.exchanges:
        software = quantity_value(device, "exchange_ms") + (row.boards - 1) * quantity_value(
            device, "peer_message_ms"
        )
        return row.exchanges * software + shares_ms(row, links)
    whole_ms = _unhidden_ms(row, device, host, links)
    return whole_ms - _hidden_of(row, device, links, _mean_computing_ms(row, device))


def _unhidden_ms(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> float:
    sending = row.boards * quantity_value(device, "message_ms")
    return sending + wire_ms(_link(row, links), wired_bytes(row)) + _joining_ms(host)


def _hidden_of(row: Measurement, device: DeviceProfile, links: Links, mean_ms: float) -> float:
    image_ms = wire_ms(_link(row, links), row.image_bytes or 0)
    sending_ms = quantity_value(device, "message_ms") + image_ms
    return hidden_ms(row.boards, spread_cv(device), mean_ms, sending_ms)


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
    return _slowest(row, device) * slowdown(device, models) * models * compute_mj(device, row.macs)


def communication_observation(
    row: Measurement, fc_ms: float, links: Links, hidden: float = 0.0
) -> Observation:
    """Communication of a fan-out, with one message_ms per device, under its name.

    It is less by the `hidden` part, in ms.
    """
    terms = {row.device: float(row.boards), "join_fixed_ms": 1.0}
    known_ms = fc_ms - hidden
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
        for observed_ms, known_ms, times in _observed_computing_ms(row, device, host, links):
            terms = _computing_terms(row.macs, times)
            yield Observation(observed_ms, terms, known_ms, row.row)


def sharing_observations(
    row: Measurement, device: DeviceProfile, host: DeviceProfile, links: Links
) -> Iterator[Observation]:
    """Observations of the slowdown of several models at once."""
    if row.models_per_board > 1 and not device.missing("compute_fixed_ms", "compute_ms_per_mmac"):
        summed_ms = row.models_per_board * compute_ms(device, row.macs)
        for observed_ms, known_ms, times in _observed_computing_ms(row, device, host, links):
            yield Observation(observed_ms, {"sharing_slowdown": times * summed_ms}, known_ms)


def energy_observations(row: Measurement, device: DeviceProfile) -> Iterator[Observation]:
    """Observations of power; none where the times are unknown."""
    shares = row.models_per_board > 1
    if device.missing("compute_fixed_ms", "compute_ms_per_mmac") or (
        shares and device.missing("sharing_slowdown")
    ):
        return
    factor = row.models_per_board * slowdown(device, row.models_per_board) * _slowest(row, device)
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
) -> Iterator[tuple[float, float, float]]:
    """Measured times that hold the computing, with the rest and the factor on its mean."""
    if compute_ms := row.fitted_to("compute_ms"):
        yield compute_ms, 0.0, _slowest(row, device)
    elif (total_ms := row.fitted_to("total_ms")) and not row.boards:
        yield total_ms, 0.0, 1.0
    elif total_ms and not device.missing("message_ms") and host.hosting and row.link in links:
        known_ms = _unhidden_ms(row, device, host, links)
        # What the slowest board adds is a small part of the rest, which stands for the mean here.
        rest_ms = max(total_ms - known_ms, 0.0)
        hidden = _hidden_of(row, device, links, rest_ms)
        yield total_ms, known_ms, _slowest(row, device) - (hidden / rest_ms if rest_ms else 0.0)


def spread_observations(
    rows: Sequence[Measurement], means_ms: Mapping[str, float]
) -> list[Observation]:
    """Observations of compute_cv beside the mean of each size, near `means_ms` by size.

    Of rows of one size on unlike numbers of boards; others tell nothing of it.
    """
    measured = [row for row in rows if not row.exchanges and _alone_or_slowest_ms(row)]
    boards = {
        size: {max(1, r.boards) for r in measured if size_of(r) == size}
        for size in map(size_of, measured)
    }
    return [
        Observation(
            _alone_or_slowest_ms(row) or 0.0,
            {
                size_of(row): 1.0,
                "compute_cv": means_ms.get(size_of(row), _alone_or_slowest_ms(row) or 0.0)
                * (slowest_factor(1.0, row.boards) - 1.0),
            },
            row=row.row,
        )
        for row in measured
        if len(boards[size_of(row)]) > 1
    ]


def fitted_cv(device: DeviceProfile, rows: Sequence[Measurement]) -> Quantity:
    """Fit a coefficient of variation, and the means that it spreads, in turn.

    Raises ProfileError where it is larger than any time can spread.
    """
    observations, means_ms = spread_observations(rows, {}), dict[str, float]()
    named = {each.row for each in observations}
    note = f"{sources([row for row in rows if row.row in named])}, by their numbers of boards"
    for _ in range(MOST_ROUNDS):
        found = fit_observations(observations, {}, note)
        before, means_ms = means_ms, {size: each.value for size, each in found.items()}
        if means_ms == before:
            break
        observations = spread_observations(rows, means_ms)
    if found["compute_cv"].value > MOST_CV:
        raise ProfileError(
            f"times grow with the boards as if they spread by more than {MOST_CV:g} of their mean",
            where=f"device {device.name}",
            found=f"{found['compute_cv'].value:.3g}",
            fix="measure these rows again",
        )
    return found["compute_cv"]


def hidden_in_fit_ms(
    row: Measurement, device: DeviceProfile, links: Links, quantities: Mapping[str, Quantity]
) -> float:
    """Part of the sends that slow boards hide, in ms, by the quantities so far.

    It is 0 where they do not tell it.
    """
    message = quantities.get(row.device, device.message_ms)
    slowest_ms, cv = row.fitted_to("compute_ms"), spread_cv(device)
    if message is None or slowest_ms is None or not cv:
        return 0.0
    if row.link is not None:
        image_ms = wire_ms(links[row.link], row.image_bytes or 0)
    elif "ms_per_byte" in quantities:
        image_ms = quantities["ms_per_byte"].value * (row.image_bytes or 0)
    else:
        return 0.0
    mean_ms = slowest_ms / slowest_factor(cv, row.boards)
    return hidden_ms(row.boards, cv, mean_ms, message.value + image_ms)


def size_of(row: Measurement) -> str:
    """Work of a board in a row; rows of one size compute alike."""
    return f"{row.models_per_board} of {row.macs} MACs"


def _alone_or_slowest_ms(row: Measurement) -> float | None:
    return row.fitted_to("compute_ms") or (None if row.boards else row.fitted_to("total_ms"))


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


def _computing_terms(macs: float, times: float = 1.0) -> dict[str, float]:
    return {"compute_fixed_ms": times, "compute_ms_per_mmac": times * macs / 1e6}
