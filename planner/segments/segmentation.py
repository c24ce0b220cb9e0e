"""A segmentation: one whole network cut by layers over boards, each of which computes one part.

The other way to run a model that no board can hold, beside a NoNN of students; with a smaller
network it is both, as in JointCS (Li et al. 2021, ICPADS).  What it costs is what the simulator's
pipeline (`simulator.pipeline.job`) says, so that a simulation gives the same milliseconds.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from pydantic import Field

from nonn_core.costs import Precision
from nonn_core.family import parse_network
from planner.instance import host_of
from planner.question import Question
from planner.segments.costs import Aim, CutModel, cut_model
from profiles.document import Record
from profiles.fleet import Board, resolve
from simulator import pipeline
from simulator.job import Job, period_ms
from simulator.splitting import alive_bytes


class SegmentPart(Record):
    """Layers in a row on one board."""

    board: str = Field(min_length=1, description="Name of the board.")
    first_layer: str = Field(description="Name of its first layer.")
    last_layer: str = Field(description="Name of its last layer.")
    layers: int = Field(gt=0, description="How many layers it has.")
    params: int = Field(ge=0, description="Parameters.")
    macs: int = Field(ge=0, description="Multiply-accumulates per image.")
    memory_bytes: int = Field(ge=0, description="Bytes of parameters and peak activations.")
    sent_bytes: int = Field(
        ge=0, description="Bytes it sends on: all that is alive behind it, or the output; fp32."
    )
    compute_ms: float = Field(ge=0, description="Time that the board computes, per image.")
    energy_mj: float = Field(ge=0, description="Energy of that computing, per image.")


class Segmentation(Record):
    """A network cut by layers, and what one image costs by the simulator, without noise."""

    network: str = Field(description="Name of the whole network.")
    precision: Precision = Field(description="Storage of weights and activations on the boards.")
    parts: tuple[SegmentPart, ...] = Field(
        min_length=1, description="Parts in the order of the layers, each on a board of its own."
    )
    total_ms: float = Field(ge=0, description="Latency of one image.")
    compute_ms: float = Field(ge=0, description="Busy time of the board that computes longest.")
    communication_ms: float = Field(description="Total minus compute, other boards' work included.")
    energy_fleet_mj: float = Field(ge=0, description="Computing energy of all boards together.")
    energy_highest_mj: float = Field(ge=0, description="Energy of the board that spends most.")
    throughput_per_s: float = Field(gt=0, description="Images per second, many being under way.")

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards in the order in which the image passes them."""
        return tuple(part.board for part in self.parts)

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return sum(part.params for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(part.macs for part in self.parts)

    @property
    def memory_highest_bytes(self) -> int:
        """Bytes on the board that needs most."""
        return max(part.memory_bytes for part in self.parts)

    def value(self, aim: Aim) -> float:
        """Return what an aim minimises; for throughput, ms from image to image."""
        values: dict[Aim, float] = {
            "latency": self.total_ms,
            "energy": self.energy_fleet_mj,
            "energy-node": self.energy_highest_mj,
            "throughput": 1000.0 / self.throughput_per_s,
            "boards": float(len(self.parts)),
        }
        return values[aim]


def described(
    question: Question, model: CutModel, boards: Sequence[Board], cuts: Sequence[int]
) -> Segmentation:
    """Describe a model cut behind `cuts` layers over `boards`, one more than cuts."""
    job = pipeline.job(model.table, boards, host_of(question), cuts)
    computing = [step for step in job.steps if step.activity == "compute"]
    total_ms = pipeline.latency_ms(job)
    compute_ms = max(step.duration_ms for step in computing)
    bounds = pairwise((0, *cuts, len(model.table)))
    return Segmentation(
        network=model.name,
        precision=question.smallest_precision,
        parts=tuple(
            SegmentPart(
                board=board.name,
                first_layer=model.table[start].name,
                last_layer=model.table[end - 1].name,
                layers=end - start,
                params=sum(layer.weights for layer in model.table[start:end]),
                macs=sum(layer.macs for layer in model.table[start:end]),
                memory_bytes=model.memory_bytes(start, end),
                sent_bytes=alive_bytes(model.table, end),
                compute_ms=step.duration_ms,
                energy_mj=step.energy_mj,
            )
            for board, (start, end), step in zip(boards, bounds, computing, strict=True)
        ),
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
        energy_fleet_mj=sum(step.energy_mj for step in computing),
        energy_highest_mj=max(step.energy_mj for step in computing),
        throughput_per_s=1000.0 / period_ms(job),
    )


def job_of(question: Question, segmentation: Segmentation) -> Job:
    """Return what one image sets off, for the simulator."""
    model, boards, cuts = _cut(question, segmentation)
    return pipeline.job(model.table, boards, host_of(question), cuts)


def recomputed(question: Question, segmentation: Segmentation) -> Segmentation:
    """Describe the same cut on the same boards anew, from the question alone."""
    return described(question, *_cut(question, segmentation))


def _cut(
    question: Question, segmentation: Segmentation
) -> tuple[CutModel, list[Board], tuple[int, ...]]:
    """Return the model, its boards in a row, and behind how many layers it is cut."""
    boards = {board.name: board for board in resolve(question.fleet)[1]}
    network = parse_network(segmentation.network)
    model = cut_model(network, question.image_shape, question.classes, segmentation.precision)
    cuts = tuple(accumulate(part.layers for part in segmentation.parts))[:-1]
    return model, [boards[name] for name in segmentation.boards], cuts
