"""A pipeline: a model cut into stages, one per board in a row.

Images follow each other through it.  The first board gets the image from the host, each sends all
that is alive behind its last layer to the next one, and the last returns the model's output.
Layers go to boards as `cuts` say: board b of K computes layers cuts[b-1] to cuts[b] (0 before the
first, all behind the last); a board without layers is passed over.  For one image, and for images
in a row::

    latency = send + sum over stages of (fixed + layers) + sum over cuts of (message_ms + wire_ms)
            + wire_ms(output) + join_fixed_ms
    period  = the longest time that one image holds any processor, link or the host's card

Throughput is 1 / period once enough images are under way.  The best cuts are found by dynamic
programming over (board, layers done), for either aim, as in Neurosurgeon's cut for two devices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.layer import LayerTable
from simulator.graph_builder import GraphBuilder, receive_ms
from simulator.task_graph import Step, TaskGraph
from simulator.workloads.layer_parts import LayerCostModel, alive_bytes, check_split

PipelineAim = Literal["latency", "throughput"]


def pipeline_graph(
    table: LayerTable, boards: Sequence[Board], host: DeviceProfile, cuts: Sequence[int]
) -> TaskGraph:
    """Task graph of a pipeline; `cuts` are one fewer than boards, never falling."""
    check_split(table, boards)
    bounds = (0, *cuts, len(table))
    if len(cuts) != len(boards) - 1 or any(end < start for start, end in pairwise(bounds)):
        raise SimulationError(
            f"{len(boards)} boards need {len(boards) - 1} cuts that rise from 0 to {len(table)}; "
            f"found {', '.join(map(str, cuts)) or 'none'}"
        )
    build = GraphBuilder(host)
    done = 0
    last: Board | None = None
    for board, (start, end) in zip(boards, pairwise(bounds), strict=True):
        if start == end:
            continue
        cost_model = LayerCostModel(board.device, table)
        cost = cost_model.begin + cost_model.layers(table[start:end])
        size_bytes = alive_bytes(table, start)
        came = (
            build.exchange(last, board, size_bytes, (done,))
            if last
            else build.send(board, size_bytes)
        )
        done, last = build.compute(board, after=(came,), ms=cost.ms, mj=cost.mj), board
    if last is None:
        raise SimulationError("a pipeline needs at least one layer on one board; found none")
    returned = build.reply(last, alive_bytes(table, len(table)), (done,))
    build.join((returned,), ms=receive_ms(host))
    return build.graph()


def pipeline_latency_ms(split: TaskGraph) -> float:
    """Latency of one image of a pipeline alone, in ms.

    One step follows the other.
    """
    return sum(map(_step_ms, split.steps), 0.0)


def best_cuts(
    table: LayerTable, boards: Sequence[Board], host: DeviceProfile, aim: PipelineAim = "throughput"
) -> tuple[int, ...]:
    """Cuts of highest throughput, or of least latency, for boards in this order.

    Exact where links carry both directions at once; a half-duplex or shared link, busy with what
    comes and what goes, is taken for two.
    """
    check_split(table, boards)
    costs = _Costs(table, boards, host, aim)
    best: list[list[_Stages]] = []
    for board in range(len(boards)):
        best.append([_Stages(math.inf)] * (len(table) + 1))
        for start in range(len(table)):
            came = _cheapest_arrival(costs, best, board, start)
            for end in range(start + 1, len(table) + 1):
                cost = costs.together(came.cost, costs.stage(board, start, end))
                if cost < best[board][end].cost:
                    best[board][end] = _Stages(cost, (*came.stages, (board, start)))
    last = min(
        range(len(boards)),
        key=lambda board: costs.together(best[board][-1].cost, costs.returned(board)),
    )
    stages = best[last][-1].stages
    return tuple(
        next((start for used, start in stages if used > board), len(table))
        for board in range(len(boards) - 1)
    )


@dataclass(frozen=True, slots=True)
class _Stages:
    """The least cost of some layers, and its stages.

    A stage is (board, first layer).
    """

    cost: float
    stages: tuple[tuple[int, int], ...] = ()


def _cheapest_arrival(
    costs: "_Costs", best: Sequence[Sequence[_Stages]], board: int, start: int
) -> _Stages:
    """The cheapest stages by which `board` gets the input of layer `start`.

    came(b, 0) = send(b);  came(b, i) = min over a < b of  best[a][i] + link(a, b, i), where + is
    the sum for latency and the larger one for throughput; best[b][j] = min over i < j of
    came(b, i) + stage(b, i, j).
    """
    if not start:
        return _Stages(costs.sent(board))
    plans = (
        _Stages(
            costs.together(best[before][start].cost, costs.passed(before, board, start)),
            best[before][start].stages,
        )
        for before in range(board)
    )
    return min(plans, key=lambda plan: plan.cost, default=_Stages(math.inf))


class _Costs:
    """Costs of stages and hops under one aim, and their sum."""

    def __init__(
        self, table: LayerTable, boards: Sequence[Board], host: DeviceProfile, aim: PipelineAim
    ) -> None:
        self._table, self._boards, self._host, self._aim = table, boards, host, aim
        cost_models = [LayerCostModel(board.device, table) for board in boards]
        self._begin_ms = [cost_model.begin.ms for cost_model in cost_models]
        self._until_ms = [
            [0.0, *accumulate(cost_model.layers((layer,)).ms for layer in table)]
            for cost_model in cost_models
        ]

    def together(self, one: float, other: float) -> float:
        return one + other if self._aim == "latency" else max(one, other)

    def stage(self, board: int, start: int, end: int) -> float:
        until_ms = self._until_ms[board]
        return self._begin_ms[board] + until_ms[end] - until_ms[start]

    def sent(self, board: int) -> float:
        build = GraphBuilder()
        build.send(self._boards[board], alive_bytes(self._table, 0))
        return self._hops(build)

    def passed(self, sender: int, receiver: int, layers: int) -> float:
        build = GraphBuilder()
        size_bytes = alive_bytes(self._table, layers)
        build.exchange(self._boards[sender], self._boards[receiver], size_bytes)
        return self._hops(build)

    def returned(self, board: int) -> float:
        build = GraphBuilder()
        build.reply(self._boards[board], alive_bytes(self._table, len(self._table)))
        return self.together(self._hops(build), receive_ms(self._host))

    def _hops(self, build: GraphBuilder) -> float:
        (step,) = build.graph().steps
        return _step_ms(step) if self._aim == "latency" else step.duration_ms


def _step_ms(step: Step) -> float:
    return step.duration_ms + step.transit.latency_ms
