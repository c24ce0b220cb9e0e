"""Costs of a model's parts on boards, and of hops between them.

A model of L layers is cut into parts; part [i, j) holds layers i to j - 1.  Boards that are alike
(device, link, budgets) are one class.  Every figure is that of the simulator
(`simulator.workloads.pipeline.pipeline_graph`), tabled::

    hop(b, c, i)   message_ms(c) + the slower of both links on the bytes alive at cut i
    part(c, i, j)  [fixed] + layers i to j - 1, as `simulator.workloads.layer_parts` has it
    end(b)         wire_ms(output), then the host's join_fixed_ms

where the host is one more sender.  A part fits a board where its weights and its most values alive
at once, and its MACs, are within the board's budgets.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import UnprovenError
from nonn_core.networks.blueprint import ImageShape, NetworkSpec
from nonn_core.networks.network_cost import Precision, teacher_layers
from planner.data.board_capacity import BoardCapacity
from planner.data.modes import UNITS_PER_MJ, UNITS_PER_MS
from planner.problem.budgets import Resource
from profiles.device import DeviceProfile, quantity_value
from profiles.layer import BYTES_PER_VALUE, LayerTable
from profiles.link import wire_ms
from simulator.graph_builder import downlink, receive_ms, uplink
from simulator.workloads.layer_parts import LayerCostModel, alive_bytes

CutObjective = Literal["latency", "energy", "energy-node", "throughput", "boards"]
"""Aims of a segmentation; less is better, throughput being the time between images."""

PartCount = Literal["any", "one", "several"]
"""How many parts a model may have."""

CostTable = NDArray[np.float64]

MOST_KINDS = 64


@dataclass(frozen=True, slots=True)
class CutModel:
    """A classifier as layers in a row, with the values alive during each."""

    name: str
    table: LayerTable
    live_elements: tuple[int, ...]
    value_bytes: int = 1

    @property
    def params(self) -> int:
        """Parameters of all layers."""
        return sum(layer.weights for layer in self.table)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers, per image."""
        return sum(layer.macs for layer in self.table)

    def memory_bytes(self, start: int, end: int) -> int:
        """Bytes of parameters and peak activations of each part."""
        return self.flash_bytes(start, end) + self.ram_bytes(start, end)

    def flash_bytes(self, start: int, end: int) -> int:
        """Bytes of a part's parameters."""
        return self.value_bytes * sum(layer.weights for layer in self.table[start:end])

    def ram_bytes(self, start: int, end: int) -> int:
        """Bytes of a part's peak activations."""
        return self.value_bytes * max(self.live_elements[start:end])

    def uses(self, start: int, end: int) -> dict[Resource, int]:
        """Need of a part, by resource."""
        return {
            "memory_bytes": self.memory_bytes(start, end),
            "flash_bytes": self.flash_bytes(start, end),
            "ram_bytes": self.ram_bytes(start, end),
            "macs": sum(layer.macs for layer in self.table[start:end]),
        }


@cache
def cut_model(
    spec: NetworkSpec, image: ImageShape, classes: int, precision: Precision = "fp32"
) -> CutModel:
    """Return the layers of the whole classifier of this network, stored at this precision."""
    layers = tuple(teacher_layers(spec, image, classes))
    live = tuple(layer.live_elements for layer in layers)
    table = tuple(layer.work() for layer in layers)
    return CutModel(str(spec), table, live, BYTES_PER_VALUE[precision])


@dataclass(frozen=True, slots=True, eq=False)
class CutCost:
    """A figure that adds up along the parts, or whose largest value counts.

    `hop` is (K + 1, K, L + 1) by sender (K is the host), receiver and cut; `part` is (K, L + 1,
    L + 1) by board, first layer and cut behind the last; `end` is (K,) by the last board.  With
    `wire`, a half-duplex board holds its wire for what comes and then for what goes.
    """

    aim: CutObjective
    adds: bool
    hop: CostTable
    part: CostTable
    end: CostTable
    wire: bool = False

    def grown(self, values: CostTable, by: CostTable) -> CostTable:
        """Return values with a further cost."""
        return values + by if self.adds else np.maximum(values, by)


class SegmentCosts:
    """Costs of one model on the boards of one fleet, by kind of board."""

    def __init__(
        self,
        model: CutModel,
        capacities: Sequence[BoardCapacity],
        host: DeviceProfile,
        parts: PartCount = "any",
    ) -> None:
        self.model = model
        self.layers = len(model.table)
        self.board_classes = _board_classes(capacities)
        self._sites = tuple(capacities[places[0]] for places in self.board_classes)
        self._boards = tuple(capacity.board for capacity in self._sites)
        self._host = host
        self.fits = self._fits(parts)
        self.half = np.array(
            [uplink(b) == downlink(b) and not b.link.shared for b in self._boards], dtype=np.bool_
        )

    def columns(self, aim: CutObjective) -> tuple[CutCost, ...]:
        """Return the figures whose largest, at the end, is the value of `aim`."""
        none, free = np.zeros_like(self._hold_ms), np.zeros(len(self.board_classes))
        match aim:
            case "latency":
                hop = self._hold_ms + self._delay_ms[:, :, None]
                end = self.reply_ms + self._delay_ms[-1] + receive_ms(self._host)
                return (CutCost(aim, True, hop, self._part_ms, end),)
            case "energy" | "energy-node":
                return (CutCost(aim, aim == "energy", none, self._part_mj, free),)
            case "boards":
                return (CutCost(aim, True, none, np.ones_like(self._part_ms), free),)
            case "throughput":
                end = np.maximum(self.reply_ms, receive_ms(self._host))
                wire = bool(self.half.any())
                held = CutCost(aim, False, self._hold_ms, self._part_ms, end, wire)
                return held, *(self._on_medium(each) for each in self._media)

    @cached_property
    def _media(self) -> tuple[str, ...]:
        return tuple(sorted({uplink(b) for b in self._boards if b.link.shared}))

    def _on_medium(self, medium: str) -> CutCost:
        """Return how long the messages of one image hold a medium that boards share."""
        on = np.array([uplink(board) == medium for board in self._boards])
        sender = np.array([*on, False])
        hop = self._hold_ms * (sender[:, None] | on[None, :])[:, :, None]
        none = np.zeros_like(self._part_ms)
        return CutCost("throughput", True, hop, none, self.reply_ms * on)

    def _fits(self, parts: PartCount) -> NDArray[np.bool_]:
        """Say by kind, first layer and cut behind the last which parts fit."""
        cuts = self.layers + 1
        macs = np.cumsum([0, *(layer.macs for layer in self.model.table)])
        weights = np.cumsum([0, *(layer.weights for layer in self.model.table)])
        peaks = np.zeros((cuts, cuts), dtype=np.int64)
        for start in range(self.layers):
            peaks[start, start + 1 :] = np.maximum.accumulate(self.model.live_elements[start:])
        stored = self.model.value_bytes * (weights[None, :] - weights[:, None])
        alive = self.model.value_bytes * peaks
        fits = np.zeros((len(self.board_classes), cuts, cuts), dtype=np.bool_)
        for kind, capacity in enumerate(self._sites):
            fits[kind] = np.triu(np.ones((cuts, cuts), dtype=np.bool_), 1)
            for needed, limit in (
                (stored + alive, capacity.memory_bytes),
                (stored, capacity.flash_bytes),
                (alive, capacity.ram_bytes),
                (macs[None, :] - macs[:, None], capacity.macs),
                (macs[None, :] - macs[:, None], capacity.power_macs),
                (self._part_ms[kind] * UNITS_PER_MS, capacity.busy),
                (self._part_mj[kind] * UNITS_PER_MJ, capacity.energy),
                (self._cycle_mj(kind) * UNITS_PER_MJ, capacity.cycle),
            ):
                if limit is not None:
                    fits[kind] &= needed <= limit
        whole = fits[:, 0, -1].copy()
        if parts == "one":
            fits[:] = False
            fits[:, 0, -1] = whole
        if parts == "several":
            fits[:, 0, -1] = False
        return fits

    @cached_property
    def _alive_bytes(self) -> CostTable:
        table = self.model.table
        return np.array([alive_bytes(table, cut) for cut in range(self.layers + 1)], dtype=float)

    @cached_property
    def _byte_ms(self) -> CostTable:
        return np.array([wire_ms(board.link, 1) for board in self._boards])

    @cached_property
    def reply_ms(self) -> CostTable:
        """How long the model's output is on the wire to the host, by kind."""
        reply_ms: CostTable = self._byte_ms * self._alive_bytes[-1]
        return reply_ms

    @cached_property
    def _hold_ms(self) -> CostTable:
        """How long a hop holds what it uses, by sender, receiver and cut."""
        message_ms = np.array(
            [quantity_value(board.device, "message_ms") for board in self._boards]
        )
        senders_ms = np.array([*self._byte_ms, 0.0])
        byte_ms = np.maximum(senders_ms[:, None], self._byte_ms[None, :])
        hold_ms: CostTable = message_ms[None, :, None] + byte_ms[:, :, None] * self._alive_bytes
        return hold_ms

    @cached_property
    def _delay_ms(self) -> CostTable:
        """How long a message is under way beside that, by sender and receiver."""
        delays_ms = np.array([board.link.latency_ms.value for board in self._boards])
        delay_ms: CostTable = np.array([*delays_ms, 0.0])[:, None] + delays_ms[None, :]
        return delay_ms

    @cached_property
    def _part_ms(self) -> CostTable:
        return self._efforts[0]

    @cached_property
    def _part_mj(self) -> CostTable:
        return self._efforts[1]

    def _cycle_mj(self, kind: int) -> CostTable:
        """Energy of a cycle, by kind, or 0 where it does not count."""
        idling, busy_ms = self._sites[kind].idling, self._part_ms[kind]
        if idling is None:
            return np.zeros_like(busy_ms)
        found: CostTable = idling.resting_mj + idling.computing_mj(busy_ms, self._part_mj[kind])
        return found

    @cached_property
    def _efforts(self) -> tuple[CostTable, CostTable]:
        """Time and computing energy by kind, first layer and cut behind the last."""
        times: list[CostTable] = []
        energies: list[CostTable] = []
        for board in self._boards:
            pace = LayerCostModel(board.device, self.model.table)
            layers = [pace.layers((layer,)) for layer in self.model.table]
            for begin, each, into in (
                (pace.begin.ms, [one.ms for one in layers], times),
                (pace.begin.mj, [one.mj for one in layers], energies),
            ):
                until = np.array([0.0, *accumulate(each)])
                into.append(begin + until[None, :] - until[:, None])
        return np.array(times), np.array(energies)


def _board_classes(capacities: Sequence[BoardCapacity]) -> tuple[tuple[int, ...], ...]:
    """Return the places of boards by class, in the fleet's order; raises UnprovenError."""
    board_classes: defaultdict[object, list[int]] = defaultdict(list)
    for place, capacity in enumerate(capacities):
        board_classes[capacity.class_key].append(place)
    if len(board_classes) > MOST_KINDS:
        raise UnprovenError(
            f"a model is cut over at most {MOST_KINDS} kinds of boards; found "
            f"{len(board_classes)}: give boards that are alike the same device, link and budgets, "
            "or name fewer boards"
        )
    return tuple(map(tuple, board_classes.values()))
