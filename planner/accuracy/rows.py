"""Rows behind the accuracy model: published networks, and one trained row of any source.

Sizes are those of all boards together, every copy of G0 counted, as in Table 4 of the NoNN paper
(arXiv:1907.11804).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import log
from typing import Annotated, Literal, Self

from pydantic import Field

from nonn_common.errors import InputError
from nonn_core.accuracy_report import PublishedPart, PublishedRow, published_accuracy
from nonn_core.experiments.table_rows import TableRow, table_design
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.partition import TeacherReference

Method = Literal["nonn", "atkd", "kd"]
"""nonn: students that mimic activations (arXiv:1907.11804, Eq. 6). atkd: one model with
attention transfer. kd: any model that only learns soft labels (arXiv:1907.11804, Eq. 1)."""

_TABLES = ("2", "3", "4", "5")
_SAME_NETWORK: Mapping[str, str] = {"kd-nonn-2s-xl": "nonn-2s-xl"}
"""Rows that are built as another one and trained otherwise."""


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """A teacher on a data set; equal ones share their rows."""

    network: Annotated[
        str | None, Field(description="Its network; null for one of no family known here.")
    ]
    image: Annotated[str, Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")]
    classes: Annotated[int, Field(description="Number of classes.")]
    params: Annotated[float, Field(description="Parameters.")]
    macs: Annotated[float, Field(description="Multiply-accumulates per image.")]
    fingerprint: Annotated[
        str | None, Field(description="Digest of its weights; null if unknown.")
    ] = None
    title: Annotated[str, Field(description="Name for people.")] = field(
        default="the teacher", compare=False
    )

    @classmethod
    def of_network(cls, network: str, image: ImageShape, classes: int) -> Self:
        """Describe a network of a family; raises InputError."""
        spec = parse_network(network)
        cost = teacher_cost(spec, image, classes)
        title = f"{spec} on {image} images of {classes} classes"
        return cls(str(spec), str(image), classes, cost.params, cost.macs, title=title)

    @classmethod
    def of_reference(cls, reference: TeacherReference) -> Self:
        """Describe the teacher of a partition; raises InputError where its MACs are unknown."""
        if reference.macs is None:
            raise InputError(
                "accuracy cannot be predicted without the teacher's multiply-accumulates",
                where=reference.path,
            )
        return cls(
            reference.network,
            reference.image,
            reference.classes,
            reference.params,
            reference.macs,
            reference.fingerprint,
            f"{reference.network or 'a network'} of {reference.path}",
        )

    @property
    def index(self) -> float:
        """Its size as `index_of` measures it."""
        return size_index(self.params, self.macs)

    def same(self, other: "TeacherFacts") -> bool:
        """Say whether both are one teacher: by their weights, or else in everything known."""
        by_weights = self.fingerprint is not None and self.fingerprint == other.fingerprint
        return by_weights or self == other

    def like(self, other: "TeacherFacts") -> bool:
        """Say whether both are the same known network for the same kind of images."""
        return self.network is not None and (self.network, self.image, self.classes) == (
            other.network,
            other.image,
            other.classes,
        )


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One trained row."""

    name: Annotated[str, Field(description="Name of the row.")]
    source: Annotated[str, Field(description="Where its accuracy is from.")]
    method: Annotated[Method, Field(description="How it was trained: nonn, atkd or kd.")]
    students: Annotated[int, Field(description="Number of students.")]
    teacher: Annotated[TeacherFacts, Field(description="Its teacher.")]
    teacher_accuracy_pct: Annotated[float, Field(description="The teacher's accuracy, percent.")]
    params: Annotated[float, Field(description="Parameters of all boards.")]
    macs: Annotated[float, Field(description="Multiply-accumulates per image, all boards.")]
    accuracy_pct: Annotated[float, Field(description="Test accuracy, percent.")]

    @property
    def missing(self) -> float:
        """How far its index lies below its teacher's."""
        return self.teacher.index - size_index(self.params, self.macs)


def size_index(params: float, macs: float) -> float:
    """Size index of accuracy: half of ln(params) plus half of ln(MACs), all boards."""
    return (log(params) + log(macs)) / 2


@cache
def published_rows() -> tuple[AccuracyRow, ...]:
    """Published rows with a whole size, each once (arXiv:1907.11804, Tables 2 to 5).

    SplitNet is another method; the rows that are compared with it lack FLOPs.
    """
    rows: dict[tuple[TeacherFacts, str], AccuracyRow] = {}
    for part in published_accuracy().parts:
        if part.table not in _TABLES:
            continue
        chosen = table_design(part.table, part.dataset)
        teacher = _teacher(part, chosen.rows[0].network, chosen.image, chosen.classes)
        for row in chosen.rows[1:]:
            found = _published_row(part, row, teacher)
            if found is not None:
                rows.setdefault((teacher, row.name), found)
    return tuple(rows.values())


def _teacher(part: PublishedPart, network: str, image: ImageShape, classes: int) -> TeacherFacts:
    params, flops = part.teacher.params, part.teacher.flops
    if params is None or flops is None:
        raise ValueError(f"table {part.table} does not say how large its teacher is")
    title = f"{part.teacher.model} on {part.dataset}"
    return TeacherFacts(
        network, str(image), classes, params, flops / part.flops_per_mac, title=title
    )


def _published_row(part: PublishedPart, row: TableRow, teacher: TeacherFacts) -> AccuracyRow | None:
    size = _size(part, row, teacher)
    if row.method not in ("nonn", "kd-nonn", "atkd", "kd") or size is None:
        return None
    method: Method = "kd" if row.method == "kd-nonn" else row.method
    return AccuracyRow(
        name=row.name,
        source=part.source,
        method=method,
        students=row.students,
        teacher=teacher,
        teacher_accuracy_pct=part.teacher.accuracy_pct,
        params=size[0],
        macs=size[1],
        accuracy_pct=part.of(row.name).accuracy_pct,
    )


def _size(part: PublishedPart, row: TableRow, teacher: TeacherFacts) -> tuple[float, float] | None:
    """Return parameters and MACs of all boards; None where they are not published."""
    compressed = _compressed(part, _SAME_NETWORK.get(row.name, row.name))
    if compressed and compressed.memory_compression and compressed.flops_compression:
        return (
            teacher.params / compressed.memory_compression,
            teacher.macs / compressed.flops_compression,
        )
    published = part.of(row.name)
    if published.params is None or published.flops is None:
        return None
    # One model, or students that are alike.
    return (
        row.students * published.params,
        row.students * published.flops / part.flops_per_mac,
    )


def _compressed(part: PublishedPart, name: str) -> PublishedRow | None:
    """Row of this name with a compression in Table 4, of the same data set."""
    for other in published_accuracy().parts:
        if other.table == "4" and other.dataset == part.dataset:
            return next((row for row in other.rows if row.row == name), None)
    return None
