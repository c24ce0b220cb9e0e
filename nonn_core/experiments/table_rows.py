"""Rows of the published tables: how each is trained here, and what it needs.

The publication names the undivided networks but not its students' widths.  Those chosen here
are the ones, in steps of 4 channels, whose parameters and FLOPs come nearest to the published
ones:

- CIFAR-10, NoNN: wrn16:32,64,88 has 0.43 M parameters, 171 MFLOPs (published: 0.43 M, 167).
- CIFAR-10, XL: wrn16:64,80,48.  G0 runs on a board of its own, so the board that computes
  most does max(G0, student without G0) = max(249, 129) MFLOPs (245); a student with a copy of
  G0 would have 0.45 M parameters (0.46 M), G0 with two heads and FC has 0.78 M (0.77 M); all
  boards together compute 5.1 times less than the teacher (5.0).
- CIFAR-100, NoNN: wrn16:56,64,136 has 0.85 M, 346 MFLOPs (0.85 M, 345).  The whole has 1.61 M
  where 1.5 M is published: the published second student is smaller, it is not known how.
- SplitNet's last stage and its FC layer fall into groups; then it has 7.44 M parameters in
  two groups (7.42 M), 4.11 M in four (4.12 M).  NoNN of these sizes: 7.43 M with two
  students, 4.11 M with four.

On small machines a teacher wrn16-2 stands for WRN40-4.  Each other network then has the same
share of its parameters and FLOPs, within 5 %, as the network that it stands for, and is one
step shallower, as WRN16 is beside WRN40; WRN40-2, as deep as its teacher and half as wide, is
wrn16-1.  Torch-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nonn_common.errors import InputError
from nonn_core.accuracy_report import DatasetName, PublishedPart, TableName, published_accuracy
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    classifier_params,
    group0_cost,
    student_cost,
    student_cost_line,
    teacher_cost,
)

Method = Literal["teacher", "kd", "atkd", "nonn", "kd-nonn", "splitnet"]
_Role = Literal[
    "teacher", "single", "large", "student", "xl", "7m", "4m", "splitnet-7m", "splitnet-4m"
]
_Networks = Mapping[_Role, str]

PARTITIONS = 2
"""Partitions that the communities are merged into; more students reshuffle them."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: name, method, and the network of each student.

    An undivided network is its own only student.  `students` are the groups of a SplitNet, and 1
    for an undivided network.
    """

    name: str
    method: Method
    network: str
    students: int = 1
    group0_has_a_board: bool = False

    @property
    def is_nonn(self) -> bool:
        """Whether its students mimic partitions of the teacher's filters."""
        return self.method in ("nonn", "kd-nonn")

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups of a SplitNet's last stage and of its FC layer."""
        return (self.students,) * 2


@dataclass(frozen=True, slots=True)
class TableDesign:
    """The rows of a published table for one teacher; the teacher is the first.

    `image` and `classes` are those of the published data set, unless it is trained on another;
    `download` is its name for `nonn-plan download`, None where it cannot be downloaded.
    """

    published: PublishedPart
    image: ImageShape
    classes: int
    download: str | None
    rows: tuple[TableRow, ...]

    @property
    def data(self) -> str | None:
        """Source of the data set where `nonn-plan download` puts it."""
        from nonn_core.data.files import PUBLISHED

        return PUBLISHED[self.download].source(Path(self.download)) if self.download else None

    @property
    def teacher(self) -> str:
        """The teacher's network."""
        return self.rows[0].network

    def only(self, names: Sequence[str]) -> "TableDesign":
        """Return the rows of these names, and the teacher; raises InputError for unknown ones."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise InputError(
                    f"no row of table {self.published.table}",
                    found=name,
                    allowed=", ".join(known),
                )
        kept = {*names, self.rows[0].name}
        return replace(self, rows=tuple(row for row in self.rows if row.name in kept))


@dataclass(frozen=True, slots=True)
class _PublishedData:
    """The images of a published data set, and the teacher that was published for it."""

    image: ImageShape
    classes: int
    teacher: str
    download: str | None = None


_PUBLISHED_DATA: Mapping[DatasetName, _PublishedData] = {
    "cifar-10": _PublishedData(ImageShape(3, 32, 32), 10, "wrn40-4", "cifar10"),
    "cifar-100": _PublishedData(ImageShape(3, 32, 32), 100, "wrn28-10", "cifar100"),
    # 67 indoor scenes, 200 birds; images cut to what ResNet was made for.
    "scene": _PublishedData(ImageShape(3, 224, 224), 67, "resnet152"),
    "cub": _PublishedData(ImageShape(3, 224, 224), 200, "resnet152"),
}

_NETWORKS: Mapping[str, _Networks] = {
    "wrn40-4": {
        "single": "wrn16-2",
        "large": "wrn40-2",
        "student": "wrn16:32,64,88",
        "xl": "wrn16:64,80,48",
    },
    "wrn16-2": {
        "single": "wrn10:12,20,60",
        "large": "wrn16-1",
        "student": "wrn10:12,16,44",
        "xl": "wrn10:24,32,16",
    },
    "wrn28-10": {
        "single": "wrn16-3",
        "student": "wrn16:56,64,136",
        "7m": "wrn16:72,144,304",
        "4m": "wrn16:40,80,156",
        "splitnet-7m": "wrn16:134,268,536",
        "splitnet-4m": "wrn16:120,240,480",
    },
    "resnet152": {"single": "resnet34", "student": "resnet18"},
}
_STANDS_FOR = {"wrn16-2": "wrn40-4"}


@dataclass(frozen=True, slots=True)
class _RowMethod:
    """How a row is trained, whatever the teacher."""

    method: Method
    role: _Role
    students: int = 1
    group0_has_a_board: bool = False


_ROW_METHODS: Mapping[str, _RowMethod] = {
    "teacher": _RowMethod("teacher", "teacher"),
    "kd": _RowMethod("kd", "single"),
    "atkd": _RowMethod("atkd", "single"),
    "atkd-large": _RowMethod("atkd", "large"),
    "nonn-2s": _RowMethod("nonn", "student", 2),
    "nonn-4s": _RowMethod("nonn", "student", 4),
    "nonn-6s": _RowMethod("nonn", "student", 6),
    "nonn-8s": _RowMethod("nonn", "student", 8),
    "kd-nonn-2s-xl": _RowMethod("kd-nonn", "xl", 2, True),
    "nonn-2s-xl": _RowMethod("nonn", "xl", 2, True),
    "nonn-4s-xl": _RowMethod("nonn", "xl", 4, True),
    "nonn-6s-xl": _RowMethod("nonn", "xl", 6, True),
    "nonn-8s-xl": _RowMethod("nonn", "xl", 8, True),
    "splitnet-2g": _RowMethod("splitnet", "splitnet-7m", 2),
    "splitnet-4g": _RowMethod("splitnet", "splitnet-4m", 4),
    "nonn-2s-7m": _RowMethod("nonn", "7m", 2),
    "nonn-4s-4m": _RowMethod("nonn", "4m", 4),
}


def table_design(
    table: TableName, dataset: DatasetName | None = None, teacher: str | None = None
) -> TableDesign:
    """Design of a table, for one data set and a teacher's network.

    Defaults: the table's first data set, and the published teacher.  Raises InputError where the
    table has no such data set or no students are laid down for such a teacher.
    """
    published = published_accuracy().part(table, dataset)
    data = _PUBLISHED_DATA[published.dataset]
    name = _teacher(teacher or data.teacher, data.teacher)
    networks: _Networks = {"teacher": name, **_NETWORKS[name]}
    names = [row.row for row in (published.teacher, *published.rows)]
    return TableDesign(
        published=published,
        image=data.image,
        classes=data.classes,
        download=data.download,
        rows=tuple(_row(name, networks) for name in names),
    )


def _teacher(asked: str, published: str) -> str:
    """Return the name under which a teacher's students are laid down."""
    spec = parse_network(asked)
    allowed = [name for name in _NETWORKS if published in (name, _STANDS_FOR.get(name))]
    for name in allowed:
        if parse_network(name) == spec:
            return name
    raise InputError(
        "no students are laid down for such a teacher", found=asked, allowed=" or ".join(allowed)
    )


def _row(name: str, networks: _Networks) -> TableRow:
    how = _ROW_METHODS[name]
    network = str(parse_network(networks[how.role]))
    return TableRow(name, how.method, network, how.students, how.group0_has_a_board)


_PUBLISHED_FILTERS, _PUBLISHED_SIZES = 256, (34, 46)


@dataclass(frozen=True, slots=True)
class RowCost:
    """Cost of a row.

    `student_params` are those of the largest student with its copy of G0, which is counted (as
    published) also where G0 has a board of its own; `board_macs` those of the board that computes
    most; `total_params` those of the whole, G0 and FC counted once; `fleet_params` and `fleet_macs`
    those of all boards together.  For an undivided network these are all its own.
    """

    student_params: int
    board_macs: int
    total_params: int
    fleet_params: int
    fleet_macs: int


def row_cost(row: TableRow, image: ImageShape, classes: int, sizes: Sequence[int]) -> RowCost:
    """Cost of a row; `sizes` are the filters of each of a NoNN's students."""
    if row.method == "splitnet":
        return _splitnet_cost(row, image, classes)
    if row.is_nonn:
        return _nonn_cost(row, image, classes, sizes)
    whole = teacher_cost(parse_network(row.network), image, classes)
    return RowCost(whole.params, whole.macs, whole.params, whole.params, whole.macs)


def published_sizes(teacher: str, students: int) -> tuple[int, ...]:
    """Return the filters of each student by the published shares, before there is a partition.

    The two published students mimic 34 and 46 of WRN40-4's 256 filters.
    """
    filters = parse_network(teacher).blueprint(image_channels=3).features
    sizes = [max(1, filters * size // _PUBLISHED_FILTERS) for size in _PUBLISHED_SIZES]
    return tuple(sizes[k % PARTITIONS] for k in range(students))


def _nonn_cost(row: TableRow, image: ImageShape, classes: int, sizes: Sequence[int]) -> RowCost:
    spec = parse_network(row.network)
    group0, head = group0_cost(spec, image), student_cost_line(spec, image, own_group0=False)
    students = [student_cost(spec, image, size) for size in sizes]
    heads = [head.at(size) for size in sizes]
    boards = [group0, *heads] if row.group0_has_a_board else students
    whole = group0.params + sum(each.params for each in heads)
    return RowCost(
        student_params=max(each.params for each in students),
        board_macs=max(board.macs for board in boards),
        total_params=whole + classifier_params(sum(sizes), classes),
        fleet_params=sum(board.params for board in boards),
        fleet_macs=sum(board.macs for board in boards),
    )


def _splitnet_cost(row: TableRow, image: ImageShape, classes: int) -> RowCost:
    from nonn_core.networks.group_layout import group_layout, split_cost

    layout = group_layout(parse_network(row.network), image.channels, classes, row.groups)
    cost = split_cost(layout, image)
    return RowCost(
        student_params=cost.group_params,
        board_macs=cost.group_macs,
        total_params=cost.params,
        fleet_params=row.students * cost.group_params,
        fleet_macs=row.students * cost.group_macs,
    )
